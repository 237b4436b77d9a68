/* SPDX-License-Identifier: MIT */
/*
 * QMP commands that describe the graph: query-block, query-named-block-nodes,
 * query-blockstats.
 *
 * Main thread, in the monitor's coroutine, under the graph lock: asking a file
 * for its size may yield.
 */
#include "block/block-int.h"

#include <limits.h>
#include <unistd.h>
#include "block/accounting.h"
#include "block/dirty-bitmap.h"
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"

/* ---- query-named-block-nodes ---- */

static BlockLimitsInfo *limits_info(const BlockLimits *bl)
{
    BlockLimitsInfo *info = g_new0(BlockLimitsInfo, 1);

    info->request_alignment = bl->request_alignment;
    info->has_max_discard = bl->max_pdiscard > 0;
    info->max_discard = bl->max_pdiscard;
    info->has_discard_alignment = bl->pdiscard_alignment > 0;
    info->discard_alignment = bl->pdiscard_alignment;
    info->has_max_write_zeroes = bl->max_pwrite_zeroes > 0
                                 && bl->max_pwrite_zeroes < BDRV_MAX_LENGTH;
    info->max_write_zeroes = bl->max_pwrite_zeroes;
    info->has_write_zeroes_alignment = bl->pwrite_zeroes_alignment > 0;
    info->write_zeroes_alignment = bl->pwrite_zeroes_alignment;
    info->has_max_transfer = bl->max_transfer > 0;
    info->max_transfer = MIN(bl->max_transfer, UINT32_MAX);
    info->max_iov = bl->max_iov ? bl->max_iov : IOV_MAX;
    info->min_mem_alignment = bl->min_mem_alignment;
    info->opt_mem_alignment = MAX(bl->min_mem_alignment,
                                  (size_t)sysconf(_SC_PAGESIZE));
    return info;
}

/* What the driver says of its image, if it says anything. */
static void add_driver_info(BlockDriverState *bs, ImageInfo *info)
{
    BlockDriverInfo bdi;

    info->has_dirty_flag = bdrv_get_info(bs, &bdi);
    info->dirty_flag = bdi.is_dirty;
    info->has_cluster_size = bdi.cluster_size > 0;
    info->cluster_size = bdi.cluster_size;
    info->has_encrypted = info->encrypted = bdi.encrypted;
    if (bs->drv->bdrv_snapshot_list) {
        info->snapshots = bs->drv->bdrv_snapshot_list(bs);
    }
    if (bs->drv->bdrv_get_specific_info) {
        info->format_specific = bs->drv->bdrv_get_specific_info(bs);
    }
}

ImageInfo *coroutine_fn bdrv_co_image_info(BlockDriverState *bs)
{
    ImageInfo *info = g_new0(ImageInfo, 1);
    int64_t size = bdrv_co_get_allocated_file_size(bs);

    info->filename = g_strdup(bs->filename);
    info->format = g_strdup(bs->drv->format_name);
    info->virtual_size = bdrv_getlength(bs);
    info->has_actual_size = size >= 0;
    info->actual_size = MAX(size, 0);
    info->backing_filename = g_strdup(bs->backing_name);
    info->full_backing_filename = g_strdup(bs->backing_full_name);
    info->backing_filename_format = g_strdup(bs->backing_format);
    info->limits = limits_info(&bs->bl);
    add_driver_info(bs, info);
    return info;
}

/* What is below a filter counts as its backing. */
static BlockDriverState *next_image(const BlockDriverState *bs)
{
    return bs->drv->is_filter && bs->file ? bs->file->bs : bdrv_backing_bs(bs);
}

/*
 * Into @info, which the caller frees.  The images below are said for each node
 * again, and an image can have thousands of snapshots and bitmaps: false with
 * an error if all is too much for one reply.
 */
static bool coroutine_fn co_device_info(BlockDriverState *bs, bool flat,
                                        BlockDeviceInfo *info, size_t *weight,
                                        Error **errp)
{
    BlockdevChildList **tail = &info->children;
    ImageInfo **image = &info->image;
    BdrvChild *c;

    info->file = g_strdup(bs->filename);
    info->node_name = g_strdup(bs->node_name);
    info->ro = bs->read_only;
    info->drv = g_strdup(bs->drv->format_name);
    info->active = true;
    info->detect_zeroes = bs->detect_zeroes;
    info->cache = g_new0(BlockdevCacheInfo, 1);
    info->cache->writeback = true;
    info->cache->direct = bs->cache_direct;
    info->cache->no_flush = bs->cache_no_flush;
    if (bs->backing) {
        info->backing_file = g_strdup(bs->backing->bs->filename);
    }
    info->dirty_bitmaps = bdrv_co_dirty_bitmaps_info(bs);

    TAILQ_FOREACH(c, &bs->children, next) {
        BlockdevChild *child = g_new0(BlockdevChild, 1);

        child->child = g_strdup(c->name);
        child->node_name = g_strdup(c->bs->node_name);
        QAPI_LIST_APPEND(tail, child);
    }

    if (!qapi_reply_add(weight, &qapi_type_BlockDeviceInfo, info, errp)) {
        return false;
    }
    *image = bdrv_co_image_info(bs);
    info->encrypted = (*image)->encrypted;
    while (qapi_reply_add(weight, &qapi_type_ImageInfo, *image, errp)) {
        bs = flat ? NULL : next_image(bs);
        if (!bs) {
            return true;
        }
        info->backing_file_depth++;
        image = &(*image)->backing_image;
        *image = bdrv_co_image_info(bs);
    }
    return false;
}

BlockDeviceInfoList *coroutine_fn qmp_query_named_block_nodes(
    const QmpQueryNamedBlockNodesArg *arg, Error **errp)
{
    BlockDeviceInfoList *list = NULL, **tail = &list;
    BlockDriverState *bs;
    size_t weight = 0;
    bool ok = true;

    bdrv_graph_co_lock();
    TAILQ_FOREACH(bs, &bdrv_all_nodes, next) {
        BlockDeviceInfo *info = g_new0(BlockDeviceInfo, 1);

        aio_co_yield_fair();
        QAPI_LIST_APPEND(tail, info);
        ok = co_device_info(bs, arg->has_flat && arg->flat, info, &weight,
                            errp);
        if (!ok) {
            break;
        }
    }
    bdrv_graph_unlock();
    if (!ok) {
        g_clear_pointer(&list, qapi_free_BlockDeviceInfoList);
    }
    return list;
}

/* ---- query-block ---- */

/* Lists devices, of which this program has none. */
BlockInfoList *coroutine_fn qmp_query_block(const QmpQueryBlockArg *arg,
                                            Error **errp)
{
    return NULL;
}

/* ---- query-blockstats ---- */

/* What all users of the node have done, those that have left included. */
static BlockDeviceStats *device_stats(const BlockDriverState *bs)
{
    BlockDeviceStats *st = g_new0(BlockDeviceStats, 1);
    BlockAcct sum = *bs->retired_acct;
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        if (c->blk) {
            blk_acct_sum(c->blk, &sum);
        }
    }
    st->rd_bytes = sum.bytes[BLOCK_ACCT_READ];
    st->wr_bytes = sum.bytes[BLOCK_ACCT_WRITE];
    st->unmap_bytes = sum.bytes[BLOCK_ACCT_UNMAP];
    st->rd_operations = sum.ops[BLOCK_ACCT_READ];
    st->wr_operations = sum.ops[BLOCK_ACCT_WRITE];
    st->flush_operations = sum.ops[BLOCK_ACCT_FLUSH];
    st->unmap_operations = sum.ops[BLOCK_ACCT_UNMAP];
    st->rd_total_time_ns = sum.time_ns[BLOCK_ACCT_READ];
    st->wr_total_time_ns = sum.time_ns[BLOCK_ACCT_WRITE];
    st->flush_total_time_ns = sum.time_ns[BLOCK_ACCT_FLUSH];
    st->unmap_total_time_ns = sum.time_ns[BLOCK_ACCT_UNMAP];
    st->failed_rd_operations = sum.failed[BLOCK_ACCT_READ];
    st->failed_wr_operations = sum.failed[BLOCK_ACCT_WRITE];
    st->failed_flush_operations = sum.failed[BLOCK_ACCT_FLUSH];
    st->failed_unmap_operations = sum.failed[BLOCK_ACCT_UNMAP];
    st->invalid_rd_operations = sum.invalid[BLOCK_ACCT_READ];
    st->invalid_wr_operations = sum.invalid[BLOCK_ACCT_WRITE];
    st->invalid_flush_operations = sum.invalid[BLOCK_ACCT_FLUSH];
    st->invalid_unmap_operations = sum.invalid[BLOCK_ACCT_UNMAP];
    st->wr_highest_offset = __atomic_load_n(&bs->wr_highest_offset,
                                            __ATOMIC_RELAXED);
    if (sum.last_access_ns) {
        st->has_idle_time_ns = true;
        st->idle_time_ns = MAX(clock_now_ns() - sum.last_access_ns, 0);
    }
    return st;
}

static BlockStats *node_stats(BlockDriverState *bs)
{
    BlockStats *stats = g_new0(BlockStats, 1);

    stats->node_name = g_strdup(bs->node_name);
    stats->stats = device_stats(bs);
    if (bs->drv->bdrv_get_specific_stats) {
        stats->driver_specific = bs->drv->bdrv_get_specific_stats(bs);
    }
    if (bs->file) {
        stats->parent = node_stats(bs->file->bs);
    }
    /* Backing nodes are in the list themselves. */
    return stats;
}

BlockStatsList *coroutine_fn qmp_query_blockstats(
    const QmpQueryBlockstatsArg *arg, Error **errp)
{
    BlockStatsList *list = NULL, **tail = &list;
    BlockDriverState *bs;
    size_t weight = 0;

    if (!arg->has_query_nodes || !arg->query_nodes) {
        return NULL;            /* devices only: there are none */
    }
    bdrv_graph_co_lock();
    TAILQ_FOREACH_REVERSE(bs, &bdrv_all_nodes, BdrvNodeList, next) {
        BlockStats *stats = node_stats(bs);

        QAPI_LIST_APPEND(tail, stats);
        if (!qapi_reply_add(&weight, &qapi_type_BlockStats, stats, errp)) {
            g_clear_pointer(&list, qapi_free_BlockStatsList);
            break;
        }
    }
    bdrv_graph_unlock();
    return list;
}
