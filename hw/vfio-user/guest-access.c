/*
 * vfio-user: accesses of a region by the guest itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A vCPU asks and, when there is no answer for a while, leaves the access to make it
 * again (held.c). Then it comes here once more, and finds what was asked. Each time
 * the same is decided: read the answer, ask, ask again, wait on, or give up. The
 * access gives up at its deadline (x-msg-timeout-ms), which runs while the server
 * has it or has no room for it; a server that is away is waited for as the user
 * wants it (reconnect.c).
 *
 * BARs come without the BQL, so the vCPU waits a little in place. Config space comes
 * with the BQL and does so when it has left the access.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "device-int.h"
#include "reconnect.h"

static int vfio_user_guest_try(VFIOUserDevice *udev, const VFIOUserAccess *a,
                               VFIOUserHeld *h);

/* Returns VFIO_USER_HELD_AGAIN: make it again. */
static int vfio_user_guest_hold(VFIOUserDevice *udev, const VFIOUserAccess *a,
                                VFIOUserHeld *h, VFIOUserHeldState state,
                                unsigned life)
{
    vfio_user_held_hold(udev, h, a, state, life);
    return VFIO_USER_HELD_AGAIN;
}

static bool vfio_user_guest_is_late(const VFIOUserHeld *h)
{
    return g_get_monotonic_time() >= h->deadline;
}

/*
 * There was no server, or it went before it answered. A write may have been done by
 * one that goes on where it was; one that begins anew has no use for it.
 */
static int vfio_user_guest_lost(VFIOUserDevice *udev, const VFIOUserAccess *a,
                                VFIOUserHeld *h, unsigned life)
{
    switch (vfio_user_reconnect_fate(udev, life)) {
    case VFIO_USER_RETURN_WAIT:
        return vfio_user_guest_hold(udev, a, h, VFIO_USER_HELD_LINK, life);
    case VFIO_USER_RETURN_KEPT:
        return vfio_user_guest_try(udev, a, h);
    case VFIO_USER_RETURN_RESET:
        return a->is_write ? -EPIPE : vfio_user_guest_try(udev, a, h);
    default:
        return -EPIPE;
    }
}

static int vfio_user_guest_ask(VFIOUserDevice *udev, const VFIOUserAccess *a,
                               VFIOUserHeld *h, unsigned life, unsigned socket)
{
    int64_t until = bql_locked() ? 0 :
                    g_get_monotonic_time() + VFIO_USER_HELD_SHORT_US;
    VFIO_USER_UNINITIALIZED VFIOUserRegionMsg msg;
    int ret;

    vfio_user_region_msg_init(&msg, a->is_write, a->region, a->off, a->buf,
                              a->len);
    msg.req.life = socket;
    if (!vfio_user_conn_submit_until(udev->conn, &msg.req, until)) {
        return vfio_user_guest_hold(udev, a, h, VFIO_USER_HELD_ROOM, life);
    }
    if (!vfio_user_conn_wait_until(udev->conn, &msg.req, until)) {
        if (vfio_user_held_ask(udev, h, a, &msg, life)) {
            return VFIO_USER_HELD_AGAIN;
        }
        vfio_user_conn_wait(udev->conn, &msg.req);
    }
    ret = vfio_user_region_msg_result(udev, &msg);
    return ret == -EPIPE ? vfio_user_guest_lost(udev, a, h, life) : ret;
}

static int vfio_user_guest_post(VFIOUserDevice *udev, const VFIOUserAccess *a,
                                VFIOUserHeld *h, unsigned life, unsigned socket)
{
    int ret = vfio_user_device_post(udev, a->region, a->off, a->buf, a->len,
                                    socket, VFIO_USER_HELD_SHORT_US / 1000);

    if (ret == -ETIMEDOUT) {
        return vfio_user_guest_hold(udev, a, h, VFIO_USER_HELD_ROOM, life);
    }
    return ret == -EPIPE ? vfio_user_guest_lost(udev, a, h, life) : ret;
}

/* What was looked at first belongs to an earlier server, if anything changes. */
static int vfio_user_guest_try(VFIOUserDevice *udev, const VFIOUserAccess *a,
                               VFIOUserHeld *h)
{
    unsigned life = vfio_user_reconnect_life(udev);
    unsigned socket = vfio_user_conn_life(udev->conn);

    if (vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        return vfio_user_guest_lost(udev, a, h, life);
    }
    if (a->is_write && vfio_user_device_is_posted(udev, a->region)) {
        return vfio_user_guest_post(udev, a, h, life, socket);
    }
    return vfio_user_guest_ask(udev, a, h, life, socket);
}

static int vfio_user_guest_answer(VFIOUserDevice *udev, const VFIOUserAccess *a,
                                  VFIOUserHeld *h)
{
    if (h->ret == -EPIPE) {
        return vfio_user_guest_lost(udev, a, h, h->life);
    }
    if (!h->ret && !a->is_write) {
        memcpy(a->buf, &h->data, a->len);
    }
    return h->ret;
}

static int vfio_user_guest_resume(VFIOUserDevice *udev, const VFIOUserAccess *a,
                                  VFIOUserHeld *h)
{
    switch (qatomic_load_acquire(&h->state)) {
    case VFIO_USER_HELD_LINK:
        return vfio_user_guest_lost(udev, a, h, h->life);
    case VFIO_USER_HELD_ROOM:
        return vfio_user_guest_is_late(h) ? -ETIMEDOUT :
                                            vfio_user_guest_try(udev, a, h);
    case VFIO_USER_HELD_ASKED:
        if (!vfio_user_guest_is_late(h)) {
            return vfio_user_held_still(h);
        }
        if (vfio_user_held_cancel(h)) {
            return -ETIMEDOUT;
        }
        /* It came just now. */
        return vfio_user_held_still(h);
    default:
        return vfio_user_guest_answer(udev, a, h);
    }
}

int vfio_user_guest_access(VFIOUserDevice *udev, const VFIOUserAccess *a)
{
    VFIOUserHeld *h;
    int ret;

    if (vfio_user_held_is_again()) {
        return VFIO_USER_HELD_AGAIN;
    }
    h = vfio_user_held_find(udev, a);
    if (!h) {
        return vfio_user_guest_try(udev, a, NULL);
    }
    ret = vfio_user_guest_resume(udev, a, h);
    if (ret != VFIO_USER_HELD_AGAIN) {
        vfio_user_held_end(h);
    }
    vfio_user_held_unref(h);
    return ret;
}

bool vfio_user_guest_waits_for_link(VFIOUserDevice *udev,
                                    const VFIOUserAccess *a)
{
    unsigned life = vfio_user_reconnect_life(udev);
    VFIOUserHeld *h;
    bool wait;

    if (vfio_user_held_is_again()) {
        return true;
    }
    h = vfio_user_held_find(udev, a);
    wait = vfio_user_device_link(udev) != VFIO_USER_LINK_UP &&
           vfio_user_reconnect_fate(udev, life) == VFIO_USER_RETURN_WAIT;
    if (wait) {
        vfio_user_held_hold(udev, h, a, VFIO_USER_HELD_LINK, life);
    } else if (h) {
        vfio_user_held_end(h);
    }
    if (h) {
        vfio_user_held_unref(h);
    }
    return wait;
}
