/*
 * Test guest: drives the engine of the test server from user space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tests/server/engine.h says what the device does. Here it is used as a driver
 * would: a batch is acknowledged only when its interrupt came, and before that
 * every page of it is compared with what it has to be. A daemon does so for
 * each device, other calls of the program ask what became of it:
 *
 *   engine start ADDRESS MEMORY SIZE NR   begin on the device at PCI ADDRESS,
 *                                         also once more, after it was reset
 *   engine status ADDRESS                 a line of figures
 *   engine wait ADDRESS BATCHES           until so many more were done
 *   engine stop ADDRESS                   stop, compare all pages
 *
 * MEMORY and SIZE are a part of RAM that the kernel leaves alone (memmap= on
 * its command line). NR is 0 or 1, and another one for each device. The status
 * is not 0 if anything is wrong, and the line then says what was first.
 *
 * Interrupts. Debian's kernel gives MSI-X to user space only behind an IOMMU,
 * under which vfio does not migrate. So the table is filled in from here, with
 * interrupt vectors of the kernel that it never uses here but counts in
 * /proc/interrupts: those of nested guests, and the one by which CPUs wake each
 * other. MSI-X, masks, LAPIC and IDT are as with any driver; only who is told of
 * the interrupt is another. It works with one CPU and no nested guests.
 *
 * Two interrupts of a vector that come while the CPU does something else are
 * one, as everywhere with MSI. A batch waits for its ACK, so its interrupts are
 * counted exactly. Of the timer's the last one must be seen.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "engine.h"

#define WORDS           (ENGINE_PAGE / 8)
/* Batches are short: some end while the VM stops, each time it does. */
#define RATE            4000    /* pages per second */
#define BATCH           16      /* pages */
#define MORE            16      /* pages to look at in each batch besides */
#define TIMER_US        20000
#define POLL_NS         1000000
#define DEADLINE_S      60

#define CONFIG_COMMAND  0x04
#define CONFIG_CAP      0x34
#define COMMAND_BITS    0x0006  /* memory, bus master */
#define CAP_MSIX        0x11
#define MSIX_CONTROL    2
#define MSIX_ENABLE     0x8000
#define MSI_ADDRESS     0xfee00000u     /* physical, APIC 0 */

/* What the calls of the program share; the daemon alone writes, but @stop. */
typedef struct Shared {
    volatile uint64_t batches, pages, ticks, kicks, errors;
    volatile uint64_t counter;
    volatile uint32_t status, lost, waited;
    volatile uint32_t stop, stopped;
    volatile pid_t daemon;
    char first[200];            /* what was wrong first */
} Shared;

typedef struct Line {
    uint8_t vector;
    const char *name;           /* in /proc/interrupts */
} Line;

typedef struct Engine {
    const char *address;
    volatile uint8_t *regs;
    const volatile uint64_t *memory;
    uint64_t pages;
    uint64_t seed;
    const Line *line;           /* of the two vectors */
    uint64_t count[2];
    uint32_t acked;
    uint32_t seen_tick;
    uint64_t next;              /* page to look at besides */
    Shared *shared;
} Engine;

/* arch/x86/include/asm/irq_vectors.h */
static const Line lines[2][2] = {
    { { 0xf2, "PIN:" }, { 0xf0, "NPI:" } },
    { { 0xf1, "PIW:" }, { 0xfd, "RES:" } },
};

static void die(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void __attribute__((format(printf, 2, 3)))
wrong(Engine *e, const char *format, ...)
{
    va_list args;

    if (!e->shared->errors) {
        va_start(args, format);
        vsnprintf(e->shared->first, sizeof(e->shared->first), format, args);
        va_end(args);
    }
    e->shared->errors++;
}

/* --- The device --- */

static uint32_t get(const Engine *e, unsigned reg)
{
    return *(volatile uint32_t *)(e->regs + reg);
}

static uint64_t get64(const Engine *e, unsigned reg)
{
    uint32_t high, low;

    do {
        high = get(e, reg + 4);
        low = get(e, reg);
    } while (high != get(e, reg + 4));
    return (uint64_t)high << 32 | low;
}

static void put(const Engine *e, unsigned reg, uint32_t value)
{
    *(volatile uint32_t *)(e->regs + reg) = value;
}

static void put64(const Engine *e, unsigned reg, uint64_t value)
{
    put(e, reg, value);
    put(e, reg + 4, value >> 32);
}

static int open_file(const Engine *e, const char *name, int flags)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", e->address,
             name);
    fd = open(path, flags);
    if (fd < 0) {
        die(path);
    }
    return fd;
}

static void *map(int fd, size_t size, uint64_t offset)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                    offset);

    if (at == MAP_FAILED) {
        die("mmap");
    }
    close(fd);
    return at;
}

static uint16_t config_get(int fd, unsigned reg)
{
    uint16_t value;

    if (pread(fd, &value, sizeof(value), reg) != sizeof(value)) {
        die("reading config space");
    }
    return value;
}

static void config_set_bits(int fd, unsigned reg, uint16_t bits)
{
    uint16_t value = config_get(fd, reg) | bits;

    if (pwrite(fd, &value, sizeof(value), reg) != sizeof(value)) {
        die("writing config space");
    }
}

static unsigned config_msix(int fd)
{
    unsigned at = config_get(fd, CONFIG_CAP) & 0xff;

    while (at && (config_get(fd, at) & 0xff) != CAP_MSIX) {
        at = config_get(fd, at) >> 8;
    }
    if (!at) {
        errno = ENODEV;
        die("no MSI-X");
    }
    return at;
}

/* The table first: an entry that is enabled late would miss nothing yet. */
static void setup_device(Engine *e)
{
    int config = open_file(e, "config", O_RDWR);
    volatile uint32_t *table;

    config_set_bits(config, CONFIG_COMMAND, COMMAND_BITS);
    e->regs = map(open_file(e, "resource0", O_RDWR | O_SYNC), 4096, 0);
    table = map(open_file(e, "resource4", O_RDWR | O_SYNC), 4096, 0);
    for (unsigned i = 0; i < 2; i++) {
        table[4 * i] = MSI_ADDRESS;
        table[4 * i + 1] = 0;
        table[4 * i + 2] = e->line[i].vector;
        table[4 * i + 3] = 0;
    }
    config_set_bits(config, config_msix(config) + MSIX_CONTROL, MSIX_ENABLE);
    close(config);
    if (get(e, ENGINE_ID) != ENGINE_MAGIC) {
        errno = ENODEV;
        die("no engine");
    }
}

/* --- Interrupts --- */

static uint64_t count_of(const char *table, const char *name)
{
    const char *at = strstr(table, name);

    if (!at) {
        errno = ENOENT;
        die(name);
    }
    return strtoull(at + strlen(name), NULL, 10);
}

/* True for each vector whose count has changed. */
static void count_interrupts(Engine *e, bool came[2])
{
    char table[16384];
    ssize_t len, all = 0;
    int fd = open("/proc/interrupts", O_RDONLY);

    while ((len = read(fd, table + all, sizeof(table) - 1 - all)) > 0) {
        all += len;
    }
    close(fd);
    table[all] = 0;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t count = count_of(table, e->line[i].name);

        came[i] = count != e->count[i];
        e->count[i] = count;
    }
}

/* --- Pages --- */

static void check_page(Engine *e, uint64_t page, uint64_t generation)
{
    const volatile uint64_t *at = e->memory + page * WORDS;

    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t want = generation ? engine_word(e->seed, page, generation, i)
                                   : 0;

        if (at[i] != want) {
            wrong(e, "page %" PRIu64 " generation %" PRIu64 " word %u is %#"
                  PRIx64 ", not %#" PRIx64 "; it begins with page %" PRIu64
                  " generation %" PRIu64, page, generation, i, at[i], want,
                  at[0], at[1]);
            return;
        }
    }
    e->shared->pages++;
}

/* @nr pages from @page on, round the end; the engine stands still. */
static void check_pages(Engine *e, uint64_t page, uint64_t nr)
{
    uint64_t position = get64(e, ENGINE_POSITION);
    uint64_t generation = get64(e, ENGINE_GENERATION);

    for (; nr; nr--) {
        page %= e->pages;
        check_page(e, page, generation - (page >= position));
        page++;
    }
}

static void check_batch(Engine *e)
{
    uint64_t position = get64(e, ENGINE_POSITION);

    check_pages(e, position + e->pages - BATCH, BATCH);
    check_pages(e, e->next, MORE);
    e->next = (e->next + MORE) % e->pages;
}

/* --- The daemon --- */

static void take_batch(Engine *e)
{
    uint32_t nr = get(e, ENGINE_BATCH_NR);

    if (nr == e->acked) {
        e->shared->kicks++;     /* allowed after a migration */
        return;
    }
    if (nr != e->acked + 1) {
        wrong(e, "batch %u follows %u", nr, e->acked);
    }
    check_batch(e);
    e->acked = nr;
    e->shared->batches++;
    put(e, ENGINE_ACK, nr);
}

static void look_at_device(Engine *e)
{
    Shared *s = e->shared;
    uint64_t counter = get64(e, ENGINE_COUNTER);

    if (counter < s->counter) {
        wrong(e, "the counter fell from %" PRIu64 " to %" PRIu64, s->counter,
              counter);
    }
    s->counter = counter;
    s->status = get(e, ENGINE_STATUS);
    s->lost = get(e, ENGINE_LOST(0)) + get(e, ENGINE_LOST(1));
    s->waited = get(e, ENGINE_WAITED);
    if (s->status & ENGINE_STATUS_ERROR) {
        wrong(e, "the engine stopped: %s", strerror(get(e, ENGINE_ERROR)));
    }
}

static void poll_once(Engine *e)
{
    struct timespec pause = { .tv_nsec = POLL_NS };
    bool came[2];

    nanosleep(&pause, NULL);
    count_interrupts(e, came);
    if (came[ENGINE_VECTOR_BATCH]) {
        take_batch(e);
    }
    if (came[ENGINE_VECTOR_TIMER]) {
        e->seen_tick = get(e, ENGINE_TIMER_SEQ);
        e->shared->ticks++;
    }
    look_at_device(e);
}

/* The engine has stopped: what it has raised must be here in time. */
static void expect_rest(Engine *e)
{
    time_t end = time(NULL) + DEADLINE_S;

    while ((e->acked != get(e, ENGINE_BATCH_NR) ||
            e->seen_tick != get(e, ENGINE_TIMER_SEQ)) && time(NULL) < end) {
        poll_once(e);
    }
    if (e->acked != get(e, ENGINE_RAISED(ENGINE_VECTOR_BATCH))) {
        wrong(e, "%u batch interrupts raised, %u taken",
              get(e, ENGINE_RAISED(ENGINE_VECTOR_BATCH)), e->acked);
    }
    if (e->seen_tick != get(e, ENGINE_TIMER_SEQ)) {
        wrong(e, "timer interrupt %u is missing, %u was the last",
              get(e, ENGINE_TIMER_SEQ), e->seen_tick);
    }
}

static void serve(Engine *e)
{
    put(e, ENGINE_CONTROL, ENGINE_CONTROL_RUN | ENGINE_CONTROL_TIMER);
    while (!e->shared->stop) {
        poll_once(e);
    }
    put(e, ENGINE_CONTROL, 0);
    expect_rest(e);
    check_pages(e, 0, e->pages);
    look_at_device(e);
    e->shared->stopped = 1;
    exit(0);
}

static Shared *open_shared(const char *address, int flags)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/tmp/engine.%s", address);
    fd = open(path, O_RDWR | flags, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(Shared))) {
        die(path);
    }
    return map(fd, sizeof(Shared), 0);
}

/* The device was reset under it, and it would not understand. */
static void end_daemon(const char *address)
{
    struct timespec pause = { .tv_nsec = POLL_NS };
    pid_t daemon = open_shared(address, O_CREAT)->daemon;

    while (daemon && !kill(daemon, SIGKILL)) {
        nanosleep(&pause, NULL);
    }
}

static void start(const char *address, uint64_t memory, uint64_t size,
                  unsigned nr)
{
    Engine e = {
        .address = address, .pages = size / ENGINE_PAGE, .line = lines[nr],
        .seed = memory + nr, .shared = open_shared(address, O_CREAT | O_TRUNC),
    };
    void *at = map(open("/dev/mem", O_RDWR), size, memory);
    bool came[2];

    memset(at, 0, size);
    e.memory = at;
    setup_device(&e);
    put64(&e, ENGINE_BUFFER, memory);
    put64(&e, ENGINE_SIZE, size);
    put64(&e, ENGINE_SEED, e.seed);
    put(&e, ENGINE_RATE, RATE);
    put(&e, ENGINE_BATCH, BATCH);
    put(&e, ENGINE_TIMER_US, TIMER_US);
    e.acked = get(&e, ENGINE_BATCH_NR);
    e.seen_tick = get(&e, ENGINE_TIMER_SEQ);
    count_interrupts(&e, came);
    look_at_device(&e);
    if (fork() == 0) {
        setsid();
        e.shared->daemon = getpid();
        if (!freopen("/dev/null", "r", stdin) ||
            !freopen("/dev/null", "w", stdout) ||
            !freopen("/dev/null", "w", stderr)) {
            exit(1);
        }
        serve(&e);
    }
}

/* --- Asking it --- */

static int report(const Shared *s, bool good)
{
    printf("batches %" PRIu64 " pages %" PRIu64 " ticks %" PRIu64 " kicks %"
           PRIu64 " counter %" PRIu64 " status %#x lost %u waited %u errors %"
           PRIu64 " %s\n", s->batches, s->pages, s->ticks, s->kicks,
           s->counter, s->status, s->lost, s->waited, s->errors, s->first);
    return good && !s->errors && !s->lost ? 0 : 1;
}

static bool wait_for(const Shared *s, uint64_t batches, bool stopped)
{
    struct timespec pause = { .tv_nsec = POLL_NS };
    time_t end = time(NULL) + DEADLINE_S;

    while (s->batches < batches || (stopped && !s->stopped)) {
        if (time(NULL) > end) {
            printf("no progress: ");
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return true;
}

int main(int argc, char **argv)
{
    const char *command = argc > 2 ? argv[1] : "";
    Shared *s;

    if (!strcmp(command, "start") && argc == 6) {
        end_daemon(argv[2]);
        start(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
              argv[5][0] == '1');
        return 0;
    }
    s = *command ? open_shared(argv[2], 0) : NULL;
    if (!strcmp(command, "status")) {
        return report(s, true);
    }
    if (!strcmp(command, "wait") && argc == 4) {
        return report(s, wait_for(s, s->batches + strtoull(argv[3], NULL, 0),
                                  false));
    }
    if (!strcmp(command, "stop")) {
        s->stop = 1;
        return report(s, wait_for(s, 0, true));
    }
    printf("usage: engine start|status|wait|stop ADDRESS ...\n");
    return 2;
}
