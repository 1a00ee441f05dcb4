/*
 * vfio-user qtest: a server that goes and comes back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qlist.h"
#include "vfio-user-reconnect.h"

#define PREFIX          "VFIO_USER_"
#define PCIHP_EJECT     0xae08
#define WITNESS_SLOT    6
#define WITNESS_ID      "witness"

static bool note_event(QTestState *qts, const char *name, QDict *event,
                       void *opaque)
{
    RTest *r = opaque;

    g_ptr_array_add(r->events, qobject_ref(event));
    return true;
}

static void unref_event(gpointer event)
{
    qobject_unref((QDict *)event);
}

RTest *rt_new(const VUTOptions *options)
{
    RTest *r = g_new0(RTest, 1);
    VUTOptions o = *options;
    g_autofree char *device = NULL;

    if (!o.device || !strstr(o.device, "reconnect-ms")) {
        device = g_strconcat(",reconnect-ms=5", o.device ?: "", NULL);
        o.device = device;
    }
    o.stderr_file = true;
    r->events = g_ptr_array_new_with_free_func(unref_event);
    r->t = vut_new(&o);
    qtest_qmp_set_event_callback(r->t->qts, note_event, r);
    if (!o.no_device) {
        rt_map(r);
    }
    return r;
}

void rt_free(RTest *r)
{
    vut_free(r->t);
    g_ptr_array_unref(r->events);
    g_free(r);
}

void rt_map(RTest *r)
{
    for (unsigned i = 0; i < ARRAY_SIZE(r->bars); i++) {
        qpci_config_writel(r->t->dev, PCI_BASE_ADDRESS_0 + 4 * i, UINT32_MAX);
        r->bars[i].addr = 0;
        if (i != 3 && qpci_config_readl(r->t->dev, PCI_BASE_ADDRESS_0 +
                                        4 * i) & ~0xfu) {
            r->bars[i] = qpci_iomap(r->t->dev, i, NULL);
        }
    }
    /* The upper half of BAR2. */
    qpci_config_writel(r->t->dev, PCI_BASE_ADDRESS_3, 0);
    qpci_device_enable(r->t->dev);
}

/* Events ------------------------------------------------------------------ */

/* Whatever QEMU has sent so far is taken note of. */
void rt_check_monitor(RTest *r)
{
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'query-status'}");
}

static QDict *event_at(RTest *r, unsigned i)
{
    return g_ptr_array_index(r->events, i);
}

static const char *event_name(RTest *r, unsigned i)
{
    return qdict_get_str(event_at(r, i), "event");
}

/*
 * Of the events of a device one is sent a second, and in a qtest the clock stands
 * still.
 */
void rt_let_events_out(RTest *r)
{
    qtest_clock_step(r->t->qts, NANOSECONDS_PER_SECOND + 1);
}

/* Moves on to the next event of ours; false if there is none. */
static bool find_event(RTest *r)
{
    rt_let_events_out(r);
    rt_check_monitor(r);
    while (r->nr_seen < r->events->len &&
           !g_str_has_prefix(event_name(r, r->nr_seen), PREFIX)) {
        r->nr_seen++;
    }
    return r->nr_seen < r->events->len;
}

const QDict *rt_expect(RTest *r, const char *name)
{
    g_autofree char *full = g_strconcat(PREFIX, name, NULL);
    const QDict *data;

    VUT_WAIT(find_event(r));
    data = qdict_get_qdict(event_at(r, r->nr_seen), "data");
    if (strcmp(event_name(r, r->nr_seen), full)) {
        g_error("event %s (%s), expected %s", event_name(r, r->nr_seen),
                qdict_get_try_str(data, "reason") ?: "no reason", full);
    }
    rt_let_events_out(r);
    r->nr_seen++;
    return data;
}

void rt_expect_return(RTest *r, bool kept)
{
    g_assert_cmpint(qdict_get_bool(rt_expect(r, "RECONNECTED"), "kept"), ==,
                    kept);
}

void rt_expect_no_more(RTest *r)
{
    if (find_event(r)) {
        g_error("unexpected event %s", event_name(r, r->nr_seen));
    }
}

static unsigned count_events(RTest *r, const char *name)
{
    unsigned nr = 0;

    rt_check_monitor(r);
    for (unsigned i = 0; i < r->events->len; i++) {
        nr += !strcmp(event_name(r, i), name);
    }
    return nr;
}

void rt_system_reset(RTest *r)
{
    unsigned before = count_events(r, "RESET");

    qtest_system_reset_nowait(r->t->qts);
    VUT_WAIT(count_events(r, "RESET") > before);
}

bool rt_had_event(RTest *r, const char *name)
{
    rt_let_events_out(r);
    return count_events(r, name);
}

void rt_wait_event(RTest *r, const char *name)
{
    VUT_WAIT(rt_had_event(r, name));
}

static unsigned nr_reconnects(RTest *r)
{
    QDict *response = qtest_qmp(r->t->qts, "{'execute': 'query-vfio-user'}");
    const QListEntry *first = qlist_first(qdict_get_qlist(response, "return"));
    unsigned nr = qdict_get_int(qobject_to(QDict, qlist_entry_obj(first)),
                                "reconnects");

    qobject_unref(response);
    return nr;
}

void rt_wait_returned(RTest *r, unsigned nr)
{
    VUT_WAIT(nr_reconnects(r) == nr);
}

/* The server -------------------------------------------------------------- */

void rt_lose(RTest *r)
{
    ts_stop_listening(r->t->s);
    ts_disconnect(r->t->s);
    rt_expect(r, "DISCONNECTED");
}

void rt_return_kept(RTest *r)
{
    ts_log_clear(r->t->s);
    g_assert_cmpint(ts_listen_again(r->t->s, r->t->path), ==, 0);
}

void rt_return_fresh(RTest *r, void (*setup)(TestServer *s))
{
    ts_free(r->t->s);
    r->t->s = vut_server(r->t->dir, "sock", setup);
}

/* The device -------------------------------------------------------------- */

bool rt_is_offline(RTest *r)
{
    return qpci_config_readl(r->t->dev, PCI_VENDOR_ID) == UINT32_MAX;
}

void rt_check_offline(RTest *r)
{
    for (unsigned i = 0; i < ARRAY_SIZE(r->bars); i++) {
        /* The MSI-X table is in QEMU, and is at the beginning of BAR5. */
        unsigned off = i == 5 ? 0x800 : 0x10;

        if (r->bars[i].addr) {
            qpci_io_writel(r->t->dev, r->bars[i], off, i);
            g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[i], off), ==,
                            UINT32_MAX);
        }
    }
    g_assert(rt_is_offline(r));
}

void rt_check_works(RTest *r, uint32_t value)
{
    g_assert_cmphex(qpci_config_readw(r->t->dev, PCI_VENDOR_ID), ==,
                    TS_STANDARD_VENDOR);
    qpci_io_writel(r->t->dev, r->bars[0], RT_REG, value);
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], RT_REG), ==, value);
    g_assert_cmphex(((uint32_t *)ts_region_mem(r->t->s, 0))[RT_REG / 4], ==,
                    value);
}

static bool works_now(RTest *r)
{
    static uint32_t value;
    uint32_t *word = ts_region_mem(r->t->s, 0);

    qpci_io_writel(r->t->dev, r->bars[0], RT_REG, ++value);
    return qpci_io_readl(r->t->dev, r->bars[0], RT_REG) == value &&
           word[RT_REG / 4] == value;
}

void rt_settle(RTest *r, unsigned clients)
{
    VUT_WAIT(ts_nr_clients(r->t->s) >= clients && works_now(r));
    rt_check_monitor(r);
    r->nr_seen = r->events->len;
}

char *rt_add(RTest *r, const char *id, const char *socket, unsigned slot,
             const char *props)
{
    g_auto(GStrv) parts = g_strsplit(props ?: "", ",", -1);
    QDict *args = qdict_new(), *response, *error;
    g_autofree char *addr = g_strdup_printf("%x", slot);
    char *text = NULL;

    qdict_put_str(args, "driver", "vfio-user-pci");
    qdict_put_str(args, "id", id);
    qdict_put_str(args, "addr", addr);
    qdict_put_str(args, "socket", socket);
    for (char **p = parts; *p; p++) {
        g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
        uint64_t number;

        if (!pair[0]) {
            continue;
        }
        if (g_ascii_string_to_unsigned(pair[1], 10, 0, INT64_MAX, &number,
                                       NULL)) {
            qdict_put_int(args, pair[0], number);
        } else {
            qdict_put_str(args, pair[0], pair[1]);
        }
    }
    response = qtest_qmp(r->t->qts, "{'execute': 'device_add', "
                         "'arguments': %p}", args);
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    return text;
}

static bool was_deleted(RTest *r, const char *id, unsigned from)
{
    rt_check_monitor(r);
    for (unsigned i = from; i < r->events->len; i++) {
        QDict *data = qdict_get_qdict(event_at(r, i), "data");

        if (!strcmp(event_name(r, i), "DEVICE_DELETED") &&
            !g_strcmp0(qdict_get_try_str(data, "device"), id)) {
            return true;
        }
    }
    return false;
}

void rt_del(RTest *r, const char *id, unsigned slot)
{
    unsigned from = r->events->len;

    qtest_qmp_device_del_send(r->t->qts, id);
    qtest_outl(r->t->qts, PCIHP_EJECT, 1u << slot);
    VUT_WAIT(was_deleted(r, id, from));
}

char *rt_status(RTest *r)
{
    QDict *answer = qtest_qmp_assert_success_ref(r->t->qts,
                                                 "{'execute': 'query-status'}");
    char *status = g_strdup(qdict_get_str(answer, "status"));

    qobject_unref(answer);
    return status;
}

bool rt_matches(const char *text, const char *pattern)
{
    g_autofree char *both = g_strdup_printf("*%s*", pattern);

    return g_pattern_match_simple(both, text);
}

/* Windows ----------------------------------------------------------------- */

TestServer *rt_add_witness(RTest *r)
{
    TestServer *s = vut_server(r->t->dir, WITNESS_ID, NULL);
    g_autofree char *path = g_build_filename(r->t->dir, WITNESS_ID, NULL);
    g_autofree char *error = rt_add(r, WITNESS_ID, path, WITNESS_SLOT, NULL);

    g_assert_cmpstr(error, ==, NULL);
    return s;
}

void rt_del_witness(RTest *r, TestServer *s)
{
    rt_del(r, WITNESS_ID, WITNESS_SLOT);
    g_assert(ts_wait_connected(s, false));
    ts_free(s);
}

static bool same_window(const TsWindow *a, const TsWindow *b)
{
    return a->addr == b->addr && a->size == b->size &&
           a->offset == b->offset && a->flags == b->flags &&
           a->has_fd == b->has_fd && a->dev == b->dev && a->ino == b->ino;
}

static bool same_windows(TestServer *a, TestServer *b)
{
    unsigned nr = ts_dma_nr_windows(a);
    TsWindow wa, wb;

    for (unsigned i = 0; i < nr; i++) {
        if (!ts_dma_window(a, i, &wa) || !ts_dma_window(b, i, &wb) ||
            !same_window(&wa, &wb)) {
            return false;
        }
    }
    return nr && nr == ts_dma_nr_windows(b);
}

void rt_check_same_windows(TestServer *a, TestServer *b)
{
    /* Nobody waits for the replies to DMA_MAP at run time. */
    VUT_WAIT(same_windows(a, b));
}
