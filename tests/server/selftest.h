/*
 * vfio-user test server: self test, what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SERVER_SELFTEST_H
#define TESTS_SERVER_SELFTEST_H

#include "rawclient.h"
#include "server.h"

typedef struct Fixture {
    char *dir, *path;
    TestServer *s;
    RawClient *c;
} Fixture;

/* A standard device with @setup applied, and a client that is connected. */
Fixture *fixture_new(void (*setup)(TestServer *s));
/* The same after VERSION. */
Fixture *fixture_negotiated(void (*setup)(TestServer *s), bool twin);
void fixture_free(Fixture *f);

void test_script(void);
void test_script_errors(void);
void test_program(void);

#endif /* TESTS_SERVER_SELFTEST_H */
