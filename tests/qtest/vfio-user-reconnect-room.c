/*
 * vfio-user qtest: room for windows at a server that comes back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It may have less room than the one that went, or more, or none for what there is
 * by now. The guest's windows come and go: the memory of two ivshmem devices.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-reconnect.h"

#define MIB             (1024 * 1024ull)
#define NR_SHMS         2

static unsigned announced;          /* max_dma_maps; 0: as usual */
static unsigned accepted;           /* more get ENOSPC; 0: any number */

static int limited_map(TestServer *s, TsMessage *request, TsMessage *reply,
                       void *opaque)
{
    return accepted && ts_dma_nr_windows(s) >= accepted ? ENOSPC : -1;
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
    RTest *r;
    unsigned base;
    QPCIDevice *shms[NR_SHMS];
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

/* @nr: what the server announces beyond what is always there; -1: enough */
static Room *room_new(int nr)
{
    Room *m = g_new0(Room, 1);

    m->base = count_windows();
    announced = nr < 0 ? 0 : m->base + nr;
    accepted = 0;
    m->r = rt_new(&(VUTOptions) {
        .args = "-object memory-backend-memfd,id=shm0,size=1M,share=on "
                "-object memory-backend-memfd,id=shm1,size=1M,share=on "
                "-device ivshmem-plain,addr=6,memdev=shm0 "
                "-device ivshmem-plain,addr=7,memdev=shm1",
        .setup = setup_limits, .shared_ram = true,
    });
    for (unsigned i = 0; i < NR_SHMS; i++) {
        m->shms[i] = qpci_device_find(m->r->t->bus, QPCI_DEVFN(6 + i, 0));
        qpci_config_writel(m->shms[i], PCI_BASE_ADDRESS_2, vut_shm_address(i));
    }
    return m;
}

static void room_free(Room *m)
{
    for (unsigned i = 0; i < NR_SHMS; i++) {
        g_free(m->shms[i]);
    }
    rt_free(m->r);
    g_free(m);
}

static void room_switch(Room *m, unsigned i, bool on)
{
    qpci_config_writew(m->shms[i], PCI_COMMAND, on ? PCI_COMMAND_MEMORY : 0);
}

/* The server has @nr of the windows, is not told of @refused, and that is known. */
static void room_check(Room *m, unsigned nr, unsigned refused)
{
    uint64_t bytes;

    VUT_WAIT(ts_dma_nr_windows(m->r->t->s) == m->base + nr &&
             vut_nr_refused(m->r->t, &bytes) == refused);
    g_assert_cmpint(bytes > 0, ==, refused > 0);
    rt_check_works(m->r, ++m->value);
}

static void expect_refused(Room *m, unsigned nr)
{
    const QDict *data = rt_expect(m->r, "REFUSED");

    g_assert_cmpint(qdict_get_int(qdict_get_qdict(data, "windows"), "count"),
                    ==, nr);
}

static void return_fresh(Room *m)
{
    rt_return_fresh(m->r, setup_limits);
    VUT_WAIT(rt_had_event(m->r, "VFIO_USER_RECONNECTED"));
    rt_settle(m->r, 1);
}

/* What there was no room for is refused at the same server as well. */
static void test_kept(void)
{
    Room *m = room_new(1);

    room_switch(m, 0, true);
    room_switch(m, 1, true);
    room_check(m, 1, 1);
    expect_refused(m, 1);
    rt_lose(m->r);
    rt_return_kept(m->r);
    rt_settle(m->r, 2);
    room_check(m, 1, 1);
    room_switch(m, 0, false);
    g_assert(ts_dma_wait_window(m->r->t->s, vut_shm_address(1), true));
    room_check(m, 1, 0);
    room_free(m);
}

/* It is told as soon as there is room, which may be while the server is away. */
static void test_away(void)
{
    Room *m = room_new(1);

    room_switch(m, 0, true);
    room_switch(m, 1, true);
    room_check(m, 1, 1);
    expect_refused(m, 1);
    rt_lose(m->r);
    room_switch(m, 0, false);
    rt_return_kept(m->r);
    rt_settle(m->r, 2);
    g_assert(ts_dma_find(m->r->t->s, vut_shm_address(1), NULL));
    room_check(m, 1, 0);
    /* The other way round: it comes while nobody is there. */
    rt_lose(m->r);
    room_switch(m, 0, true);
    rt_return_kept(m->r);
    rt_settle(m->r, 3);
    g_assert(!ts_dma_find(m->r->t->s, vut_shm_address(0), NULL));
    room_check(m, 1, 1);
    room_free(m);
}

/* Another server has less room, and one after it has enough. */
static void test_smaller(void)
{
    Room *m = room_new(-1);

    room_switch(m, 0, true);
    room_switch(m, 1, true);
    room_check(m, 2, 0);
    rt_lose(m->r);
    announced = m->base + 1;
    return_fresh(m);
    room_check(m, 1, 1);
    rt_lose(m->r);
    announced = 1;
    return_fresh(m);
    room_check(m, 1 - m->base, m->base + 1);
    /* It is the largest one that is kept. */
    g_assert(ts_dma_find(m->r->t->s, 64 * MIB, NULL));
    rt_lose(m->r);
    announced = m->base + 2;
    return_fresh(m);
    room_check(m, 2, 0);
    room_switch(m, 1, false);
    room_check(m, 1, 0);
    room_free(m);
}

/* One that does not say how much room it has, while it is told of what there is */
static void test_server_full(void)
{
    Room *m = room_new(-1);

    room_switch(m, 0, true);
    room_switch(m, 1, true);
    room_check(m, 2, 0);
    rt_lose(m->r);
    accepted = m->base + 1;
    return_fresh(m);
    room_check(m, 1, 1);
    room_switch(m, 0, false);
    room_switch(m, 1, false);
    room_check(m, 0, 0);
    room_switch(m, 1, true);
    room_check(m, 1, 0);
    room_free(m);
}

void rt_register_room(void)
{
    vut_add_test("vfio-user/reconnect/room/kept", test_kept);
    vut_add_test("vfio-user/reconnect/room/away", test_away);
    vut_add_test("vfio-user/reconnect/room/smaller", test_smaller);
    vut_add_test("vfio-user/reconnect/room/server-full", test_server_full);
}
