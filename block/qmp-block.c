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

/* The node, if nobody needs it. */
static BlockDriverState *find_unused(const char *node_name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name), *overlay;

    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", node_name);
        return NULL;
    }
    if (has_user(bs)) {
        error_setg(errp, "Node %s is in use", node_name);
        return NULL;
    }
    overlay = overlay_of(bs);
    if (overlay) {
        error_setg(errp, "Node '%s' is busy: node is used as backing hd of "
                   "'%s'", node_name, overlay->node_name);
        return NULL;
    }
    if (!bs->monitor_owned) {
        error_setg(errp, "Node %s is not owned by the monitor", node_name);
        return NULL;
    }
    if (bs->refcnt > 1) {
        error_setg(errp, "Block device %s is in use", node_name);
        return NULL;
    }
    return bs;
}

/* Can all be written out?  The first time it matters, then it is given up. */
static bool coroutine_fn co_flush_unless_given_up(BlockDriverState *bs,
                                                  Error **errp)
{
    int ret = bs->read_only || bs->loss_told ? 0 : bdrv_co_flush(bs);

    if (ret < 0) {
        bs->loss_told = true;
        error_setg_errno(errp, -ret, "Could not write out the data of node "
                         "'%s', which is lost if the node is deleted again",
                         bs->node_name);
    }
    return ret >= 0;
}

void coroutine_fn qmp_blockdev_del(const QmpBlockdevDelArg *arg, Error **errp)
{
    BlockDriverState *bs;

    bdrv_graph_co_lock();
    bs = find_unused(arg->node_name, errp);
    if (bs && co_flush_unless_given_up(bs, errp)
        && find_unused(arg->node_name, errp)) {
        bs->monitor_owned = false;
        bdrv_co_unref_locked(bs);
    }
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
