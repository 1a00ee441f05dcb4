/*
 * vfio-user qtest: query-vfio-user, info vfio-user, x-vfio-user-stats-reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VFIO_USER_MONITOR_H
#define TESTS_QTEST_VFIO_USER_MONITOR_H

#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vfio-user-util.h"

#define VUM_MIB         (1024 * 1024ull)
/* A register of BAR0 */
#define VUM_REG         0x30
#define VUM_QOM_PATH    "/machine/peripheral/" VUT_ID

/* query-vfio-user; to be given back with qobject_unref(). */
QList *vum_query_all(VUTest *t);
QDict *vum_query_id(VUTest *t, const char *id);
/* Of the device that vut_new() has made */
QDict *vum_query(VUTest *t);
/* Of all devices */
void vum_stats_reset(VUTest *t);

/* The rest is lent from its argument. */
QDict *vum_stats_of(QDict *info);
QDict *vum_region(QDict *info, unsigned index);
/* The entry of @list in which @key is @value, or NULL */
QDict *vum_entry(QDict *dict, const char *list, const char *key,
                 const char *value);
/* The list of enumeration values is @want, with blanks between them. */
void vum_check_words(QDict *dict, const char *list, const char *want);

/* A number of a command's; 0 if there were no such messages */
int64_t vum_counted(QDict *info, const char *command, const char *what);
int64_t vum_count_now(VUTest *t, const char *command, const char *what);

void vum_setup_one_socket(TestServer *s);

/* vfio-user-monitor-device.c */
void vum_register_device(void);

#endif /* TESTS_QTEST_VFIO_USER_MONITOR_H */
