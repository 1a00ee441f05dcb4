/*
 * vfio-user qtest: a server, a QEMU, and the device between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VFIO_USER_UTIL_H
#define TESTS_QTEST_VFIO_USER_UTIL_H

#include "libqtest.h"
#include "libqos/pci.h"
#include "../server/server.h"

#define VUT_SLOT        4
#define VUT_ID          "vu0"
#define VUT_TIMEOUT_MS  10000

/**
 * VUTOptions: what a test wants beside a standard device on a pc
 * @machine: "pc" if NULL
 * @args: more arguments for QEMU; the socket's directory replaces each %s
 * @device: more properties of the device, beginning with a comma
 * @setup: shapes the server after it became the standard device
 * @shared_ram: 128 MiB in a memfd instead of private memory
 * @no_device: QEMU starts without the device
 * @bare: the server is not made the standard device
 * @stderr_file: QEMU's stderr goes to a file, for vut_stderr()
 */
typedef struct VUTOptions {
    const char *machine;
    const char *args;
    const char *device;
    void (*setup)(TestServer *s);
    bool shared_ram;
    bool no_device;
    bool bare;
    bool stderr_file;
} VUTOptions;

typedef struct VUTest {
    TestServer *s;
    char *dir;
    char *path;
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *dev;    /* NULL with no_device */
} VUTest;

VUTest *vut_new(const VUTOptions *options);
/* QEMU must end well, and the server must see its client go. */
void vut_free(VUTest *t);

/* A standard device's server at @dir/@name, with @setup applied. */
TestServer *vut_server(const char *dir, const char *name,
                       void (*setup)(TestServer *s));

/*
 * For VUTOptions: every BAR of the standard device by message, BAR1 4 KiB and
 * prefetchable. Only such a device's writes are posted.
 */
void vut_setup_unmapped(TestServer *s);

/* What QEMU wrote to stderr so far; freed by the caller. */
char *vut_stderr(VUTest *t);
/* Waits until stderr has @text. */
void vut_wait_stderr(VUTest *t, const char *text);
/* How often @needle stands in @text. */
unsigned vut_occurrences(const char *text, const char *needle);

/* device_add of a vfio-user-pci; NULL, or the error's text (to be freed). */
char *vut_add(VUTest *t, const char *id, const char *socket,
              unsigned timeout_ms);
/* device_del, and the guest's consent through ACPI, on a pc. */
void vut_del(VUTest *t, const char *id, unsigned slot);
/* The same by way of a reset, on any machine. */
void vut_del_by_reset(VUTest *t, const char *id);
/* The PCI device at @slot of bus 0, found again. */
void vut_find(VUTest *t, unsigned slot);

/* A BAR of an enabled device; and a write of 1, 2, 4 or 8 bytes to it. */
QPCIBar vut_map_bar(VUTest *t, unsigned bar);
void vut_bar_write(VUTest *t, QPCIBar bar, uint64_t off, unsigned size,
                   uint64_t value);

/* DMA windows that the server was not told of, and their bytes. */
uint64_t vut_nr_refused(VUTest *t, uint64_t *bytes);

/* Where a test may put the memory (1 MiB) of ivshmem device @i of a pc. */
static inline uint64_t vut_shm_address(unsigned i)
{
    return 0xf0000000 + i * 0x100000ull;
}

/* Waits for an event, also for one of those of which one is sent a second. */
void vut_wait_event(VUTest *t, const char *name);

/* Everything that QEMU sent the server before has been handled. */
void vut_flush(VUTest *t);

/*
 * QEMU has waited for the server with the BQL only for what it may, and no longer.
 * Part of vut_free(); before an unplug it is the last chance for that device.
 */
void vut_check_lock_waits(VUTest *t);

unsigned vut_nr_fds(pid_t pid);
/* Waits until QEMU has @nr fds: some go through RCU. */
void vut_wait_nr_fds(VUTest *t, unsigned nr);
/* The same where @nr was counted too early and may have some of these in it. */
void vut_wait_max_fds(VUTest *t, unsigned nr);
/* Resident private memory of a process, in KiB. */
unsigned long vut_private_kib(pid_t pid);

/*
 * QEMU's memory grew by no more than this, in KiB.  With AddressSanitizer it
 * is only told: its allocator hands pages of its own to each thread and keeps
 * what was freed, while its leak checker sees each lost byte when QEMU exits.
 */
void vut_check_growth(unsigned long before, unsigned long after,
                      unsigned long most);

/* Evaluates until true, with a deadline. */
#define VUT_WAIT(expr)                                                  \
    do {                                                                \
        int64_t end_ = g_get_monotonic_time() + VUT_TIMEOUT_MS * 1000;  \
        while (!(expr)) {                                               \
            if (g_get_monotonic_time() > end_) {                        \
                g_error("%s:%d: waited in vain for: %s", __FILE__,      \
                        __LINE__, #expr);                               \
            }                                                           \
            g_usleep(500);                                              \
        }                                                               \
    } while (0)

/* Adds a test that runs between two counts of our own fds. */
void vut_add_test(const char *path, void (*fn)(void));
void vut_add_data_test(const char *path, const void *data,
                       void (*fn)(const void *data));

void vut_register_connect(void);
void vut_register_socket(void);
void vut_register_realize(void);
void vut_register_region(void);
void vut_register_dma(void);
void vut_register_irq(void);
void vut_register_ioeventfd(void);
void vut_register_odd(void);
void vut_register_options(void);
void vut_register_plug(void);
void vut_register_slow(void);
void vut_register_errors(void);
void vut_register_many(void);
void vut_register_monitor(void);
void vut_register_room(void);
void vut_register_peer(void);
void vut_register_iommu(void);
void vut_register_bad(void);
/* After the tests: ends the QEMU that they shared. */
void vut_finish_bad(void);

#endif /* TESTS_QTEST_VFIO_USER_UTIL_H */
