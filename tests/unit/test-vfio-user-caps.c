/*
 * vfio-user: capabilities in VERSION
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <malloc.h>
#include "qemu/units.h"
#include "qapi/error.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "hw/vfio-user/caps.h"

/* u16 major, u16 minor, then @text and its NUL */
static uint8_t *reply(uint16_t major, uint16_t minor, const char *text,
                      size_t *len)
{
    size_t n = text ? strlen(text) + 1 : 0;
    uint8_t *r = g_malloc(4 + n);

    memcpy(r, &major, 2);
    memcpy(r + 2, &minor, 2);
    if (n) {
        memcpy(r + 4, text, n);
    }
    *len = 4 + n;
    return r;
}

static bool parse(const char *caps, size_t nr_fds, VFIOUserCaps *out,
                  Error **errp)
{
    g_autofree char *text = g_strdup_printf("{\"capabilities\":%s}", caps);
    g_autofree uint8_t *r = NULL;
    size_t len;

    r = reply(0, 2, text, &len);
    return vfio_user_caps_parse(r, len, nr_fds, out, errp);
}

static void expect_refused(bool ok, Error *err, const char *text)
{
    g_assert_false(ok);
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), text)) {
        g_test_message("'%s' not in '%s'", text, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

static void test_request(void)
{
    size_t len;
    g_autofree char *r = vfio_user_caps_request(&len);
    g_autoptr(QDict) root = NULL;
    QDict *caps, *twin;
    QObject *obj;

    g_assert_cmpuint(len, >, 5);
    g_assert_cmpint(memcmp(r, "\0\0\2\0", 4), ==, 0);
    g_assert_cmpint(r[len - 1], ==, 0);
    g_assert_cmpuint(strlen(r + 4), ==, len - 5);

    obj = qobject_from_json(r + 4, &error_abort);
    root = qobject_to(QDict, obj);
    g_assert_nonnull(root);
    caps = qdict_get_qdict(root, "capabilities");
    g_assert_nonnull(caps);
    g_assert_cmpint(qdict_get_int(caps, "max_msg_fds"), ==, 16);
    g_assert_cmpint(qdict_get_int(caps, "max_data_xfer_size"), ==, 1048576);
    g_assert_cmpint(qdict_get_int(caps, "max_dma_maps"), ==, 65535);
    g_assert_cmpint(qdict_get_int(caps, "pgsizes"), ==, 4096);
    g_assert_true(qdict_get_bool(caps, "write_multiple"));
    twin = qdict_get_qdict(caps, "twin_socket");
    g_assert_nonnull(twin);
    g_assert_true(qdict_get_bool(twin, "supported"));
    g_assert_false(qdict_haskey(twin, "fd_index"));
}

static void check_defaults(const VFIOUserCaps *caps)
{
    g_assert_cmpuint(caps->max_msg_fds, ==, 1);
    g_assert_cmpuint(caps->max_data_xfer_size, ==, 1048576);
    g_assert_cmpuint(caps->max_dma_maps, ==, 65535);
    g_assert_cmpuint(caps->pgsizes, ==, 4096);
    g_assert_false(caps->twin_socket);
    g_assert_false(caps->write_multiple);
    g_assert_false(caps->has_migration);
}

static void test_defaults(void)
{
    static const char *const texts[] = {
        NULL, "{}", "{\"capabilities\":{}}", " {\"something\": [1]} ",
        "{\"capabilities\":{\"no_such_key\":{\"a\":[null,1e9,\"x\"]}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
        "{\"capabilities\":{\"twin_socket\":{}}}",
        "{\"capabilities\":{\"write_multiple\":false}}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        VFIOUserCaps caps;
        size_t len;
        g_autofree uint8_t *r = reply(0, 1, texts[i], &len);

        g_assert_true(vfio_user_caps_parse(r, len, 0, &caps, &error_abort));
        g_assert_cmpuint(caps.major, ==, 0);
        g_assert_cmpuint(caps.minor, ==, 1);
        check_defaults(&caps);
    }
}

/* As libvfio-user and its clients put it. */
static void test_full(void)
{
    VFIOUserCaps caps;

    g_assert_true(parse("{\"max_msg_fds\":8,\"max_data_xfer_size\":65536,"
                        "\"max_dma_maps\":16,\"pgsizes\":2101248,"
                        "\"write_multiple\":true,"
                        "\"twin_socket\":{\"supported\":true,\"fd_index\":1},"
                        "\"migration\":{\"pgsize\":4096,"
                        "\"max_bitmap_size\":16777216}}",
                        2, &caps, &error_abort));
    g_assert_cmpuint(caps.minor, ==, 2);
    g_assert_cmpuint(caps.max_msg_fds, ==, 8);
    g_assert_cmpuint(caps.max_data_xfer_size, ==, 65536);
    g_assert_cmpuint(caps.max_dma_maps, ==, 16);
    g_assert_cmphex(caps.pgsizes, ==, 0x201000);
    g_assert_true(caps.write_multiple);
    g_assert_true(caps.twin_socket);
    g_assert_cmpuint(caps.twin_fd_index, ==, 1);
    g_assert_true(caps.has_migration);
    g_assert_cmpuint(caps.migration_pgsize, ==, 4096);
    g_assert_cmpuint(caps.migration_max_bitmap_size, ==, 16777216);
}

static void test_limits(void)
{
    static const struct {
        const char *key;
        size_t field;
        const char *in;
        uint64_t out;
        bool refused;
    } t[] = {
#define F(name) #name, offsetof(VFIOUserCaps, name)
        { F(max_msg_fds), "0", 0 },
        { F(max_msg_fds), "16", 16 },
        { F(max_msg_fds), "17", 16 },
        { F(max_msg_fds), "18446744073709551615", 16 },
        { F(max_data_xfer_size), "8", 8 },
        { F(max_data_xfer_size), "7", 0, true },
        { F(max_data_xfer_size), "0", 0, true },
        { F(max_data_xfer_size), "1048577", 1048576 },
        { F(max_data_xfer_size), "18446744073709551615", 1048576 },
        { F(max_dma_maps), "1", 1 },
        { F(max_dma_maps), "0", 0, true },
        { F(max_dma_maps), "65536", 65535 },
        { F(pgsizes), "1", 1 },
        { F(pgsizes), "18446744073709551615", UINT64_MAX },
        { F(pgsizes), "0", 0, true },
#undef F
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        g_autofree char *text = g_strdup_printf("{\"%s\":%s}", t[i].key,
                                                t[i].in);
        VFIOUserCaps caps;
        Error *err = NULL;
        bool ok = parse(text, 0, &caps, &err);

        if (t[i].refused) {
            expect_refused(ok, err, t[i].key);
        } else {
            g_assert_true(ok);
            g_assert_cmpuint(*(uint64_t *)((char *)&caps + t[i].field), ==,
                             t[i].out);
        }
    }
}

/* Refused, with a message that names the key. */
static void test_wrong_type(void)
{
    static const struct {
        const char *text, *key;
    } t[] = {
        { "{\"max_msg_fds\":\"8\"}", "max_msg_fds" },
        { "{\"max_msg_fds\":-1}", "max_msg_fds" },
        { "{\"max_msg_fds\":1.5}", "max_msg_fds" },
        { "{\"max_msg_fds\":1e300}", "max_msg_fds" },
        { "{\"max_msg_fds\":null}", "max_msg_fds" },
        { "{\"max_data_xfer_size\":true}", "max_data_xfer_size" },
        { "{\"max_data_xfer_size\":18446744073709551616}",
          "max_data_xfer_size" },
        { "{\"max_dma_maps\":[1]}", "max_dma_maps" },
        { "{\"pgsizes\":{}}", "pgsizes" },
        { "{\"write_multiple\":1}", "write_multiple" },
        { "{\"write_multiple\":\"true\"}", "write_multiple" },
        { "{\"twin_socket\":true}", "twin_socket" },
        { "{\"twin_socket\":{\"supported\":1}}", "supported" },
        { "{\"twin_socket\":{\"supported\":true,\"fd_index\":\"0\"}}",
          "fd_index" },
        { "{\"migration\":1}", "migration" },
        { "{\"migration\":{\"pgsize\":\"4k\"}}", "pgsize" },
        { "{\"migration\":{\"max_bitmap_size\":-1}}", "max_bitmap_size" },
        { "[]", "capabilities" },
        { "\"none\"", "capabilities" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserCaps caps;
        Error *err = NULL;
        bool ok = parse(t[i].text, 1, &caps, &err);

        expect_refused(ok, err, t[i].key);
    }
}

static void test_twin(void)
{
    static const struct {
        const char *index;
        size_t nr_fds;
        bool ok;
    } t[] = {
        { ",\"fd_index\":0", 1, true },
        { ",\"fd_index\":3", 4, true },
        { ",\"fd_index\":0", 0, false },
        { ",\"fd_index\":1", 1, false },
        { ",\"fd_index\":4294967296", 1, false },
        { ",\"fd_index\":18446744073709551615", 1, false },
        { "", 1, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        g_autofree char *text = g_strdup_printf(
            "{\"twin_socket\":{\"supported\":true%s}}", t[i].index);
        VFIOUserCaps caps;
        Error *err = NULL;
        bool ok = parse(text, t[i].nr_fds, &caps, &err);

        if (t[i].ok) {
            g_assert_true(ok);
            g_assert_true(caps.twin_socket);
            g_assert_cmpuint(caps.twin_fd_index, ==, t[i].nr_fds - 1);
        } else {
            expect_refused(ok, err, "fd_index");
        }
    }
}

static void test_not_json(void)
{
    static const struct {
        const char *text, *part;
    } t[] = {
        { "", "parse" },
        { "{", "parse" },
        { "{\"capabilities\":{}", "parse" },
        { "{}{}", "parse" },
        { "capabilities", "parse" },
        { "\x01{}", "parse" },
        { "{\"capabilities\":{\"max_msg_fds\":%d}}", "parse" },
        { "{\"\xc3(\":1}", "UTF-8" },
        { "[]", "not an object" },
        { "1", "not an object" },
        { "null", "not an object" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserCaps caps;
        Error *err = NULL;
        size_t len;
        g_autofree uint8_t *r = reply(0, 2, t[i].text, &len);
        bool ok = vfio_user_caps_parse(r, len, 0, &caps, &err);

        expect_refused(ok, err, t[i].part);
    }
}

/* The first @len bytes of @r are refused. */
static void framing_refused(const uint8_t *r, size_t len, const char *text)
{
    VFIOUserCaps caps;
    Error *err = NULL;
    bool ok = vfio_user_caps_parse(r, len, 0, &caps, &err);

    expect_refused(ok, err, text);
}

static void test_framing(void)
{
    VFIOUserCaps caps;
    size_t len;
    g_autofree uint8_t *r = reply(0, 2, "{ } ", &len);

    g_assert_true(vfio_user_caps_parse(r, len, 0, &caps, &error_abort));
    framing_refused(r, len - 1, "not terminated");
    r[4 + 3] = 0;
    framing_refused(r, len, "NUL at offset 3");
    for (size_t n = 0; n < 4; n++) {
        framing_refused(r, n, "too short");
    }
}

static void test_version(void)
{
    static const struct {
        uint16_t major, minor;
        bool ok;
    } t[] = {
        { 0, 0, true }, { 0, 1, true }, { 0, 2, true },
        { 0, 3, false }, { 1, 0, false }, { 0xffff, 0, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserCaps caps;
        Error *err = NULL;
        size_t len;
        g_autofree uint8_t *r = reply(t[i].major, t[i].minor, "{}", &len);
        bool ok = vfio_user_caps_parse(r, len, 0, &caps, &err);

        if (t[i].ok) {
            g_assert_true(ok);
            g_assert_cmpuint(caps.minor, ==, t[i].minor);
        } else {
            expect_refused(ok, err, "version");
        }
    }
}

/* A reply of @len bytes: nested lists, or one long string */
static void test_size(void)
{
    for (int deep = 0; deep < 2; deep++) {
        for (size_t len = 16384; len <= 16385; len++) {
            g_autofree uint8_t *r = g_malloc0(len);
            VFIOUserCaps caps;
            Error *err = NULL;
            bool ok;

            r[2] = 2;
            if (deep) {
                memset(r + 4, '[', len - 5);
            } else {
                memset(r + 4, ' ', len - 5);
                r[4] = '{';
                r[len - 2] = '}';
            }
            ok = vfio_user_caps_parse(r, len, 0, &caps, &err);
            if (len > 16384) {
                expect_refused(ok, err, "16385 bytes");
            } else if (deep) {
                expect_refused(ok, err, "parse");
            } else {
                g_assert_true(ok);
            }
        }
    }
}

/* Refused wherever it is; nothing of it stays, however often it comes. */
static void test_duplicate_key(void)
{
    static const char *const texts[] = {
        "{\"x\":1,\"x\":\"%s\"}",
        "{\"x\":\"%s\",\"\\u0078\":[\"%s\"]}",
        "{\"capabilities\":{},\"capabilities\":{\"a\":[\"%s\",2]}}",
        "{\"capabilities\":{\"pgsizes\":4096,\"pgsizes\":\"%s\"}}",
        "[[{\"x\":{},\"x\":{\"y\":\"%s\"}}]]",
    };
    g_autofree char *big = g_strnfill(7000, 'a');
    size_t before = mallinfo2().uordblks;

    for (size_t i = 0; i < 100 * ARRAY_SIZE(texts); i++) {
        g_auto(GStrv) parts = g_strsplit(texts[i % ARRAY_SIZE(texts)], "%s",
                                         -1);
        g_autofree char *text = g_strjoinv(big, parts);
        VFIOUserCaps caps;
        Error *err = NULL;
        size_t len;
        g_autofree uint8_t *r = reply(0, 2, text, &len);
        bool ok = vfio_user_caps_parse(r, len, 0, &caps, &err);

        expect_refused(ok, err, "duplicate key");
    }
    /* Less than a tenth of the values that were refused */
    g_assert_cmpuint(mallinfo2().uordblks, <, before + 256 * KiB);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/caps/request", test_request);
    g_test_add_func("/vfio-user/caps/defaults", test_defaults);
    g_test_add_func("/vfio-user/caps/full", test_full);
    g_test_add_func("/vfio-user/caps/limits", test_limits);
    g_test_add_func("/vfio-user/caps/wrong-type", test_wrong_type);
    g_test_add_func("/vfio-user/caps/twin", test_twin);
    g_test_add_func("/vfio-user/caps/not-json", test_not_json);
    g_test_add_func("/vfio-user/caps/framing", test_framing);
    g_test_add_func("/vfio-user/caps/version", test_version);
    g_test_add_func("/vfio-user/caps/size", test_size);
    g_test_add_func("/vfio-user/caps/duplicate-key", test_duplicate_key);
    return g_test_run();
}
