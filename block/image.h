/* SPDX-License-Identifier: MIT */
/*
 * Images, for programs that work on them: what they are, and where their data
 * lies.  Main thread but for image_co_status().
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include "block/block.h"

/* The format of the image in file @path, "raw" in doubt.  May block. */
const char *image_probe_file(const char *path);

/* True if there is a driver called @format. */
bool image_format_known(const char *format);

/* The node's name as a file, or "json:{...}". */
const char *image_filename(const BlockDriverState *bs);

/* The name of the file that is at the bottom of @bs. */
const char *image_file_below(const BlockDriverState *bs);

/* The node that has what @bs itself has not, or NULL. */
BlockDriverState *image_backing(const BlockDriverState *bs);

int64_t image_length(const BlockDriverState *bs);           /* bytes */
int64_t image_cluster_size(BlockDriverState *bs);           /* or 0 */
bool image_can_compress(const BlockDriverState *bs);

/* What is known of the image alone; the caller frees. */
ImageInfo *coroutine_fn image_co_info(BlockDriverState *bs);

/*
 * What is at @offset in the images from @bs down to, but not including, @base
 * (NULL: all): flags of block.h or -errno.  *@pnum: for how many bytes, up to
 * @bytes; with OFFSET_VALID *@map and *@file (may be NULL) say where.
 * [any thread, in a request]
 */
int coroutine_fn image_co_status(BlockDriverState *bs, BlockDriverState *base,
                                 int64_t offset, int64_t bytes, int64_t *pnum,
                                 int64_t *map, BlockDriverState **file);

#endif /* BLOCK_IMAGE_H */
