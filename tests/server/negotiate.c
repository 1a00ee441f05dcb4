/*
 * vfio-user test server: VERSION
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The client's JSON is only searched for `"key": number`, which is all that
 * this server acts on; whether it is JSON at all is for the client's own unit
 * tests to say.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "internal.h"

char *ts_client_json(TestServer *s)
{
    char *json;

    ts_lock(s);
    json = g_strdup(s->client_json);
    ts_unlock(s);
    return json;
}

uint64_t ts_client_limit(TestServer *s, const char *key, uint64_t none)
{
    g_autofree char *json = ts_client_json(s);
    g_autofree char *quoted = g_strdup_printf("\"%s\"", key);
    const char *at = json ? strstr(json, quoted) : NULL;
    uint64_t value;
    char *end;

    if (!at) {
        return none;
    }
    at += strlen(quoted);
    at += strspn(at, " \t:");
    value = strtoull(at, &end, 10);
    return end == at ? none : value;
}

/* The twin socket was offered with `"supported": true`. */
static bool negotiate_twin_offered(const char *json)
{
    const char *at = json ? strstr(json, "\"twin_socket\"") : NULL;

    at = at ? strstr(at, "\"supported\"") : NULL;
    if (!at) {
        return false;
    }
    at += strlen("\"supported\"");
    return g_str_has_prefix(at + strspn(at, " \t:"), "true");
}

static void negotiate_append(GString *json, const char *key, uint64_t value)
{
    if (value) {
        g_string_append_printf(json, "%s\"%s\": %" PRIu64,
                               json->str[json->len - 1] == '{' ? "" : ", ",
                               key, value);
    }
}

static void negotiate_open_twin(TestServer *s, TsMessage *reply)
{
    int fds[2];
    int ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);

    g_assert(ret == 0);
    ts_message_add_fd(reply, fds[1]);
    close(fds[1]);
    ts_lock(s);
    s->twin_fd = fds[0];
    ts_unlock(s);
}

static void negotiate_reply(TestServer *s, TsMessage *reply)
{
    const TsLimits *l = &s->limits;
    struct vfio_user_version version = { l->major, l->minor };
    g_autoptr(GString) json = g_string_new("{\"capabilities\": {");

    negotiate_append(json, "max_msg_fds", l->max_msg_fds);
    negotiate_append(json, "max_data_xfer_size", l->max_data_xfer_size);
    negotiate_append(json, "max_dma_maps", l->max_dma_maps);
    negotiate_append(json, "pgsizes", l->pgsizes);
    if (l->write_multiple && strstr(s->client_json, "\"write_multiple\"")) {
        g_string_append_printf(json, "%s\"write_multiple\": true",
                               json->str[json->len - 1] == '{' ? "" : ", ");
    }
    if (l->twin_socket && negotiate_twin_offered(s->client_json)) {
        g_string_append_printf(json, "%s\"twin_socket\": "
                               "{\"supported\": true, \"fd_index\": 0}",
                               json->str[json->len - 1] == '{' ? "" : ", ");
        negotiate_open_twin(s, reply);
    }
    g_string_append(json, "}}");
    if (l->json) {
        g_string_assign(json, l->json);
    }
    g_byte_array_append(reply->payload, (guint8 *)&version, sizeof(version));
    g_byte_array_append(reply->payload, (guint8 *)json->str, json->len + 1);
}

int ts_negotiate(TestServer *s, TsMessage *request, TsMessage *reply)
{
    size_t len = request->payload->len;
    struct vfio_user_version version;

    if (len < sizeof(version)) {
        return EINVAL;
    }
    memcpy(&version, request->payload->data, sizeof(version));
    ts_lock(s);
    g_free(s->client_json);
    s->client_json = g_strndup((char *)request->payload->data +
                               sizeof(version), len - sizeof(version));
    ts_unlock(s);
    if (len > sizeof(version) && request->payload->data[len - 1] != 0) {
        return EINVAL;
    }
    if (version.major != VFIO_USER_MAJOR) {
        return ENOTSUP;
    }
    negotiate_reply(s, reply);
    if (version.minor < s->limits.minor) {
        memcpy(reply->payload->data + 2, &version.minor, 2);
    }
    return 0;
}
