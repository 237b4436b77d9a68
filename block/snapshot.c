/* SPDX-License-Identifier: MIT */
/*
 * Checks and snapshots: what is the same for all drivers.
 *
 * Main thread, under the graph lock from beginning to end and with the node
 * drained: nobody else looks at the image meanwhile or changes it.
 */
#include "block/snapshot.h"

#include <errno.h>

#include "block/block-int.h"
#include "block/check.h"
#include "block/dirty-bitmap.h"

bool bdrv_open_for_check;
bool bdrv_open_without_data;

SnapshotInfoList *bdrv_snapshot_list(BlockDriverState *bs, bool *supported)
{
    if (supported) {
        *supported = bs->drv->bdrv_snapshot_list != NULL;
    }
    return bs->drv->bdrv_snapshot_list ? bs->drv->bdrv_snapshot_list(bs)
                                       : NULL;
}

static bool can(const BlockDriverState *bs, bool supported, Error **errp)
{
    if (!supported) {
        error_setg(errp, "Block format '%s' used by device '%s' does not "
                   "support internal snapshots", bs->drv->format_name,
                   bs->node_name);
    }
    return supported;
}

/* ---- under the graph lock ---- */

bool coroutine_fn bdrv_co_snapshot_create_locked(BlockDriverState *bs,
                                                 const char *name,
                                                 const char *id, Error **errp)
{
    bool ok;

    if (!can(bs, bs->drv->bdrv_co_snapshot_create, errp)) {
        return false;
    }
    bdrv_co_drained_begin_locked(bs);
    ok = bs->drv->bdrv_co_snapshot_create(bs, name, id, errp);
    bdrv_drained_end(bs);
    return ok;
}

bool coroutine_fn bdrv_co_snapshot_delete_locked(BlockDriverState *bs,
                                                 const char *id,
                                                 const char *name,
                                                 Error **errp)
{
    bool ok;

    if (!can(bs, bs->drv->bdrv_co_snapshot_delete, errp)) {
        return false;
    }
    bdrv_co_drained_begin_locked(bs);
    ok = bs->drv->bdrv_co_snapshot_delete(bs, id, name, errp);
    bdrv_drained_end(bs);
    return ok;
}

/* ---- anywhere ---- */

bool coroutine_fn bdrv_co_snapshot_create(BlockDriverState *bs,
                                          const char *name, const char *id,
                                          Error **errp)
{
    bool ok;

    bdrv_graph_co_lock();
    ok = bdrv_co_snapshot_create_locked(bs, name, id, errp);
    bdrv_graph_unlock();
    return ok;
}

bool coroutine_fn bdrv_co_snapshot_delete(BlockDriverState *bs,
                                          const char *id, const char *name,
                                          Error **errp)
{
    bool ok;

    bdrv_graph_co_lock();
    ok = bdrv_co_snapshot_delete_locked(bs, id, name, errp);
    bdrv_graph_unlock();
    return ok;
}

bool coroutine_fn bdrv_co_snapshot_apply(BlockDriverState *bs,
                                         const char *id_or_name, Error **errp)
{
    bool ok;

    if (!can(bs, bs->drv->bdrv_co_snapshot_apply, errp)) {
        return false;
    }
    bdrv_graph_co_lock();
    bdrv_co_drained_begin_locked(bs);
    ok = bs->drv->bdrv_co_snapshot_apply(bs, id_or_name, errp);
    bdrv_co_note_dirty(bs, 0, bdrv_getlength(bs));
    bdrv_drained_end(bs);
    bdrv_graph_unlock();
    return ok;
}

int coroutine_fn bdrv_co_check(BlockDriverState *bs, BdrvCheckResult *res,
                               int fix, const BdrvCheckHooks *hooks,
                               Error **errp)
{
    static const BdrvCheckHooks no_hooks;
    int ret;

    *res = (BdrvCheckResult) { 0 };
    if (!bs->drv->bdrv_co_check) {
        error_setg(errp, "This image format does not support checks");
        return -ENOTSUP;
    }
    if (fix && bs->read_only) {
        error_setg(errp, "Device '%s' is read only", bs->node_name);
        return -EPERM;
    }
    bdrv_graph_co_lock();
    bdrv_co_drained_begin_locked(bs);
    ret = bs->drv->bdrv_co_check(bs, res, fix, hooks ? hooks : &no_hooks,
                                 errp);
    bdrv_drained_end(bs);
    bdrv_graph_unlock();
    return ret;
}
