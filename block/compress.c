/* SPDX-License-Identifier: MIT */
/*
 * compress: a filter that has what is written stored compressed.
 *
 * A format compresses whole clusters, so these are the node's blocks: of a
 * write that covers a cluster only partly, the core reads the rest first.  The
 * last cluster ends with the image.
 */
#include "block/block-int.h"

static bool coroutine_fn compress_co_open(BlockDriverState *bs,
                                          const BlockdevOptions *options,
                                          Error **errp)
{
    if (!bdrv_co_open_child(bs, options->u.compress.file, "file",
                            BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp)) {
        return false;
    }
    if (!bdrv_supports_compressed(bs->file->bs)) {
        error_setg(errp, "Compression is not supported for underlying format: "
                   "%s", bdrv_get_format_name(bs->file->bs));
        return false;
    }
    bs->length_follows_file = true;
    return true;
}

static void compress_refresh_limits(BlockDriverState *bs)
{
    const BlockLimits *below = &bs->file->bs->bl;
    BlockDriverInfo bdi;

    bdrv_get_info(bs->file->bs, &bdi);
    bs->bl.request_alignment = MAX(bdi.cluster_size, below->request_alignment);
    bs->bl.pdiscard_alignment = below->pdiscard_alignment;
    bs->bl.pwrite_zeroes_alignment = below->pwrite_zeroes_alignment;
}

static int coroutine_fn compress_co_preadv(BlockDriverState *bs,
                                           int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov,
                                           BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, qiov, flags);
}

/* Up to the image's end: the core pads the last block. */
static int64_t cut_to_length(BlockDriverState *bs, int64_t offset,
                             int64_t bytes)
{
    return CLAMP(bdrv_getlength(bs) - offset, 0, bytes);
}

static int coroutine_fn compress_co_pwritev(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov,
                                            BdrvRequestFlags flags)
{
    bytes = cut_to_length(bs, offset, bytes);
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, 0,
                                flags | BDRV_REQ_WRITE_COMPRESSED);
}

static int coroutine_fn compress_co_pwrite_zeroes(BlockDriverState *bs,
                                                  int64_t offset,
                                                  int64_t bytes,
                                                  BdrvRequestFlags flags)
{
    return bdrv_co_pwrite_zeroes(bs->file, offset,
                                 cut_to_length(bs, offset, bytes), flags);
}

static int coroutine_fn compress_co_pdiscard(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes)
{
    return bdrv_co_pdiscard(bs->file, offset,
                            cut_to_length(bs, offset, bytes));
}

static int coroutine_fn compress_co_truncate(BlockDriverState *bs,
                                             int64_t offset,
                                             PreallocMode prealloc,
                                             BdrvRequestFlags flags,
                                             Error **errp)
{
    return bdrv_co_truncate(bs->file, offset, prealloc, flags, errp);
}

static int coroutine_fn compress_co_block_status(BlockDriverState *bs,
                                                 int64_t offset, int64_t bytes,
                                                 int64_t *pnum, int64_t *map,
                                                 BlockDriverState **file)
{
    *pnum = bytes;
    *map = offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_OFFSET_VALID
           | BDRV_BLOCK_RECURSE;
}

const BlockDriver bdrv_compress = {
    .format_name = "compress",
    .driver = BLOCKDEV_DRIVER_COMPRESS,
    .is_filter = true,
    .passthrough_reads = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP
                            | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = compress_co_open,
    .bdrv_refresh_limits = compress_refresh_limits,
    .bdrv_co_preadv = compress_co_preadv,
    .bdrv_co_pwritev = compress_co_pwritev,
    .bdrv_co_pwrite_zeroes = compress_co_pwrite_zeroes,
    .bdrv_co_pdiscard = compress_co_pdiscard,
    .bdrv_co_truncate = compress_co_truncate,
    .bdrv_co_block_status = compress_co_block_status,
};
