/*
 * vfio-user: what is said on the sockets, in a file for Wireshark
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_RECORD_H
#define HW_VFIO_USER_RECORD_H

/* Bytes kept of a message, header included. */
#define VFIO_USER_RECORD_SNAP       (64 * 1024)

/* Bytes that may wait for the disk; messages beyond are not recorded. */
#define VFIO_USER_RECORD_QUEUE      (8 * 1024 * 1024)

/**
 * VFIOUserRecord: a recording. VFIOUserRecordSocket: one socket's part in it.
 *
 * Whoever holds a socket's part holds a reference to the recording.
 */
typedef struct VFIOUserRecord VFIOUserRecord;
typedef struct VFIOUserRecordSocket VFIOUserRecordSocket;

/**
 * vfio_user_record_new: begin a recording
 * @path: the file; one that exists is overwritten. It holds guest memory, so
 *     it becomes its owner's alone. A FIFO with a reader, or /dev/fdset/N, will
 *     do.
 * @name: of the device
 *
 * Returns NULL with @errp set where the file cannot be made.
 */
VFIOUserRecord *vfio_user_record_new(const char *path, const char *name,
                                     Error **errp);

VFIOUserRecord *vfio_user_record_ref(VFIOUserRecord *rec);
/*
 * @rec may be NULL. The last one ends the recording without waiting for it: what
 * is left is written by and by.
 */
void vfio_user_record_unref(VFIOUserRecord *rec);

/**
 * vfio_user_record_finish: write what is left, and no more after it
 *
 * @timeout_ms: how long to wait for the disk. One that hangs must not keep a
 *     device from being unplugged; all of it is written when it goes on.
 *
 * What is recorded later is dropped. Only the first call waits. Any thread; @rec
 * may be NULL.
 */
void vfio_user_record_finish(VFIOUserRecord *rec, unsigned timeout_ms);

/**
 * vfio_user_record_socket_new: another socket is to be recorded
 * @twin: it is the one for the server's commands
 */
VFIOUserRecordSocket *vfio_user_record_socket_new(VFIOUserRecord *rec,
                                                  bool twin);

/* It has ended, perhaps in the middle of a message. @sock may be NULL. */
void vfio_user_record_socket_free(VFIOUserRecordSocket *sock);

/**
 * vfio_user_record_send_begin: something is about to be sent
 *
 * To be followed by vfio_user_record_send_end() at once; in between only the
 * non-blocking send. The reply cannot be recorded meanwhile, so that it comes
 * after the command in the file, and later.
 */
void vfio_user_record_send_begin(VFIOUserRecordSocket *sock);

/**
 * vfio_user_record_send_end: it was sent
 * @iov, @nr_iov: what was to be sent
 * @len: how much of it was; not above 0: nothing
 * @nr_fds: descriptors that went with it
 */
void vfio_user_record_send_end(VFIOUserRecordSocket *sock,
                               const struct iovec *iov, unsigned nr_iov,
                               ssize_t len, unsigned nr_fds);

/**
 * vfio_user_record_received: something was received
 * @iov, @len: where it is, and how much
 * @nr_fds: descriptors that came, which belong to the message that holds the
 *     last byte
 */
void vfio_user_record_received(VFIOUserRecordSocket *sock,
                               const struct iovec *iov, unsigned nr_iov,
                               size_t len, unsigned nr_fds);

#endif /* HW_VFIO_USER_RECORD_H */
