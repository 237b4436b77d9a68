/* SPDX-License-Identifier: MIT */
/*
 * Drained sections: nobody's request is inside the part of the graph that
 * leads to a node.
 *
 * Main thread.  bs->drain_count is what was asked for the node itself plus the
 * counts of all its children, so that changing an edge inside a drained section
 * adds or takes away exactly the child's count.  Users (BlockBackends) on top
 * carry the same number and let no request in while it is not 0.
 */
#include "block/block-int.h"

/* Those who drain; woken by every request that ends meanwhile. */
WaitSet bdrv_drain_waiters = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .entries = TAILQ_HEAD_INITIALIZER(bdrv_drain_waiters.entries),
};

/* Add @n (which may be negative) to @bs and to all that leads to it. */
static void drain_add(BlockDriverState *bs, int n);

static void drain_add_edge(BdrvChild *child, int n)
{
    if (child->parent) {
        drain_add(child->parent, n);
        return;
    }
    for (; n > 0; n--) {
        blk_quiesce(child->blk);
    }
    for (; n < 0; n++) {
        blk_unquiesce(child->blk);
    }
}

static void drain_add(BlockDriverState *bs, int n)
{
    BdrvChild *c, *next;

    bs->drain_count += n;
    g_assert(bs->drain_count >= 0);
    TAILQ_FOREACH_SAFE(c, &bs->parents, next_parent, next) {
        drain_add_edge(c, n);
    }
}

void bdrv_drain_attach(BdrvChild *child)
{
    drain_add_edge(child, child->bs->drain_count);
}

void bdrv_drain_detach(BdrvChild *child)
{
    drain_add_edge(child, -child->bs->drain_count);
}

static bool is_idle(void *opaque)
{
    BlockDriverState *bs = opaque;
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->parent ? !is_idle(c->parent) : blk_in_flight(c->blk) > 0) {
            return false;
        }
    }
    return true;
}

static void collect_below(BlockDriverState *bs, GPtrArray *nodes)
{
    BdrvChild *c;

    if (bs->drv->bdrv_drain_begin && !g_ptr_array_find(nodes, bs, NULL)) {
        g_ptr_array_add(nodes, bs);
    }
    TAILQ_FOREACH(c, &bs->children, next) {
        collect_below(c->bs, nodes);
    }
}

/* The nodes that may be delaying a request on its way to, or beside, @bs. */
static void collect_delaying(BlockDriverState *bs, GPtrArray *nodes)
{
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->parent) {
            collect_delaying(c->parent, nodes);
        } else {
            collect_below(bs, nodes);
        }
    }
}

void coroutine_fn bdrv_co_drained_begin_locked(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) delaying = NULL;

    drain_add(bs, 1);
    if (is_idle(bs)) {
        return;
    }

    delaying = g_ptr_array_new();
    collect_delaying(bs, delaying);
    for (guint i = 0; i < delaying->len; i++) {
        BlockDriverState *node = delaying->pdata[i];

        node->drv->bdrv_drain_begin(node);
    }
    wait_set_co_wait(&bdrv_drain_waiters, is_idle, bs);
    for (guint i = 0; i < delaying->len; i++) {
        BlockDriverState *node = delaying->pdata[i];

        node->drv->bdrv_drain_end(node);
    }
}

void bdrv_drained_end(BlockDriverState *bs)
{
    drain_add(bs, -1);
}
