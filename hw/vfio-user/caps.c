/*
 * vfio-user: capabilities that the two sides tell each other in VERSION
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The reply is text from a stranger. It is held to a small size before it is
 * looked at, QEMU's parser bounds how deep and how long a value may be, and
 * what comes out are a few numbers within our own limits. After that the text
 * is gone.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qnum.h"
#include "wire-check.h"
#include "caps.h"

char *vfio_user_caps_request(size_t *len)
{
    const struct vfio_user_version version = {
        .major = VFIO_USER_MAJOR,
        .minor = VFIO_USER_MINOR,
    };
    g_autoptr(QDict) root = qdict_new();
    g_autoptr(GString) json = NULL;
    QDict *caps = qdict_new();
    QDict *twin = qdict_new();
    char *payload;

    qdict_put_int(caps, "max_msg_fds", VFIO_USER_MAX_MSG_FDS);
    qdict_put_int(caps, "max_data_xfer_size", VFIO_USER_CAPS_MAX_DATA_XFER);
    qdict_put_int(caps, "max_dma_maps", VFIO_USER_CAPS_MAX_DMA_MAPS);
    qdict_put_int(caps, "pgsizes", VFIO_USER_DEFAULT_PGSIZES);
    qdict_put_bool(twin, "supported", true);
    qdict_put(caps, "twin_socket", twin);
    qdict_put_bool(caps, "write_multiple", true);
    qdict_put(root, "capabilities", caps);
    json = qobject_to_json(QOBJECT(root));

    *len = sizeof(version) + json->len + 1;
    payload = g_malloc(*len);
    memcpy(payload, &version, sizeof(version));
    memcpy(payload + sizeof(version), json->str, json->len + 1);
    return payload;
}

static bool get_number(const QDict *dict, const char *key, uint64_t *value,
                       Error **errp)
{
    QObject *obj = qdict_get(dict, key);
    QNum *num = qobject_to(QNum, obj);

    if (obj && (!num || !qnum_get_try_uint(num, value))) {
        error_setg(errp, "capability '%s' is not a whole number from 0 on",
                   key);
        return false;
    }
    return true;
}

static bool get_bool(const QDict *dict, const char *key, bool *value,
                     Error **errp)
{
    QObject *obj = qdict_get(dict, key);
    QBool *b = qobject_to(QBool, obj);

    if (obj && !b) {
        error_setg(errp, "capability '%s' is neither true nor false", key);
        return false;
    }
    if (b) {
        *value = qbool_get_bool(b);
    }
    return true;
}

static bool get_object(const QDict *dict, const char *key, QDict **value,
                       Error **errp)
{
    QObject *obj = qdict_get(dict, key);

    *value = qobject_to(QDict, obj);
    if (obj && !*value) {
        error_setg(errp, "capability '%s' is not an object", key);
        return false;
    }
    return true;
}

static bool take_limits(const QDict *dict, VFIOUserCaps *caps, Error **errp)
{
    const struct {
        const char *key;
        uint64_t *value;
        uint64_t min;
        uint64_t max;
    } limits[] = {
        { "max_msg_fds", &caps->max_msg_fds, 0, VFIO_USER_MAX_MSG_FDS },
        { "max_data_xfer_size", &caps->max_data_xfer_size, 8,
          VFIO_USER_CAPS_MAX_DATA_XFER },
        { "max_dma_maps", &caps->max_dma_maps, 1,
          VFIO_USER_CAPS_MAX_DMA_MAPS },
        { "pgsizes", &caps->pgsizes, 1, UINT64_MAX },
    };

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        if (!get_number(dict, limits[i].key, limits[i].value, errp)) {
            return false;
        }
        if (*limits[i].value < limits[i].min) {
            error_setg(errp, "capability '%s' is %" PRIu64 ", at least %"
                       PRIu64 " is needed", limits[i].key, *limits[i].value,
                       limits[i].min);
            return false;
        }
        *limits[i].value = MIN(*limits[i].value, limits[i].max);
    }
    return true;
}

static bool take_twin(const QDict *dict, size_t nr_fds, VFIOUserCaps *caps,
                      Error **errp)
{
    ERRP_GUARD();
    uint64_t index = UINT64_MAX;
    QDict *twin;

    if (!get_object(dict, "twin_socket", &twin, errp)) {
        return false;
    }
    if (!twin) {
        return true;
    }
    if (!get_bool(twin, "supported", &caps->twin_socket, errp) ||
        !get_number(twin, "fd_index", &index, errp)) {
        error_prepend(errp, "twin_socket: ");
        return false;
    }
    if (!caps->twin_socket) {
        return true;
    }
    if (index >= nr_fds) {
        error_setg(errp, "twin_socket is supported, but 'fd_index' names none "
                   "of the %zu descriptors that came along", nr_fds);
        return false;
    }
    caps->twin_fd_index = index;
    return true;
}

static bool take_migration(const QDict *dict, VFIOUserCaps *caps, Error **errp)
{
    ERRP_GUARD();
    QDict *migration;

    if (!get_object(dict, "migration", &migration, errp)) {
        return false;
    }
    if (!migration) {
        return true;
    }
    caps->has_migration = true;
    if (!get_number(migration, "pgsize", &caps->migration_pgsize, errp) ||
        !get_number(migration, "max_bitmap_size",
                    &caps->migration_max_bitmap_size, errp)) {
        error_prepend(errp, "migration: ");
        return false;
    }
    return true;
}

/* Returns an object for qdict_unref(), or NULL with @errp set. */
static QDict *parse_json(const char *text, size_t len, Error **errp)
{
    ERRP_GUARD();
    QObject *root;
    QDict *dict;

    if (text[len - 1] != '\0') {
        error_setg(errp, "the JSON text is not terminated by a NUL");
        return NULL;
    }
    if (strlen(text) != len - 1) {
        error_setg(errp, "the JSON text has a NUL at offset %zu, before its "
                   "end", strlen(text));
        return NULL;
    }
    if (!g_utf8_validate(text, len - 1, NULL)) {
        error_setg(errp, "the JSON text is not valid UTF-8");
        return NULL;
    }
    root = qobject_from_json(text, errp);
    if (!root) {
        error_prepend(errp, "the JSON text cannot be parsed: ");
        return NULL;
    }
    dict = qobject_to(QDict, root);
    if (!dict) {
        error_setg(errp, "the JSON text is not an object");
        qobject_unref(root);
    }
    return dict;
}

bool vfio_user_caps_parse(const void *payload, size_t len, size_t nr_fds,
                          VFIOUserCaps *caps, Error **errp)
{
    ERRP_GUARD();
    const char *text = (const char *)payload +
                       sizeof(struct vfio_user_version);
    struct vfio_user_version version = {};
    g_autoptr(QDict) root = NULL;
    QDict *dict;

    memcpy(&version, payload, MIN(len, sizeof(version)));
    if (!vfio_user_wire_check_version(&version, len, errp)) {
        return false;
    }
    *caps = (VFIOUserCaps) {
        .major = version.major,
        .minor = version.minor,
        .max_msg_fds = VFIO_USER_DEFAULT_MAX_MSG_FDS,
        .max_data_xfer_size = VFIO_USER_DEFAULT_MAX_DATA_XFER,
        .max_dma_maps = VFIO_USER_DEFAULT_MAX_DMA_MAPS,
        .pgsizes = VFIO_USER_DEFAULT_PGSIZES,
    };
    if (len == sizeof(version)) {
        return true;
    }
    if (len > VFIO_USER_CAPS_MAX_REPLY) {
        error_setg(errp, "%zu bytes of capabilities are more than the %u "
                   "accepted", len, VFIO_USER_CAPS_MAX_REPLY);
        return false;
    }

    root = parse_json(text, len - sizeof(version), errp);
    if (!root || !get_object(root, "capabilities", &dict, errp)) {
        return false;
    }
    return !dict ||
           (take_limits(dict, caps, errp) &&
            get_bool(dict, "write_multiple", &caps->write_multiple, errp) &&
            take_twin(dict, nr_fds, caps, errp) &&
            take_migration(dict, caps, errp));
}
