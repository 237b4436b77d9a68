/* SPDX-License-Identifier: MIT */
/*
 * Block status: where the data are, and where there are none.
 *
 * Any thread, inside a request that a user has begun.
 */
#include "block/block-int.h"

/* What the driver says, asked in its own units; *@pnum from @offset on. */
static int coroutine_fn co_drv_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *pnum,
                                      int64_t *map, BlockDriverState **file)
{
    int64_t align = bs->drv->passthrough ? 1 : bs->bl.request_alignment;
    int64_t pos = bdrv_align_down(offset, align);
    int64_t end = MIN(bdrv_align_up(offset + bytes, align),
                      bdrv_getlength(bs));
    int ret;

    ret = bs->drv->bdrv_co_block_status(bs, pos, end - pos, pnum, map, file);
    if (ret < 0) {
        return ret;
    }
    if (*pnum <= offset - pos) {
        /* Finer than its own units: then it may be asked so. */
        return bs->drv->bdrv_co_block_status(bs, offset, end - offset, pnum,
                                             map, file);
    }
    *pnum -= offset - pos;
    if (ret & BDRV_BLOCK_OFFSET_VALID) {
        *map += offset - pos;
    }
    return ret;
}

/* Refine what a node says by what the node below says about the place. */
static int coroutine_fn co_recurse(int ret, int64_t *pnum, int64_t map,
                                   BlockDriverState *file, int64_t *out_map,
                                   BlockDriverState **out_file)
{
    int64_t n, child_map = 0;
    BlockDriverState *child_file = NULL;
    int child;

    child = bdrv_co_block_status(file, map, *pnum, &n, &child_map,
                                 &child_file);
    if (child < 0) {
        return ret & ~BDRV_BLOCK_RECURSE;       /* we know as much as before */
    }
    if (n == 0) {
        /* Past the end of the file: reads as zeroes. */
        return (ret | BDRV_BLOCK_ZERO) & ~(BDRV_BLOCK_RECURSE
                                           | BDRV_BLOCK_DATA);
    }
    *pnum = MIN(*pnum, n);
    ret &= ~BDRV_BLOCK_RECURSE;
    if (child & BDRV_BLOCK_ZERO) {
        ret |= BDRV_BLOCK_ZERO;
    }
    if (!(child & BDRV_BLOCK_DATA)) {
        ret &= ~BDRV_BLOCK_DATA;
    }
    if (child & BDRV_BLOCK_OFFSET_VALID) {
        *out_map = child_map;
        *out_file = child_file;
    }
    return ret;
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *pnum,
                                      int64_t *map, BlockDriverState **file)
{
    int64_t len = bdrv_getlength(bs);
    int64_t local_map = 0;
    BlockDriverState *local_file = NULL;
    int ret;

    *pnum = 0;
    if (offset < 0 || bytes < 0) {
        return -EINVAL;
    }
    if (offset >= len || bytes == 0) {
        return offset >= len ? BDRV_BLOCK_EOF : 0;
    }
    bytes = MIN(bytes, len - offset);

    if (!bs->drv->bdrv_co_block_status) {
        *pnum = bytes;
        ret = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
        if (bs->drv->is_protocol) {
            ret |= BDRV_BLOCK_OFFSET_VALID;
            local_map = offset;
            local_file = bs;
        }
    } else {
        ret = co_drv_status(bs, offset, bytes, pnum, &local_map, &local_file);
    }
    if (ret < 0) {
        *pnum = 0;
        return ret;
    }
    *pnum = MIN(*pnum, bytes);
    if ((ret & BDRV_BLOCK_RECURSE) && local_file && local_file != bs) {
        ret = co_recurse(ret, pnum, local_map, local_file, &local_map,
                         &local_file);
    }

    ret &= ~(BDRV_BLOCK_EOF | BDRV_BLOCK_RECURSE);
    if (offset + *pnum >= len) {
        ret |= BDRV_BLOCK_EOF;
    }
    if (map) {
        *map = local_map;
    }
    if (file) {
        *file = local_file;
    }
    return ret;
}
