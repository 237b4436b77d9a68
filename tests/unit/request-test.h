/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of the block layer: single requests, each counted in and out
 * as a user's.  All return what the request does: 0 or -errno.
 */
#ifndef TESTS_UNIT_REQUEST_TEST_H
#define TESTS_UNIT_REQUEST_TEST_H

#include "block/block.h"

#define KiB 1024
#define MiB (1024 * 1024)

static inline int coroutine_fn
co_readv(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_preadv(blk, offset, qiov, 0);
    blk_end_request(blk);
    return ret;
}

static inline int coroutine_fn
co_writev(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov,
          BdrvRequestFlags flags)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_pwritev(blk, offset, qiov, flags);
    blk_end_request(blk);
    return ret;
}

static inline int coroutine_fn
co_read(BlockBackend *blk, int64_t offset, void *buf, size_t bytes)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return co_readv(blk, offset, &qiov);
}

static inline int coroutine_fn
co_write(BlockBackend *blk, int64_t offset, const void *buf, size_t bytes,
         BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    return co_writev(blk, offset, &qiov, flags);
}

static inline int coroutine_fn
co_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
          BdrvRequestFlags flags)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_pwrite_zeroes(blk, offset, bytes, flags);
    blk_end_request(blk);
    return ret;
}

static inline int coroutine_fn
co_discard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_pdiscard(blk, offset, bytes);
    blk_end_request(blk);
    return ret;
}

static inline int coroutine_fn
co_flush(BlockBackend *blk)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_flush(blk);
    blk_end_request(blk);
    return ret;
}

static inline int coroutine_fn
co_truncate(BlockBackend *blk, int64_t size, PreallocMode prealloc,
            Error **errp)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_truncate(blk, size, prealloc, 0, errp);
    blk_end_request(blk);
    return ret;
}

#endif /* TESTS_UNIT_REQUEST_TEST_H */
