/*
 * vfio-user test server: commands to the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "internal.h"

void ts_set_handler(TestServer *s, uint16_t command, TsHandler *handler,
                    void *opaque)
{
    g_assert(command < VFIO_USER_COMMAND_MAX);
    s->handlers[command].fn = handler;
    s->handlers[command].opaque = opaque;
}

void ts_on_reset(TestServer *s, void (*fn)(TestServer *s, void *opaque),
                 void *opaque)
{
    s->on_reset = fn;
    s->on_reset_opaque = opaque;
}

unsigned ts_nr_resets(TestServer *s)
{
    unsigned nr;

    ts_lock(s);
    nr = s->nr_resets;
    ts_unlock(s);
    return nr;
}

static int device_get_info(TestServer *s, TsMessage *request,
                           TsMessage *reply)
{
    struct vfio_user_device_info info;

    if (request->payload->len != sizeof(info)) {
        return EINVAL;
    }
    memcpy(&info, request->payload->data, sizeof(info));
    if (info.argsz < sizeof(info)) {
        return EINVAL;
    }
    info = (struct vfio_user_device_info) {
        .argsz = sizeof(info),
        .flags = s->info.flags,
        .num_regions = s->info.num_regions,
        .num_irqs = s->info.num_irqs,
    };
    g_byte_array_append(reply->payload, (guint8 *)&info, sizeof(info));
    return 0;
}

static int device_reset(TestServer *s, TsMessage *request)
{
    if (request->payload->len != 0) {
        return EINVAL;
    }
    if (!(s->info.flags & VFIO_USER_DEVICE_RESETTABLE)) {
        return ENOTSUP;
    }
    ts_mig_reset(s);
    ts_engine_reset(s);
    ts_disk_reset(s);
    ts_lock(s);
    s->nr_resets++;
    ts_changed_locked(s);
    ts_unlock(s);
    if (s->on_reset) {
        s->on_reset(s, s->on_reset_opaque);
    }
    return 0;
}

static int device_builtin(TestServer *s, TsMessage *request,
                          TsMessage *reply)
{
    switch (request->hdr.command) {
    case VFIO_USER_DMA_MAP:
        return ts_dma_map(s, request);
    case VFIO_USER_DMA_UNMAP:
        return ts_dma_unmap(s, request, reply);
    case VFIO_USER_DEVICE_GET_INFO:
        return device_get_info(s, request, reply);
    case VFIO_USER_DEVICE_GET_REGION_INFO:
        return ts_region_get_info(s, request, reply);
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        return ts_get_io_fds(s, request, reply);
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
        return ts_irq_get_info(s, request, reply);
    case VFIO_USER_DEVICE_SET_IRQS:
        return ts_irq_set(s, request);
    case VFIO_USER_REGION_READ:
        return ts_region_read(s, request, reply);
    case VFIO_USER_REGION_WRITE:
        return ts_region_write(s, request, reply);
    case VFIO_USER_REGION_WRITE_MULTI:
        return ts_region_write_multi(s, request, reply);
    case VFIO_USER_DEVICE_RESET:
        return device_reset(s, request);
    case VFIO_USER_DEVICE_FEATURE:
        return ts_mig_feature(s, request, reply);
    case VFIO_USER_MIG_DATA_READ:
        return ts_mig_data_read(s, request, reply);
    case VFIO_USER_MIG_DATA_WRITE:
        return ts_mig_data_write(s, request);
    default:
        return ENOTSUP;
    }
}

/* As libvfio-user, whatever a handler would make of it. */
static bool device_refuses(TestServer *s, uint16_t command)
{
    unsigned state = ts_mig_state_now(s);

    return s->like_libvfio_user &&
           (state == VFIO_USER_MIG_STOP || state == VFIO_USER_MIG_STOP_COPY) &&
           command != VFIO_USER_REGION_READ &&
           command != VFIO_USER_REGION_WRITE &&
           command != VFIO_USER_DEVICE_FEATURE &&
           command != VFIO_USER_MIG_DATA_READ;
}

int ts_device_dispatch(TestServer *s, TsMessage *request, TsMessage *reply)
{
    uint16_t command = request->hdr.command;

    if (device_refuses(s, command)) {
        return EINVAL;
    }
    if (s->limits.enforce && s->limits.max_msg_fds &&
        request->nr_fds > s->limits.max_msg_fds) {
        return EMSGSIZE;
    }
    if (command < VFIO_USER_COMMAND_MAX && s->handlers[command].fn) {
        int ret = s->handlers[command].fn(s, request, reply,
                                          s->handlers[command].opaque);

        if (ret != -1) {
            return ret;
        }
    }
    return device_builtin(s, request, reply);
}

int ts_device_start(TestServer *s)
{
    int err = ts_region_start(s);

    err = err ?: ts_disk_start(s);
    return err ?: ts_spdk_start(s);
}

void ts_device_free(TestServer *s)
{
    ts_spdk_free(s);
    ts_engine_free(s);
    ts_disk_free(s);
    ts_mig_free(s);
    ts_region_free(s);
    ts_io_fds_free(s);
    ts_config_free(s);
    ts_irq_free(s);
    ts_state_free(s);
}
