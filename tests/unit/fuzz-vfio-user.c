/*
 * vfio-user: the program behind the fuzzing targets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In a build configured for fuzzing main() is libFuzzer's and --target=NAME
 * says which target it drives; otherwise this is a test that runs the corpus.
 * It lies here since QEMU looks for a test's source in this directory; the
 * targets are in tests/fuzz.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "../fuzz/fuzz.h"

/* Descriptors that are looked at; one execution has far fewer. */
#define FUZZ_MAX_FDS    256

static const FuzzTarget fuzz_targets[] = {
    { "wire", fuzz_wire },
    { "caps", fuzz_caps },
    { "config", fuzz_config },
    { "conn", fuzz_conn },
    { "device", fuzz_device },
};

/* Input -------------------------------------------------------------------- */

void fuzz_take(FuzzInput *in, void *to, size_t len)
{
    size_t n = MIN(len, in->len);

    if (n) {
        memcpy(to, in->data, n);
    }
    memset((uint8_t *)to + n, 0, len - n);
    in->data += n;
    in->len -= n;
}

uint8_t fuzz_u8(FuzzInput *in)
{
    uint8_t v;

    fuzz_take(in, &v, sizeof(v));
    return v;
}

uint16_t fuzz_u16(FuzzInput *in)
{
    uint16_t v;

    fuzz_take(in, &v, sizeof(v));
    return v;
}

uint32_t fuzz_u32(FuzzInput *in)
{
    uint32_t v;

    fuzz_take(in, &v, sizeof(v));
    return v;
}

uint64_t fuzz_u64(FuzzInput *in)
{
    uint64_t v;

    fuzz_take(in, &v, sizeof(v));
    return v;
}

uint8_t *fuzz_bytes(FuzzInput *in, size_t *len)
{
    uint8_t *bytes;

    *len = MIN(*len, in->len);
    /* malloc(): one byte at least, so never NULL */
    bytes = g_malloc(MAX(*len, 1));
    fuzz_take(in, bytes, *len);
    return bytes;
}

uint8_t *fuzz_rest(FuzzInput *in, size_t *len)
{
    *len = in->len;
    return fuzz_bytes(in, len);
}

void fuzz_check_error(bool ok, Error *err)
{
    g_assert_true(ok == !err);
    g_assert_true(ok || *error_get_pretty(err));
    error_free(err);
}

/* One execution ------------------------------------------------------------ */

static void fuzz_list_fds(bool open[FUZZ_MAX_FDS])
{
    for (int fd = 0; fd < FUZZ_MAX_FDS; fd++) {
        open[fd] = fcntl(fd, F_GETFD) >= 0;
    }
}

static void fuzz_run(const FuzzTarget *target, const uint8_t *data, size_t len)
{
    FuzzInput in = { .data = data, .len = len };
    bool before[FUZZ_MAX_FDS], after[FUZZ_MAX_FDS];

    fuzz_list_fds(before);
    target->run(&in);
    fuzz_list_fds(after);
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
}

static void fuzz_init(void)
{
    sigset_t set;

    g_assert_true(qemu_init_main_loop(NULL) == 0);
    /* QEMU wants these for its signalfd; here they interrupt and time out. */
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

#ifdef CONFIG_FUZZ

static const FuzzTarget *fuzz_target;

static const FuzzTarget *fuzz_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(fuzz_targets); i++) {
        if (g_str_equal(fuzz_targets[i].name, name)) {
            return &fuzz_targets[i];
        }
    }
    return NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (int i = 1; i < *argc; i++) {
        if (g_str_has_prefix((*argv)[i], "--target=")) {
            fuzz_target = fuzz_find((*argv)[i] + strlen("--target="));
        }
    }
    if (!fuzz_target) {
        fprintf(stderr, "usage: %s --target=NAME [libFuzzer's options]\n"
                "targets:", (*argv)[0]);
        for (size_t i = 0; i < ARRAY_SIZE(fuzz_targets); i++) {
            fprintf(stderr, " %s", fuzz_targets[i].name);
        }
        fprintf(stderr, "\n");
        exit(1);
    }
    fuzz_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_run(fuzz_target, data, len);
    return 0;
}

#else

static void fuzz_replay_file(const FuzzTarget *target, const char *path)
{
    g_autofree char *data = NULL;
    gsize len;

    /* What a failure has to name; nothing else tells which input it was. */
    g_test_message("%s", path);
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    fuzz_run(target, (const uint8_t *)data, len);
}

static void fuzz_replay(const void *opaque)
{
    const FuzzTarget *target = opaque;
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "corpus",
                                                  target->name, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned nr = 0;
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        fuzz_replay_file(target, file);
        nr++;
    }
    g_assert_cmpint(nr, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fuzz_init();
    for (size_t i = 0; i < ARRAY_SIZE(fuzz_targets); i++) {
        g_autofree char *path = g_strdup_printf("/vfio-user/fuzz/%s",
                                                fuzz_targets[i].name);

        g_test_add_data_func(path, &fuzz_targets[i],
                             fuzz_replay);
    }
    return g_test_run();
}

#endif /* CONFIG_FUZZ */
