/* SPDX-License-Identifier: MIT */
/*
 * Writing zeroes: by the driver where it can, else with buffers.
 *
 * Any thread.  All buffers are views of one block of zeroes, so that no
 * fallback allocates memory, however long the range.
 */
#include "block/block-int.h"

#define ZERO_BUF_SIZE (64 << 10)
#define ZERO_IOVS 16

static uint8_t zero_buf[ZERO_BUF_SIZE] __attribute__((aligned(4096)));

int coroutine_fn bdrv_co_write_zero_buffers(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            BdrvWriteFunc *func,
                                            BdrvRequestFlags flags)
{
    struct iovec iov[ZERO_IOVS];
    int ret = 0;

    while (ret >= 0 && bytes > 0) {
        int64_t n = MIN(bytes, ZERO_IOVS * ZERO_BUF_SIZE);
        QEMUIOVector qiov;
        int niov = 0;

        for (int64_t left = n; left > 0; left -= ZERO_BUF_SIZE) {
            iov[niov++] = (struct iovec) {
                .iov_base = zero_buf,
                .iov_len = MIN(left, ZERO_BUF_SIZE),
            };
        }
        qemu_iovec_init_external(&qiov, iov, niov);
        ret = func(bs, offset, n, &qiov, flags);
        offset += n;
        bytes -= n;
        if (ret >= 0 && bytes > 0) {
            ret = aio_co_yield_fair();
        }
    }
    return MIN(ret, 0);
}

static int coroutine_fn co_write_buffers(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes,
                                         BdrvRequestFlags flags)
{
    return bdrv_co_write_zero_buffers(bs, offset, bytes, bdrv_co_do_pwritev,
                                      flags);
}

static int coroutine_fn co_drv_zeroes(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, BdrvRequestFlags flags)
{
    TrackedRequest req;
    int ret;

    if (!bs->drv->bdrv_co_pwrite_zeroes) {
        return -ENOTSUP;
    }
    track_co_begin_to_end(bs, &req, offset, offset + bytes);
    bdrv_debug_event(bs, BLKDBG_PWRITEV_ZERO);
    ret = bdrv_check_end(bs, offset + bytes);
    if (ret >= 0) {
        ret = bs->drv->bdrv_co_pwrite_zeroes(
            bs, offset, bytes,
            flags & (bs->drv->supported_zero_flags | BDRV_REQ_GIVE_BACK));
    }
    if (ret >= 0) {
        bdrv_note_write(bs, offset + bytes);
    }
    bdrv_debug_event(bs, BLKDBG_PWRITEV_DONE);
    track_end(&req);
    return ret;
}

/* The driver does it, or refuses and buffers are written. */
static int coroutine_fn co_zero_units(BlockDriverState *bs, int64_t offset,
                                      int64_t end, int64_t unit,
                                      BdrvRequestFlags flags)
{
    int64_t max = bs->bl.max_pwrite_zeroes ? bs->bl.max_pwrite_zeroes
                                           : BDRV_REQUEST_MAX_BYTES;
    BdrvRequestFlags wflags = flags & bs->drv->supported_write_flags
                              & BDRV_REQ_FUA;
    int ret = 0;

    max = MAX(bdrv_unit_down(max, unit), unit);
    while (ret >= 0 && offset < end) {
        int64_t n = MIN(end - offset, max);

        ret = co_drv_zeroes(bs, offset, n, flags);
        if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
            ret = co_write_buffers(bs, offset, end - offset, wflags);
            n = end - offset;
        }
        offset += n;
        if (ret >= 0 && offset < end) {
            ret = aio_co_yield_fair();
        }
    }
    return MIN(ret, 0);
}

/* Less than a unit: the driver may know that it is zero already. */
static int coroutine_fn co_zero_part(BlockDriverState *bs, int64_t offset,
                                     int64_t bytes, BdrvRequestFlags flags)
{
    int64_t align = bs->bl.request_alignment;
    int ret = -ENOTSUP;

    if (bdrv_align_down(offset | bytes, align) == (offset | bytes)) {
        ret = co_drv_zeroes(bs, offset, bytes, flags);
    }
    if (ret == -ENOTSUP) {
        ret = co_write_buffers(bs, offset, bytes,
                               flags & bs->drv->supported_write_flags
                               & BDRV_REQ_FUA);
    }
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_do_pwrite_zeroes(BlockDriverState *bs,
                                          int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags)
{
    int64_t unit = MAX(bs->bl.request_alignment,
                       bs->bl.pwrite_zeroes_alignment);
    int64_t end = offset + bytes;
    int64_t first = bdrv_unit_up(offset, unit);
    int64_t last = bdrv_unit_down(end, unit);
    int ret = 0;

    if (first > last) {
        return co_zero_part(bs, offset, bytes, flags);
    }
    /* The middle first: it may say -ENOTSUP before anything is written. */
    if (first < last) {
        ret = co_zero_units(bs, first, last, unit, flags);
    }
    if (ret >= 0 && first > offset) {
        ret = co_zero_part(bs, offset, first - offset, flags);
    }
    if (ret >= 0 && end > last) {
        ret = co_zero_part(bs, last, end - last, flags);
    }
    return ret;
}
