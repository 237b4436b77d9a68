/* SPDX-License-Identifier: MIT */
/*
 * Block status: where the data are, and where there are none.
 *
 * Any thread, inside a request that a user has begun.
 *
 * A node is asked by itself first.  What it has in another node (RECURSE) is
 * looked up there; what it has not, its backing is asked for, and so on down
 * the chain, in a loop.
 */
#include "block/block-int.h"

/* The answer of one node, or of a chain. */
typedef struct Status {
    int64_t pnum;
    int64_t map;
    BlockDriverState *file;
} Status;

/* What the driver says, asked in its own units; @st->pnum from @offset on. */
static int coroutine_fn co_drv_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, Status *st)
{
    int64_t align = bs->drv->passthrough ? 1 : bs->bl.request_alignment;
    int64_t pos = bdrv_align_down(offset, align);
    int64_t end = MIN(bdrv_align_up(offset + bytes, align),
                      bdrv_getlength(bs));
    int ret;

    ret = bs->drv->bdrv_co_block_status(bs, pos, end - pos, &st->pnum,
                                        &st->map, &st->file);
    if (ret < 0) {
        return ret;
    }
    if (st->pnum <= offset - pos) {
        /* Finer than its own units: then it may be asked so. */
        return bs->drv->bdrv_co_block_status(bs, offset, end - offset,
                                             &st->pnum, &st->map, &st->file);
    }
    st->pnum -= offset - pos;
    if (ret & BDRV_BLOCK_OFFSET_VALID) {
        st->map += offset - pos;
    }
    return ret;
}

/*
 * Refine what a node says by what the node below says about the place.  A
 * format's data stay data even where their place in the file is a hole.
 */
static int coroutine_fn co_recurse(BlockDriverState *bs, int ret, Status *st)
{
    bool is_format = bs->drv->supports_backing;
    Status below = { 0 };
    int child;

    ret &= ~BDRV_BLOCK_RECURSE;
    child = bdrv_co_block_status(st->file, st->map, st->pnum, &below.pnum,
                                 &below.map, &below.file);
    if (child < 0) {
        return ret;                             /* we know as much as before */
    }
    if (below.pnum == 0) {
        /* Past the end of the file: reads as zeroes. */
        ret |= BDRV_BLOCK_ZERO;
        return is_format ? ret : ret & ~BDRV_BLOCK_DATA;
    }
    st->pnum = MIN(st->pnum, below.pnum);
    if (child & BDRV_BLOCK_ZERO) {
        ret |= BDRV_BLOCK_ZERO;
    }
    if (!(child & BDRV_BLOCK_DATA) && !is_format) {
        ret &= ~BDRV_BLOCK_DATA;
    }
    if (child & BDRV_BLOCK_OFFSET_VALID) {
        st->map = below.map;
        st->file = below.file;
    } else if (!is_format) {
        ret &= ~BDRV_BLOCK_OFFSET_VALID;
    }
    return ret;
}

/* @bs alone; [@offset, @offset + @bytes) lies inside of it. */
static int coroutine_fn co_node_status(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, Status *st)
{
    int ret;

    *st = (Status) { .pnum = bytes };
    if (!bs->drv->bdrv_co_block_status) {
        ret = BDRV_BLOCK_DATA;
        if (bs->drv->is_protocol) {
            ret |= BDRV_BLOCK_OFFSET_VALID;
            st->map = offset;
            st->file = bs;
        }
    } else {
        ret = co_drv_status(bs, offset, bytes, st);
    }
    if (ret < 0) {
        return ret;
    }
    st->pnum = MIN(st->pnum, bytes);
    if ((ret & BDRV_BLOCK_RECURSE) && st->file && st->file != bs) {
        ret = co_recurse(bs, ret, st);
    }
    if (ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        ret |= BDRV_BLOCK_ALLOCATED;
    }
    return ret & ~(BDRV_BLOCK_EOF | BDRV_BLOCK_RECURSE);
}

/*
 * As co_node_status() for the chain.  A backing that ends early leaves zeroes,
 * which are allocated nowhere.
 */
static int coroutine_fn co_chain_status(BlockDriverState *bs,
                                        BlockDriverState *base,
                                        int64_t offset, int64_t bytes,
                                        Status *st)
{
    int ret = co_node_status(bs, offset, bytes, st);

    while (ret >= 0 && !(ret & BDRV_BLOCK_ALLOCATED)) {
        int64_t len;

        if (!bs->backing && bs->drv->supports_backing) {
            return ret | BDRV_BLOCK_ZERO;
        }
        bs = bdrv_backing_bs(bs);
        if (!bs || bs == base) {
            break;
        }
        len = bdrv_getlength(bs);
        if (offset >= len) {
            return ret | BDRV_BLOCK_ZERO;
        }
        ret = co_node_status(bs, offset, MIN(st->pnum, len - offset), st);
    }
    return ret;
}

int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs,
                                            BlockDriverState *base,
                                            int64_t offset, int64_t bytes,
                                            int64_t *pnum, int64_t *map,
                                            BlockDriverState **file)
{
    int64_t len = bdrv_getlength(bs);
    Status st;
    int ret;

    *pnum = 0;
    if (offset < 0 || bytes < 0) {
        return -EINVAL;
    }
    /* Here for all who go through an image, asking. */
    ret = aio_co_yield_fair();
    if (ret < 0) {
        return ret;
    }
    if (offset >= len || bytes == 0) {
        return offset >= len ? BDRV_BLOCK_EOF : 0;
    }
    ret = co_chain_status(bs, base, offset, MIN(bytes, len - offset), &st);
    if (ret < 0) {
        return ret;
    }
    *pnum = st.pnum;
    if (offset + st.pnum >= len) {
        ret |= BDRV_BLOCK_EOF;
    }
    if (map) {
        *map = st.map;
    }
    if (file) {
        *file = st.file;
    }
    return ret;
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *pnum,
                                      int64_t *map, BlockDriverState **file)
{
    return bdrv_co_block_status_above(bs, NULL, offset, bytes, pnum, map,
                                      file);
}

bool coroutine_fn bdrv_co_is_zero_fast(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes)
{
    int64_t len = bdrv_getlength(bs);
    int64_t end = MIN(offset + bytes, len);

    while (offset < end) {
        int64_t n;
        int ret = bdrv_co_block_status(bs, offset, end - offset, &n, NULL,
                                       NULL);

        if (ret < 0 || n == 0 || !(ret & BDRV_BLOCK_ZERO)) {
            return false;
        }
        offset += n;
    }
    return true;
}
