/* SPDX-License-Identifier: MIT */
/*
 * For filter drivers, nodes that show what their child `file` is: what they do
 * not do themselves.  For a driver's table, or to be called by its own
 * functions.  [ctx], as the functions of the table are.
 */
#ifndef BLOCK_FILTER_H
#define BLOCK_FILTER_H

#include "block/block-int.h"

int coroutine_fn bdrv_filter_co_truncate(BlockDriverState *bs, int64_t offset,
                                         PreallocMode prealloc,
                                         BdrvRequestFlags flags, Error **errp);
int64_t coroutine_fn bdrv_filter_co_getlength(BlockDriverState *bs);
int coroutine_fn bdrv_filter_co_block_status(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             int64_t *pnum, int64_t *map,
                                             BlockDriverState **file);

#endif /* BLOCK_FILTER_H */
