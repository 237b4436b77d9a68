/* SPDX-License-Identifier: MIT */
/*
 * QMP commands for snapshots inside of images.
 *
 * Main thread, in the coroutine of the monitor or of the command line, under
 * the graph lock.
 */
#include "block/transaction.h"

#include <string.h>

#include "block/snapshot.h"
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"

/* The first one with both (NULL: any); the caller frees. */
static SnapshotInfo *find(SnapshotInfoList *list, const char *id,
                          const char *name)
{
    for (; list; list = list->next) {
        if ((!id || !strcmp(id, list->value->id))
            && (!name || !strcmp(name, list->value->name))) {
            return QAPI_CLONE(SnapshotInfo, list->value);
        }
    }
    return NULL;
}

/* The node of that name, unless it is a part of another one. */
static BlockDriverState *find_root(const char *name, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup_node(name, name, errp);
    BdrvChild *c;

    if (!bs) {
        return NULL;
    }
    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->parent) {
            error_setg(errp, "Need a root block node");
            return NULL;
        }
    }
    return bs;
}

static bool can_create(BlockDriverState *bs, const char *name, Error **errp)
{
    g_autoptr(SnapshotInfoList) list = NULL;
    g_autoptr(SnapshotInfo) old = NULL;
    bool supported;

    if (bs->read_only) {
        error_setg(errp, "Device '%s' is read only", bs->node_name);
        return false;
    }
    list = bdrv_snapshot_list(bs, &supported);
    if (!supported) {
        error_setg(errp, "Block format '%s' used by device '%s' does not "
                   "support internal snapshots", bs->drv->format_name,
                   bs->node_name);
        return false;
    }
    if (!*name) {
        error_setg(errp, "Name is empty");
        return false;
    }
    old = find(list, NULL, name);
    if (old) {
        error_setg(errp, "Snapshot with name '%s' already exists on device "
                   "'%s'", name, bs->node_name);
    }
    return !old;
}

static bool coroutine_fn co_prepare_create(TransactionItem *it, Error **errp)
{
    const BlockdevSnapshotInternal *arg = it->arg;
    BlockDriverState *bs = find_root(arg->device, errp);
    g_autoptr(SnapshotInfoList) list = NULL;
    g_autoptr(SnapshotInfo) info = NULL;

    if (!bs || !can_create(bs, arg->name, errp)) {
        return false;
    }
    transaction_co_drain(it, bs);
    if (!bdrv_co_snapshot_create_locked(bs, arg->name, NULL, errp)) {
        error_prepend(errp, "Failed to create snapshot '%s' on device '%s': ",
                      arg->name, bs->node_name);
        return false;
    }
    list = bdrv_snapshot_list(bs, NULL);
    info = find(list, NULL, arg->name);
    it->id = g_strdup(info->id);
    return true;
}

static void coroutine_fn co_abort_create(TransactionItem *it)
{
    const BlockdevSnapshotInternal *arg = it->arg;
    Error *err = NULL;

    if (!bdrv_co_snapshot_delete_locked(it->bs, it->id, arg->name, &err)) {
        error_prepend(&err, "Failed to take back snapshot '%s' on device "
                      "'%s': ", arg->name, it->bs->node_name);
        error_report_err(err);
    }
}

const TransactionOps transaction_snapshot_create = {
    .co_prepare = co_prepare_create,
    .co_abort = co_abort_create,
};

void coroutine_fn qmp_blockdev_snapshot_internal_sync(
    const BlockdevSnapshotInternal *arg, Error **errp)
{
    transaction_co_one(&transaction_snapshot_create, arg, errp);
}

static SnapshotInfo *coroutine_fn co_delete(BlockDriverState *bs,
                                            const char *id, const char *name,
                                            Error **errp)
{
    g_autoptr(SnapshotInfoList) list = NULL;
    g_autoptr(SnapshotInfo) info = NULL;
    bool supported;

    if (!id && !name) {
        error_setg(errp, "Name or id must be provided");
        return NULL;
    }
    list = bdrv_snapshot_list(bs, &supported);
    if (!supported) {
        error_setg_errno(errp, ENOTSUP, "Failed to get a snapshot list");
        return NULL;
    }
    info = find(list, id, name);
    if (!info) {
        error_setg(errp, "Snapshot with id '%s' and name '%s' does not exist "
                   "on device '%s'", id ? id : "null", name ? name : "null",
                   bs->node_name);
        return NULL;
    }
    if (bs->read_only) {
        error_setg_errno(errp, EPERM,
                         "Failed to remove snapshot from snapshot list");
        return NULL;
    }
    return bdrv_co_snapshot_delete_locked(bs, info->id, info->name, errp)
           ? g_steal_pointer(&info) : NULL;
}

SnapshotInfo *coroutine_fn qmp_blockdev_snapshot_delete_internal_sync(
    const QmpBlockdevSnapshotDeleteInternalSyncArg *arg, Error **errp)
{
    BlockDriverState *bs;
    SnapshotInfo *info;

    bdrv_graph_co_lock();
    bs = find_root(arg->device, errp);
    info = bs ? co_delete(bs, arg->id, arg->name, errp) : NULL;
    bdrv_graph_unlock();
    return info;
}
