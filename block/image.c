/* SPDX-License-Identifier: MIT */
/*
 * Images, for programs that work on them.
 */
#include "block/image.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "block/block-int.h"
#include "util/named-file.h"

const char *image_probe_file(const char *path)
{
    uint8_t head[BDRV_PROBE_SIZE] = { 0 };
    int fd = named_file_open(path, O_RDONLY | O_NONBLOCK, NULL);
    ssize_t n;

    if (fd < 0) {
        return "raw";               /* opening it will say why not */
    }
    do {
        n = pread(fd, head, sizeof(head), 0);
    } while (n < 0 && errno == EINTR);
    close(fd);
    return bdrv_probe_format(head);
}

bool image_format_known(const char *format)
{
    return bdrv_find_format(format) != NULL;
}

const char *image_filename(const BlockDriverState *bs)
{
    return bs->filename;
}

const char *image_file_below(const BlockDriverState *bs)
{
    while (bs->file) {
        bs = bs->file->bs;
    }
    return bs->filename;
}

BlockDriverState *image_backing(const BlockDriverState *bs)
{
    return bdrv_backing_bs(bs);
}

int64_t image_length(const BlockDriverState *bs)
{
    return bdrv_getlength(bs);
}

int64_t image_cluster_size(BlockDriverState *bs)
{
    BlockDriverInfo info;

    bdrv_get_info(bs, &info);
    return info.cluster_size;
}

bool image_can_compress(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_pwritev_compressed != NULL;
}

ImageInfo *coroutine_fn image_co_info(BlockDriverState *bs)
{
    ImageInfo *info;

    bdrv_graph_co_lock();
    info = bdrv_co_image_info(bs);
    bdrv_graph_unlock();
    return info;
}

int coroutine_fn image_co_status(BlockDriverState *bs, BlockDriverState *base,
                                 int64_t offset, int64_t bytes, int64_t *pnum,
                                 int64_t *map, BlockDriverState **file)
{
    return bdrv_co_block_status_above(bs, base, offset, bytes, pnum, map,
                                      file);
}
