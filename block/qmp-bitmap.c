/* SPDX-License-Identifier: MIT */
/*
 * QMP commands for dirty bitmaps.
 *
 * Main thread, in the coroutine of the monitor.  Each command holds the graph
 * lock from its first look to its last change, and keeps the node drained while
 * it changes anything.
 */
#include "block/dirty-bitmap.h"

#include <errno.h>
#include <inttypes.h>

#include "qapi/qapi-commands.h"

/* What a command does with a bitmap, the node being drained. */
typedef bool coroutine_fn BitmapFunc(BlockDriverState *bs, BdrvDirtyBitmap *bm,
                                     Error **errp);

enum {
    USE = 0,                            /* it must be consistent */
    CHANGE = 1 << 0,                    /* it must be writable */
    ANY = 1 << 1,                       /* inconsistent is fine */
};

static bool is_inconsistent(const BdrvDirtyBitmap *bm)
{
    return __atomic_load_n(&bm->inconsistent, __ATOMIC_RELAXED);
}

static bool check(BlockDriverState *bs, const BdrvDirtyBitmap *bm, int how,
                  Error **errp)
{
    if ((how & CHANGE) && bm->persistent && bs->read_only) {
        error_setg(errp, "Bitmap '%s' is readonly and cannot be modified",
                   bm->name);
    } else if (!(how & ANY) && is_inconsistent(bm)) {
        error_setg(errp, "Bitmap '%s' is inconsistent and cannot be used",
                   bm->name);
        error_append_hint(errp, "Try block-dirty-bitmap-remove to delete "
                          "this bitmap from disk\n");
    } else {
        return true;
    }
    return false;
}

static BlockDriverState *find_node(const char *node, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node);

    if (!bs) {
        error_setg(errp, "Node '%s' not found", node);
    }
    return bs;
}

static BdrvDirtyBitmap *find_bitmap(BlockDriverState *bs, const char *name,
                                    Error **errp)
{
    BdrvDirtyBitmap *bm = bdrv_dirty_bitmap_find(bs, name);

    if (!bm) {
        error_setg(errp, "Dirty bitmap '%s' not found", name);
    }
    return bm;
}

static bool coroutine_fn co_with_bitmap(const BlockDirtyBitmap *arg, int how,
                                        BitmapFunc *co_func, Error **errp)
{
    BlockDriverState *bs;
    BdrvDirtyBitmap *bm;
    bool ok = false;

    bdrv_graph_co_lock();
    bs = find_node(arg->node, errp);
    bm = bs ? find_bitmap(bs, arg->name, errp) : NULL;
    if (bm && check(bs, bm, how, errp)) {
        bdrv_co_drained_begin_locked(bs);
        ok = co_func(bs, bm, errp);
        bdrv_drained_end(bs);
    }
    bdrv_graph_unlock();
    return ok;
}

/* ---- add ---- */

static bool can_persist(BlockDriverState *bs, const BlockDirtyBitmapAdd *arg,
                        int64_t granularity, Error **errp)
{
    if (!bs->drv->bdrv_can_store_bitmap) {
        error_setg_errno(errp, ENOTSUP, "Can't store persistent bitmaps to %s",
                         bs->node_name);
        return false;
    }
    if (!bs->drv->bdrv_can_store_bitmap(bs, arg->name, granularity, errp)) {
        error_prepend(errp, "Can't make bitmap '%s' persistent in '%s': ",
                      arg->name, bs->node_name);
        return false;
    }
    return true;
}

static void coroutine_fn co_add(BlockDriverState *bs,
                                const BlockDirtyBitmapAdd *arg, Error **errp)
{
    int64_t granularity = arg->has_granularity
                          ? arg->granularity
                          : bdrv_dirty_bitmap_default_granularity(bs);
    bool persistent = arg->has_persistent && arg->persistent;
    BdrvDirtyBitmap *bm;

    if (!bdrv_dirty_bitmap_check_new(bs, arg->name, granularity, errp)
        || (persistent && !can_persist(bs, arg, granularity, errp))) {
        return;
    }
    bm = bdrv_dirty_bitmap_new(bs, arg->name, __builtin_ctzll(granularity),
                               persistent, errp);
    if (bm) {
        bm->recording = !(arg->has_disabled && arg->disabled);
        bdrv_dirty_bitmap_insert(bs, bm);
    }
}

void coroutine_fn qmp_block_dirty_bitmap_add(const BlockDirtyBitmapAdd *arg,
                                             Error **errp)
{
    BlockDriverState *bs;

    bdrv_graph_co_lock();
    bs = bdrv_lookup_node(arg->node, arg->node, errp);
    if (bs) {
        bdrv_co_drained_begin_locked(bs);
        co_add(bs, arg, errp);
        bdrv_drained_end(bs);
    }
    bdrv_graph_unlock();
}

/* ---- remove, clear, enable, disable ---- */

/* @bm may be NULL: the image can have bitmaps that the node can't use. */
static void coroutine_fn co_remove(BlockDriverState *bs, BdrvDirtyBitmap *bm,
                                   const char *name, Error **errp)
{
    int ret = -ENOENT;

    if ((!bm || bm->persistent) && bs->drv->bdrv_co_remove_stored_bitmap) {
        ret = bs->drv->bdrv_co_remove_stored_bitmap(bs, name, errp);
    }
    if (ret == -ENOENT && !bm) {
        find_bitmap(bs, name, errp);    /* says that there is none */
    }
    if ((ret >= 0 || ret == -ENOENT) && bm) {
        bdrv_dirty_bitmap_remove(bs, bm);
        bdrv_dirty_bitmap_free(bm);
    }
}

void coroutine_fn qmp_block_dirty_bitmap_remove(const BlockDirtyBitmap *arg,
                                                Error **errp)
{
    BlockDriverState *bs;
    BdrvDirtyBitmap *bm;

    bdrv_graph_co_lock();
    bs = find_node(arg->node, errp);
    bm = bs ? bdrv_dirty_bitmap_find(bs, arg->name) : NULL;
    if (bs && (!bm || check(bs, bm, CHANGE | ANY, errp))) {
        bdrv_co_drained_begin_locked(bs);
        co_remove(bs, bm, arg->name, errp);
        bdrv_drained_end(bs);
    }
    bdrv_graph_unlock();
}

static bool coroutine_fn co_clear(BlockDriverState *bs, BdrvDirtyBitmap *bm,
                                  Error **errp)
{
    bdrv_dirty_bitmap_clear(bm);
    return true;
}

void coroutine_fn qmp_block_dirty_bitmap_clear(const BlockDirtyBitmap *arg,
                                               Error **errp)
{
    co_with_bitmap(arg, CHANGE, co_clear, errp);
}

static bool coroutine_fn co_enable(BlockDriverState *bs, BdrvDirtyBitmap *bm,
                                   Error **errp)
{
    bm->recording = true;
    return true;
}

void coroutine_fn qmp_block_dirty_bitmap_enable(const BlockDirtyBitmap *arg,
                                                Error **errp)
{
    co_with_bitmap(arg, USE, co_enable, errp);
}

static bool coroutine_fn co_disable(BlockDriverState *bs, BdrvDirtyBitmap *bm,
                                    Error **errp)
{
    bm->recording = false;
    return true;
}

void coroutine_fn qmp_block_dirty_bitmap_disable(const BlockDirtyBitmap *arg,
                                                 Error **errp)
{
    co_with_bitmap(arg, USE, co_disable, errp);
}

/* ---- merge ---- */

/* The bitmap that @ref means, which may become part of one of @bs. */
static BdrvDirtyBitmap *find_source(BlockDriverState *bs,
                                    const BlockDirtyBitmapOrStr *ref,
                                    Error **errp)
{
    BlockDriverState *src_bs = bs;
    const char *name = ref->u.local;
    BdrvDirtyBitmap *bm;

    if (ref->type == QTYPE_QDICT) {
        src_bs = find_node(ref->u.external.node, errp);
        name = ref->u.external.name;
    }
    bm = src_bs ? find_bitmap(src_bs, name, errp) : NULL;
    if (!bm || !check(src_bs, bm, USE, errp)) {
        return NULL;
    }
    if (bdrv_getlength(src_bs) != bdrv_getlength(bs)) {
        error_setg(errp, "Bitmaps are of different sizes (destination size is "
                   "%" PRIi64 ", source size is %" PRIi64 ") and can't be "
                   "merged", bdrv_getlength(bs), bdrv_getlength(src_bs));
        return NULL;
    }
    return bm;
}

/* First look whether all can be merged, then do it. */
static void coroutine_fn co_merge(BlockDriverState *bs,
                                  const BlockDirtyBitmapMerge *arg,
                                  Error **errp)
{
    const BlockDirtyBitmapOrStrList *l;
    BdrvDirtyBitmap *bm = find_bitmap(bs, arg->target, errp);

    if (!bm) {
        return;
    }
    for (l = arg->bitmaps; l; l = l->next) {
        if (!find_source(bs, l->value, errp)) {
            return;
        }
    }
    if (!check(bs, bm, CHANGE, errp)) {
        return;
    }
    /* Nothing yields from here on: what was found stays. */
    for (l = arg->bitmaps; l; l = l->next) {
        BdrvDirtyBitmap *src = find_source(bs, l->value, NULL);

        if (src != bm) {
            bdrv_dirty_bitmap_merge(bm, src, bdrv_getlength(bs));
        }
    }
}

void coroutine_fn qmp_block_dirty_bitmap_merge(
    const BlockDirtyBitmapMerge *arg, Error **errp)
{
    BlockDriverState *bs;

    bdrv_graph_co_lock();
    bs = find_node(arg->node, errp);
    if (bs) {
        bdrv_co_drained_begin_locked(bs);
        co_merge(bs, arg, errp);
        bdrv_drained_end(bs);
    }
    bdrv_graph_unlock();
}

/* ---- x-debug-block-dirty-bitmap-sha256 ---- */

static char *sha256(BlockDriverState *bs, const BdrvDirtyBitmap *bm)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    int64_t bits = bdrv_dirty_bitmap_bits(bm, bdrv_getlength(bs));
    int64_t words = MAX((bits + 63) / 64, 1);
    uint64_t buf[512];

    for (int64_t first = 0, n; first < words; first += n) {
        n = MIN(words - first, (int64_t)G_N_ELEMENTS(buf));
        bdrv_dirty_bitmap_get_words(bm, bits, first, n, buf);
        g_checksum_update(sum, (const guchar *)buf, n * sizeof(*buf));
    }
    return g_strdup(g_checksum_get_string(sum));
}

BlockDirtyBitmapSha256 *coroutine_fn qmp_x_debug_block_dirty_bitmap_sha256(
    const BlockDirtyBitmap *arg, Error **errp)
{
    BlockDriverState *bs = find_node(arg->node, errp);
    BdrvDirtyBitmap *bm = bs ? find_bitmap(bs, arg->name, errp) : NULL;
    BlockDirtyBitmapSha256 *ret;

    if (!bm) {
        return NULL;
    }
    ret = g_new0(BlockDirtyBitmapSha256, 1);
    ret->sha256 = sha256(bs, bm);
    return ret;
}
