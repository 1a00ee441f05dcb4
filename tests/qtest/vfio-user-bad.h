/*
 * vfio-user qtest: one QEMU for many bad servers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU has a device with a good server, at VUT_SLOT. Each test plugs another
 * one at BAD_SLOT, whose server is bad, and unplugs it; between bad_begin() and
 * bad_end() nothing may get lost.
 */

#ifndef TESTS_QTEST_VFIO_USER_BAD_H
#define TESTS_QTEST_VFIO_USER_BAD_H

#include "vfio-user-util.h"

#define BAD_SLOT        5
#define BAD_ID          "bad"
/* Long enough for a loaded machine, short enough to wait for. */
#define BAD_IMPATIENT_MS    1000
#define BAD_PATIENT_MS      VUT_TIMEOUT_MS
/* What one server may make QEMU use at most, and leave behind, in KiB. */
#define BAD_PEAK_KIB        (8 * 1024)
#define BAD_LEFT_KIB        (4 * 1024)

/**
 * BadTest: one bad server
 * @t: the QEMU, which is shared by all tests
 * @s: the server; described, but not started yet
 * @dev, @bar: the device and its BAR0, after bad_map()
 */
typedef struct BadTest {
    VUTest *t;
    TestServer *s;
    QPCIDevice *dev;
    QPCIBar bar;
    unsigned fds;
    unsigned long rss;
    size_t log;
} BadTest;

/* A standard device's server, and the state of things before. */
void bad_begin(BadTest *b);
/*
 * The monitor answers, the other device works, no descriptor and no memory
 * is left behind; frees the server.
 */
void bad_end(BadTest *b);
/* The good device works; its BAR0 is at the same address each time. */
void bad_check_other(BadTest *b);
/* Starts the server and plugs its device; NULL or the error, to be freed. */
char *bad_add(BadTest *b, unsigned timeout_ms);
/* Finds the device and maps BAR0; also after a reset. */
void bad_map(BadTest *b);
void bad_del(BadTest *b);
/* Memory that the servers know of changes, there and back. */
void bad_switch_memory(BadTest *b);
/* What QEMU wrote since bad_begin(); to be freed. */
char *bad_log(BadTest *b);
/* Waits until that matches; "*" stands for anything, also at both ends. */
void bad_wait_log(BadTest *b, const char *pattern);
bool bad_matches(const char *text, const char *pattern);
/* The device was lost for a reason like @says: one report, all-ones. */
void bad_check_lost(BadTest *b, const char *says);
/* It holds what is written to it. */
void bad_check_works(BadTest *b, uint32_t value);

/* As vut_add_data_test(), with the shared QEMU started before. */
void bad_add_test(const char *path, const void *data,
                  void (*fn)(const void *data));

void bad_register_run(void);
void bad_register_die(void);

#endif /* TESTS_QTEST_VFIO_USER_BAD_H */
