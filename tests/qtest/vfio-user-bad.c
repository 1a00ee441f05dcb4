/*
 * vfio-user qtest: bad servers, and realize
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whatever a server does while its device realizes, QEMU must be there
 * afterwards, with an answer in time and nothing lost. What the server does
 * is in tests/server/mischief-list.c, which also says how it has to end.
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-bad.h"

#define PAM_C0000       0x5a
#define PAM_RAM         0x33

/* Started by the first test that needs it, ended by vut_finish_bad(). */
static VUTest *shared;
static uint64_t shared_mmio, shared_pio;

/* The VM -------------------------------------------------------------------- */

static VUTest *bad_vm(void)
{
    if (!shared) {
        shared = vut_new(&(VUTOptions) {
            .shared_ram = true, .stderr_file = true,
        });
        shared_mmio = shared->bus->mmio_alloc_ptr;
        shared_pio = shared->bus->pio_alloc_ptr;
    }
    return shared;
}

void vut_finish_bad(void)
{
    if (shared) {
        vut_free(shared);
    }
    shared = NULL;
}

static unsigned long bad_status_kib(VUTest *t, const char *key)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(t->qts));
    g_autofree char *text = NULL;
    const char *line;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, key);
    g_assert(line);
    return strtoul(line + strlen(key), NULL, 10);
}

/* VmHWM begins anew. */
static void bad_forget_peak(VUTest *t)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/clear_refs",
                                            (int)qtest_pid(t->qts));
    FILE *file = fopen(path, "w");

    g_assert(file);
    g_assert(fputs("5", file) >= 0);
    g_assert_cmpint(fclose(file), ==, 0);
}

void bad_check_other(BadTest *b)
{
    static uint32_t value;
    VUTest *t = b->t;
    QPCIBar bar;

    t->bus->mmio_alloc_ptr = shared_mmio;
    t->bus->pio_alloc_ptr = shared_pio;
    bar = qpci_iomap(t->dev, 0, NULL);
    qpci_device_enable(t->dev);
    qpci_io_writel(t->dev, bar, 8, ++value);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 8), ==, value);
}

void bad_begin(BadTest *b)
{
    g_autofree char *log = NULL;

    *b = (BadTest) { .t = bad_vm() };
    bad_check_other(b);
    b->s = ts_new();
    ts_standard_device(b->s);
    b->fds = vut_nr_fds(qtest_pid(b->t->qts));
    log = vut_stderr(b->t);
    b->log = strlen(log);
    bad_forget_peak(b->t);
    b->rss = bad_status_kib(b->t, "VmRSS:");
}

void bad_end(BadTest *b)
{
    unsigned long peak;

    qtest_qmp_assert_success(b->t->qts, "{'execute': 'query-status'}");
    bad_check_other(b);
    vut_wait_nr_fds(b->t, b->fds);
    peak = bad_status_kib(b->t, "VmHWM:");
    g_test_message("%lu KiB at first, %lu at most", b->rss, peak);
    g_assert_cmpuint(peak, <=, b->rss + BAD_PEAK_KIB);
    g_assert_cmpuint(bad_status_kib(b->t, "VmRSS:"), <=,
                     b->rss + BAD_LEFT_KIB);
    g_free(b->dev);
    ts_free(b->s);
}

/* The device ------------------------------------------------------------------ */

char *bad_add(BadTest *b, unsigned timeout_ms)
{
    g_autofree char *path = g_build_filename(b->t->dir, "bad", NULL);
    g_autofree char *slot = g_strdup_printf("%x", BAD_SLOT);
    QDict *response, *error;
    char *text = NULL;

    g_assert_cmpint(ts_start(b->s, path), ==, 0);
    response = qtest_qmp(b->t->qts,
                         "{'execute': 'device_add', 'arguments': {'driver': "
                         "'vfio-user-pci', 'id': '" BAD_ID "', 'addr': %s, "
                         "'socket': %s, 'x-msg-timeout-ms': %u}}", slot, path,
                         timeout_ms);
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    return text;
}

void bad_map(BadTest *b)
{
    /* A reset takes the good device's BARs, too. */
    bad_check_other(b);
    if (!b->dev) {
        b->dev = qpci_device_find(b->t->bus, QPCI_DEVFN(BAD_SLOT, 0));
    }
    g_assert(b->dev);
    b->bar = qpci_iomap(b->dev, 0, NULL);
    qpci_device_enable(b->dev);
}

void bad_del(BadTest *b)
{
    vut_del(b->t, BAD_ID, BAD_SLOT);
    g_assert(ts_wait_connected(b->s, false));
}

void bad_switch_memory(BadTest *b)
{
    QPCIDevice *host = qpci_device_find(b->t->bus, QPCI_DEVFN(0, 0));

    g_assert(host);
    qpci_config_writeb(host, PAM_C0000, PAM_RAM);
    qpci_config_writeb(host, PAM_C0000, 0);
    g_free(host);
}

char *bad_log(BadTest *b)
{
    g_autofree char *log = vut_stderr(b->t);

    return g_strdup(log + b->log);
}

bool bad_matches(const char *text, const char *pattern)
{
    g_autofree char *both = g_strdup_printf("*%s*", pattern);

    return g_pattern_match_simple(both, text);
}

void bad_wait_log(BadTest *b, const char *pattern)
{
    int64_t end = g_get_monotonic_time() + VUT_TIMEOUT_MS * 1000;

    for (;;) {
        g_autofree char *log = bad_log(b);

        if (bad_matches(log, pattern)) {
            return;
        }
        if (g_get_monotonic_time() > end) {
            g_error("waited in vain for '%s' in: %s", pattern, log);
        }
        g_usleep(500);
    }
}

void bad_check_works(BadTest *b, uint32_t value)
{
    qpci_io_writel(b->dev, b->bar, 0x30, value);
    g_assert_cmphex(qpci_io_readl(b->dev, b->bar, 0x30), ==, value);
}

void bad_check_lost(BadTest *b, const char *says)
{
    g_autofree char *log = NULL;

    bad_wait_log(b, says);
    for (unsigned i = 0; i < 3; i++) {
        qpci_io_writel(b->dev, b->bar, 0, i);
        g_assert_cmphex(qpci_io_readl(b->dev, b->bar, 0), ==, UINT32_MAX);
    }
    log = bad_log(b);
    g_test_message("%s", log);
    g_assert_cmpuint(vut_occurrences(log, "device lost"), ==, 1);
    /* Other complaints would be about accesses that nobody can answer. */
    g_assert_cmpuint(vut_occurrences(log, "failed: Broken pipe"), ==, 0);
}

/* Tests ------------------------------------------------------------------------ */

typedef struct BadCase {
    void (*fn)(const void *data);
    const void *data;
} BadCase;

static void bad_run_guarded(const void *opaque)
{
    const BadCase *c = opaque;
    unsigned before;

    bad_vm();
    before = vut_nr_fds(getpid());
    c->fn(c->data);
    g_assert_cmpuint(vut_nr_fds(getpid()), ==, before);
}

void bad_add_test(const char *path, const void *data,
                  void (*fn)(const void *data))
{
    BadCase c = { fn, data };

    qtest_add_data_func_full(path, g_memdup2(&c, sizeof(c)), bad_run_guarded,
                             g_free);
}

/* The BARs that the device has, mapped. */
static void map_all(BadTest *b, QPCIBar bars[6])
{
    for (unsigned i = 0; i < 6; i++) {
        bars[i].addr = 0;
        qpci_config_writel(b->dev, PCI_BASE_ADDRESS_0 + 4 * i, UINT32_MAX);
        if (i != 3 && qpci_config_readl(b->dev,
                                        PCI_BASE_ADDRESS_0 + 4 * i) & ~0xfu) {
            bars[i] = qpci_iomap(b->dev, i, NULL);
        }
    }
    /* The upper half of BAR2. */
    qpci_config_writel(b->dev, PCI_BASE_ADDRESS_3, 0);
    qpci_device_enable(b->dev);
}

/* A device that came up in spite of its server must bear to be touched. */
static void use_device(BadTest *b)
{
    QPCIBar bars[6];

    b->dev = qpci_device_find(b->t->bus, QPCI_DEVFN(BAD_SLOT, 0));
    if (!b->dev) {
        return;     /* all-ones for a vendor */
    }
    map_all(b, bars);
    for (unsigned i = 0; i < 6; i++) {
        if (!bars[i].addr) {
            continue;
        }
        for (unsigned off = 0; off < 0x8000; off += 0x800) {
            qpci_io_readl(b->dev, bars[i], bars[i].is_io ? off % 256 : off);
        }
        qpci_io_writel(b->dev, bars[i], 0, 1);
    }
}

/* Whether some reply never comes: then it pays not to be patient. */
static bool is_silent(const TsMischief *m)
{
    return m->nr_moves && m->moves[0].kind == TS_MOVE_DROP;
}

static void check_accepted(BadTest *b, const TsMischief *m, const char *error)
{
    g_assert_cmpstr(error, ==, NULL);
    if (m->says) {
        bad_wait_log(b, m->says);
    }
    ts_clear_moves(b->s);
    use_device(b);
    g_assert(ts_connected(b->s));
    bad_del(b);
}

static void check_refused(BadTest *b, const TsMischief *m, const char *error)
{
    if (!error || !bad_matches(error, m->says)) {
        g_error("'%s' does not say '%s'", error ?: "(success)", m->says);
    }
    g_assert(ts_wait_connected(b->s, false));
}

static void test_realize(const void *data)
{
    const TsMischief *m = data;
    g_autofree char *error = NULL;
    BadTest b;

    bad_begin(&b);
    ts_mischief_apply(b.s, m);
    error = bad_add(&b, is_silent(m) ? BAD_IMPATIENT_MS : BAD_PATIENT_MS);
    g_test_message("%s: %s", m->name, error ?: "accepted");
    g_assert(!m->nr_moves || ts_nr_moves_made(b.s));
    if (m->expect == TS_EXPECT_REFUSED) {
        check_refused(&b, m, error);
    } else {
        check_accepted(&b, m, error);
    }
    bad_end(&b);
}

void vut_register_bad(void)
{
    for (unsigned i = 0; i < ts_nr_mischiefs; i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/bad/realize/%s",
                                                ts_mischiefs[i].name);

        bad_add_test(path, &ts_mischiefs[i], test_realize);
    }
    bad_register_run();
    bad_register_die();
}
