/*
 * vfio-user qtest: when pre-copy ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * No message says how much a device has left, and hw/vfio wants to know before
 * it stops the VM. With a usual limit of the downtime, a migration must come to
 * its end with any server that does not make more than the channel takes; and
 * what can be had while the VM runs is not to be left for its pause.
 */

#include "qemu/osdep.h"
#include "vfio-user-migrate.h"

/* Less than one message */
#define A_LITTLE        4096

typedef struct End {
    const char *name;
    TsMigOptions mig;
    uint64_t before;        /* bytes to be had before the VM stops */
} End;

static const End ends[] = {
    /* What there is in each moment is given, and then there is nothing */
    { "empty", { .precopy = 3 * VMT_MIB }, 3 * VMT_MIB },
    { "empty-then-more", { .precopy = 3 * VMT_MIB, .per_read = A_LITTLE },
      3 * VMT_MIB },
    /* Never nothing: less at a time that is shorter */
    { "per-second", { .precopy = 3 * VMT_MIB, .per_second = 16 * VMT_MIB },
      3 * VMT_MIB },
    /* or as much each time. */
    { "every-read", { .precopy = 3 * VMT_MIB, .every_read = A_LITTLE },
      3 * VMT_MIB },
    { "every-read-small", { .every_read = 100 }, 100 },
    /* Less than it is asked for, with much left */
    { "short-reads", { .precopy = 3 * VMT_MIB, .max_read = A_LITTLE },
      3 * VMT_MIB },
};

/* What was read when the VM stopped, and that it did; at the server's thread */
static struct {
    uint64_t before;
    bool seen;
} stop;

static int watch_stop(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque)
{
    struct vfio_user_feature_mig_state set;
    struct vfio_user_feature head;
    TsMigStats stats;

    if (stop.seen || request->payload->len < sizeof(head) + sizeof(set)) {
        return -1;
    }
    memcpy(&head, request->payload->data, sizeof(head));
    memcpy(&set, request->payload->data + sizeof(head), sizeof(set));
    if (head.flags == (VFIO_USER_FEATURE_SET |
                       VFIO_USER_FEATURE_MIG_DEVICE_STATE) &&
        set.state == VFIO_USER_MIG_STOP_COPY) {
        ts_mig_stats(s, &stats);
        stop.before = stats.bytes_read;
        stop.seen = true;
    }
    return -1;
}

static void setup_watch(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_FEATURE, watch_stop, NULL);
}

static void test_end(const void *data)
{
    const End *end = data;
    VMTOptions o = { .mig = end->mig, .src_setup = setup_watch };
    VMTest *t;

    o.mig.flags = VMT_STOP_COPY | VMT_PRE_COPY;
    o.mig.size = VMT_MIB;
    o.mig.logging = true;
    stop.seen = false;
    t = vmt_new(&o);
    vmt_migrate(t);
    g_assert(stop.seen);
    g_assert_cmpuint(stop.before, >=, end->before);
    vmt_free(t);
}

void vut_register_migrate_end(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/migrate/end/%s",
                                                ends[i].name);

        vut_add_data_test(path, &ends[i], test_end);
    }
}
