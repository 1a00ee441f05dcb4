/*
 * vfio-user test server: self test of the engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest is a raw client. Its memory is looked at directly, so that the
 * server's own ts_engine_check() is tested as well.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "selftest.h"
#include "server-migration.h"

#define RAM         0x100000
#define RAM_SIZE    0x40000
#define BUFFER      (RAM + 0x3000)
#define PAGES       37
#define SEED        0x123456789abcdef0ull
#define RUN         ENGINE_CONTROL_RUN
#define NO_ACK      ENGINE_CONTROL_NO_ACK

typedef struct Guest {
    Fixture *f;
    RawClient *c;
    uint8_t *mem;
    int fd;
    int irqs[2];
} Guest;

static void setup_engine(TestServer *s)
{
    ts_add_engine(s, 8, 100000);
}

static void setup_migratable(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY |
                                          VFIO_USER_MIGRATION_P2P |
                                          VFIO_USER_MIGRATION_PRE_COPY);

    setup_engine(s);
    o->size = 5000;
    o->precopy = 3000;
    o->logging = true;
}

static uint32_t get32(Guest *g, unsigned reg)
{
    uint32_t value;

    g_assert_cmpint(rc_read(g->c, 0, reg, &value, 4), ==, 0);
    return value;
}

static uint64_t get64(Guest *g, unsigned reg)
{
    uint64_t value;

    g_assert_cmpint(rc_read(g->c, 0, reg, &value, 8), ==, 0);
    return value;
}

static void put32(Guest *g, unsigned reg, uint32_t value)
{
    g_assert_cmpint(rc_write(g->c, 0, reg, &value, 4), ==, 0);
}

static void put64(Guest *g, unsigned reg, uint64_t value)
{
    g_assert_cmpint(rc_write(g->c, 0, reg, &value, 8), ==, 0);
}

static void guest_irqs(Guest *g)
{
    for (unsigned i = 0; i < 2; i++) {
        g->irqs[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        g_assert(g->irqs[i] >= 0);
    }
    g_assert_cmpint(rc_set_irqs(g->c, 4 | 32, 2, 0, 2, g->irqs, 2), ==, 0);
}

static void guest_master(Guest *g)
{
    uint16_t command = 6;

    g_assert_cmpint(rc_write(g->c, 7, 4, &command, 2), ==, 0);
}

/* RAM is two windows, so that the buffer lies in both. */
static void guest_map(Guest *g)
{
    g_assert_cmpint(rc_map(g->c, RAM, 0x8000, g->fd, 0), ==, 0);
    g_assert_cmpint(rc_map(g->c, RAM + 0x8000, RAM_SIZE - 0x8000, g->fd,
                           0x8000), ==, 0);
}

static void guest_unmap(Guest *g)
{
    g_assert_cmpint(rc_unmap(g->c, RAM, 0x8000), ==, 0);
    g_assert_cmpint(rc_unmap(g->c, RAM + 0x8000, RAM_SIZE - 0x8000), ==, 0);
}

static Guest *guest_new(void (*setup)(TestServer *s))
{
    Guest *g = g_new0(Guest, 1);

    g->f = fixture_bare(setup, false);
    g->c = g->f->c;
    g->fd = memfd_create("guest", MFD_CLOEXEC);
    g_assert(g->fd >= 0 && ftruncate(g->fd, RAM_SIZE) == 0);
    g->mem = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd,
                  0);
    g_assert(g->mem != MAP_FAILED);
    guest_irqs(g);
    return g;
}

static Guest *guest_ready(void (*setup)(TestServer *s))
{
    Guest *g = guest_new(setup);

    guest_map(g);
    guest_master(g);
    put64(g, ENGINE_BUFFER, BUFFER);
    put64(g, ENGINE_SIZE, PAGES * ENGINE_PAGE);
    put64(g, ENGINE_SEED, SEED);
    return g;
}

static void guest_free(Guest *g)
{
    for (unsigned i = 0; i < 2; i++) {
        close(g->irqs[i]);
    }
    munmap(g->mem, RAM_SIZE);
    close(g->fd);
    fixture_free(g->f);
    g_free(g);
}

static bool guest_wait_irq(Guest *g, unsigned vector)
{
    struct pollfd pfd = { g->irqs[vector], POLLIN, 0 };
    uint64_t n;

    return poll(&pfd, 1, TS_DEADLINE_MS) == 1 &&
           read(g->irqs[vector], &n, sizeof(n)) == sizeof(n);
}

static bool guest_has_irq(Guest *g, unsigned vector)
{
    struct pollfd pfd = { g->irqs[vector], POLLIN, 0 };

    return poll(&pfd, 1, 0) == 1;
}

static uint64_t word_of(Guest *g, uint64_t page, unsigned i)
{
    uint64_t word;

    memcpy(&word, g->mem + (BUFFER - RAM) + page * ENGINE_PAGE + 8 * i, 8);
    return word;
}

/* Every page is what the registers say, and nothing beside them changed. */
static void check_memory(Guest *g)
{
    uint64_t generation = get64(g, ENGINE_GENERATION);
    uint64_t position = get64(g, ENGINE_POSITION);

    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t holds = generation - (page >= position);

        for (unsigned i = 0; i < 512; i++) {
            g_assert_cmphex(word_of(g, page, i), ==,
                            holds ? engine_word(SEED, page, holds, i) : 0);
        }
    }
    for (unsigned i = 0; i < BUFFER - RAM; i++) {
        g_assert_cmpint(g->mem[i], ==, 0);
    }
    for (unsigned i = BUFFER - RAM + PAGES * ENGINE_PAGE; i < RAM_SIZE; i++) {
        g_assert_cmpint(g->mem[i], ==, 0);
    }
    g_assert_cmpint(ts_engine_check(g->f->s), ==, 0);
}

void test_engine_registers(void)
{
    Guest *g = guest_new(setup_engine);
    uint16_t half;

    g_assert_cmphex(get32(g, ENGINE_ID), ==, 0x31474e45);
    g_assert_cmpint(get32(g, ENGINE_BATCH), ==, 8);
    g_assert_cmpint(get32(g, ENGINE_RATE), ==, 100000);
    g_assert_cmphex(get32(g, ENGINE_STATUS), ==, ENGINE_STATUS_NO_MASTER);
    guest_master(g);
    g_assert_cmphex(get32(g, ENGINE_STATUS), ==, 0);
    put32(g, ENGINE_ID, 0);
    put32(g, ENGINE_COUNTER, 7);
    g_assert_cmphex(get32(g, ENGINE_ID), ==, ENGINE_MAGIC);
    g_assert_cmpint(get64(g, ENGINE_COUNTER), ==, 0);
    put32(g, ENGINE_BUFFER + 4, 0x12);
    put32(g, ENGINE_BUFFER, 0x34567);
    g_assert_cmphex(get64(g, ENGINE_BUFFER), ==, 0x1200034000ull);
    put64(g, ENGINE_SIZE, 1ull << 40 | 5);
    g_assert_cmphex(get64(g, ENGINE_SIZE), ==, ENGINE_MAX_BUFFER);
    put32(g, ENGINE_BATCH, 0);
    g_assert_cmpint(get32(g, ENGINE_BATCH), ==, 1);
    put32(g, ENGINE_TIMER_US, 5);
    g_assert_cmpint(get32(g, ENGINE_TIMER_US), ==, 1000);
    put64(g, ENGINE_SCRATCH(14), 0x1122334455667788ull);
    g_assert_cmphex(get32(g, ENGINE_SCRATCH(15)), ==, 0x11223344);
    g_assert_cmpint(get32(g, 0xffc), ==, 0);
    g_assert_cmpint(rc_read(g->c, 0, 2, &half, 2), ==, EINVAL);

    put32(g, ENGINE_CONTROL, 0xfffffff8);
    g_assert_cmphex(get32(g, ENGINE_CONTROL), ==, 0);
    g_assert_cmpint(rc_call(g->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmphex(get64(g, ENGINE_BUFFER), ==, 0);
    g_assert_cmphex(get32(g, ENGINE_SCRATCH(15)), ==, 0);
    g_assert_cmpint(get64(g, ENGINE_GENERATION), ==, 1);
    guest_free(g);
}

/* Each batch waits for the guest to have seen the one before. */
void test_engine_ack(void)
{
    Guest *g = guest_ready(setup_engine);

    put32(g, ENGINE_CONTROL, RUN);
    for (unsigned i = 1; i <= 12; i++) {
        g_assert(guest_wait_irq(g, 0));
        g_assert_cmpint(get32(g, ENGINE_BATCH_NR), ==, i);
        g_assert_cmpint(get64(g, ENGINE_COUNTER), ==, i);
        g_assert_cmpint(get64(g, ENGINE_POSITION), ==, i * 8 % PAGES);
        g_assert_cmpint(get64(g, ENGINE_GENERATION), ==, 1 + i * 8 / PAGES);
        g_assert_cmphex(get32(g, ENGINE_STATUS), ==,
                        ENGINE_STATUS_RUN | ENGINE_STATUS_WAIT_ACK);
        check_memory(g);
        put32(g, ENGINE_ACK, i - 1);        /* not that one */
        g_assert_cmphex(get32(g, ENGINE_STATUS), ==,
                        ENGINE_STATUS_RUN | ENGINE_STATUS_WAIT_ACK);
        g_assert(!guest_has_irq(g, 0));
        put32(g, ENGINE_ACK, i);
    }
    put32(g, ENGINE_CONTROL, 0);
    g_assert(!(get32(g, ENGINE_STATUS) & ENGINE_STATUS_RUN));
    g_assert_cmpint(get32(g, ENGINE_LOST(0)), ==, 0);
    check_memory(g);
    guest_free(g);
}

void test_engine_pages(void)
{
    Guest *g = guest_ready(setup_engine);
    uint64_t position;

    for (unsigned i = 1; i <= 3; i++) {
        put32(g, ENGINE_CONTROL, RUN | NO_ACK);
        g_assert(ts_engine_wait(g->f->s, ENGINE_GENERATION, 8, 2 * i));
        put32(g, ENGINE_CONTROL, 0);
        position = get64(g, ENGINE_POSITION);
        check_memory(g);
        g_assert_cmpint(get64(g, ENGINE_POSITION), ==, position);
    }
    g->mem[BUFFER - RAM + 5 * ENGINE_PAGE + 99] ^= 1;
    g->mem[BUFFER - RAM + 36 * ENGINE_PAGE + 4095] ^= 1;
    g_assert_cmpint(ts_engine_check(g->f->s), ==, 2);

    /* While it runs the buffer is what it was; afterwards a new one. */
    put32(g, ENGINE_CONTROL, RUN | NO_ACK);
    put64(g, ENGINE_SEED, 1);
    put32(g, ENGINE_CONTROL, 0);
    g_assert_cmphex(get64(g, ENGINE_SEED), ==, SEED);
    put64(g, ENGINE_SEED, 1);
    g_assert_cmpint(get64(g, ENGINE_GENERATION), ==, 1);
    g_assert_cmpint(get64(g, ENGINE_POSITION), ==, 0);
    guest_free(g);
}

/* Without a mapping the pages come as messages. */
void test_engine_messages(void)
{
    Guest *g = guest_new(setup_engine);

    g->c->mem = g->mem;
    g->c->mem_addr = RAM;
    g->c->mem_len = RAM_SIZE;
    g_assert_cmpint(rc_map(g->c, RAM, RAM_SIZE, -1, 0), ==, 0);
    guest_master(g);
    put64(g, ENGINE_BUFFER, BUFFER);
    put64(g, ENGINE_SIZE, PAGES * ENGINE_PAGE);
    put64(g, ENGINE_SEED, SEED);
    put32(g, ENGINE_CONTROL, RUN | NO_ACK);
    while (get64(g, ENGINE_GENERATION) < 3) {
        continue;       /* each reading serves what comes first */
    }
    put32(g, ENGINE_CONTROL, 0);
    g_assert_cmpint(g->c->nr_dma, >=, 2 * PAGES);
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t holds = get64(g, ENGINE_GENERATION) -
                         (page >= get64(g, ENGINE_POSITION));

        g_assert_cmphex(word_of(g, page, 500), ==,
                        engine_word(SEED, page, holds, 500));
    }
    /* Memory that the client does not let it write ends the work. */
    g->c->mem = NULL;
    put32(g, ENGINE_CONTROL, RUN | NO_ACK);
    while (!(get32(g, ENGINE_STATUS) & ENGINE_STATUS_WAIT_MEM)) {
        continue;
    }
    guest_free(g);
}

/* Memory that is not there yet, or not any more, is waited for. */
void test_engine_memory(void)
{
    Guest *g = guest_ready(setup_engine);
    TestServer *s = g->f->s;
    uint16_t command = 2;
    uint64_t generation;

    put32(g, ENGINE_CONTROL, RUN | NO_ACK);
    g_assert(ts_engine_wait(s, ENGINE_GENERATION, 8, 2));
    guest_unmap(g);
    g_assert(ts_engine_wait(s, ENGINE_WAITED, 8, 1));
    g_assert(get32(g, ENGINE_STATUS) & ENGINE_STATUS_WAIT_MEM);
    generation = get64(g, ENGINE_GENERATION);
    guest_map(g);
    g_assert(ts_engine_wait(s, ENGINE_GENERATION, 8, generation + 1));

    g_assert_cmpint(rc_write(g->c, 7, 4, &command, 2), ==, 0);
    g_assert(get32(g, ENGINE_STATUS) & ENGINE_STATUS_NO_MASTER);
    check_memory(g);
    generation = get64(g, ENGINE_GENERATION);
    guest_master(g);
    g_assert(ts_engine_wait(s, ENGINE_GENERATION, 8, generation + 1));

    /* The client goes and comes back: the engine has waited for it. */
    rc_free(g->c);
    g_assert(ts_wait_connected(s, false));
    generation = ts_engine_reg(s, ENGINE_GENERATION, 8);
    g->c = g->f->c = rc_connect(g->f->path);
    g_assert_cmpint(rc_negotiate(g->c, NULL, false), ==, 0);
    g_assert_cmpint(get64(g, ENGINE_GENERATION), ==, generation);
    guest_map(g);
    g_assert(ts_engine_wait(s, ENGINE_GENERATION, 8, generation + 1));
    put32(g, ENGINE_CONTROL, 0);
    check_memory(g);
    guest_free(g);
}

void test_engine_timer(void)
{
    Guest *g = guest_ready(setup_engine);
    uint32_t seq;

    put32(g, ENGINE_TIMER_US, 1000);
    put32(g, ENGINE_CONTROL, ENGINE_CONTROL_TIMER);
    for (unsigned i = 0; i < 3; i++) {
        g_assert(guest_wait_irq(g, 1));
    }
    put32(g, ENGINE_CONTROL, 0);
    seq = get32(g, ENGINE_TIMER_SEQ);
    g_assert_cmpint(seq, >=, 3);
    g_assert_cmpint(get64(g, ENGINE_COUNTER), ==, seq);
    g_assert_cmpint(get32(g, ENGINE_RAISED(1)), ==, seq);
    g_assert_cmpint(get32(g, ENGINE_RAISED(0)), ==, 0);
    g_assert(!guest_has_irq(g, 0));
    guest_free(g);
}

/*
 * In a state without work nothing changes. The engine is so quick that each
 * of the many messages in between would see it move.
 */
static void check_stands(Guest *g, uint32_t state)
{
    uint64_t position, counter;
    uint32_t raised;

    g_assert_cmpint(rc_set_state(g->c, state), ==, 0);
    position = get64(g, ENGINE_POSITION);
    counter = get64(g, ENGINE_COUNTER);
    raised = get32(g, ENGINE_RAISED(0));
    check_memory(g);
    for (unsigned i = 0; i < 200; i++) {
        g_assert_cmpint(get64(g, ENGINE_POSITION), ==, position);
    }
    g_assert_cmpint(get64(g, ENGINE_COUNTER), ==, counter);
    g_assert_cmpint(get32(g, ENGINE_RAISED(0)), ==, raised);
    check_memory(g);
}

static void check_works(Guest *g, uint32_t state)
{
    uint64_t generation = get64(g, ENGINE_GENERATION);

    g_assert_cmpint(rc_set_state(g->c, state), ==, 0);
    g_assert(ts_engine_wait(g->f->s, ENGINE_GENERATION, 8, generation + 1));
}

void test_engine_states(void)
{
    Guest *g = guest_ready(setup_migratable);

    put32(g, ENGINE_TIMER_US, 1000);
    put32(g, ENGINE_CONTROL, RUN | NO_ACK | ENGINE_CONTROL_TIMER);
    check_works(g, VFIO_USER_MIG_PRE_COPY);
    check_stands(g, VFIO_USER_MIG_PRE_COPY_P2P);
    check_stands(g, VFIO_USER_MIG_STOP_COPY);
    check_stands(g, VFIO_USER_MIG_STOP);
    check_stands(g, VFIO_USER_MIG_RUNNING_P2P);
    check_works(g, VFIO_USER_MIG_RUNNING);
    check_stands(g, VFIO_USER_MIG_RESUMING);
    ts_mig_break(g->f->s);
    check_memory(g);
    guest_free(g);
}

/* The pages reported are those that the engine wrote. */
void test_engine_dirty(void)
{
    Guest *g = guest_ready(setup_migratable);
    unsigned nr = 0;
    uint64_t word;

    g_assert_cmpint(rc_log_start(g->c, 4096), ==, 0);
    put32(g, ENGINE_BATCH, 13);
    put32(g, ENGINE_CONTROL, RUN);
    g_assert(guest_wait_irq(g, 0));
    g_assert_cmpint(rc_log_report(g->c, RAM, 0x8000, 4096), ==, 0);
    memcpy(&word, g->c->payload + 32, 8);
    g_assert_cmphex(word, ==, 0xf8);    /* five pages from the fourth on */
    g_assert_cmpint(rc_log_report(g->c, RAM + 0x8000, RAM_SIZE - 0x8000,
                                  4096), ==, 0);
    memcpy(&word, g->c->payload + 32, 8);
    g_assert_cmphex(word, ==, 0xff);
    put32(g, ENGINE_ACK, 1);
    g_assert(guest_wait_irq(g, 0));
    nr = ts_mig_nr_dirty(g->f->s);
    g_assert_cmpint(nr, ==, 13);
    guest_free(g);
}

/* Guest memory as the destination gets it */
static void move_memory(Guest *to, Guest *from)
{
    memcpy(to->mem, from->mem, RAM_SIZE);
}

/* The device goes on on the other side where it was, and back again. */
void test_engine_migrates(void)
{
    Guest *a = guest_ready(setup_migratable);
    Guest *b = guest_new(setup_migratable);
    uint64_t counter = 0;

    guest_map(b);
    guest_master(b);
    put64(a, ENGINE_SCRATCH(0), 0xfeedface12345678ull);
    put32(a, ENGINE_TIMER_US, 3000);
    put32(a, ENGINE_CONTROL, RUN | NO_ACK | ENGINE_CONTROL_TIMER);
    for (unsigned i = 0; i < 6; i++) {
        g_autoptr(GByteArray) stream = g_byte_array_new();
        Guest *from = i % 2 ? b : a, *to = i % 2 ? a : b;
        uint64_t regs[32];

        g_assert(ts_engine_wait(from->f->s, ENGINE_GENERATION, 8, 2 * i + 2));
        g_assert_cmpint(rc_set_state(from->c, VFIO_USER_MIG_PRE_COPY), ==, 0);
        g_assert_cmpint(rc_mig_save(from->c, stream, 4096), ==, 3000);
        g_assert_cmpint(rc_set_state(from->c, VFIO_USER_MIG_STOP_COPY), ==,
                        0);
        g_assert_cmpint(rc_mig_save(from->c, stream, 999), ==, 5000);
        move_memory(to, from);
        g_assert_cmpint(rc_set_state(to->c, VFIO_USER_MIG_RESUMING), ==, 0);
        g_assert_cmpint(rc_mig_load(to->c, stream->data, stream->len, 1001),
                        ==, 0);
        g_assert_cmpint(rc_set_state(to->c, VFIO_USER_MIG_STOP), ==, 0);
        for (unsigned j = 0; j < 32; j++) {
            regs[j] = get64(from, 8 * j);
            g_assert_cmphex(get64(to, 8 * j), ==, regs[j]);
        }
        g_assert_cmpint(regs[ENGINE_COUNTER / 8], >=, counter);
        counter = regs[ENGINE_COUNTER / 8];
        check_memory(to);
        g_assert_cmpint(rc_set_state(to->c, VFIO_USER_MIG_RUNNING), ==, 0);
    }
    put32(a, ENGINE_CONTROL, 0);
    check_memory(a);
    g_assert_cmphex(get64(a, ENGINE_SCRATCH(0)), ==, 0xfeedface12345678ull);
    guest_free(a);
    guest_free(b);
}

/*
 * A batch that completes while the vector has no eventfd: nobody is told, and
 * nothing tells him later, so the engine waits for ever.
 */
void test_engine_lost(void)
{
    Guest *g = guest_ready(setup_engine);

    g_assert_cmpint(rc_set_irqs(g->c, 1 | 32, 2, 0, 0, NULL, 0), ==, 0);
    put32(g, ENGINE_CONTROL, RUN);
    g_assert(ts_engine_wait(g->f->s, ENGINE_LOST(0), 4, 1));
    g_assert_cmpint(rc_set_irqs(g->c, 4 | 32, 2, 0, 2, g->irqs, 2), ==, 0);
    g_assert_cmphex(get32(g, ENGINE_STATUS), ==,
                    ENGINE_STATUS_RUN | ENGINE_STATUS_WAIT_ACK);
    g_assert(!guest_has_irq(g, 0));
    /* Who looks all the same, kicked by somebody, sets it going. */
    put32(g, ENGINE_ACK, get32(g, ENGINE_BATCH_NR));
    g_assert(guest_wait_irq(g, 0));
    guest_free(g);
}
