/*
 * vfio-user: waits for the server with the BQL held
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_BQL_WAIT_H
#define HW_VFIO_USER_BQL_WAIT_H

/**
 * VFIOUserBqlWhy: what the server is waited for, with the BQL held
 *
 * All that there is: docs/devel/vfio-user.rst has the bound of each.
 */
typedef enum VFIOUserBqlWhy {
    VFIO_USER_BQL_UNLISTED,     /* a bug */
    VFIO_USER_BQL_REALIZE,      /* in a VM that has not run yet */
    VFIO_USER_BQL_HOTPLUG,
    VFIO_USER_BQL_RESET,        /* in a VM that has run */
    VFIO_USER_BQL_EARLY_RESET,  /* in one that has not, or is being loaded */
    VFIO_USER_BQL_MAP,          /* outside of a memory transaction */
    VFIO_USER_BQL_UNMAP,        /* likewise */
    VFIO_USER_BQL_COMMIT,       /* of a memory transaction, behind an IOMMU */
    VFIO_USER_BQL_NESTED,       /* access that a holder of the BQL makes */
    VFIO_USER_BQL_GATE,         /* what was sent from outside of any access */
    VFIO_USER_BQL_ROM,          /* when the guest reads it first */
    VFIO_USER_BQL_STATE,        /* stop, cont; a migration begins, is given up */
    VFIO_USER_BQL_LOG_START,
    VFIO_USER_BQL_LOG_ROUND,
    VFIO_USER_BQL_SAVE,
    VFIO_USER_BQL_LOAD,
    VFIO_USER_BQL_MAX,
} VFIOUserBqlWhy;

/**
 * VFIOUserBqlWaits: what was waited for one of these
 * @nr: scopes in which there was a wait, see below
 * @total_ns: all waits
 * @max_ns: in one scope
 * @limit_ns: what one scope's waits might have come to, by their deadlines
 */
typedef struct VFIOUserBqlWaits {
    uint64_t nr;
    int64_t total_ns;
    int64_t max_ns;
    int64_t limit_ns;
} VFIOUserBqlWaits;

/* A thread in it waits, with the BQL, for @why only. The rest is bql-wait.c's. */
typedef struct VFIOUserBqlScope {
    VFIOUserBqlWhy why;
    bool is_counted;
    int64_t ns;
    int64_t counted_ns;
} VFIOUserBqlScope;

/* In a scope already there is no further one: the outermost has the word. */
VFIOUserBqlScope *vfio_user_bql_enter(VFIOUserBqlScope *scope);
void vfio_user_bql_leave(VFIOUserBqlScope *scope);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VFIOUserBqlScope, vfio_user_bql_leave)

/* To the end of the block, what is waited for with the BQL is waited for @why. */
#define VFIO_USER_BQL_SCOPE(why)                                            \
    g_autoptr(VFIOUserBqlScope) vfio_user_bql_scope G_GNUC_UNUSED =         \
        vfio_user_bql_enter(&(VFIOUserBqlScope) { (why) })

/**
 * vfio_user_bql_waited: this thread has waited with the BQL
 * @table: of the device, VFIO_USER_BQL_MAX rows; NULL: it is counted with the
 *     next wait in this scope
 * @ns, @limit_ns: how long, and up to how long it would have
 *
 * The caller holds the table's lock.
 */
void vfio_user_bql_waited(VFIOUserBqlWaits *table, int64_t ns,
                          int64_t limit_ns);

/* Add @from to @to, tables both. */
void vfio_user_bql_add(VFIOUserBqlWaits *to, const VFIOUserBqlWaits *from);

#endif /* HW_VFIO_USER_BQL_WAIT_H */
