/* SPDX-License-Identifier: MIT */
/*
 * raw: its file's bytes, or a window of them (offset, size).
 *
 * Without a window the node is as good as a filter.  Without size it is as long
 * as the file is after offset, at any time; with size it cannot be resized.
 */
#include "block/block-int.h"

#include <inttypes.h>

typedef struct BDRVRawState {
    int64_t offset;
    int64_t size;
    bool has_size;
} BDRVRawState;

static bool raw_check_window(int64_t offset, int64_t size, bool has_size,
                             int64_t real_size, Error **errp)
{
    if (offset > real_size) {
        error_setg(errp, "Offset (%" PRIi64 ") cannot be greater than size of "
                   "the containing file (%" PRIi64 ")", offset, real_size);
        return false;
    }
    if (has_size && real_size - offset < size) {
        error_setg(errp, "The sum of offset (%" PRIi64 ") and size (%" PRIi64
                   ") has to be smaller or equal to the  actual size of the "
                   "containing file (%" PRIi64 ")", offset, size, real_size);
        return false;
    }
    if (has_size && size % 512) {
        error_setg(errp, "Specified size is not multiple of 512");
        return false;
    }
    return true;
}

static bool coroutine_fn raw_co_open(BlockDriverState *bs,
                                     const BlockdevOptions *options,
                                     Error **errp)
{
    const BlockdevOptionsRaw *o = &options->u.raw;
    BDRVRawState *s = bs->opaque;
    int64_t offset = o->has_offset ? o->offset : 0;
    int64_t size = o->has_size ? o->size : 0;
    bool window = o->has_offset || o->has_size;

    if (offset < 0 || size < 0) {
        error_setg(errp, "Value '%" PRId64 "' is out of range for parameter "
                   "'%s'", offset < 0 ? offset : size,
                   offset < 0 ? "offset" : "size");
        return false;
    }
    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_PRIMARY
                            | (window ? BDRV_CHILD_DATA
                                      : BDRV_CHILD_FILTERED), errp)
        || !raw_check_window(offset, size, o->has_size,
                             bdrv_getlength(bs->file->bs), errp)) {
        return false;
    }

    s->offset = offset;
    s->size = size;
    s->has_size = o->has_size;
    if (s->has_size) {
        bs->total_bytes = size;
    } else {
        bs->length_follows_file = true;
        bs->file_offset = offset;
    }
    if (!window) {
        bs->filename = g_strdup(bs->file->bs->filename);
    }
    return true;
}

static void raw_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVRawState *s = bs->opaque;

    if (s->offset) {
        qdict_put_int(opts, "offset", s->offset);
    }
    if (s->has_size) {
        qdict_put_int(opts, "size", s->size);
    }
}

/*
 * A write past a window that has no end of its own goes to the file.  With
 * size there is no room; checked here because the core lets growth through.
 */
static int raw_check_write(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVRawState *s = bs->opaque;

    if (s->has_size && offset + bytes > s->size) {
        return -ENOSPC;
    }
    if (offset + bytes > BDRV_MAX_LENGTH - s->offset) {
        return -EINVAL;
    }
    return 0;
}

static int coroutine_fn raw_co_preadv(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      BdrvRequestFlags flags)
{
    BDRVRawState *s = bs->opaque;

    BLKDBG_EVENT(bs->file, BLKDBG_READ_AIO);
    return bdrv_co_preadv(bs->file, offset + s->offset, qiov, flags);
}

static int coroutine_fn raw_co_pwritev(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    BDRVRawState *s = bs->opaque;
    int ret = raw_check_write(bs, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_WRITE_AIO);
    return bdrv_co_pwritev(bs->file, offset + s->offset, qiov, flags);
}

static int coroutine_fn raw_co_pwrite_zeroes(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    BDRVRawState *s = bs->opaque;
    int ret = raw_check_write(bs, offset, bytes);

    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset + s->offset,
                                                 bytes, flags);
}

static int coroutine_fn raw_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes)
{
    BDRVRawState *s = bs->opaque;

    return bdrv_co_pdiscard(bs->file, offset + s->offset, bytes);
}

static int coroutine_fn raw_co_truncate(BlockDriverState *bs, int64_t offset,
                                        PreallocMode prealloc,
                                        BdrvRequestFlags flags, Error **errp)
{
    BDRVRawState *s = bs->opaque;

    if (s->has_size) {
        error_setg(errp, "Cannot resize fixed-size raw disks");
        return -ENOTSUP;
    }
    if (INT64_MAX - offset < s->offset) {
        error_setg(errp, "Disk size too large for the chosen offset");
        return -EINVAL;
    }
    return bdrv_co_truncate(bs->file, offset + s->offset, prealloc, flags,
                            errp);
}

static int coroutine_fn raw_co_block_status(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            int64_t *pnum, int64_t *map,
                                            BlockDriverState **file)
{
    BDRVRawState *s = bs->opaque;

    *pnum = bytes;
    *map = offset + s->offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_OFFSET_VALID
           | BDRV_BLOCK_RECURSE;
}

const BlockDriver bdrv_raw = {
    .format_name = "raw",
    .driver = BLOCKDEV_DRIVER_RAW,
    .instance_size = sizeof(BDRVRawState),
    .can_grow = true,
    .passthrough = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP
                            | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = raw_co_open,
    .bdrv_co_preadv = raw_co_preadv,
    .bdrv_co_pwritev = raw_co_pwritev,
    .bdrv_co_pwrite_zeroes = raw_co_pwrite_zeroes,
    .bdrv_co_pdiscard = raw_co_pdiscard,
    .bdrv_co_truncate = raw_co_truncate,
    .bdrv_co_block_status = raw_co_block_status,
    .bdrv_gather_options = raw_gather_options,
};
