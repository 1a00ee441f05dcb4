/*
 * vfio-user: what the two files about dirty pages share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All of it is called with the BQL held.
 */

#ifndef HW_VFIO_USER_DIRTY_INT_H
#define HW_VFIO_USER_DIRTY_INT_H

#include "container.h"

/* dirty.c */

/* Every window to which the server has a descriptor counts as dirty. */
void vfio_user_dirty_mark_windows(VFIOUserContainer *c);

/* Nobody waits for reports any more. */
void vfio_user_dirty_drop_reports(VFIOUserContainer *c);

/* dirty-log.c */

/* The device whose windows these are; NULL while it is being unplugged. */
VFIODevice *vfio_user_dirty_device(const VFIOUserContainer *c);

/* Whether @w is among what the server was told to log. */
bool vfio_user_dirty_is_logged(VFIOUserContainer *c, VFIOUserWindow *w);

/**
 * vfio_user_dirty_late_start: take the answer to a START that took long
 * @until: g_get_monotonic_time() to wait up to
 *
 * Everything is dirty once it is there. A refusal fails the migration.
 */
void vfio_user_dirty_late_start(VFIOUserContainer *c, int64_t until);

#endif /* HW_VFIO_USER_DIRTY_INT_H */
