/* SPDX-License-Identifier: MIT */
/* What filter drivers have in common: handing over to the child. */
#include "block/filter.h"

int coroutine_fn bdrv_filter_co_truncate(BlockDriverState *bs, int64_t offset,
                                         PreallocMode prealloc,
                                         BdrvRequestFlags flags, Error **errp)
{
    return bdrv_co_truncate(bs->file, offset, prealloc, flags, errp);
}

int64_t coroutine_fn bdrv_filter_co_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

int coroutine_fn bdrv_filter_co_block_status(BlockDriverState *bs,
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
