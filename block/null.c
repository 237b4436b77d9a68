/* SPDX-License-Identifier: MIT */
/*
 * null-co, null-aio: a disk that forgets what is written and answers at once,
 * or after latency-ns.  The two names differ only in name.
 */
#include "block/block-int.h"

#include <errno.h>
#include <inttypes.h>

typedef struct BDRVNullState {
    int64_t latency_ns;
    bool read_zeroes;
    bool has_size;
} BDRVNullState;

#define NULL_DEFAULT_SIZE (1 << 30)

static bool coroutine_fn null_co_open(BlockDriverState *bs,
                                      const BlockdevOptions *options,
                                      Error **errp)
{
    const BlockdevOptionsNull *o = options->driver == BLOCKDEV_DRIVER_NULL_CO
                                   ? &options->u.null_co
                                   : &options->u.null_aio;
    BDRVNullState *s = bs->opaque;

    if (o->has_latency_ns && (int64_t)o->latency_ns < 0) {
        error_setg(errp, "latency-ns is invalid");
        return false;
    }
    if (o->has_size && o->size < 0) {
        error_setg(errp, "Value '%" PRIi64 "' is out of range for parameter "
                   "'size'", (int64_t)o->size);
        return false;
    }
    if (o->has_size && o->size > BDRV_MAX_LENGTH) {
        error_setg_errno(errp, EFBIG, "Could not refresh total sector count");
        return false;
    }
    bs->total_bytes = o->has_size ? o->size : NULL_DEFAULT_SIZE;
    s->has_size = o->has_size;
    s->latency_ns = o->has_latency_ns ? o->latency_ns : 0;
    s->read_zeroes = o->has_read_zeroes && o->read_zeroes;
    if (!s->has_size && !s->read_zeroes) {
        bs->filename = g_strdup_printf("%s://", bs->drv->format_name);
    }
    return true;
}

static void null_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVNullState *s = bs->opaque;

    if (s->has_size) {
        qdict_put_int(opts, "size", bs->total_bytes);
    }
    if (s->read_zeroes) {
        qdict_put_bool(opts, "read-zeroes", true);
    }
}

static inline int coroutine_fn null_co_done(BlockDriverState *bs)
{
    BDRVNullState *s = bs->opaque;

    if (s->latency_ns) {
        aio_co_sleep_ns(s->latency_ns);
    }
    return 0;
}

static int coroutine_fn null_co_preadv(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    BDRVNullState *s = bs->opaque;

    if (s->read_zeroes) {
        qemu_iovec_memset(qiov, 0, 0, bytes);
    }
    return null_co_done(bs);
}

static int coroutine_fn null_co_pwritev(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    return null_co_done(bs);
}

static int coroutine_fn null_co_pwrite_zeroes(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    return null_co_done(bs);
}

static int coroutine_fn null_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes)
{
    return null_co_done(bs);
}

static int coroutine_fn null_co_flush(BlockDriverState *bs)
{
    return null_co_done(bs);
}

static int coroutine_fn null_co_block_status(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             int64_t *pnum, int64_t *map,
                                             BlockDriverState **file)
{
    BDRVNullState *s = bs->opaque;

    *pnum = bytes;
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED
           | (s->read_zeroes ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA);
}

static int64_t coroutine_fn null_co_get_allocated_file_size(
    BlockDriverState *bs)
{
    return 0;
}

#define NULL_DRIVER(name, value)                                        \
    .format_name = name,                                                \
    .driver = value,                                                    \
    .instance_size = sizeof(BDRVNullState),                             \
    .is_protocol = true,                                                \
    .supported_write_flags = BDRV_REQ_FUA,                              \
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP           \
                            | BDRV_REQ_NO_FALLBACK,                     \
    .bdrv_co_open = null_co_open,                                       \
    .bdrv_co_preadv = null_co_preadv,                                   \
    .bdrv_co_pwritev = null_co_pwritev,                                 \
    .bdrv_co_pwrite_zeroes = null_co_pwrite_zeroes,                     \
    .bdrv_co_pdiscard = null_co_pdiscard,                               \
    .bdrv_co_flush = null_co_flush,                                     \
    .bdrv_co_block_status = null_co_block_status,                       \
    .bdrv_co_get_allocated_file_size = null_co_get_allocated_file_size, \
    .bdrv_gather_options = null_gather_options

const BlockDriver bdrv_null_co = {
    NULL_DRIVER("null-co", BLOCKDEV_DRIVER_NULL_CO),
};

const BlockDriver bdrv_null_aio = {
    NULL_DRIVER("null-aio", BLOCKDEV_DRIVER_NULL_AIO),
};
