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

/* Set while somebody waits for blk_exports to become empty. */
static CoEvent *blk_exp_all_gone;

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

/* Attach to the node with the permissions that an export takes. */
static bool coroutine_fn blk_exp_co_attach(BlockExport *exp,
                                           const BlockExportOptions *opts,
                                           Error **errp)
{
    BlockDriverState *bs = bdrv_lookup_node(NULL, opts->node_name, errp);
    uint64_t perm = BLK_PERM_CONSISTENT_READ;
    g_autofree char *name = NULL;

    if (!bs) {
        return false;
    }
    if (opts->writable) {
        if (bdrv_is_read_only(bs)) {
            error_setg(errp, "Cannot export read-only node as writable");
            return false;
        }
        perm |= BLK_PERM_WRITE;
        if (!exp->drv->resizes || exp->drv->resizes(opts)) {
            perm |= BLK_PERM_RESIZE;
        }
    }
    name = g_strdup_printf("block export '%s'", exp->id);
    exp->blk = blk_new(name, perm, BLK_PERM_ALL);
    blk_set_writethrough(exp->blk, opts->writethrough);
    return blk_co_attach(exp->blk, bs, errp);
}

static void coroutine_fn blk_exp_co_free(BlockExport *exp)
{
    for (unsigned i = 0; i < exp->n_iothreads; i++) {
        iothread_unref(exp->iothreads[i]);
    }
    blk_co_free(exp->blk);
    g_free(exp->iothreads);
    g_free(exp->id);
    g_free(exp);
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
    exp = g_malloc0(drv->instance_size);
    exp->drv = drv;
    exp->id = g_strdup(opts->id);
    /* Listed from now on: creation waits, and the id is taken meanwhile. */
    exp->starting = true;
    /* The newest comes first in query-block-exports. */
    TAILQ_INSERT_HEAD(&blk_exports, exp, next);

    if (blk_exp_co_attach(exp, opts, errp)
        && blk_exp_add_iothreads(exp, opts, errp)
        && drv->co_create(exp, opts, errp)) {
        exp->starting = false;
        trace(export_add, "id=%s", exp->id);
        if (blk_exp_all_gone) {     /* the daemon is ending meanwhile */
            blk_exp_request_shutdown(exp);
        }
        return true;
    }
    TAILQ_REMOVE(&blk_exports, exp, next);
    blk_exp_co_free(exp);
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
    const BlockExportDriver *drv = exp->drv;
    CoEvent *deleted;

    trace(export_shutdown, "id=%s", exp->id);
    drv->co_shutdown(exp);
    drv->free(exp);
    deleted = exp->deleted;
    TAILQ_REMOVE(&blk_exports, exp, next);
    trace(export_deleted, "id=%s", exp->id);
    qapi_event_send(QAPI_EVENT_BLOCK_EXPORT_DELETED,
                    &(QapiEventBlockExportDeleted) { .id = exp->id });
    blk_exp_co_free(exp);
    if (deleted) {
        co_event_set(deleted);
    }
    if (blk_exp_all_gone && TAILQ_EMPTY(&blk_exports)) {
        co_event_set(blk_exp_all_gone);
    }
}

void blk_exp_request_shutdown(BlockExport *exp)
{
    if (!exp->shutting_down && !exp->starting) {
        exp->shutting_down = true;
        coroutine_enter(coroutine_create(blk_exp_co_shutdown, exp));
    }
}

/* Wait for a client that is about to go; true if none is left. */
static bool coroutine_fn blk_exp_co_settle(const char *id)
{
    int64_t end = clock_now_ns() + BLK_EXP_CLOSE_GRACE_NS;

    for (;;) {
        BlockExport *exp = blk_exp_find(id);

        if (!exp || !exp->drv->in_use(exp)) {
            return true;
        }
        if (clock_now_ns() >= end) {
            return false;
        }
        aio_co_sleep_ns(BLK_EXP_CLOSE_POLL_NS);
    }
}

void coroutine_fn qmp_block_export_del(const QmpBlockExportDelArg *arg,
                                       Error **errp)
{
    bool hard = arg->has_mode && arg->mode == BLOCK_EXPORT_REMOVE_MODE_HARD;
    BlockExport *exp = blk_exp_find(arg->id);
    CoEvent deleted = { 0 };

    if (!exp || exp->starting) {
        error_setg(errp, "Export '%s' is not found", arg->id);
        return;
    }
    if (exp->shutting_down) {
        error_setg(errp, "Export '%s' is already shutting down", arg->id);
        return;
    }
    if (!hard && !blk_exp_co_settle(arg->id)) {
        error_setg(errp, "export '%s' still in use", arg->id);
        error_append_hint(errp, "Use mode='hard' to force client "
                          "disconnect\n");
        return;
    }
    /* Settling waited: the export may have ended by itself. */
    exp = blk_exp_find(arg->id);
    if (!exp || exp->shutting_down) {
        return;
    }
    exp->deleted = &deleted;
    blk_exp_request_shutdown(exp);
    if (!co_event_wait(&deleted, BLK_EXP_SHUTDOWN_TIMEOUT_NS)) {
        /* Storage does not answer; BLOCK_EXPORT_DELETED comes when it does. */
        exp->deleted = NULL;
    }
}

bool coroutine_fn blk_exp_co_close_all(void)
{
    CoEvent all_gone = { 0 };
    BlockExport *exp, *next;

    TAILQ_FOREACH_SAFE(exp, &blk_exports, next, next) {
        blk_exp_request_shutdown(exp);
    }
    if (!TAILQ_EMPTY(&blk_exports)) {
        blk_exp_all_gone = &all_gone;
        co_event_wait(&all_gone, BLK_EXP_SHUTDOWN_TIMEOUT_NS);
        blk_exp_all_gone = NULL;
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
        info->node_name = g_strdup(bdrv_get_node_name(blk_bs(exp->blk)));
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
