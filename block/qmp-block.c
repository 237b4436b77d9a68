/* SPDX-License-Identifier: MIT */
/*
 * QMP commands that change the graph: blockdev-add, blockdev-del, block_resize.
 *
 * Main thread, in the coroutine of the monitor or of the command line.
 */
#include "block/block-int.h"

#include "qapi/qapi-commands.h"

void coroutine_fn qmp_blockdev_add(const BlockdevOptions *arg, Error **errp)
{
    bdrv_co_open(arg, true, errp);
}

static bool has_user(const BlockDriverState *bs)
{
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->blk) {
            return true;
        }
    }
    return false;
}

/* A node that has @bs as its backing, or NULL. */
static BlockDriverState *overlay_of(BlockDriverState *bs)
{
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->parent && c->parent->backing == c) {
            return c->parent;
        }
    }
    return NULL;
}

static bool coroutine_fn co_blockdev_del_locked(const char *node_name,
                                                Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name), *overlay;

    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", node_name);
        return false;
    }
    if (has_user(bs)) {
        error_setg(errp, "Node %s is in use", node_name);
        return false;
    }
    overlay = overlay_of(bs);
    if (overlay) {
        error_setg(errp, "Node '%s' is busy: node is used as backing hd of "
                   "'%s'", node_name, overlay->node_name);
        return false;
    }
    if (!bs->monitor_owned) {
        error_setg(errp, "Node %s is not owned by the monitor", node_name);
        return false;
    }
    if (bs->refcnt > 1) {
        error_setg(errp, "Block device %s is in use", node_name);
        return false;
    }
    bs->monitor_owned = false;
    bdrv_co_unref_locked(bs);
    return true;
}

void coroutine_fn qmp_blockdev_del(const QmpBlockdevDelArg *arg, Error **errp)
{
    bdrv_graph_co_lock();
    co_blockdev_del_locked(arg->node_name, errp);
    bdrv_graph_unlock();
}

void coroutine_fn qmp_block_resize(const QmpBlockResizeArg *arg, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup_node(arg->device, arg->node_name, errp);
    BlockBackend *blk;

    if (!bs) {
        return;
    }
    if (arg->size < 0) {
        error_setg(errp, "Parameter 'size' expects a >0 size");
        return;
    }

    bdrv_ref(bs);
    blk = blk_new(NULL, BLK_PERM_RESIZE, BLK_PERM_ALL);
    if (blk_co_attach(blk, bs, errp)) {
        bdrv_graph_co_lock();
        bdrv_co_drained_begin_locked(bs);
        blk_co_truncate(blk, arg->size, PREALLOC_MODE_OFF, 0, errp);
        bdrv_drained_end(bs);
        bdrv_graph_unlock();
    }
    blk_co_free(blk);
    bdrv_co_unref(bs);
}
