/*
 * vfio-user: how many lines the log gets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/ratelimit.h"

static void test_counts(void)
{
    VFIOUserLimit limit = { };
    unsigned left = 1, s;

    for (unsigned i = 0; i < 4; i++) {
        g_assert_true(vfio_user_limit_allows(&limit, 5000 + i, &left, &s));
        g_assert_cmpint(left, ==, 0);
    }
    for (unsigned i = 0; i < 26048; i++) {
        g_assert_false(vfio_user_limit_allows(&limit, 6000 + i % 9000, &left,
                                              &s));
    }
    g_assert_false(vfio_user_limit_allows(&limit, 14999, &left, &s));
    g_assert_true(vfio_user_limit_allows(&limit, 15000, &left, &s));
    g_assert_cmpint(left, ==, 26049);
    g_assert_cmpint(s, ==, 9);
    g_assert_true(vfio_user_limit_allows(&limit, 15001, &left, &s));
    g_assert_cmpint(left, ==, 0);
}

/* One now and then is not left out. */
static void test_rare(void)
{
    VFIOUserLimit limit = { };
    unsigned left, s;

    for (unsigned i = 0; i < 100; i++) {
        g_assert_true(vfio_user_limit_allows(&limit, i * 3000, &left, &s));
        g_assert_cmpint(left, ==, 0);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/ratelimit/counts", test_counts);
    g_test_add_func("/vfio-user/ratelimit/rare", test_rare);
    return g_test_run();
}
