/*
 * vfio-user qtest: two of everything, and a migration between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VFIO_USER_MIGRATE_H
#define TESTS_QTEST_VFIO_USER_MIGRATE_H

#include "vfio-user-util.h"
#include "../server/server-migration.h"

#define VMT_STOP_COPY   VFIO_USER_MIGRATION_STOP_COPY
#define VMT_P2P         VFIO_USER_MIGRATION_P2P
#define VMT_PRE_COPY    VFIO_USER_MIGRATION_PRE_COPY

#define VMT_KIB         1024ull
#define VMT_MIB         (1024 * VMT_KIB)

/* Of both sides, unless a test says otherwise */
#define VMT_RAM_SIZE    (128 * VMT_MIB)

/* As TsMatch: changes of state, and the three features of dirty logging */
#define VMT_SET_STATE   ((TsMatch) { VFIO_USER_DEVICE_FEATURE, \
                                     VFIO_USER_FEATURE_MIG_DEVICE_STATE, -1 })
#define VMT_LOG(what)   ((TsMatch) { VFIO_USER_DEVICE_FEATURE, \
                                     VFIO_USER_FEATURE_DMA_LOGGING_##what, -1 })

/**
 * VMTOptions: what both sides are, a standard device on shared RAM
 * @mig: as the server's; @dst_mig: the destination's when it has flags
 * @max_xfer: max_data_xfer_size, enforced; 0: 1 MiB
 * @device: more properties, beginning with a comma
 * @setup, @src_setup: shape each server further; the source's alone
 * @bare: the servers are not made standard devices first
 * The others as in VUTOptions.
 */
typedef struct VMTOptions {
    TsMigOptions mig;
    TsMigOptions dst_mig;
    uint32_t max_xfer;
    const char *machine;
    const char *args;
    const char *device;
    void (*setup)(TestServer *s);
    void (*src_setup)(TestServer *s);
    bool private_ram;
    bool bare;
} VMTOptions;

typedef struct VMTest {
    VUTest *src;
    VUTest *dst;        /* NULL until there is one */
    VMTOptions o;
    char *uri;          /* where @dst listens */
} VMTest;

/* Source and destination, which waits for the migration. */
VMTest *vmt_new(const VMTOptions *o);
/* The source alone; the destination may come later, to load from @uri. */
VMTest *vmt_new_src(const VMTOptions *o);
void vmt_add_dst(VMTest *t, const char *uri);
/* The destination goes, another one comes. */
void vmt_replace_dst(VMTest *t);
void vmt_free(VMTest *t);

/*
 * The source's server is lost, which the client has noticed. It comes back with
 * all that it had, or another one does.
 */
void vmt_lose(VMTest *t);
void vmt_return_kept(VMTest *t);
void vmt_return_fresh(VMTest *t);
void vmt_wait_returned(VMTest *t);

/* Starts the migration to @t->dst. */
void vmt_start(VMTest *t);
/* The whole of it, up to a destination that runs. */
void vmt_migrate(VMTest *t);

/* query-migrate of one side: status; the error's text. To be freed. */
char *vmt_status(VUTest *side);
char *vmt_error(VUTest *side);
/* A number in there; 0 when there is none, e.g. ("vfio", "transferred"). */
int64_t vmt_number(VUTest *side, const char *group, const char *name);
/* Waits for @status; another end of the migration fails the test. */
void vmt_wait_status(VUTest *side, const char *status);
void vmt_wait_running(VUTest *side);
bool vmt_is_running(VUTest *side);
void vmt_set_parameter(VUTest *side, const char *name, int64_t value);

/*
 * The source never gets to the end of pre-copy, until it is released. Its
 * server answers MIG_DATA_SIZE with more than 1000 bytes.
 */
void vmt_hold(VMTest *t);
void vmt_release(VMTest *t);
/* Guest RAM was sent as a whole at least once. Only while held. */
void vmt_wait_first_pass(VMTest *t);

/* Both sides with the source in pre-copy, everything sent; and its end. */
VMTest *vmt_start_held(const VMTOptions *o);
void vmt_finish(VMTest *t);
/* Pages of RAM that the source has sent; since @sent nearly all once more. */
int64_t vmt_pages_sent(VMTest *t);
void vmt_assert_all_sent_again(VMTest *t, int64_t sent);
/* What the source's device writes to memory; it came to the destination. */
void vmt_fill(uint8_t *buf, size_t len, uint64_t addr);
void vmt_device_writes(VMTest *t, uint64_t addr, size_t len, TsDmaWay way);
void vmt_assert_at_dst(VMTest *t, uint64_t addr, size_t len);

/*
 * The destination fails: QEMU ends with status 1 and @text on stderr. The
 * source's migration is "failed", the source and its device run.
 */
void vmt_expect_failed_load(VMTest *t, const char *text);
/* The source's migration ended as @status, and it is as if never begun. */
void vmt_expect_source_goes_on(VMTest *t, const char *status);

/* States that a client set, well or not, in their order: "stop stop-copy". */
char *vmt_states(TestServer *s);
/* Sequence number of the @nth SET of @state; it must be there. */
uint64_t vmt_state_seq(TestServer *s, unsigned state, unsigned nth);

void vut_register_migrate(void);
void vut_register_migrate_offer(void);
void vut_register_migrate_load(void);
void vut_register_migrate_end(void);
void vut_register_migrate_ioeventfd(void);
void vut_register_migrate_dirty(void);
void vut_register_migrate_fail(void);
void vut_register_migrate_log(void);
void vut_register_migrate_irq(void);
void vut_register_migrate_late(void);
void vut_register_migrate_sync(void);
void vut_register_migrate_windows(void);
void vut_register_migrate_return(void);
void vut_register_migrate_stall(void);
void vut_register_migrate_lvu(void);
void vut_register_migrate_told(void);

#endif /* TESTS_QTEST_VFIO_USER_MIGRATE_H */
