/*
 * vfio-user: info vfio-user
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What query-vfio-user returns, for people: a few lines a device, numbers in
 * the units that one thinks in, and nothing about what is not there.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/sockets.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vfio-user.h"
#include "qobject/qdict.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "hw/vfio-user/wire.h"

/* "16.5 us" */
static char *vfio_user_hmp_time(int64_t ns)
{
    if (ns < 1000 * 1000) {
        return g_strdup_printf("%.1f us", ns / 1e3);
    }
    if (ns < 1000 * 1000 * 1000) {
        return g_strdup_printf("%.1f ms", ns / 1e6);
    }
    return g_strdup_printf("%.1f s", ns / 1e9);
}

static void vfio_user_hmp_connection(Monitor *mon, const VFIOUserInfo *i)
{
    g_autofree char *uri = socket_uri(i->socket);

    monitor_printf(mon, "%s: %s\n", i->id ?: i->qom_path, uri);
    monitor_printf(mon, "  state: %s", VFIOUserConnectionState_str(i->state));
    if (i->reason) {
        monitor_printf(mon, " (%s)", i->reason);
    }
    if (i->reconnects || i->state != VFIO_USER_CONNECTION_STATE_CONNECTED) {
        monitor_printf(mon, ", reconnects %u, attempts %u", i->reconnects,
                       i->attempts);
    }
    monitor_puts(mon, i->lockstep ? ", one message at a time\n" : "\n");
    if (i->refusal) {
        monitor_printf(mon, "  refused: %s\n", i->refusal);
    }
}

static void vfio_user_hmp_limits(Monitor *mon, const VFIOUserInfo *i)
{
    const VFIOUserLimits *l = i->limits;
    g_autofree char *xfer = size_to_str(l->max_data_xfer_size);

    monitor_printf(mon, "  protocol %u.%u: %s and %" PRIu64 " descriptors a "
                   "message, %" PRIu64 " windows, page sizes 0x%" PRIx64
                   ", %u ms to answer\n", l->major, l->minor, xfer,
                   l->max_msg_fds, l->max_dma_maps, l->pgsizes, l->timeout);
    if (i->capabilities) {
        monitor_puts(mon, "  capabilities:");
        for (VFIOUserCapabilityList *c = i->capabilities; c; c = c->next) {
            monitor_printf(mon, " %s", VFIOUserCapability_str(c->value));
        }
        monitor_puts(mon, "\n");
    }
}

static void vfio_user_hmp_windows(Monitor *mon, const VFIOUserInfo *i)
{
    g_autofree char *with_fd = size_to_str(i->windows_with_fd->bytes);
    g_autofree char *by_message = size_to_str(i->windows_by_message->bytes);

    monitor_printf(mon, "  memory: %" PRIu64 " windows with descriptor (%s), "
                   "%" PRIu64 " by message (%s)", i->windows_with_fd->count,
                   with_fd, i->windows_by_message->count, by_message);
    if (i->windows_refused->count) {
        g_autofree char *refused = size_to_str(i->windows_refused->bytes);

        monitor_printf(mon, ", %" PRIu64 " refused (%s)",
                       i->windows_refused->count, refused);
    }
    monitor_puts(mon, "\n");
}

static char *vfio_user_hmp_region_name(unsigned index)
{
    switch (index) {
    case VFIO_USER_REGION_BAR0 ... VFIO_USER_REGION_BAR5:
        return g_strdup_printf("bar%u", index);
    case VFIO_USER_REGION_ROM:
        return g_strdup("rom");
    case VFIO_USER_REGION_CONFIG:
        return g_strdup("config");
    case VFIO_USER_REGION_VGA:
        return g_strdup("vga");
    default:
        return g_strdup_printf("region%u", index);
    }
}

static void vfio_user_hmp_region(Monitor *mon, const VFIOUserRegionState *r)
{
    g_autofree char *name = vfio_user_hmp_region_name(r->index);
    g_autofree char *size = size_to_str(r->size);
    const char *sep = "";

    monitor_printf(mon, "  %s: %s, ", name, size);
    for (VFIOUserAccessModeList *m = r->modes; m; m = m->next) {
        monitor_printf(mon, "%s%s", sep, VFIOUserAccessMode_str(m->value));
        sep = " + ";
        if (m->value == VFIO_USER_ACCESS_MODE_MESSAGE && r->posted) {
            monitor_puts(mon, " (writes posted)");
        } else if (m->value == VFIO_USER_ACCESS_MODE_MAPPED &&
                   r->mapped < r->size) {
            g_autofree char *mapped = size_to_str(r->mapped);

            monitor_printf(mon, " (%s)", mapped);
        } else if (m->value == VFIO_USER_ACCESS_MODE_IOEVENTFD) {
            monitor_printf(mon, " (%u, %u by KVM)", r->ioeventfds,
                           r->kvm_ioeventfds);
        }
    }
    monitor_puts(mon, "\n");
}

static void vfio_user_hmp_interrupts(Monitor *mon, const VFIOUserInfo *i)
{
    const char *sep = "  interrupts:";

    for (VFIOUserInterruptStateList *l = i->interrupts; l; l = l->next) {
        const VFIOUserInterruptState *s = l->value;

        monitor_printf(mon, "%s %s %u of %u", sep,
                       VFIOUserInterruptType_str(s->type), s->assigned,
                       s->vectors);
        if (s->irqfds) {
            monitor_printf(mon, " (%u by KVM)", s->irqfds);
        }
        sep = ",";
    }
    monitor_puts(mon, i->interrupts ? "\n" : "");
}

static void vfio_user_hmp_command(Monitor *mon, const VFIOUserCommandStats *c)
{
    g_autofree char *sent = size_to_str(c->bytes_sent);
    g_autofree char *received = size_to_str(c->bytes_received);

    monitor_printf(mon, "  %-24s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %8"
                   PRIu64 " %8" PRIu64 " %8" PRIu64 " %10s %10s\n",
                   VFIOUserCommand_str(c->command), c->messages, c->no_reply,
                   c->replies, c->errors, c->timeouts, c->given_up, sent,
                   received);
}

static void vfio_user_hmp_values(Monitor *mon, const char *what,
                                 const char *when,
                                 const VFIOUserLatencyValues *v)
{
    g_autofree char *p50 = vfio_user_hmp_time(v->p50);
    g_autofree char *p99 = vfio_user_hmp_time(v->p99);
    g_autofree char *max = vfio_user_hmp_time(v->max);

    if (v->count) {
        monitor_printf(mon, "  %-10s %-8s %10" PRIu64 " %10s %10s %10s\n", what,
                       when, v->count, p50, p99, max);
    }
}

static void vfio_user_hmp_lock_waits(Monitor *mon,
                                     const VFIOUserLockWaitsList *l)
{
    const char *sep = "  waits with the BQL:";

    for (; l; l = l->next) {
        const VFIOUserLockWaits *w = l->value;
        g_autofree char *longest = vfio_user_hmp_time(w->longest);

        monitor_printf(mon, "%s %s %" PRIu64 " (longest %s)", sep,
                       VFIOUserLockWaitEntry_str(w->entry), w->count, longest);
        sep = ",";
    }
    monitor_puts(mon, *sep == ',' ? "\n" : "");
}

static void vfio_user_hmp_stats(Monitor *mon, const VFIOUserDeviceStats *s)
{
    monitor_printf(mon, "  messages in %.1f s:", s->period / 1e3);
    if (s->pending) {
        g_autofree char *oldest = vfio_user_hmp_time(s->oldest_pending);

        monitor_printf(mon, " %u not answered yet, the first for %s",
                       s->pending, oldest);
    }
    monitor_printf(mon, "\n  %-24s %10s %10s %10s %8s %8s %8s %10s %10s\n",
                   "command", "messages", "no reply", "replies", "errors",
                   "timeouts", "given up", "sent", "received");
    for (VFIOUserCommandStatsList *c = s->commands; c; c = c->next) {
        vfio_user_hmp_command(mon, c->value);
    }
    monitor_printf(mon, "  %-10s %-8s %10s %10s %10s %10s\n", "latency", "",
                   "replies", "p50", "p99", "max");
    vfio_user_hmp_values(mon, "accesses", "total", s->access->total);
    vfio_user_hmp_values(mon, "accesses", "recent", s->access->recent);
    vfio_user_hmp_values(mon, "others", "total", s->other->total);
    vfio_user_hmp_values(mon, "others", "recent", s->other->recent);
    vfio_user_hmp_lock_waits(mon, s->lock_waits);
}

static void hmp_info_vfio_user(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    VFIOUserInfoList *list =
        qmp_query_vfio_user(qdict_get_try_str(qdict, "id"), &err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (!list) {
        monitor_puts(mon, "No vfio-user device\n");
    }
    for (VFIOUserInfoList *l = list; l; l = l->next) {
        vfio_user_hmp_connection(mon, l->value);
        vfio_user_hmp_limits(mon, l->value);
        vfio_user_hmp_windows(mon, l->value);
        for (VFIOUserRegionStateList *r = l->value->regions; r; r = r->next) {
            vfio_user_hmp_region(mon, r->value);
        }
        vfio_user_hmp_interrupts(mon, l->value);
        vfio_user_hmp_stats(mon, l->value->stats);
    }
    qapi_free_VFIOUserInfoList(list);
}

static void vfio_user_hmp_register(void)
{
    monitor_register_hmp("vfio-user", true, hmp_info_vfio_user);
}

type_init(vfio_user_hmp_register);
