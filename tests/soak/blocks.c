/*
 * Soak guest: I/O on a block device, each block of which can be checked
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every block that is written says which block it is, of which device, and
 * how often this half of the device had been written to by then, its
 * generation; the rest of it follows from these (engine_word() of
 * tests/server/engine.h). A table has the generation that each block must have.
 * Blocks are written and read in random runs, past the page cache, by one
 * process for each half of the device; each read is compared.
 *
 *   blocks start NAME DEVICE NR SEED   begin on a device full of zeros
 *   blocks adopt NAME DEVICE NR SEED   the same after the table was lost:
 *                                      each block must be zeros or be itself
 *   blocks resume NAME DEVICE          go on; all blocks are as in the table
 *   blocks wait NAME NR                until each half did so many runs more
 *   blocks stop NAME                   stop, compare all blocks
 *   blocks abandon NAME                stop, as the device is no more
 *
 * The status is not 0 if anything was wrong, and the output says what was
 * first; else it is a line of figures. Its sum is that of the table, to be
 * compared with what the server holds; newest is the last generation of each
 * half that the device has confirmed.
 */

#define _GNU_SOURCE
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

#define BLOCK           ENGINE_PAGE
#define WORDS           (BLOCK / 8)
#define MAX_RUN         16      /* blocks in one read or write */
#define MAX_BLOCKS      8192
#define HALVES          2
#define PAUSE_NS        2000000
#define POLL_NS         10000000
#define DEADLINE_S      100

/* Of a half; written by its process only, but @stop and what was before. */
typedef struct Half {
    volatile uint64_t runs, newest, errors;
    volatile uint32_t stop, stopped;
    volatile pid_t worker;
    uint64_t first, nr;         /* blocks */
    uint64_t random;
    char wrong[200];            /* what was wrong first */
} Half;

typedef struct Shared {
    uint64_t nr, seed;
    char device[64];
    Half half[HALVES];
    uint64_t generation[MAX_BLOCKS];
} Shared;

typedef struct Worker {
    Shared *shared;
    Half *half;
    int fd;
    uint64_t *buffer;
} Worker;

static void die(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void __attribute__((format(printf, 2, 3)))
wrong(Half *h, const char *format, ...)
{
    va_list args;

    if (!h->errors) {
        va_start(args, format);
        vsnprintf(h->wrong, sizeof(h->wrong), format, args);
        va_end(args);
    }
    h->errors++;
}

static void pause_ns(long ns)
{
    struct timespec pause = { .tv_nsec = ns };

    nanosleep(&pause, NULL);
}

/* --- Blocks --- */

static uint64_t word_of(const Shared *s, uint64_t block, uint64_t generation,
                        unsigned i)
{
    return generation ? engine_word(s->seed, block, generation, i) : 0;
}

static bool check_block(Worker *w, const uint64_t *at, uint64_t block,
                        uint64_t generation)
{
    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t want = word_of(w->shared, block, generation, i);

        if (at[i] != want) {
            wrong(w->half, "block %" PRIu64 " generation %" PRIu64 " word %u "
                  "is %#" PRIx64 ", not %#" PRIx64 "; it begins with block %"
                  PRIu64 " generation %" PRIu64, block, generation, i, at[i],
                  want, at[0], at[1]);
            return false;
        }
    }
    return true;
}

static bool transfer(Worker *w, bool write, uint64_t block, unsigned nr)
{
    size_t len = nr * BLOCK;
    ssize_t done = write ? pwrite(w->fd, w->buffer, len, block * BLOCK)
                         : pread(w->fd, w->buffer, len, block * BLOCK);

    if (done != (ssize_t)len) {
        wrong(w->half, "%s of %u blocks from %" PRIu64 " on: %s",
              write ? "writing" : "reading", nr, block,
              done < 0 ? strerror(errno) : "cut short");
        return false;
    }
    return true;
}

static void write_run(Worker *w, uint64_t block, unsigned nr)
{
    Shared *s = w->shared;
    uint64_t generation = w->half->newest;

    for (unsigned b = 0; b < nr; b++) {
        generation++;
        for (unsigned i = 0; i < WORDS; i++) {
            w->buffer[b * WORDS + i] = word_of(s, block + b, generation, i);
        }
        s->generation[block + b] = generation;
    }
    if (transfer(w, true, block, nr)) {
        w->half->newest = generation;
    }
}

static void read_run(Worker *w, uint64_t block, unsigned nr)
{
    memset(w->buffer, 0xa5, nr * BLOCK);
    if (!transfer(w, false, block, nr)) {
        return;
    }
    for (unsigned b = 0; b < nr; b++) {
        if (!check_block(w, w->buffer + b * WORDS, block + b,
                         w->shared->generation[block + b])) {
            return;
        }
    }
}

/* What is there becomes the table, if it can have been written by us. */
static void adopt_run(Worker *w, uint64_t block, unsigned nr)
{
    if (!transfer(w, false, block, nr)) {
        return;
    }
    for (unsigned b = 0; b < nr; b++) {
        const uint64_t *at = w->buffer + b * WORDS;
        uint64_t generation = at[2] == w->shared->seed ? at[1] : 0;

        if (check_block(w, at, block + b, generation)) {
            w->shared->generation[block + b] = generation;
            if (generation > w->half->newest) {
                w->half->newest = generation;
            }
        }
    }
}

static void for_all(Worker *w, void (*fn)(Worker *, uint64_t, unsigned))
{
    uint64_t end = w->half->first + w->half->nr;

    for (uint64_t block = w->half->first; block < end; block += MAX_RUN) {
        fn(w, block, end - block < MAX_RUN ? end - block : MAX_RUN);
    }
}

static uint64_t next_random(Half *h)
{
    h->random += 0x9e3779b97f4a7c15ull;
    return engine_mix(h->random);
}

static void random_run(Worker *w)
{
    Half *h = w->half;
    uint64_t offset = next_random(h) % h->nr;
    unsigned nr = 1 + next_random(h) % MAX_RUN;

    if (nr > h->nr - offset) {
        nr = h->nr - offset;
    }
    if (next_random(h) % 2) {
        write_run(w, h->first + offset, nr);
    } else {
        read_run(w, h->first + offset, nr);
    }
    h->runs++;
}

/* --- Processes --- */

static void serve(Worker *w)
{
    Half *h = w->half;

    while (!h->stop && !h->errors) {
        random_run(w);
        pause_ns(PAUSE_NS);
    }
    if (!h->errors) {
        for_all(w, read_run);
    }
    h->stopped = 1;
    exit(0);
}

static Worker open_half(Shared *s, unsigned i)
{
    Worker w = { .shared = s, .half = &s->half[i] };

    w.fd = open(s->device, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (w.fd < 0) {
        die(s->device);
    }
    w.buffer = mmap(NULL, MAX_RUN * BLOCK, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (w.buffer == MAP_FAILED) {
        die("mmap");
    }
    return w;
}

static void begin(Shared *s, void (*first)(Worker *, uint64_t, unsigned))
{
    for (unsigned i = 0; i < HALVES; i++) {
        Worker w = open_half(s, i);

        w.half->stop = w.half->stopped = 0;
        for_all(&w, first);
        if (fork() == 0) {
            setsid();
            w.half->worker = getpid();
            if (!freopen("/dev/null", "r", stdin) ||
                !freopen("/dev/null", "w", stdout) ||
                !freopen("/dev/null", "w", stderr)) {
                exit(1);
            }
            serve(&w);
        }
        close(w.fd);
    }
}

static Shared *open_shared(const char *name, int flags)
{
    char path[64];
    Shared *s;
    int fd;

    snprintf(path, sizeof(path), "/tmp/blocks.%s", name);
    fd = open(path, O_RDWR | flags, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(Shared))) {
        die(path);
    }
    s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s == MAP_FAILED) {
        die(path);
    }
    close(fd);
    return s;
}

static void set_device(Shared *s, const char *device)
{
    snprintf(s->device, sizeof(s->device), "%s", device);
}

static Shared *create(char **argv)
{
    Shared *s = open_shared(argv[2], O_CREAT | O_TRUNC);

    set_device(s, argv[3]);
    s->nr = strtoull(argv[4], NULL, 0);
    s->seed = strtoull(argv[5], NULL, 0);
    if (s->nr < HALVES || s->nr > MAX_BLOCKS || !s->seed) {
        errno = EINVAL;
        die("number of blocks, or seed");
    }
    for (unsigned i = 0; i < HALVES; i++) {
        s->half[i].first = s->nr / HALVES * i;
        s->half[i].nr = s->nr / HALVES;
        s->half[i].random = s->seed + i;
    }
    return s;
}

/* --- Asking them --- */

static uint64_t sum_of(const Shared *s)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < s->nr; i++) {
        sum = engine_mix(sum + s->generation[i] + 1);
    }
    return sum;
}

static int report(const Shared *s, bool good)
{
    for (unsigned i = 0; i < HALVES; i++) {
        const Half *h = &s->half[i];

        printf("half %u runs %" PRIu64 " newest %" PRIu64 " errors %" PRIu64
               " %s\n", i, h->runs, h->newest, h->errors, h->wrong);
        good = good && !h->errors;
    }
    printf("sum %#" PRIx64 "\n", sum_of(s));
    return good ? 0 : 1;
}

static bool wait_for(const Half *h, uint64_t runs, bool stopped)
{
    time_t end = time(NULL) + DEADLINE_S;

    while ((stopped ? !h->stopped : h->runs < runs) && !h->errors) {
        if (time(NULL) > end) {
            printf("no progress: ");
            return false;
        }
        pause_ns(POLL_NS);
    }
    return true;
}

static bool wait_all(const Shared *s, uint64_t more, bool stopped)
{
    uint64_t runs[HALVES];
    bool good = true;

    for (unsigned i = 0; i < HALVES; i++) {
        runs[i] = s->half[i].runs + more;
    }
    for (unsigned i = 0; i < HALVES; i++) {
        good = wait_for(&s->half[i], runs[i], stopped) && good;
    }
    return good;
}

static void tell_to_stop(Shared *s)
{
    for (unsigned i = 0; i < HALVES; i++) {
        s->half[i].stop = 1;
    }
}

static void abandon(const Shared *s)
{
    for (unsigned i = 0; i < HALVES; i++) {
        if (s->half[i].worker) {
            kill(s->half[i].worker, SIGKILL);
        }
    }
}

int main(int argc, char **argv)
{
    const char *command = argc > 2 ? argv[1] : "";
    Shared *s;

    if (argc == 6 && !strcmp(command, "start")) {
        s = create(argv);
        begin(s, read_run);
        return report(s, true);
    }
    if (argc == 6 && !strcmp(command, "adopt")) {
        s = create(argv);
        begin(s, adopt_run);
        return report(s, true);
    }
    s = *command ? open_shared(argv[2], 0) : NULL;
    if (argc == 4 && !strcmp(command, "resume")) {
        set_device(s, argv[3]);
        begin(s, read_run);
        return report(s, true);
    }
    if (argc == 4 && !strcmp(command, "wait")) {
        return report(s, wait_all(s, strtoull(argv[3], NULL, 0), false));
    }
    if (argc == 3 && !strcmp(command, "stop")) {
        tell_to_stop(s);
        return report(s, wait_all(s, 0, true));
    }
    if (argc == 3 && !strcmp(command, "abandon")) {
        abandon(s);
        return 0;
    }
    printf("usage: blocks start|adopt|resume|wait|stop|abandon NAME ...\n");
    return 2;
}
