/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of the block layer: a disk in memory that is slow in random
 * ways and insists on its limits.
 */
#ifndef TESTS_UNIT_MEM_DISK_H
#define TESTS_UNIT_MEM_DISK_H

#include "tests/unit/block-test.h"
#include "tests/unit/request-test.h"

#define DISK_SIZE (300 * KiB + 1000)        /* ends within a block */

/* ---- the disk ---- */

typedef struct MemDisk {
    pthread_mutex_t lock;               /* over data, one copy at a time */
    uint8_t data[DISK_SIZE + 64 * KiB];
    int64_t len;
    unsigned writes, zeroes, discards, flushes, fua;    /* atomic */
    int zeroes_ret;                                     /* 0 or -errno */
    int write_ret;
} MemDisk;

static MemDisk mem = { .lock = PTHREAD_MUTEX_INITIALIZER };

static inline void coroutine_fn
mem_co_delay(void)
{
    static unsigned seed;
    unsigned n = __atomic_add_fetch(&seed, 2654435761u, __ATOMIC_RELAXED);

    if ((n >> 16) % 4) {
        aio_co_sleep_ns((n >> 16) % 20000);
    }
}

static inline void
mem_check(BlockDriverState *bs, int64_t offset, int64_t bytes,
          const QEMUIOVector *qiov)
{
    const BlockLimits *bl = &bs->bl;

    g_assert_cmpint(offset % bl->request_alignment, ==, 0);
    g_assert_cmpint(bytes % bl->request_alignment, ==, 0);
    g_assert_cmpint(bytes, >, 0);
    g_assert_cmpint(offset + bytes, <=, (int64_t)sizeof(mem.data));
    if (qiov) {
        g_assert_cmpint(bytes, ==, qiov->size);
        g_assert_true(qemu_iovec_is_aligned(qiov, bl->min_mem_alignment));
        g_assert_true(!bl->max_iov || qiov->niov <= bl->max_iov);
        g_assert_true(!bl->max_transfer || bytes <= bl->max_transfer);
    }
}

/* For writes: nothing comes behind the end, wherever that is by now. */
static inline void
mem_check_end(const BlockDriverState *bs, int64_t end)
{
    int64_t len = bdrv_align_up(bdrv_getlength(bs), bs->bl.request_alignment);

    g_assert_true(bs->drv->can_grow || end <= len);
}

static inline int coroutine_fn
mem_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    mem_check(bs, offset, bytes, qiov);
    pthread_mutex_lock(&mem.lock);
    qemu_iovec_from_buf(qiov, 0, mem.data + offset, bytes);
    pthread_mutex_unlock(&mem.lock);
    mem_co_delay();
    return 0;
}

static inline int coroutine_fn
mem_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    mem_check(bs, offset, bytes, qiov);
    mem_check_end(bs, offset + bytes);
    mem_co_delay();
    if (mem.write_ret) {
        return mem.write_ret;
    }
    pthread_mutex_lock(&mem.lock);
    qemu_iovec_to_buf(qiov, 0, mem.data + offset, bytes);
    pthread_mutex_unlock(&mem.lock);
    __atomic_add_fetch(&mem.writes, 1, __ATOMIC_RELAXED);
    if (flags & BDRV_REQ_FUA) {
        __atomic_add_fetch(&mem.fua, 1, __ATOMIC_RELAXED);
    }
    mem_co_delay();
    return 0;
}

static inline int coroutine_fn
mem_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     BdrvRequestFlags flags)
{
    mem_check(bs, offset, bytes, NULL);
    mem_check_end(bs, offset + bytes);
    mem_co_delay();
    if (mem.zeroes_ret) {
        return mem.zeroes_ret;
    }
    pthread_mutex_lock(&mem.lock);
    memset(mem.data + offset, 0, bytes);
    pthread_mutex_unlock(&mem.lock);
    __atomic_add_fetch(&mem.zeroes, 1, __ATOMIC_RELAXED);
    return 0;
}

static inline int coroutine_fn
mem_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    mem_check(bs, offset, bytes, NULL);
    pthread_mutex_lock(&mem.lock);
    memset(mem.data + offset, 0, bytes);
    pthread_mutex_unlock(&mem.lock);
    __atomic_add_fetch(&mem.discards, 1, __ATOMIC_RELAXED);
    return 0;
}

static inline int coroutine_fn
mem_co_flush(BlockDriverState *bs)
{
    __atomic_add_fetch(&mem.flushes, 1, __ATOMIC_RELAXED);
    return 0;
}

static inline int coroutine_fn
mem_co_truncate(BlockDriverState *bs, int64_t offset, PreallocMode prealloc,
                BdrvRequestFlags flags, Error **errp)
{
    mem_co_delay();
    pthread_mutex_lock(&mem.lock);
    mem.len = offset;
    memset(mem.data + offset, 0, sizeof(mem.data) - offset);
    pthread_mutex_unlock(&mem.lock);
    return 0;
}

static const BlockDriver bdrv_mem = {
    .format_name = "null-co",
    .driver = BLOCKDEV_DRIVER_NULL_CO,
    .is_protocol = true,
    .can_grow = true,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
    .bdrv_co_preadv = mem_co_preadv,
    .bdrv_co_pwritev = mem_co_pwritev,
    .bdrv_co_pwrite_zeroes = mem_co_pwrite_zeroes,
    .bdrv_co_pdiscard = mem_co_pdiscard,
    .bdrv_co_flush = mem_co_flush,
    .bdrv_co_truncate = mem_co_truncate,
};

static const BlockDriver *mem_real_driver;

/* A null node of the right length becomes the disk in memory. */
static inline BlockDriverState *coroutine_fn
co_open_mem(BlockLimits bl, const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'n', 'size': %d%s}", DISK_SIZE,
        more);
    BlockDriverState *bs = block_test_co_open(json);

    mem = (MemDisk) {
        .lock = PTHREAD_MUTEX_INITIALIZER, .len = DISK_SIZE,
    };
    mem_real_driver = bs->drv;
    bs->drv = &bdrv_mem;
    bs->bl = bl;
    return bs;
}

static inline void coroutine_fn
co_close_mem(BlockDriverState *bs)
{
    bs->drv = mem_real_driver;
    block_test_co_close(bs);
}

static const BlockLimits picky = {
    .request_alignment = 4096,
    .min_mem_alignment = 512,
    .max_transfer = 20000,              /* 4 blocks, really */
    .max_iov = 3,
    .pwrite_zeroes_alignment = 8192,
    .pdiscard_alignment = 8192,
    .max_pwrite_zeroes = 40000,
    .max_pdiscard = 40000,
};

static const BlockLimits easy = {
    .request_alignment = 1,
    .min_mem_alignment = 1,
};

/* ---- users ---- */

static inline BlockBackend *coroutine_fn
co_mem_user(BlockLimits bl, const char *more)
{
    return block_test_co_attach(co_open_mem(bl, more), "b", BLK_PERM_ALL,
                                BLK_PERM_ALL);
}

static inline void coroutine_fn
co_mem_done(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    blk_co_free(blk);
    co_close_mem(bs);
}

#endif /* TESTS_UNIT_MEM_DISK_H */
