/* SPDX-License-Identifier: MIT */
/*
 * Requests: padding, bouncing, cutting, zeroes, discard, status, length.
 *
 * Real files with and without O_DIRECT, and a disk in memory that is slow in
 * random ways and insists on its limits.  The model is a flat buffer: several
 * threads write at random to ranges of their own which share blocks, and in the
 * end (and in between) every byte must be what was written last.
 */
#include "tests/unit/block-test.h"

#include <limits.h>

#define KiB 1024
#define DISK_SIZE (300 * KiB + 1000)        /* ends within a block */
#define N_WORKERS 8

static char *image;

/* ---- the memory disk ---- */

typedef struct MemDisk {
    uint8_t data[DISK_SIZE + 64 * KiB];
    int64_t len;
    unsigned writes, zeroes, discards, flushes, fua;    /* atomic */
    int zeroes_ret;                                     /* 0 or -errno */
    int write_ret;
} MemDisk;

static MemDisk mem;

static void coroutine_fn mem_co_delay(void)
{
    static unsigned seed;
    unsigned n = __atomic_add_fetch(&seed, 2654435761u, __ATOMIC_RELAXED);

    if ((n >> 16) % 4) {
        aio_co_sleep_ns((n >> 16) % 20000);
    }
}

static void mem_check(BlockDriverState *bs, int64_t offset, int64_t bytes,
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

static int coroutine_fn mem_co_preadv(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      BdrvRequestFlags flags)
{
    mem_check(bs, offset, bytes, qiov);
    qemu_iovec_from_buf(qiov, 0, mem.data + offset, bytes);
    mem_co_delay();
    return 0;
}

static int coroutine_fn mem_co_pwritev(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    mem_check(bs, offset, bytes, qiov);
    mem_co_delay();
    if (mem.write_ret) {
        return mem.write_ret;
    }
    qemu_iovec_to_buf(qiov, 0, mem.data + offset, bytes);
    __atomic_add_fetch(&mem.writes, 1, __ATOMIC_RELAXED);
    if (flags & BDRV_REQ_FUA) {
        __atomic_add_fetch(&mem.fua, 1, __ATOMIC_RELAXED);
    }
    mem_co_delay();
    return 0;
}

static int coroutine_fn mem_co_pwrite_zeroes(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    mem_check(bs, offset, bytes, NULL);
    mem_co_delay();
    if (mem.zeroes_ret) {
        return mem.zeroes_ret;
    }
    memset(mem.data + offset, 0, bytes);
    __atomic_add_fetch(&mem.zeroes, 1, __ATOMIC_RELAXED);
    return 0;
}

static int coroutine_fn mem_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes)
{
    mem_check(bs, offset, bytes, NULL);
    memset(mem.data + offset, 0, bytes);
    __atomic_add_fetch(&mem.discards, 1, __ATOMIC_RELAXED);
    return 0;
}

static int coroutine_fn mem_co_flush(BlockDriverState *bs)
{
    __atomic_add_fetch(&mem.flushes, 1, __ATOMIC_RELAXED);
    return 0;
}

static int coroutine_fn mem_co_truncate(BlockDriverState *bs, int64_t offset,
                                        PreallocMode prealloc,
                                        BdrvRequestFlags flags, Error **errp)
{
    mem_co_delay();
    mem.len = offset;
    memset(mem.data + offset, 0, sizeof(mem.data) - offset);
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

/* A null node of the right length becomes the disk in memory. */
static BlockDriverState *coroutine_fn co_open_mem(BlockLimits bl,
                                                  const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'n', 'size': %d%s}", DISK_SIZE,
        more);
    BlockDriverState *bs = block_test_co_open(json);

    memset(&mem, 0, sizeof(mem));
    mem.len = DISK_SIZE;
    bs->drv = &bdrv_mem;
    bs->bl = bl;
    return bs;
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

/* ---- requests ---- */

static int coroutine_fn co_read(BlockBackend *blk, int64_t offset, void *buf,
                                size_t bytes)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    ret = blk_co_preadv(blk, offset, &qiov, 0);
    blk_end_request(blk);
    return ret;
}

static int coroutine_fn co_write(BlockBackend *blk, int64_t offset, void *buf,
                                 size_t bytes, BdrvRequestFlags flags)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    ret = blk_co_pwritev(blk, offset, &qiov, flags);
    blk_end_request(blk);
    return ret;
}

static int coroutine_fn co_zeroes(BlockBackend *blk, int64_t offset,
                                  int64_t bytes, BdrvRequestFlags flags)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_pwrite_zeroes(blk, offset, bytes, flags);
    blk_end_request(blk);
    return ret;
}

/* ---- random writers ---- */

typedef struct Model {
    BlockBackend *blk;
    uint8_t shadow[DISK_SIZE];
    int cuts[4000];                     /* range i is [cuts[i], cuts[i + 1]) */
    int n_ranges;
} Model;

typedef struct Writer {
    Model *model;
    int number;                         /* owns ranges number + k * N_WORKERS */
    int n_ops;
    GRand *rand;
} Writer;

static void model_init(Model *m, BlockBackend *blk, GRand *rand)
{
    static const int sizes[] = { 20, 700, 5000, 9000 };
    int at = 0;

    m->blk = blk;
    memset(m->shadow, 0, sizeof(m->shadow));
    m->n_ranges = 0;
    while (at < DISK_SIZE) {
        int len = 1 + g_rand_int_range(rand, 0,
                                       sizes[g_rand_int_range(rand, 0, 4)]);

        m->cuts[m->n_ranges++] = at;
        at += len;
        if (g_rand_int_range(rand, 0, 8) == 0) {
            at = MIN(bdrv_align_up(at, 4096), DISK_SIZE);
        }
        g_assert_cmpint(m->n_ranges, <, (int)G_N_ELEMENTS(m->cuts));
    }
    m->cuts[m->n_ranges] = DISK_SIZE;
}

/* Write with the bytes spread over several pieces of memory. */
static int coroutine_fn co_write_scattered(BlockBackend *blk, int64_t offset,
                                           uint8_t *buf, int bytes,
                                           GRand *rand)
{
    QEMUIOVector qiov;
    int ret, at = 0;

    qemu_iovec_init(&qiov, 4);
    while (at < bytes) {
        int n = g_rand_int_range(rand, 1, 3000);

        n = MIN(n, bytes - at);
        qemu_iovec_add(&qiov, buf + at, n);
        at += n;
    }
    blk_co_begin_request(blk);
    ret = blk_co_pwritev(blk, offset, &qiov, 0);
    blk_end_request(blk);
    qemu_iovec_destroy(&qiov);
    return ret;
}

static void coroutine_fn co_random_op(Writer *w, uint8_t *buf)
{
    Model *m = w->model;
    int n_own = (m->n_ranges - w->number + N_WORKERS - 1) / N_WORKERS;
    int range = w->number + N_WORKERS * g_rand_int_range(w->rand, 0, n_own);
    int start = m->cuts[range], end = m->cuts[range + 1];
    int op = g_rand_int_range(w->rand, 0, 10);

    if (op < 5) {
        start += g_rand_int_range(w->rand, 0, end - start);
        end = start + g_rand_int_range(w->rand, 1, end - start + 1);
    }
    if (op == 9) {
        g_assert_cmpint(co_zeroes(m->blk, start, end - start,
                                  BDRV_REQ_MAY_UNMAP), ==, 0);
        memset(m->shadow + start, 0, end - start);
        return;
    }
    if (op >= 7) {
        g_assert_cmpint(co_read(m->blk, start, buf, end - start), ==, 0);
        g_assert_cmpint(memcmp(buf, m->shadow + start, end - start), ==, 0);
        return;
    }
    memset(buf, g_rand_int_range(w->rand, 0, 256), end - start);
    if (op % 2) {
        g_assert_cmpint(co_write_scattered(m->blk, start, buf, end - start,
                                           w->rand), ==, 0);
    } else {
        g_assert_cmpint(co_write(m->blk, start, buf, end - start, 0), ==, 0);
    }
    memcpy(m->shadow + start, buf, end - start);
}

static void coroutine_fn co_writer(void *opaque)
{
    Writer *w = opaque;
    g_autofree uint8_t *buf = g_malloc(DISK_SIZE);

    for (int i = 0; i < w->n_ops; i++) {
        co_random_op(w, buf);
    }
}

/* All threads write at random; then the disk must hold what they wrote. */
static void coroutine_fn co_hammer(BlockDriverState *bs, int n_ops)
{
    g_autofree Model *model = g_new(Model, 1);
    g_autofree uint8_t *buf = g_malloc(DISK_SIZE);
    g_autoptr(GRand) rand = g_rand_new_with_seed(g_test_rand_int());
    BlockBackend *blk = block_test_co_attach(bs, "b", BLK_PERM_ALL,
                                             BLK_PERM_ALL);
    BlockTestGang *gang = block_test_gang_new();
    Writer writers[N_WORKERS];

    model_init(model, blk, rand);
    for (int i = 0; i < N_WORKERS; i++) {
        writers[i] = (Writer) {
            model, i, n_ops, g_rand_new_with_seed(g_rand_int(rand)),
        };
        block_test_gang_start(gang, i, co_writer, &writers[i]);
    }
    block_test_gang_co_finish(gang);
    for (int i = 0; i < N_WORKERS; i++) {
        g_rand_free(writers[i].rand);
    }

    g_assert_cmpint(blk_getlength(blk), ==, DISK_SIZE);
    g_assert_cmpint(co_read(blk, 0, buf, DISK_SIZE), ==, 0);
    g_assert_cmpint(memcmp(buf, model->shadow, DISK_SIZE), ==, 0);
    g_assert_cmpint(bs->serialising, ==, 0);
    g_assert_true(TAILQ_EMPTY(&bs->tracked));
    blk_co_free(blk);
}

static void coroutine_fn test_hammer_mem(void *opaque)
{
    BlockDriverState *bs = co_open_mem(*(BlockLimits *)opaque,
                                       ", 'discard': 'unmap'");

    co_hammer(bs, g_test_quick() ? 150 : 2000);
    g_assert_cmpint(mem.len, ==, DISK_SIZE);
    bs->drv = bdrv_drivers[3];
    block_test_co_close(bs);
}

static void coroutine_fn test_hammer_file(void *opaque)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'r', 'discard': 'unmap', 'file': "
        "{'driver': 'file', 'filename': '%s'%s}}", image,
        (const char *)opaque);
    BlockDriverState *bs;
    struct stat st;
    Error *err = NULL;

    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, DISK_SIZE), ==, 0);
    bs = node_test_co_try_open(&err, json);
    if (!bs) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        return;
    }
    co_hammer(bs, g_test_quick() ? 150 : 2000);
    g_assert_cmpint(stat(image, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, DISK_SIZE);
    block_test_co_close(bs);
}

/* ---- single requests ---- */

static BlockBackend *coroutine_fn co_mem_user(BlockLimits bl, const char *more)
{
    return block_test_co_attach(co_open_mem(bl, more), "b", BLK_PERM_ALL,
                                BLK_PERM_ALL);
}

static void coroutine_fn co_mem_done(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    blk_co_free(blk);
    bs->drv = bdrv_drivers[3];
    block_test_co_close(bs);
}

static void coroutine_fn test_bounds(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");
    uint8_t buf[64];
    int64_t n;

    g_assert_cmpint(co_read(blk, DISK_SIZE, buf, 1), ==, -EIO);
    g_assert_cmpint(co_read(blk, DISK_SIZE - 1, buf, 2), ==, -EIO);
    g_assert_cmpint(co_read(blk, -1, buf, 1), ==, -EIO);
    g_assert_cmpint(co_read(blk, INT64_MAX, buf, 64), ==, -EIO);
    g_assert_cmpint(co_write(blk, DISK_SIZE, buf, 1, 0), ==, -EIO);
    g_assert_cmpint(co_zeroes(blk, 0, INT64_MAX, 0), ==, -EIO);
    g_assert_cmpint(co_zeroes(blk, -512, 512, 0), ==, -EIO);
    g_assert_cmpint(co_read(blk, DISK_SIZE, buf, 0), ==, 0);
    g_assert_cmpint(co_write(blk, 5, buf, 0, 0), ==, 0);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pdiscard(blk, DISK_SIZE, 1), ==, -EIO);
    g_assert_cmpint(blk_co_block_status(blk, -1, 1, &n), ==, -EINVAL);
    g_assert_cmpint(blk_co_block_status(blk, 0, INT64_MAX, &n), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, DISK_SIZE);
    blk_end_request(blk);
    g_assert_cmpint(mem.writes, ==, 0);
    co_mem_done(blk);
}

static void coroutine_fn test_flush_fua(void *opaque)
{
    BlockBackend *blk = co_mem_user(easy, "");
    uint8_t byte = 1;

    g_assert_cmpint(co_write(blk, 0, &byte, 1, 0), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 0);
    g_assert_cmpint(co_write(blk, 0, &byte, 1, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 1);
    g_assert_cmpint(mem.fua, ==, 0);
    blk_set_writethrough(blk, true);
    g_assert_cmpint(co_write(blk, 0, &byte, 1, 0), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 0, 1, 0), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 3);
    mem.write_ret = -ENOSPC;
    g_assert_cmpint(co_write(blk, 0, &byte, 1, 0), ==, -ENOSPC);
    g_assert_cmpint(mem.flushes, ==, 3);
    co_mem_done(blk);

    blk = co_mem_user(easy, ", 'cache': {'no-flush': true}");
    g_assert_cmpint(co_write(blk, 0, &byte, 1, BDRV_REQ_FUA), ==, 0);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    blk_end_request(blk);
    g_assert_cmpint(mem.flushes, ==, 0);
    co_mem_done(blk);
}

static void coroutine_fn test_zeroes(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, ", 'discard': 'unmap'");

    memset(mem.data, 1, DISK_SIZE);
    g_assert_cmpint(co_zeroes(blk, 100, 100000, 0), ==, 0);
    g_assert_cmpint(mem.data[99], ==, 1);
    g_assert_cmpint(mem.data[100100], ==, 1);
    for (int i = 100; i < 100100; i++) {
        g_assert_cmpint(mem.data[i], ==, 0);
    }
    g_assert_cmpint(mem.zeroes, ==, 3);         /* [8192, 98304) by 32768 */

    /* A driver that cannot: buffers, or the error if those are not wanted. */
    memset(mem.data, 1, DISK_SIZE);
    mem.zeroes_ret = -ENOTSUP;
    g_assert_cmpint(co_zeroes(blk, 100, 100000, BDRV_REQ_NO_FALLBACK), ==,
                    -ENOTSUP);
    g_assert_cmpint(mem.data[100], ==, 1);
    g_assert_cmpint(co_zeroes(blk, 100, 200000, 0), ==, 0);
    g_assert_cmpint(mem.data[99], ==, 1);
    g_assert_cmpint(mem.data[200100], ==, 1);
    for (int i = 100; i < 200100; i++) {
        g_assert_cmpint(mem.data[i], ==, 0);
    }
    mem.zeroes_ret = -EIO;
    g_assert_cmpint(co_zeroes(blk, 0, 8192, 0), ==, -EIO);
    co_mem_done(blk);
}

static void coroutine_fn test_detect_zeroes(void *opaque)
{
    g_autofree uint8_t *buf = g_malloc0(16384);
    BlockBackend *blk = co_mem_user(easy, ", 'detect-zeroes': 'on'");

    memset(mem.data, 1, DISK_SIZE);
    g_assert_cmpint(co_write(blk, 1000, buf, 16384, 0), ==, 0);
    g_assert_cmpint(mem.zeroes, ==, 1);
    g_assert_cmpint(mem.writes, ==, 0);
    g_assert_cmpint(mem.data[1000], ==, 0);
    buf[16383] = 1;
    g_assert_cmpint(co_write(blk, 1000, buf, 16384, 0), ==, 0);
    g_assert_cmpint(mem.writes, ==, 1);
    co_mem_done(blk);
}

static int coroutine_fn co_discard(BlockBackend *blk, int64_t offset,
                                   int64_t bytes)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_pdiscard(blk, offset, bytes);
    blk_end_request(blk);
    return ret;
}

static void coroutine_fn test_discard(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");

    g_assert_cmpint(co_discard(blk, 0, 65536), ==, 0);
    g_assert_cmpint(mem.discards, ==, 0);       /* discard=ignore */
    co_mem_done(blk);

    blk = co_mem_user(picky, ", 'discard': 'unmap'");
    memset(mem.data, 1, sizeof(mem.data));
    g_assert_cmpint(co_discard(blk, 100, 8192), ==, 0);
    g_assert_cmpint(mem.discards, ==, 0);
    g_assert_cmpint(co_discard(blk, 100, 70000), ==, 0);
    g_assert_cmpint(mem.discards, ==, 2);       /* [8192, 65536) by 32768 */
    g_assert_cmpint(mem.data[8191], ==, 1);
    g_assert_cmpint(mem.data[8192], ==, 0);
    g_assert_cmpint(mem.data[65535], ==, 0);
    g_assert_cmpint(mem.data[65536], ==, 1);
    g_assert_cmpint(co_discard(blk, DISK_SIZE - 6000, 6000), ==, 0);
    g_assert_cmpint(mem.data[DISK_SIZE - 1], ==, 0);
    co_mem_done(blk);
}

/* A format on top reads past the end and lets its file grow. */
static void coroutine_fn test_growth(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");
    BlockDriverState *bs = blk_bs(blk);
    uint8_t buf[6000];
    QEMUIOVector qiov;

    memset(buf, 7, sizeof(buf));
    qemu_iovec_init_buf(&qiov, buf, 6000);
    blk_co_begin_request(blk);
    g_assert_cmpint(bdrv_co_pwritev(blk_root(blk), DISK_SIZE + 100, &qiov, 0),
                    ==, 0);
    g_assert_cmpint(bdrv_getlength(bs), ==, DISK_SIZE + 6100);
    g_assert_cmpint(mem.len, ==, DISK_SIZE + 6100);
    g_assert_cmpint(bdrv_co_preadv(blk_root(blk), DISK_SIZE + 6000, &qiov, 0),
                    ==, 0);
    g_assert_cmpint(buf[99], ==, 7);
    g_assert_cmpint(buf[100], ==, 0);
    g_assert_cmpint(buf[5999], ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(blk_root(blk), DISK_SIZE + 6100,
                                          5000, 0), ==, 0);
    g_assert_cmpint(bdrv_getlength(bs), ==, DISK_SIZE + 11100);
    blk_end_request(blk);
    co_mem_done(blk);
}

/* Truncation and partial writes at the end exclude each other. */
typedef struct Resizer {
    BlockBackend *blk;
    unsigned seed;
} Resizer;

static void coroutine_fn co_resizer(void *opaque)
{
    Resizer *r = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(r->seed);
    uint8_t buf[5000];

    memset(buf, 1, sizeof(buf));
    for (int i = 0; i < 60; i++) {
        blk_co_begin_request(r->blk);
        if (r->seed % 2) {
            int64_t len = g_rand_int_range(rand, DISK_SIZE / 2,
                                           DISK_SIZE + 30000);

            g_assert_cmpint(blk_co_truncate(r->blk, len, PREALLOC_MODE_OFF, 0,
                                            NULL), ==, 0);
        } else {
            int64_t at = g_rand_int_range(rand, 0, DISK_SIZE + 30000);
            QEMUIOVector qiov;
            int ret;

            qemu_iovec_init_buf(&qiov, buf, g_rand_int_range(rand, 1, 5000));
            ret = blk_co_pwritev(r->blk, at, &qiov, 0);
            g_assert_true(ret == 0 || ret == -EIO);
        }
        blk_end_request(r->blk);
    }
}

static void coroutine_fn test_resize_race(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");
    BlockTestGang *gang = block_test_gang_new();
    Resizer resizers[6];

    for (int i = 0; i < 6; i++) {
        resizers[i] = (Resizer) { blk, i };
        block_test_gang_start(gang, i, co_resizer, &resizers[i]);
    }
    block_test_gang_co_finish(gang);
    g_assert_cmpint(bdrv_getlength(blk_bs(blk)), >=, DISK_SIZE / 2);
    co_mem_done(blk);
}

/* The status of a real file, through raw: data, hole, end. */
static void coroutine_fn test_status(void *opaque)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'r', 'offset': 512, 'file': "
        "{'driver': 'file', 'filename': '%s'}}", image);
    g_autofree uint8_t *buf = g_malloc(64 * KiB);
    BlockDriverState *bs, *file;
    BlockBackend *blk;
    int64_t n, map;

    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, 256 * KiB), ==, 0);
    bs = block_test_co_open(json);
    blk = block_test_co_attach(bs, "b", BLK_PERM_ALL & ~BLK_PERM_RESIZE,
                               BLK_PERM_ALL);
    memset(buf, 1, 64 * KiB);
    g_assert_cmpint(co_write(blk, 64 * KiB - 512, buf, 64 * KiB, 0), ==, 0);

    blk_co_begin_request(blk);
    g_assert_cmpint(bdrv_co_block_status(bs, 0, 256 * KiB, &n, &map, &file),
                    ==, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 64 * KiB - 512);
    g_assert_cmpint(map, ==, 512);
    g_assert_true(file == bs->file->bs);
    g_assert_cmpint(blk_co_block_status(blk, n, 256 * KiB, &n), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 64 * KiB);
    g_assert_cmpint(blk_co_block_status(blk, 128 * KiB, 256 * KiB, &n), ==,
                    BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 128 * KiB - 512);
    blk_end_request(blk);
    blk_co_free(blk);
    block_test_co_close(bs);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_cmpstr(bdrv_drivers[3]->format_name, ==, "null-co");
    image = node_test_scratch(g_get_tmp_dir(), DISK_SIZE);
    block_test_add("/block-io/bounds", test_bounds, NULL);
    block_test_add("/block-io/flush-fua", test_flush_fua, NULL);
    block_test_add("/block-io/zeroes", test_zeroes, NULL);
    block_test_add("/block-io/detect-zeroes", test_detect_zeroes, NULL);
    block_test_add("/block-io/discard", test_discard, NULL);
    block_test_add("/block-io/growth", test_growth, NULL);
    block_test_add("/block-io/resize-race", test_resize_race, NULL);
    block_test_add("/block-io/status", test_status, NULL);
    block_test_add("/block-io/hammer/picky", test_hammer_mem, (void *)&picky);
    block_test_add("/block-io/hammer/easy", test_hammer_mem, (void *)&easy);
    block_test_add("/block-io/hammer/file", test_hammer_file, (void *)"");
    block_test_add("/block-io/hammer/file-direct", test_hammer_file,
                   (void *)", 'cache': {'direct': true}");
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
