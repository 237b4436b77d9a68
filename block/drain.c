/* SPDX-License-Identifier: MIT */
/*
 * Drained sections: nobody's request is inside the part of the graph that
 * leads to a node.
 *
 * Main thread.  bs->drain_count is what was asked for the node itself, plus one
 * for each edge to a child that is drained, so that changing an edge inside a
 * drained section adds or takes away exactly one.  Users (BlockBackends) on top
 * count alike and let no request in while it is not 0.
 */
#include "block/block-int.h"

/* Those who drain; woken by every request that ends meanwhile. */
WaitSet bdrv_drain_waiters = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .entries = TAILQ_HEAD_INITIALIZER(bdrv_drain_waiters.entries),
};

static void drain_begin(BlockDriverState *bs);
static void drain_end(BlockDriverState *bs);

static void drain_begin_edge(BdrvChild *child)
{
    if (child->parent) {
        drain_begin(child->parent);
    } else {
        blk_quiesce(child->blk);
    }
}

static void drain_end_edge(BdrvChild *child)
{
    if (child->parent) {
        drain_end(child->parent);
    } else {
        blk_unquiesce(child->blk);
    }
}

/* What is drained already has told those above. */
static void drain_begin(BlockDriverState *bs)
{
    BdrvChild *c, *next;

    if (bs->drain_count++ == 0) {
        TAILQ_FOREACH_SAFE(c, &bs->parents, next_parent, next) {
            drain_begin_edge(c);
        }
    }
}

static void drain_end(BlockDriverState *bs)
{
    BdrvChild *c, *next;

    g_assert(bs->drain_count > 0);
    if (--bs->drain_count == 0) {
        TAILQ_FOREACH_SAFE(c, &bs->parents, next_parent, next) {
            drain_end_edge(c);
        }
    }
}

void bdrv_drain_attach(BdrvChild *child)
{
    if (child->bs->drain_count) {
        drain_begin_edge(child);
    }
}

void bdrv_drain_detach(BdrvChild *child)
{
    if (child->bs->drain_count) {
        drain_end_edge(child);
    }
}

static bool above_is_idle(BlockDriverState *bs)
{
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->parent ? bdrv_walk_visit(c->parent) && !above_is_idle(c->parent)
                      : blk_in_flight(c->blk) > 0) {
            return false;
        }
    }
    return true;
}

static bool is_idle(void *opaque)
{
    bdrv_walk_begin();
    return above_is_idle(opaque);
}

/* The nodes that users of @bs use directly: @bs, or above it. */
static void collect_roots(BlockDriverState *bs, GPtrArray *roots)
{
    bool is_root = false;
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        is_root |= !c->parent;
        if (c->parent && bdrv_walk_visit(c->parent)) {
            collect_roots(c->parent, roots);
        }
    }
    if (is_root) {
        g_ptr_array_add(roots, bs);
    }
}

static void collect_below(BlockDriverState *bs, GPtrArray *nodes)
{
    BdrvChild *c;

    if (!bdrv_walk_visit(bs)) {
        return;
    }
    if (bs->drv->bdrv_drain_begin) {
        g_ptr_array_add(nodes, bs);
    }
    TAILQ_FOREACH(c, &bs->children, next) {
        collect_below(c->bs, nodes);
    }
}

/* The nodes that may be delaying a request on its way to, or beside, @bs. */
static void collect_delaying(BlockDriverState *bs, GPtrArray *nodes)
{
    g_autoptr(GPtrArray) roots = g_ptr_array_new();

    bdrv_walk_begin();
    collect_roots(bs, roots);
    bdrv_walk_begin();
    for (guint i = 0; i < roots->len; i++) {
        collect_below(roots->pdata[i], nodes);
    }
}

void coroutine_fn bdrv_co_drained_begin_locked(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) delaying = NULL;

    drain_begin(bs);
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
    drain_end(bs);
}
