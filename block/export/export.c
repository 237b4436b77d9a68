/* SPDX-License-Identifier: MIT */
/*
 * Block exports: creation, deletion, and their QMP commands.  Main thread.
 *
 * A new kind of export is one BlockExportDriver in the table below.
 */
#include "config-host.h"

#include <string.h>

#include "block/export/export.h"
#include "block/export/fuse.h"
#include "qapi/event.h"
#include "qapi/qapi-commands.h"
#include "util/co-event.h"
#include "util/ident.h"
#include "util/trace.h"

/*
 * mode=safe looks this long for an export that is being closed by its last
 * client: the kernel tells of a close(2) only after it has returned.
 */
#define BLK_EXP_CLOSE_GRACE_NS (500 * 1000000LL)
#define BLK_EXP_CLOSE_POLL_NS (2 * 1000000LL)

/* How long block-export-del, and the end of the daemon, wait for an export. */
#define BLK_EXP_SHUTDOWN_TIMEOUT_NS (10 * 1000000000LL)

static const BlockExportDriver *const blk_exp_drivers[] = {
    &blk_exp_fuse,
};

static TAILQ_HEAD(, BlockExport) blk_exports =
    TAILQ_HEAD_INITIALIZER(blk_exports);

/* The daemon is ending: what is still starting ends when it has started. */
static bool blk_exp_closing;
static CoEvent blk_exp_all_gone;        /* ... and blk_exports is empty */

static BlockExport *blk_exp_find(const char *id)
{
    BlockExport *exp;

    TAILQ_FOREACH(exp, &blk_exports, next) {
        if (g_str_equal(exp->id, id)) {
            return exp;
        }
    }
    return NULL;
}

static const BlockExportDriver *blk_exp_find_driver(BlockExportType type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(blk_exp_drivers); i++) {
        if (blk_exp_drivers[i]->type == type) {
            return blk_exp_drivers[i];
        }
    }
    return NULL;
}

/* ---- creation ---- */

static bool blk_exp_add_iothread(BlockExport *exp, const char *id,
                                 Error **errp)
{
    IOThread *iothread = iothread_by_id(id);

    if (!iothread) {
        error_setg(errp, "iothread \"%s\" not found", id);
        return false;
    }
    iothread_ref(iothread);
    exp->iothreads = g_renew(IOThread *, exp->iothreads, exp->n_iothreads + 1);
    exp->iothreads[exp->n_iothreads++] = iothread;
    return true;
}

static bool blk_exp_add_iothreads(BlockExport *exp,
                                  const BlockExportOptions *opts, Error **errp)
{
    const BlockExportIothreads *iothreads = opts->iothread;

    if (!iothreads) {
        return true;
    }
    if (iothreads->type == QTYPE_QSTRING) {
        return blk_exp_add_iothread(exp, iothreads->u.single, errp);
    }
    if (opts->fixed_iothread) {
        error_setg(errp,
                   "Cannot use fixed-iothread for a multi-threaded export");
        return false;
    }
    if (!iothreads->u.multi) {
        error_setg(errp, "The set of I/O threads must not be empty");
        return false;
    }
    for (strList *l = iothreads->u.multi; l; l = l->next) {
        if (!blk_exp_add_iothread(exp, l->value, errp)) {
            return false;
        }
    }
    return true;
}

/* The node that @opts name, if it may be exported like that. */
static BlockDriverState *blk_exp_find_node(const BlockExportOptions *opts,
                                           Error **errp)
{
    BlockDriverState *bs = bdrv_lookup_node(NULL, opts->node_name, errp);

    if (bs && opts->writable && bdrv_is_read_only(bs)) {
        error_setg(errp, "Cannot export read-only node as writable");
        return NULL;
    }
    return bs;
}

/*
 * Attach to the node with the permissions that an export takes.  All that
 * @opts name is looked up before the first wait.
 */
static bool coroutine_fn blk_exp_co_attach(BlockExport *exp,
                                           const BlockExportOptions *opts,
                                           Error **errp)
{
    BlockDriverState *bs = blk_exp_find_node(opts, errp);
    uint64_t perm = BLK_PERM_CONSISTENT_READ;
    g_autofree char *name = g_strdup_printf("block export '%s'", exp->id);

    if (!bs || !blk_exp_add_iothreads(exp, opts, errp)) {
        return false;
    }
    if (opts->writable) {
        perm |= BLK_PERM_WRITE;
        if (!exp->drv->resizes || exp->drv->resizes(opts)) {
            perm |= BLK_PERM_RESIZE;
        }
    }
    exp->node_name = g_strdup(bdrv_get_node_name(bs));
    exp->blk = blk_new(name, perm, BLK_PERM_ALL);
    blk_set_writethrough(exp->blk, opts->writethrough);
    return blk_co_attach(exp->blk, bs, errp);
}

static void blk_exp_unref(BlockExport *exp)
{
    if (--exp->refcnt == 0) {
        g_free(exp->id);
        g_free(exp->node_name);
        g_free(exp);
    }
}

/* Release the node and the threads; only then the id is free again. */
static void coroutine_fn blk_exp_co_release(BlockExport *exp)
{
    for (unsigned i = 0; i < exp->n_iothreads; i++) {
        iothread_unref(exp->iothreads[i]);
    }
    g_free(exp->iothreads);
    blk_co_free(exp->blk);
    TAILQ_REMOVE(&blk_exports, exp, next);
    if (blk_exp_closing && TAILQ_EMPTY(&blk_exports)) {
        co_event_set(&blk_exp_all_gone);
    }
}

static BlockExport *blk_exp_new(const BlockExportDriver *drv, const char *id)
{
    BlockExport *exp = g_malloc0(drv->instance_size);

    exp->drv = drv;
    exp->refcnt = 1;
    exp->id = g_strdup(id);
    /* Listed from now on: creation waits, and the id is taken meanwhile. */
    exp->starting = true;
    /* The newest comes first in query-block-exports. */
    TAILQ_INSERT_HEAD(&blk_exports, exp, next);
    return exp;
}

bool coroutine_fn blk_exp_co_add(const BlockExportOptions *opts, Error **errp)
{
    const BlockExportDriver *drv = blk_exp_find_driver(opts->type);
    BlockExport *exp;

    if (!ident_wellformed(opts->id)) {
        error_setg(errp, "Invalid block export id");
        return false;
    }
    if (blk_exp_find(opts->id)) {
        error_setg(errp, "Block export id '%s' is already in use", opts->id);
        return false;
    }
    if (!drv) {
        error_setg(errp, "No driver found for the requested export type");
        return false;
    }
    exp = blk_exp_new(drv, opts->id);
    if (blk_exp_co_attach(exp, opts, errp)
        && drv->co_create(exp, opts, errp)) {
        exp->starting = false;
        trace(export_add, "id=%s", exp->id);
        if (blk_exp_closing) {
            blk_exp_request_shutdown(exp);
        }
        return true;
    }
    blk_exp_co_release(exp);
    blk_exp_unref(exp);
    return false;
}

void coroutine_fn qmp_block_export_add(const BlockExportOptions *arg,
                                       Error **errp)
{
    blk_exp_co_add(arg, errp);
}

/* ---- deletion ---- */

static void coroutine_fn blk_exp_co_shutdown(void *opaque)
{
    BlockExport *exp = opaque;

    trace(export_shutdown, "id=%s", exp->id);
    exp->drv->co_shutdown(exp);
    exp->drv->free(exp);
    blk_exp_co_release(exp);
    trace(export_deleted, "id=%s", exp->id);
    qapi_event_send(QAPI_EVENT_BLOCK_EXPORT_DELETED,
                    &(QapiEventBlockExportDeleted) { .id = exp->id });
    co_event_set(&exp->deleted);
    blk_exp_unref(exp);
}

void blk_exp_request_shutdown(BlockExport *exp)
{
    if (!exp->shutting_down && !exp->starting) {
        exp->shutting_down = true;
        coroutine_enter(coroutine_create(blk_exp_co_shutdown, exp));
    }
}

/*
 * Wait for a client that is about to go; true if none is left, or if the
 * export is ending anyway.  The caller has a reference.
 */
static bool coroutine_fn blk_exp_co_settle(BlockExport *exp)
{
    int64_t end = clock_now_ns() + BLK_EXP_CLOSE_GRACE_NS;

    while (!exp->shutting_down && exp->drv->in_use(exp)) {
        if (clock_now_ns() >= end) {
            return false;
        }
        aio_co_sleep_ns(BLK_EXP_CLOSE_POLL_NS);
    }
    return true;
}

void coroutine_fn qmp_block_export_del(const QmpBlockExportDelArg *arg,
                                       Error **errp)
{
    bool hard = arg->has_mode && arg->mode == BLOCK_EXPORT_REMOVE_MODE_HARD;
    BlockExport *exp = blk_exp_find(arg->id);

    if (!exp || exp->starting) {
        error_setg(errp, "Export '%s' is not found", arg->id);
        return;
    }
    if (exp->shutting_down) {
        error_setg(errp, "Export '%s' is already shutting down", arg->id);
        return;
    }
    exp->refcnt++;
    if (hard || blk_exp_co_settle(exp)) {
        blk_exp_request_shutdown(exp);
        /* If storage does not answer, the event comes when it does. */
        co_event_wait(&exp->deleted, BLK_EXP_SHUTDOWN_TIMEOUT_NS);
    } else {
        error_setg(errp, "export '%s' still in use", arg->id);
        error_append_hint(errp, "Use mode='hard' to force client "
                          "disconnect\n");
    }
    blk_exp_unref(exp);
}

/* One that is to be shut down and does not know it yet, or NULL. */
static BlockExport *blk_exp_next_running(void)
{
    BlockExport *exp;

    TAILQ_FOREACH(exp, &blk_exports, next) {
        if (!exp->starting && !exp->shutting_down) {
            return exp;
        }
    }
    return NULL;
}

bool coroutine_fn blk_exp_co_close_all(void)
{
    BlockExport *exp;

    blk_exp_closing = true;
    while ((exp = blk_exp_next_running())) {
        blk_exp_request_shutdown(exp);
    }
    if (!TAILQ_EMPTY(&blk_exports)) {
        co_event_wait(&blk_exp_all_gone, BLK_EXP_SHUTDOWN_TIMEOUT_NS);
    }
    return TAILQ_EMPTY(&blk_exports);
}

/* ---- query ---- */

BlockExportInfoList *coroutine_fn qmp_query_block_exports(Error **errp)
{
    BlockExportInfoList *list = NULL, **tail = &list;
    BlockExport *exp;

    TAILQ_FOREACH(exp, &blk_exports, next) {
        BlockExportInfo *info;

        if (exp->starting) {
            continue;
        }
        info = g_new0(BlockExportInfo, 1);
        info->id = g_strdup(exp->id);
        info->type = exp->drv->type;
        info->node_name = g_strdup(exp->node_name);
        info->shutting_down = exp->shutting_down;
        if (exp->drv->query) {
            exp->drv->query(exp, info);
        }
        *tail = g_new0(BlockExportInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}
