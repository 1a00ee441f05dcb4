/*
 * vfio-user: reaching the server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Why not socket_connect() for a path, too: connect() waits until there is
 * room in the listener's queue, and a server that serves somebody else, or was
 * stopped, may never make room. QEMU would wait with the BQL held and without
 * an end. Nor is a non-blocking connect() of use: with a full queue it fails
 * at once, and nothing tells when to try again. But Linux bounds the wait in
 * connect() by the socket's SO_SNDTIMEO.
 */

#include "qemu/osdep.h"
#include <sys/un.h>
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "bql-wait.h"
#include "connect.h"
#include "trace.h"

bool vfio_user_connect_is_connected(int fd)
{
    struct sockaddr_un peer;
    socklen_t peer_len = sizeof(peer), type_len = sizeof(int);
    int type = -1;

    return !getpeername(fd, (struct sockaddr *)&peer, &peer_len) &&
           peer.sun_family == AF_UNIX &&
           !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) &&
           type == SOCK_STREAM;
}

/* Path or abstract name, as QEMU understands them. Returns 0 when too long. */
static socklen_t vfio_user_connect_sockaddr(const UnixSocketAddress *addr,
                                            struct sockaddr_un *un)
{
    bool abstract = addr->has_abstract && addr->abstract;
    bool tight = !addr->has_tight || addr->tight;
    size_t len = strlen(addr->path);

    /* An abstract name begins with a zero byte; a path needs none at its end */
    if (len + abstract > sizeof(un->sun_path)) {
        return 0;
    }
    memset(un, 0, sizeof(*un));
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + abstract, addr->path, len);
    if (abstract && tight) {
        return offsetof(struct sockaddr_un, sun_path) + 1 + len;
    }
    return sizeof(*un);
}

static int vfio_user_connect_until(int fd, const struct sockaddr_un *un,
                                   socklen_t len, int64_t deadline)
{
    do {
        int64_t us = deadline - g_get_monotonic_time();
        struct timeval left = {
            .tv_sec = us / G_USEC_PER_SEC,
            .tv_usec = us % G_USEC_PER_SEC,
        };

        if (us <= 0) {
            return -EAGAIN;
        }
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &left, sizeof(left))) {
            return -errno;
        }
        if (!connect(fd, (const struct sockaddr *)un, len)) {
            return 0;
        }
    } while (errno == EINTR);
    return -errno;
}

/* Returns 0, -EAGAIN when the time is over, or another -errno. */
static int vfio_user_connect_within(int fd, const struct sockaddr_un *un,
                                    socklen_t len, unsigned timeout_ms)
{
    int64_t begin = g_get_monotonic_time();
    int ret = vfio_user_connect_until(fd, un, len,
                                      begin + timeout_ms * (int64_t)1000);

    if (bql_locked()) {
        vfio_user_bql_waited(NULL, (g_get_monotonic_time() - begin) * SCALE_US,
                             0);
    }
    return ret;
}

static int vfio_user_connect_unix(const UnixSocketAddress *addr,
                                  unsigned timeout_ms, Error **errp)
{
    struct sockaddr_un un;
    socklen_t len = vfio_user_connect_sockaddr(addr, &un);
    int fd, ret;

    if (!*addr->path) {
        /* It would be an abstract name of many zeros. */
        error_setg(errp, "the path of the socket is empty");
        return -1;
    }
    if (!len) {
        error_setg(errp, "'%s' is too long for the address of a UNIX socket",
                   addr->path);
        return -1;
    }
    fd = qemu_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create a socket");
        return -1;
    }
    ret = vfio_user_connect_within(fd, &un, len, timeout_ms);
    trace_vfio_user_connect(addr->path, ret);
    if (!ret) {
        return fd;
    }
    if (ret == -EAGAIN) {
        error_setg(errp, "the queue of connections at '%s' is full: the server "
                   "did not accept one within %u ms", addr->path, timeout_ms);
        error_append_hint(errp, "Is the server stopped, or busy with another "
                          "client?\n");
    } else {
        error_setg_errno(errp, -ret, "cannot connect to '%s'", addr->path);
        error_append_hint(errp, "Is the server of the device running, and does "
                          "it listen there?\n");
    }
    close(fd);
    return -1;
}

/* As everywhere in QEMU, the path stands for a set of descriptors (add-fd). */
static bool vfio_user_connect_names_fdset(const SocketAddress *addr)
{
    return addr->type == SOCKET_ADDRESS_TYPE_UNIX &&
           !(addr->u.q_unix.has_abstract && addr->u.q_unix.abstract) &&
           strstart(addr->u.q_unix.path, "/dev/fdset/", NULL);
}

/*
 * What qemu_open() takes from a set is counted there and wants qemu_close(). A
 * connection ends in places that know nothing of sets, so it gets a copy. The
 * descriptor in the set does not keep it alive: shutdown() comes first.
 */
static int vfio_user_connect_fdset(const char *path, Error **errp)
{
    int counted = qemu_open(path, O_RDWR, errp);
    int fd;

    if (counted < 0) {
        return -1;
    }
    fd = qemu_dup(counted);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot duplicate a descriptor");
    }
    qemu_close(counted);
    return fd;
}

static int vfio_user_connect_handed(SocketAddress *addr, Error **errp)
{
    int fd = socket_connect(addr, errp);

    if (fd < 0) {
        error_append_hint(errp, "On the command line this is the number of a "
                          "descriptor that QEMU inherited, in a monitor a name "
                          "that was given with getfd.\n");
        return -1;
    }
    /* One that was inherited is not, and would be by what QEMU starts. */
    qemu_set_cloexec(fd);
    return fd;
}

int vfio_user_connect(SocketAddress *addr, unsigned timeout_ms, Error **errp)
{
    ERRP_GUARD();
    int fd;

    if (vfio_user_connect_names_fdset(addr)) {
        fd = vfio_user_connect_fdset(addr->u.q_unix.path, errp);
    } else if (addr->type == SOCKET_ADDRESS_TYPE_UNIX) {
        return vfio_user_connect_unix(&addr->u.q_unix, timeout_ms, errp);
    } else {
        fd = vfio_user_connect_handed(addr, errp);
    }
    if (fd >= 0 && !vfio_user_connect_is_connected(fd)) {
        error_setg(errp, "not a connected UNIX stream socket");
        error_append_hint(errp, "What is handed over has to be connected to "
                          "the server already.\n");
        close(fd);
        return -1;
    }
    return fd;
}
