/*
 * vfio-user test server: self test of the script and of the program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "script.h"
#include "selftest.h"

static void assert_script_fails(const char *line, const char *what)
{
    TestServer *s = ts_new();
    g_autofree char *error = script_line(s, line);

    if (!error || !strstr(error, what)) {
        g_error("'%s' gives '%s', not '%s'", line, error ?: "success", what);
    }
    ts_free(s);
}

void test_script_errors(void)
{
    assert_script_fails("colour red", "no such directive 'colour'");
    assert_script_fails("bar 6 size=4K", "no number in range '6'");
    assert_script_fails("bar 0 size=5000", "power of two in range '5000'");
    assert_script_fails("bar 0 size=4K area=12", "not a pair '12'");
    assert_script_fails("msi 3", "3");
    assert_script_fails("msix 4 table=0:0", "not a number ''");
    assert_script_fails("irqs 1 mask=perhaps", "perhaps");
    assert_script_fails("limits max_msg_fds=eight", "not a number 'eight'");
    assert_script_fails("mischief kindness", "kindness");
    assert_script_fails("rom size=4K file=/nonexistent", "/nonexistent");
}

static void run_script(TestServer *s, const char *const *lines)
{
    for (; *lines; lines++) {
        g_autofree char *error = script_line(s, *lines);

        g_assert_cmpstr(error, ==, NULL);
    }
}

static void setup_script(TestServer *s)
{
    static const char *const lines[] = {
        "id vendor=0x1af4 device=0x10ff class=0x010802  # a comment",
        "", "# only a comment",
        "bar 0 size=64K 64 prefetch area=0x1000+4K",
        "region 9 size=1M mmap type=0x80000001:2",
        "msix 8 table=5:0 pba=5:2K",
        "irqs 1 count=2 mask=keep",
        "limits max_msg_fds=3 no_twin_socket",
        NULL
    };

    run_script(s, lines);
}

void test_script(void)
{
    Fixture *f = fixture_negotiated(setup_script, true);
    struct vfio_user_region_info info = { .argsz = 4096, .index = 9 };
    uint32_t word;

    g_assert_cmpint(f->c->twin_fd, ==, -1);
    g_assert_cmpint(rc_read(f->c, 7, 0, &word, 4), ==, 0);
    g_assert_cmphex(word, ==, 0x10ff1af4);
    g_assert_cmpint(rc_read(f->c, 7, 0x10, &word, 4), ==, 0);
    g_assert_cmphex(word, ==, 0xc);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_REGION_INFO, &info,
                            sizeof(info)), ==, 0);
    g_assert_cmpint(f->c->len, ==, 32 + 16);
    memcpy(&word, f->c->payload + 40, 4);
    g_assert_cmphex(word, ==, 0x80000001);
    g_assert(ts_irq_masked(f->s, 1, 1));
    fixture_free(f);
}

/* The program: it says when it serves, and SIGTERM is its end. */
void test_program(void)
{
    const char *program = getenv("TEST_SERVER_PROGRAM");
    g_autofree char *dir = g_dir_make_tmp("ts-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "sock", NULL);
    const char *const argv[] = {
        program, "--socket-path", path, "--set", "standard", "--set",
        "limits max_msg_fds=5", NULL,
    };
    char line[8];
    RawClient *c;
    int out, status;
    GPid pid;

    if (!program) {
        g_test_skip("TEST_SERVER_PROGRAM does not name the program");
        rmdir(dir);
        return;
    }
    g_assert(g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                      G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                                      &pid, NULL, &out, NULL, NULL));
    g_assert_cmpint(read(out, line, sizeof(line)), ==, 8);
    g_assert(!memcmp(line, "serving\n", 8));
    c = rc_connect(path);
    g_assert_cmpint(rc_negotiate(c, NULL, false), ==, 0);
    g_assert(strstr((char *)c->payload + 4, "\"max_msg_fds\": 5"));
    kill(pid, SIGTERM);
    g_assert(!rc_receive(c));
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
    g_assert(access(path, F_OK) != 0);
    rc_free(c);
    close(out);
    rmdir(dir);
}
