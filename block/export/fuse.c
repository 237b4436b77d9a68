/* SPDX-License-Identifier: MIT */
/*
 * The FUSE export: a block node as a regular file.
 *
 * This file is its policy: options, the order of set-up and teardown, and how
 * requests enter the graph.  It runs in the main thread, but for
 * fuse_co_process() and the reference counts.
 *
 * Set-up: options, mount point and ring are checked before anything is
 * mounted; then mount, INIT, start the queues in their threads, and look at
 * the file once to see that it answers.  What fails undoes all before it.
 *
 * Teardown: refuse new requests, let those in flight finish, unmount and abort
 * the connection, wait until the last request and the last ring entry are
 * back, stop and close each queue in its own thread, free.
 */
#include "config-host.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/export/fuse-int.h"
#include "block/export/fuse.h"
#include "util/trace.h"

/* Entries per ring queue, buffers per /dev/fuse queue. */
#define FUSE_DEFAULT_QUEUE_DEPTH 32
#define FUSE_MAX_QUEUE_DEPTH 1024

/*
 * Requests in flight at shutdown may take this long before their clients are
 * cut off; the memory stays until storage has answered.
 */
#define FUSE_DRAIN_TIMEOUT_NS (5 * 1000000000LL)

/* Canonical mount points of all exports, as keys.  Main thread. */
static GHashTable *fuse_mountpoints;

static FuseExport *fuse_export_from(BlockExport *exp)
{
    return (FuseExport *)((char *)exp - offsetof(FuseExport, common));
}

/* ---- requests (any thread) ---- */

typedef struct FuseProcess {
    CoCancel cancel;            /* first: the callback casts */
    FuseExport *exp;
    const FuseRequest *req;
} FuseProcess;

/*
 * Does nobody want the reply any more?  At shutdown changes have time to come
 * to their end, questions don't.
 */
static bool fuse_is_unwanted(const CoCancel *cancel)
{
    const FuseProcess *p = (const FuseProcess *)cancel;
    bool question = p->req->in->opcode == FUSE_LSEEK;

    return __atomic_load_n(question ? &p->exp->halted : &p->exp->cut_off,
                           __ATOMIC_RELAXED)
           || fuse_op_client_killed(&p->exp->file, p->req);
}

int coroutine_fn fuse_co_process(FuseExport *exp, FuseRequest *req)
{
    FuseProcess process = { { fuse_is_unwanted }, exp, req };
    int ret = -ENOTCONN;

    /* A ring's reply overwrites the header, but not before this returns. */
    trace(fuse_request, "id=%s unique=%" PRIu64 " opcode=%u payload=%zu",
          exp->common.id, req->in->unique, req->in->opcode, req->payload_len);
    __atomic_add_fetch(&exp->n_requests, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&exp->halted, __ATOMIC_SEQ_CST)) {
        blk_co_begin_request(exp->common.blk);
        coroutine_set_cancel(&process.cancel);
        ret = fuse_op_co_run(&exp->file, req);
        coroutine_set_cancel(NULL);
        blk_end_request(exp->common.blk);
    }
    if (ret == -ECANCELED) {
        ret = __atomic_load_n(&exp->halted, __ATOMIC_RELAXED) ? -ENOTCONN
                                                              : -EINTR;
    }
    if (ret <= -512) {          /* the kernel takes no such error */
        ret = -EIO;
    }
    trace(fuse_reply, "id=%s unique=%" PRIu64 " ret=%d", exp->common.id,
          req->in->unique, ret);
    if (__atomic_sub_fetch(&exp->n_requests, 1, __ATOMIC_SEQ_CST) == 0) {
        aio_bh_schedule(exp->idle_bh);
    }
    return ret;
}

void fuse_export_get(FuseExport *exp)
{
    __atomic_add_fetch(&exp->n_users, 1, __ATOMIC_RELAXED);
}

void fuse_export_put(FuseExport *exp)
{
    if (__atomic_sub_fetch(&exp->n_users, 1, __ATOMIC_ACQ_REL) == 0) {
        aio_bh_schedule(exp->unused_bh);
    }
}

void fuse_export_connection_ended(FuseExport *exp)
{
    if (!__atomic_exchange_n(&exp->ended, true, __ATOMIC_RELAXED)) {
        aio_bh_schedule(exp->ended_bh);
    }
}

static void fuse_export_idle_bh(void *opaque)
{
    FuseExport *exp = opaque;

    co_event_set(&exp->idle);
}

static void fuse_export_unused_bh(void *opaque)
{
    FuseExport *exp = opaque;

    co_event_set(&exp->unused);
}

static void fuse_export_ended_bh(void *opaque)
{
    FuseExport *exp = opaque;

    trace(fuse_connection_ended, "id=%s", exp->common.id);
    blk_exp_request_shutdown(&exp->common);
}

/* ---- checks before set-up ---- */

/* off, on or auto, from a boolean or an enum; off by default. */
static OnOffAuto fuse_uring_option(const BlockExportOptionsFuse *opts)
{
    if (!opts->io_uring) {
        return ON_OFF_AUTO_OFF;
    }
    if (opts->io_uring->type == QTYPE_QBOOL) {
        return opts->io_uring->u.enable ? ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
    }
    return opts->io_uring->u.mode;
}

/* ---- queues ---- */

static void fuse_queue_start_bh(void *opaque)
{
    FuseQueue *q = opaque;

    if (q->exp->uring_wanted && q->exp->placement) {
        aio_context_set_placement(q->ctx, true);
    }
    fuse_dev_start(q);
    fuse_uring_start(q);
}

static void fuse_queue_started_bh(void *opaque)
{
}

static void fuse_queue_stop_bh(void *opaque)
{
    FuseQueue *q = opaque;

    fuse_dev_deinit(q);
}

static void fuse_create_queues(FuseExport *exp)
{
    unsigned n = exp->common.n_iothreads;

    exp->n_queues = MAX(n, 1);
    exp->queues = g_new0(FuseQueue, exp->n_queues);
    for (unsigned i = 0; i < exp->n_queues; i++) {
        exp->queues[i].exp = exp;
        exp->queues[i].ctx = n ? iothread_aio_context(exp->common.iothreads[i])
                               : aio_context_current();
        fuse_dev_init(&exp->queues[i], -1);
    }
}

/*
 * Deal the kernel's ring queues to the FuseQueues, round-robin.  Both counts
 * meet in this place alone.
 *
 * One thread a queue: entries of a second one help deep queues by a fifth, but
 * make a client that waits five times slower, because its requests are then
 * served by whichever thread had the last one, not the one on its CPU.
 */
static bool fuse_deal_ring_queues(FuseExport *exp, Error **errp)
{
    unsigned n = fuse_uring_kernel_queues();

    for (unsigned qid = 0; qid < n; qid++) {
        if (!fuse_uring_add_queue(&exp->queues[qid % exp->n_queues], qid,
                                  exp->queue_depth, errp)) {
            return false;
        }
    }
    return true;
}

static bool fuse_uring_is_broken(const FuseExport *exp)
{
    return __atomic_load_n(&exp->uring_broken, __ATOMIC_RELAXED);
}

static void fuse_free_queues(FuseExport *exp)
{
    for (unsigned i = 0; i < exp->n_queues; i++) {
        fuse_uring_deinit(&exp->queues[i]);
    }
    g_free(exp->queues);
}

/* Settle, without mounting, whether the ring is wanted and to be had. */
static bool fuse_check_uring(FuseExport *exp, OnOffAuto mode, Error **errp)
{
    g_autofree AioContext **contexts = g_new(AioContext *, exp->n_queues);
    g_autoptr(Error) local_err = NULL;

    if (mode == ON_OFF_AUTO_OFF) {
        return true;
    }
    for (unsigned i = 0; i < exp->n_queues; i++) {
        contexts[i] = exp->queues[i].ctx;
    }
    exp->file.offer_uring =
        fuse_uring_check(contexts, exp->n_queues, &local_err)
        && fuse_deal_ring_queues(exp, &local_err);
    if (exp->file.offer_uring) {
        return true;
    }
    if (mode == ON_OFF_AUTO_ON) {
        error_propagate(errp, g_steal_pointer(&local_err));
        return false;
    }
    info_report("export '%s' uses /dev/fuse: %s", exp->common.id,
                error_get_pretty(local_err));
    return true;
}

/* ---- set-up ---- */

static bool coroutine_fn fuse_co_mount(FuseExport *exp,
                                       FuseExportAllowOther allow_other,
                                       Error **errp)
{
    FuseMountOptions options = {
        .writable = exp->file.writable,
        .allow_other = allow_other != FUSE_EXPORT_ALLOW_OTHER_OFF,
    };

    /* What fails with allow_other and auto may do without. */
    if (allow_other == FUSE_EXPORT_ALLOW_OTHER_AUTO
        && !fuse_mount_co_mount(&exp->mount, &options, NULL)) {
        options.allow_other = false;
    }
    if (exp->mount.fd < 0
        && !fuse_mount_co_mount(&exp->mount, &options, errp)) {
        return false;
    }
    exp->file.allow_other = options.allow_other;
    trace(fuse_mounted, "id=%s path=%s minor=%u fusermount=%d allow_other=%d",
          exp->common.id, exp->mount.path, exp->mount.minor,
          exp->mount.by_fusermount, options.allow_other);
    return true;
}

/* INIT, and an fd for each queue: the mount's own and clones of it. */
static bool coroutine_fn fuse_co_connect(FuseExport *exp, OnOffAuto uring,
                                         Error **errp)
{
    int fd = exp->mount.fd;
    int ret = fuse_dev_co_handshake(exp, fd);

    fuse_dev_init(&exp->queues[0], fd);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to initialize the FUSE session");
        return false;
    }
    trace(fuse_init, "id=%s flags=%#" PRIx64, exp->common.id,
          exp->file.init_flags);
    exp->uring_wanted = exp->file.init_flags & FUSE_OVER_IO_URING;
    if (!exp->uring_wanted) {
        if (uring == ON_OFF_AUTO_ON) {
            error_setg(errp, "FUSE over io_uring is not available: the "
                       "kernel does not offer it (Linux 6.14 or later is "
                       "needed)");
            return false;
        }
        for (unsigned i = 0; i < exp->n_queues; i++) {
            fuse_uring_deinit(&exp->queues[i]);
        }
    }
    for (unsigned i = 1; i < exp->n_queues; i++) {
        ret = fuse_dev_clone(fd);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to clone the FUSE fd");
            return false;
        }
        fuse_dev_init(&exp->queues[i], ret);
    }
    for (unsigned i = 0; i < exp->n_queues; i++) {
        if (!fuse_dev_reserve(&exp->queues[i])) {
            error_setg_errno(errp, ENOMEM, "Failed to allocate a buffer");
            return false;
        }
    }
    return true;
}

/*
 * Start the queues, and look at the file as a client would: a ring that the
 * kernel refuses, or for which it waits in vain, shows here, and not in
 * somebody's first request.
 */
static bool coroutine_fn fuse_co_start(FuseExport *exp, Error **errp)
{
    int ret = 0;

    for (unsigned i = 0; i < exp->n_queues; i++) {
        aio_co_run_in(exp->queues[i].ctx, fuse_queue_start_bh,
                      &exp->queues[i]);
    }
    /* A turn later each thread has heard what was refused at once. */
    for (unsigned i = 0; i < exp->n_queues; i++) {
        aio_co_run_in(exp->queues[i].ctx, fuse_queue_started_bh, NULL);
    }
    /* Not every kernel then goes back to /dev/fuse: some leave clients hang. */
    if (!fuse_uring_is_broken(exp)) {
        ret = fuse_mount_co_probe(&exp->mount);
    }
    if (fuse_uring_is_broken(exp)) {
        error_setg(errp, "FUSE over io_uring is not available: the kernel "
                   "refused to register a buffer");
        return false;
    }
    if (ret < 0 || __atomic_load_n(&exp->ended, __ATOMIC_RELAXED)) {
        error_setg_errno(errp, ret < 0 ? -ret : ENOTCONN,
                         "The FUSE export on '%s' does not answer",
                         exp->mount.path);
        return false;
    }
    return true;
}

static void coroutine_fn fuse_co_shutdown(BlockExport *common);

static bool fuse_resizes(const BlockExportOptions *opts)
{
    return !opts->u.fuse.has_resizable || opts->u.fuse.resizable;
}

/* What one attempt to bring the export up needs, and leaves behind. */
static void fuse_init_life(FuseExport *exp, const BlockExportOptions *opts)
{
    AioContext *ctx = aio_context_current();

    fuse_file_init(&exp->file, exp->common.blk, opts->writable,
                   opts->u.fuse.growable, false);
    exp->file.resizable = fuse_resizes(opts);
    exp->mount.fd = -1;
    exp->uring_wanted = exp->uring_broken = exp->uring_served = false;
    exp->halted = exp->cut_off = exp->ended = false;
    exp->idle = exp->unused = (CoEvent) { 0 };
    exp->n_requests = exp->n_users = 1;
    exp->idle_bh = aio_bh_new(ctx, fuse_export_idle_bh, exp);
    exp->unused_bh = aio_bh_new(ctx, fuse_export_unused_bh, exp);
    exp->ended_bh = aio_bh_new(ctx, fuse_export_ended_bh, exp);
    fuse_create_queues(exp);
}

static void fuse_deinit_life(FuseExport *exp)
{
    fuse_free_queues(exp);
    aio_bh_delete(exp->idle_bh);
    aio_bh_delete(exp->unused_bh);
    aio_bh_delete(exp->ended_bh);
}

/* One attempt.  Failing leaves nothing but @exp's options. */
static bool coroutine_fn fuse_co_bring_up(FuseExport *exp,
                                          const BlockExportOptions *opts,
                                          OnOffAuto uring, Error **errp)
{
    const BlockExportOptionsFuse *fuse = &opts->u.fuse;

    fuse_init_life(exp, opts);
    if (fuse_check_uring(exp, uring, errp)
        && fuse_co_mount(exp, fuse->has_allow_other
                              ? fuse->allow_other
                              : FUSE_EXPORT_ALLOW_OTHER_AUTO, errp)
        && fuse_co_connect(exp, uring, errp)
        && fuse_co_start(exp, errp)) {
        return true;
    }
    fuse_co_shutdown(&exp->common);
    fuse_deinit_life(exp);
    return false;
}

/* As fuse_co_bring_up(); with auto, a ring that fails is done without. */
static bool coroutine_fn fuse_co_bring_up_somehow(
    FuseExport *exp, const BlockExportOptions *opts, Error **errp)
{
    OnOffAuto uring = fuse_uring_option(&opts->u.fuse);
    Error *local_err = NULL;

    if (fuse_co_bring_up(exp, opts, uring, &local_err)) {
        return true;
    }
    if (uring != ON_OFF_AUTO_AUTO || !exp->uring_wanted) {
        error_propagate(errp, local_err);
        return false;
    }
    info_report("export '%s' uses /dev/fuse: FUSE over io_uring failed: %s",
                exp->common.id, error_get_pretty(local_err));
    error_free(local_err);
    return fuse_co_bring_up(exp, opts, ON_OFF_AUTO_OFF, errp);
}

static bool fuse_check_options(const BlockExportOptionsFuse *opts,
                               Error **errp)
{
    if (opts->growable && opts->has_resizable && !opts->resizable) {
        error_setg(errp, "growable=on cannot be used with resizable=off");
        return false;
    }
    if (opts->has_queue_depth
        && (opts->queue_depth < 1
            || opts->queue_depth > FUSE_MAX_QUEUE_DEPTH)) {
        error_setg(errp, "queue-depth must be between 1 and %d",
                   FUSE_MAX_QUEUE_DEPTH);
        return false;
    }
    return true;
}

/* Before the first wait: two exports at once may want it. */
static bool fuse_reserve_mountpoint(FuseExport *exp, const char *mountpoint,
                                    Error **errp)
{
    g_autofree char *path = g_canonicalize_filename(mountpoint, NULL);

    if (!fuse_mountpoints) {
        fuse_mountpoints = g_hash_table_new(g_str_hash, g_str_equal);
    }
    if (g_hash_table_contains(fuse_mountpoints, path)) {
        error_setg(errp, "There already is a FUSE export on '%s'",
                   mountpoint);
        return false;
    }
    exp->mount = (FuseMount) { .path = g_steal_pointer(&path), .fd = -1 };
    g_hash_table_add(fuse_mountpoints, exp->mount.path);
    return true;
}

static void fuse_forget_mountpoint(FuseExport *exp)
{
    g_hash_table_remove(fuse_mountpoints, exp->mount.path);
    g_clear_pointer(&exp->mount.path, g_free);
}

static bool coroutine_fn fuse_co_create(BlockExport *common,
                                        const BlockExportOptions *export_opts,
                                        Error **errp)
{
    FuseExport *exp = fuse_export_from(common);
    const BlockExportOptionsFuse *opts = &export_opts->u.fuse;

    if (!fuse_check_options(opts, errp)
        || !fuse_reserve_mountpoint(exp, opts->mountpoint, errp)) {
        return false;
    }
    exp->queue_depth = opts->has_queue_depth ? opts->queue_depth
                                             : FUSE_DEFAULT_QUEUE_DEPTH;
    exp->placement = !opts->has_placement
                     || opts->placement == FUSE_PLACEMENT_ADAPTIVE;
    if (!fuse_mount_co_check(&exp->mount, opts->mountpoint, errp)
        || !fuse_co_bring_up_somehow(exp, export_opts, errp)) {
        fuse_forget_mountpoint(exp);
        return false;
    }
    return true;
}

/* ---- teardown ---- */

static void coroutine_fn fuse_co_shutdown(BlockExport *common)
{
    FuseExport *exp = fuse_export_from(common);

    __atomic_store_n(&exp->halted, true, __ATOMIC_SEQ_CST);
    if (__atomic_sub_fetch(&exp->n_requests, 1, __ATOMIC_SEQ_CST) > 0) {
        co_event_wait(&exp->idle, FUSE_DRAIN_TIMEOUT_NS);
    }
    __atomic_store_n(&exp->cut_off, true, __ATOMIC_RELAXED);
    if (exp->mount.fd >= 0) {
        fuse_mount_co_end(&exp->mount);
    }
    if (__atomic_sub_fetch(&exp->n_users, 1, __ATOMIC_ACQ_REL) > 0) {
        co_event_wait(&exp->unused, -1);
    }
    for (unsigned i = 0; i < exp->n_queues; i++) {
        aio_co_run_in(exp->queues[i].ctx, fuse_queue_stop_bh,
                      &exp->queues[i]);
    }
    exp->mount.fd = -1;
}

static void fuse_free(BlockExport *common)
{
    FuseExport *exp = fuse_export_from(common);

    fuse_deinit_life(exp);
    fuse_forget_mountpoint(exp);
}

/* ---- for the common code ---- */

static bool fuse_in_use(BlockExport *common)
{
    FuseExport *exp = fuse_export_from(common);

    return __atomic_load_n(&exp->file.open_count, __ATOMIC_RELAXED) > 0
           || __atomic_load_n(&exp->n_requests, __ATOMIC_RELAXED) > 1;
}

static void fuse_query(BlockExport *common, BlockExportInfo *info)
{
    FuseExport *exp = fuse_export_from(common);

    info->has_io_uring = true;
    info->io_uring = exp->uring_wanted && !fuse_uring_is_broken(exp);
}

const BlockExportDriver blk_exp_fuse = {
    .type = BLOCK_EXPORT_TYPE_FUSE,
    .instance_size = sizeof(FuseExport),
    .co_create = fuse_co_create,
    .co_shutdown = fuse_co_shutdown,
    .free = fuse_free,
    .resizes = fuse_resizes,
    .in_use = fuse_in_use,
    .query = fuse_query,
};
