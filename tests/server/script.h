/*
 * vfio-user test server: a device described in lines of text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   standard                   the standard device of server.h
 *   id vendor= device= class= revision= subvendor= subdevice=
 *   bar N size= [io] [64] [prefetch] [mmap] [area=OFFSET+SIZE]...
 *   rom size= [file=PATH]
 *   region N size= [mmap] [area=OFFSET+SIZE]... [type=TYPE:SUBTYPE]
 *   intx [pin=1]
 *   pm
 *   pcie [type=0]
 *   msi NR [maskable]
 *   msix NR table=BAR:OFFSET pba=BAR:OFFSET
 *   irqs INDEX count= [flags=] [mask=accept|refuse|keep]
 *   limits [max_msg_fds=] [max_data_xfer_size=] [max_dma_maps=] [pgsizes=]
 *          [write_multiple] [no_twin_socket]
 *   ioeventfd BAR offset= [size=0] [match=] [shadow=OFFSET] [io]
 *   message-only               take no fds for DMA
 *   like-libvfio-user          where servers differ (server.h)
 *   mischief NAME
 *   migration [size=] [p2p] [precopy[=BYTES]] [per-read=] [every-read=]
 *          [per-second=] [max-read=] [logging] [pgsize=] [honour-ranges] [not-later]
 *          [clean-elsewhere] [any-range] [max-bitmap=] [data-size] [no-stop-copy]
 *   migration-fail refuse|error|hang|stall|close|exit
 *          at=arc|read|write|start|stop|report|state [from=STATE] [to=STATE]
 *          [byte=] [errno=NUMBER|NAME] [times=] [skip=]
 *   migration-lie NAME [times=] [skip=]
 *   no-features [errno=NUMBER|NAME] [close]
 *   engine [pages=64] [rate=2000]      the whole device (engine.h)
 *   disk [file=PATH] [blocks=256] [latency-us=100] [mapped-doorbell]
 *          [die=POINT:AFTER]   the whole device (disk.h); the numbers are
 *                              server-disk.h's
 *   spdk-like                  the whole device (spdk.h): doorbells in a mapped
 *                              BAR, polled; messages wait for a millisecond
 *
 * server-migration.h says what the last ones mean; migration-fail comes after
 * migration. A failure that stalls lasts until the client goes.
 */

#ifndef TESTS_SERVER_SCRIPT_H
#define TESTS_SERVER_SCRIPT_H

#include "server.h"

/* Both return NULL, or what is wrong; freed by the caller. Before ts_start. */
char *script_line(TestServer *s, const char *text);
char *script_file(TestServer *s, const char *path);

#endif /* TESTS_SERVER_SCRIPT_H */
