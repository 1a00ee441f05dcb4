/*
 * vfio-user test server: self test of the script and of the program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "script.h"
#include "selftest.h"
#include "server-migration.h"

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
    assert_script_fails("migration pgsize=5000", "no page size: '5000'");
    assert_script_fails("migration-fail refuse at=arc", "no migration line");
    assert_script_fails("migration-fail sulk at=arc", "choice: 'sulk'");
    assert_script_fails("migration-fail hang at=noon", "choice: 'noon'");
    assert_script_fails("migration-fail hang at=arc to=bed", "state: 'bed'");
    assert_script_fails("migration-lie white", "no such lie 'white'");
    assert_script_fails("engine pages=0", "no number of pages: '0'");
    assert_script_fails("no-features errno=EGG", "not a number 'EGG'");
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

static void setup_migration_lines(TestServer *s)
{
    static const char *const lines[] = {
        "engine pages=7 rate=1234",
        "migration size=3K p2p precopy=5000 per-read=100 max-read=512 "
        "logging pgsize=64K data-size",
        "migration-fail refuse at=arc from=running to=running-p2p "
        "errno=EBUSY times=1",
        "migration-fail error at=read byte=1000 errno=28",
        "migration-lie start-page-zero skip=1",
        NULL
    };

    run_script(s, lines);
}

void test_script_migration(void)
{
    Fixture *f = fixture_bare(setup_migration_lines, false);
    uint32_t word;
    uint64_t page;

    g_assert_cmpint(rc_read(f->c, 7, 0, &word, 4), ==, 0);
    g_assert_cmphex(word, ==, 0x56791234);
    g_assert_cmpint(rc_read(f->c, 0, ENGINE_BATCH, &word, 4), ==, 0);
    g_assert_cmpint(word, ==, 7);
    g_assert_cmpint(rc_read(f->c, 0, ENGINE_RATE, &word, 4), ==, 0);
    g_assert_cmpint(word, ==, 1234);
    g_assert_cmpint(rc_feature(f->c, 1 | 1 << 16, NULL, 0, 16), ==, 0);
    g_assert_cmpint(f->c->payload[8], ==, 7);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    memcpy(&page, f->c->payload + 8, 8);
    g_assert_cmpint(page, ==, 0x10000);
    g_assert_cmpint(rc_log_stop(f->c), ==, 0);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    memcpy(&page, f->c->payload + 8, 8);
    g_assert_cmpint(page, ==, 0);
    g_assert_cmpint(rc_set_state(f->c, VFIO_USER_MIG_STOP), ==, EBUSY);
    g_assert_cmpint(rc_set_state(f->c, VFIO_USER_MIG_PRE_COPY), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 512);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 1000 - 512);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, -ENOSPC);
    g_assert_cmpint(rc_get_state(f->c), ==, VFIO_USER_MIG_ERROR);
    fixture_free(f);
}

static void setup_like_libvfio_user(TestServer *s)
{
    static const char *const lines[] = {
        "standard", "like-libvfio-user", "migration size=3K", NULL
    };

    run_script(s, lines);
}

void test_script_like_libvfio_user(void)
{
    Fixture *f = fixture_bare(setup_like_libvfio_user, false);

    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmpint(rc_set_state(f->c, VFIO_USER_MIG_STOP), ==, 0);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, EINVAL);
    fixture_free(f);
}

typedef struct Program {
    char *dir, *path;
    GPid pid;
    int out;
} Program;

/* False, and a skip, where there is no program. */
static bool program_start(Program *p, const char *const *lines)
{
    const char *program = getenv("TEST_SERVER_PROGRAM");
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    char said[8];

    if (!program) {
        g_test_skip("TEST_SERVER_PROGRAM does not name the program");
        return false;
    }
    p->dir = g_dir_make_tmp("ts-XXXXXX", NULL);
    p->path = g_build_filename(p->dir, "sock", NULL);
    g_ptr_array_add(argv, (char *)program);
    g_ptr_array_add(argv, (char *)"--socket-path");
    g_ptr_array_add(argv, p->path);
    for (; *lines; lines++) {
        g_ptr_array_add(argv, (char *)"--set");
        g_ptr_array_add(argv, (char *)*lines);
    }
    g_ptr_array_add(argv, NULL);
    g_assert(g_spawn_async_with_pipes(NULL, (char **)argv->pdata, NULL,
                                      G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                                      &p->pid, NULL, &p->out, NULL, NULL));
    g_assert_cmpint(read(p->out, said, sizeof(said)), ==, 8);
    g_assert(!memcmp(said, "serving\n", 8));
    return true;
}

/* Waits for its end and expects @code, and nothing more said. */
static void program_end(Program *p, int code)
{
    int status;
    char more;

    g_assert_cmpint(waitpid(p->pid, &status, 0), ==, p->pid);
    g_assert(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, code);
    g_assert_cmpint(read(p->out, &more, 1), ==, 0);
    close(p->out);
    g_assert_cmpint(rmdir(p->dir), ==, 0);
    g_free(p->dir);
    g_free(p->path);
}

/* The program: it says when it serves, and SIGTERM is its end. */
void test_program(void)
{
    static const char *const lines[] = {
        "standard", "limits max_msg_fds=5", NULL,
    };
    RawClient *c;
    Program p;

    if (!program_start(&p, lines)) {
        return;
    }
    c = rc_connect(p.path);
    g_assert_cmpint(rc_negotiate(c, NULL, false), ==, 0);
    g_assert(strstr((char *)c->payload + 4, "\"max_msg_fds\": 5"));
    kill(p.pid, SIGTERM);
    g_assert(!rc_receive(c));
    program_end(&p, 0);
    rc_free(c);
}

/* A server that dies in the middle of its stream leaves its socket behind. */
void test_program_exits(void)
{
    static const char *const lines[] = {
        "standard", "migration size=10K",
        "migration-fail exit at=read byte=5000", NULL,
    };
    RawClient *c;
    Program p;

    if (!program_start(&p, lines)) {
        return;
    }
    c = rc_connect(p.path);
    g_assert_cmpint(rc_negotiate(c, NULL, false), ==, 0);
    g_assert_cmpint(rc_set_state(c, VFIO_USER_MIG_STOP_COPY), ==, 0);
    g_assert_cmpint(rc_mig_read(c, 8192), ==, 5000);
    g_assert_cmpint(rc_mig_read(c, 8192), ==, -EPROTO);
    g_assert_cmpint(unlink(p.path), ==, 0);
    program_end(&p, 1);
    rc_free(c);
}
