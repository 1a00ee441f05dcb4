/*
 * vfio-user qtest: a server without room for all of the guest's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Its table of windows is full, by what it says (max_dma_maps) or by what it
 * answers. The guest switches windows on and off: the memory of ivshmem devices.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "vfio-user-util.h"

#define MIB             (1024 * 1024ull)
#define DIMM_SIZE       (64 * MIB)
#define MAP             ((TsMatch) { VFIO_USER_DMA_MAP, -1, -1 })
#define UNMAP           ((TsMatch) { VFIO_USER_DMA_UNMAP, -1, -1 })
#define NR_SHMS         4
#define WALK_STEPS      120
/* Lines that say so, of a guest that switches a window on and off */
#define TOGGLES         200
#define MAX_LINES       20

static unsigned announced;          /* max_dma_maps */
static unsigned accepted;           /* what the server takes; 0: any number */
static int refusal;                 /* and what it says to the next one */
static bool late;                   /* after it has the client's next message */

static int limited_map(TestServer *s, TsMessage *request, TsMessage *reply,
                       void *opaque)
{
    if (!accepted || ts_dma_nr_windows(s) < accepted) {
        return -1;
    }
    if (late) {
        g_assert(ts_message_pending(s, VUT_TIMEOUT_MS));
    }
    return refusal;
}

static void setup_limits(TestServer *s)
{
    if (announced) {
        ts_limits(s)->max_dma_maps = announced;
    }
    ts_set_handler(s, VFIO_USER_DMA_MAP, limited_map, NULL);
}

/**
 * Room: a VM
 * @base: windows that are always there
 * @shms: devices whose memory is a window while it is enabled
 */
typedef struct Room {
    VUTest *t;
    unsigned base;
    QPCIDevice *shms[NR_SHMS];
    bool on[NR_SHMS];
    uint32_t value;
} Room;

static unsigned count_windows(void)
{
    static unsigned nr;

    if (!nr) {
        VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });

        nr = ts_dma_nr_windows(t->s);
        vut_free(t);
    }
    return nr;
}

/* With room for @nr windows more: the server says so, or refuses. */
static Room *room_new(unsigned nr, int says)
{
    GString *args = g_string_new(NULL);
    Room *r = g_new0(Room, 1);

    r->base = count_windows();
    announced = says ? 0 : r->base + nr;
    accepted = says ? r->base + nr : 0;
    refusal = says;
    late = false;
    for (unsigned i = 0; i < NR_SHMS; i++) {
        g_string_append_printf(args, " -object memory-backend-memfd,id=shm%u,"
                               "size=1M,share=on -device ivshmem-plain,"
                               "addr=%x,memdev=shm%u", i, 6 + i, i);
    }
    r->t = vut_new(&(VUTOptions) {
        .args = args->str, .setup = setup_limits, .shared_ram = true,
        .stderr_file = true,
    });
    for (unsigned i = 0; i < NR_SHMS; i++) {
        r->shms[i] = qpci_device_find(r->t->bus, QPCI_DEVFN(6 + i, 0));
        qpci_config_writel(r->shms[i], PCI_BASE_ADDRESS_2,
                           vut_shm_address(i));
    }
    g_string_free(args, true);
    return r;
}

static void room_free(Room *r)
{
    for (unsigned i = 0; i < NR_SHMS; i++) {
        g_free(r->shms[i]);
    }
    vut_free(r->t);
    g_free(r);
}

static void room_switch(Room *r, unsigned i, bool on)
{
    r->on[i] = on;
    qpci_config_writew(r->shms[i], PCI_COMMAND, on ? PCI_COMMAND_MEMORY : 0);
}

static unsigned room_wanted(const Room *r)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < NR_SHMS; i++) {
        nr += r->on[i];
    }
    return nr;
}

/* The device does what it did; the server has @nr of the windows, and knows it. */
static void room_check(Room *r, unsigned nr)
{
    unsigned wanted = room_wanted(r);
    uint64_t bytes;
    QPCIBar bar;

    VUT_WAIT(ts_dma_nr_windows(r->t->s) == r->base + nr &&
             vut_nr_refused(r->t, &bytes) == wanted - nr);
    g_assert_cmpuint(bytes, ==, (wanted - nr) * MIB);
    bar = qpci_iomap(r->t->dev, 0, NULL);
    qpci_device_enable(r->t->dev);
    qpci_io_writel(r->t->dev, bar, 8, ++r->value);
    g_assert_cmphex(qpci_io_readl(r->t->dev, bar, 8), ==, r->value);
    g_assert(ts_connected(r->t->s));
}

static void check_mapped(Room *r, unsigned i)
{
    uint32_t value = 0x12340000 + i;

    g_assert(ts_dma_wait_window(r->t->s, vut_shm_address(i), true));
    g_assert_cmpint(ts_dma_write(r->t->s, vut_shm_address(i) + 0x100, &value, 4,
                                 TS_DMA_MAPPED), ==, 0);
    g_assert_cmphex(qtest_readl(r->t->qts, vut_shm_address(i) + 0x100), ==,
                    value);
}

/* A window for which there is no room is told as soon as another one goes. */
static void check_told_when_free(int says)
{
    Room *r = room_new(1, says);
    QDict *event, *windows;

    room_switch(r, 0, true);
    room_check(r, 1);
    room_switch(r, 1, true);
    room_check(r, 1);
    event = qtest_qmp_eventwait_ref(r->t->qts, "VFIO_USER_REFUSED");
    windows = qdict_get_qdict(qdict_get_qdict(event, "data"), "windows");
    g_assert_cmpint(qdict_get_int(windows, "count"), ==, 1);
    g_assert_cmpint(qdict_get_int(windows, "bytes"), ==, MIB);
    qobject_unref(event);
    vut_wait_stderr(r->t, "no room for 1 of the guest's DMA windows (1 MiB, ");
    g_assert(!ts_dma_find(r->t->s, vut_shm_address(1), NULL));
    check_mapped(r, 0);

    room_switch(r, 0, false);
    check_mapped(r, 1);
    room_check(r, 1);
    room_switch(r, 1, false);
    room_check(r, 0);
    room_free(r);
}

static void test_told_when_free(void)
{
    check_told_when_free(0);
}

static void test_server_told_when_free(void)
{
    check_told_when_free(ENOSPC);
}

static void test_server_no_memory(void)
{
    check_told_when_free(ENOMEM);
}

/* The guest switches at random; the server always has what there is room for. */
static void check_walk(unsigned nr, int says)
{
    Room *r = room_new(nr, says);
    GRand *rand = g_rand_new_with_seed(nr);
    TsRecord record;

    for (unsigned step = 0; step < WALK_STEPS; step++) {
        unsigned i = g_rand_int_range(rand, 0, NR_SHMS);

        room_switch(r, i, !r->on[i]);
        if (step % 3 == 0) {
            room_check(r, MIN(room_wanted(r), nr));
        }
    }
    g_rand_free(rand);
    for (unsigned i = 0; ts_log_get(r->t->s, UNMAP, i, &record); i++) {
        /* What it refused may go before QEMU knows. */
        g_assert_cmpint(record.error, ==, says && record.error ? ENOENT : 0);
    }
    for (unsigned i = 0; ts_log_get(r->t->s, MAP, i, &record); i++) {
        /* What it says is not tried out. */
        g_assert_cmpint(record.error, ==, says && record.error ? says : 0);
    }
    for (unsigned i = 0; i < NR_SHMS; i++) {
        room_switch(r, i, false);
    }
    room_check(r, 0);
    for (unsigned i = 0; i < nr; i++) {
        room_switch(r, i, true);
    }
    room_check(r, nr);
    room_free(r);
}

static void test_walk(void)
{
    check_walk(2, 0);
}

static void test_server_walk(void)
{
    check_walk(2, ENOSPC);
}

/* A window whose refusal is still to come goes away. */
static void test_gone_meanwhile(void)
{
    Room *r = room_new(0, ENOSPC);

    late = true;
    for (unsigned i = 0; i < 10; i++) {
        room_switch(r, 0, true);
        room_switch(r, 0, false);
    }
    late = false;
    vut_flush(r->t);
    room_check(r, 0);
    accepted = 0;
    room_switch(r, 0, true);
    check_mapped(r, 0);
    room_check(r, 1);
    room_free(r);
}

/* The guest decides how many lines there would be. */
static void test_log(void)
{
    Room *r = room_new(0, 0);
    g_autofree char *text = NULL;
    unsigned lines;

    for (unsigned i = 0; i < TOGGLES; i++) {
        room_switch(r, 0, true);
        room_switch(r, 0, false);
    }
    room_check(r, 0);
    g_assert_cmpuint(ts_log_count(r->t->s, (TsMatch) {
        VFIO_USER_DMA_MAP, -1, vut_shm_address(0) }), ==, 0);
    vut_wait_stderr(r->t, "no room for");
    text = vut_stderr(r->t);
    lines = vut_occurrences(text, "no room for");
    g_assert_cmpuint(lines, <, MAX_LINES);
    room_free(r);
}

/*
 * DMA by message finds the memory, window or not; info vfio-user tells of what was
 * refused. A DIMM comes, for which there is no room.
 */
static void test_dimm(void)
{
    uint32_t value = 0x5eed5eed, got = 0;
    g_autofree char *info = NULL;
    VUTest *t;
    uint64_t bytes, addr = 4096 * MIB;

    announced = count_windows();
    accepted = 0;
    t = vut_new(&(VUTOptions) {
        .args = "-m 128M,slots=2,maxmem=1G "
                "-object memory-backend-memfd,id=ram,size=128M,share=on "
                "-machine memory-backend=ram "
                "-object memory-backend-memfd,id=more,size=64M,share=on",
        .setup = setup_limits, .stderr_file = true,
    });
    g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, announced);
    qtest_qmp_device_add(t->qts, "pc-dimm", "dimm0",
                         "{'memdev': 'more', 'addr': %" PRIu64 "}", addr);
    vut_wait_stderr(t, "max_dma_maps");
    g_assert_cmpuint(vut_nr_refused(t, &bytes), ==, 1);
    g_assert_cmpuint(bytes, ==, DIMM_SIZE);
    info = qtest_hmp(t->qts, "info vfio-user");
    g_assert(strstr(info, ", 1 refused (64 MiB)"));
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_WRITE, addr + 0x1000, 4,
                                   &value, 4), ==, 0);
    g_assert_cmphex(qtest_readl(t->qts, addr + 0x1000), ==, value);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_READ, addr + 0x1000, 4,
                                   &got, 4), ==, 0);
    g_assert_cmphex(got, ==, value);
    g_assert(ts_connected(t->s));
    vut_free(t);
}

/* Without room for the guest's memory there is no device; the error helps. */
static void test_realize(void)
{
    g_autofree char *error = NULL, *want = NULL;
    VUTest *t;

    announced = count_windows() - 1;
    accepted = 0;
    want = g_strdup_printf("guest memory needs %u DMA windows, more than the "
                           "%u that the server allows (max_dma_maps): use a "
                           "server that allows more, or ", announced + 1,
                           announced);
    t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_limits, .shared_ram = true,
    });
    error = vut_add(t, VUT_ID, t->path, VUT_TIMEOUT_MS);
    g_assert_nonnull(error);
    g_test_message("%s", error);
    g_assert(strstr(error, want));
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

void vut_register_room(void)
{
    vut_add_test("vfio-user/room/told-when-free", test_told_when_free);
    vut_add_test("vfio-user/room/walk", test_walk);
    vut_add_test("vfio-user/room/server/told-when-free",
                 test_server_told_when_free);
    vut_add_test("vfio-user/room/server/no-memory", test_server_no_memory);
    vut_add_test("vfio-user/room/server/walk", test_server_walk);
    vut_add_test("vfio-user/room/server/gone-meanwhile", test_gone_meanwhile);
    vut_add_test("vfio-user/room/log", test_log);
    vut_add_test("vfio-user/room/dimm", test_dimm);
    vut_add_test("vfio-user/room/realize", test_realize);
}
