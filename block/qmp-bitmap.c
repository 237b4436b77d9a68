/* SPDX-License-Identifier: MIT */
/*
 * QMP commands for dirty bitmaps.
 *
 * Main thread, in the coroutine of the monitor.  Each command is an action of a
 * transaction: under the graph lock, the node drained while anything changes.
 */
#include "block/transaction.h"

#include <errno.h>
#include <inttypes.h>

#include "qapi/qapi-commands.h"

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

/* ---- what actions have in common ---- */

/* @arg's bitmap is the item's, and its node drained. */
static bool coroutine_fn co_take(TransactionItem *it,
                                 const BlockDirtyBitmap *arg, int how,
                                 Error **errp)
{
    BlockDriverState *bs = find_node(arg->node, errp);
    BdrvDirtyBitmap *bm = bs ? find_bitmap(bs, arg->name, errp) : NULL;

    if (!bm || !check(bs, bm, how, errp)) {
        return false;
    }
    transaction_co_drain(it, bs);
    it->bitmap = bm;
    it->recording = bm->recording;
    /* Requests that were drained may have written past its end. */
    return check(bs, bm, how, errp);
}

/* Keep its bits, if they may be needed again. */
static bool coroutine_fn co_keep_bits(TransactionItem *it, Error **errp)
{
    BdrvDirtyBitmap *bm = it->bitmap;
    int ret;

    if (it->alone) {
        return true;
    }
    it->old = bdrv_dirty_bitmap_new(it->bs, bm->name, bm->granularity_bits,
                                    false, errp);
    if (!it->old) {
        return false;
    }
    ret = bdrv_co_dirty_bitmap_merge(it->old, bm, bdrv_getlength(it->bs));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not keep the bits of bitmap '%s'",
                         bm->name);
        g_clear_pointer(&it->old, bdrv_dirty_bitmap_free);
    }
    return ret >= 0;
}

static void coroutine_fn co_restore_bits(TransactionItem *it)
{
    const CoCancel *cancel = coroutine_set_cancel(NULL);

    bdrv_dirty_bitmap_clear(it->bitmap);
    bdrv_co_dirty_bitmap_merge(it->bitmap, it->old, bdrv_getlength(it->bs));
    coroutine_set_cancel(cancel);
}

static void coroutine_fn co_restore_recording(TransactionItem *it)
{
    it->bitmap->recording = it->recording;
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

static bool coroutine_fn co_prepare_add(TransactionItem *it, Error **errp)
{
    const BlockDirtyBitmapAdd *arg = it->arg;
    BlockDriverState *bs = bdrv_lookup_node(arg->node, arg->node, errp);
    bool persistent = arg->has_persistent && arg->persistent;
    BdrvDirtyBitmap *bm;
    int64_t granularity;

    if (!bs) {
        return false;
    }
    transaction_co_drain(it, bs);
    granularity = arg->has_granularity
                  ? arg->granularity
                  : bdrv_dirty_bitmap_default_granularity(bs);
    if (!bdrv_dirty_bitmap_check_new(bs, arg->name, granularity, errp)
        || (persistent && !can_persist(bs, arg, granularity, errp))) {
        return false;
    }
    bm = bdrv_dirty_bitmap_new(bs, arg->name, __builtin_ctzll(granularity),
                               persistent, errp);
    if (!bm) {
        return false;
    }
    bm->recording = !(arg->has_disabled && arg->disabled);
    bdrv_dirty_bitmap_insert(bs, bm);
    it->bitmap = bm;
    return true;
}

static void coroutine_fn co_abort_add(TransactionItem *it)
{
    bdrv_dirty_bitmap_remove(it->bs, it->bitmap);
    bdrv_dirty_bitmap_free(it->bitmap);
}

const TransactionOps transaction_bitmap_add = {
    .co_prepare = co_prepare_add,
    .co_abort = co_abort_add,
};

void coroutine_fn qmp_block_dirty_bitmap_add(const BlockDirtyBitmapAdd *arg,
                                             Error **errp)
{
    transaction_co_one(&transaction_bitmap_add, arg, errp);
}

/* ---- remove ---- */

static bool is_stored(BlockDriverState *bs, const char *name)
{
    return bs->drv->bdrv_has_stored_bitmap
           && bs->drv->bdrv_has_stored_bitmap(bs, name);
}

/* The image can have bitmaps that the node can't use and does not know. */
static bool coroutine_fn co_prepare_remove(TransactionItem *it, Error **errp)
{
    const BlockDirtyBitmap *arg = it->arg;
    BlockDriverState *bs = find_node(arg->node, errp);

    if (!bs || bdrv_dirty_bitmap_find(bs, arg->name)
        || !is_stored(bs, arg->name)) {
        if (!bs || !co_take(it, arg, CHANGE | ANY, errp)) {
            return false;
        }
        bdrv_dirty_bitmap_remove(bs, it->bitmap);
        return true;
    }
    if (bs->read_only) {
        error_setg(errp, "Bitmap '%s' is readonly and cannot be modified",
                   arg->name);
        return false;
    }
    transaction_co_drain(it, bs);
    return true;
}

static void coroutine_fn co_abort_remove(TransactionItem *it)
{
    if (it->bitmap) {
        bdrv_dirty_bitmap_insert(it->bs, it->bitmap);
    }
}

static void coroutine_fn co_commit_remove(TransactionItem *it, Error **errp)
{
    const BlockDirtyBitmap *arg = it->arg;
    bool persistent = !it->bitmap || it->bitmap->persistent;

    if (persistent && is_stored(it->bs, arg->name)
        && !it->bs->drv->bdrv_co_remove_stored_bitmap(it->bs, arg->name,
                                                      errp)) {
        /* The image's; even if there is a new one of its name. */
        co_abort_remove(it);
    } else {
        bdrv_dirty_bitmap_free(it->bitmap);
    }
}

const TransactionOps transaction_bitmap_remove = {
    .co_prepare = co_prepare_remove,
    .co_commit = co_commit_remove,
    .co_abort = co_abort_remove,
};

void coroutine_fn qmp_block_dirty_bitmap_remove(const BlockDirtyBitmap *arg,
                                                Error **errp)
{
    transaction_co_one(&transaction_bitmap_remove, arg, errp);
}

/* ---- clear, enable, disable ---- */

static bool coroutine_fn co_prepare_clear(TransactionItem *it, Error **errp)
{
    if (!co_take(it, it->arg, CHANGE, errp) || !co_keep_bits(it, errp)) {
        return false;
    }
    bdrv_dirty_bitmap_clear(it->bitmap);
    return true;
}

const TransactionOps transaction_bitmap_clear = {
    .co_prepare = co_prepare_clear,
    .co_abort = co_restore_bits,
};

void coroutine_fn qmp_block_dirty_bitmap_clear(const BlockDirtyBitmap *arg,
                                               Error **errp)
{
    transaction_co_one(&transaction_bitmap_clear, arg, errp);
}

static bool coroutine_fn co_prepare_enable(TransactionItem *it, Error **errp)
{
    if (!co_take(it, it->arg, USE, errp)) {
        return false;
    }
    it->bitmap->recording = true;
    return true;
}

const TransactionOps transaction_bitmap_enable = {
    .co_prepare = co_prepare_enable,
    .co_abort = co_restore_recording,
};

void coroutine_fn qmp_block_dirty_bitmap_enable(const BlockDirtyBitmap *arg,
                                                Error **errp)
{
    transaction_co_one(&transaction_bitmap_enable, arg, errp);
}

static bool coroutine_fn co_prepare_disable(TransactionItem *it, Error **errp)
{
    if (!co_take(it, it->arg, USE, errp)) {
        return false;
    }
    it->bitmap->recording = false;
    return true;
}

const TransactionOps transaction_bitmap_disable = {
    .co_prepare = co_prepare_disable,
    .co_abort = co_restore_recording,
};

void coroutine_fn qmp_block_dirty_bitmap_disable(const BlockDirtyBitmap *arg,
                                                 Error **errp)
{
    transaction_co_one(&transaction_bitmap_disable, arg, errp);
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

static bool check_sources(BlockDriverState *bs,
                          const BlockDirtyBitmapOrStrList *l, Error **errp)
{
    for (; l; l = l->next) {
        if (!find_source(bs, l->value, errp)) {
            return false;
        }
    }
    return true;
}

/* First look whether all can be merged, then do it. */
static bool coroutine_fn co_prepare_merge(TransactionItem *it, Error **errp)
{
    const BlockDirtyBitmapMerge *arg = it->arg;
    const BlockDirtyBitmap target = { arg->node, arg->target };
    BlockDriverState *bs = find_node(arg->node, errp);
    const BlockDirtyBitmapOrStrList *l;
    int ret = 0;

    if (!bs || !find_bitmap(bs, arg->target, errp)
        || !check_sources(bs, arg->bitmaps, errp)
        || !co_take(it, &target, CHANGE, errp)) {
        return false;
    }
    /* Requests that were drained may have changed a length, or a bitmap. */
    if (!check_sources(bs, arg->bitmaps, errp) || !co_keep_bits(it, errp)) {
        return false;
    }
    for (l = arg->bitmaps; l && ret >= 0; l = l->next) {
        BdrvDirtyBitmap *src = find_source(bs, l->value, NULL);

        if (src != it->bitmap) {
            ret = bdrv_co_dirty_bitmap_merge(it->bitmap, src,
                                             bdrv_getlength(bs));
        }
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not merge all bitmaps");
        if (it->old) {
            co_restore_bits(it);
        }
    }
    return ret >= 0;
}

const TransactionOps transaction_bitmap_merge = {
    .co_prepare = co_prepare_merge,
    .co_abort = co_restore_bits,
};

void coroutine_fn qmp_block_dirty_bitmap_merge(
    const BlockDirtyBitmapMerge *arg, Error **errp)
{
    transaction_co_one(&transaction_bitmap_merge, arg, errp);
}

/* ---- x-debug-block-dirty-bitmap-sha256 ---- */

static char *coroutine_fn co_sha256(BlockDriverState *bs,
                                    const BdrvDirtyBitmap *bm)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    int64_t bits = bdrv_dirty_bitmap_bits(bm, bdrv_getlength(bs));
    int64_t words = MAX((bits + 63) / 64, 1);
    uint64_t buf[512];

    for (int64_t first = 0, n; first < words; first += n) {
        n = MIN(words - first, (int64_t)G_N_ELEMENTS(buf));
        bdrv_dirty_bitmap_get_words(bm, bits, first, n, buf);
        g_checksum_update(sum, (const guchar *)buf, n * sizeof(*buf));
        aio_co_yield_fair();
    }
    return g_strdup(g_checksum_get_string(sum));
}

BlockDirtyBitmapSha256 *coroutine_fn qmp_x_debug_block_dirty_bitmap_sha256(
    const BlockDirtyBitmap *arg, Error **errp)
{
    BlockDirtyBitmapSha256 *ret = NULL;
    BlockDriverState *bs;
    BdrvDirtyBitmap *bm;

    /* Nobody sees what is between a transaction's beginning and its end. */
    bdrv_graph_co_lock();
    bs = find_node(arg->node, errp);
    bm = bs ? find_bitmap(bs, arg->name, errp) : NULL;
    if (bm) {
        ret = g_new0(BlockDirtyBitmapSha256, 1);
        ret->sha256 = co_sha256(bs, bm);
    }
    bdrv_graph_unlock();
    return ret;
}
