/* SPDX-License-Identifier: MIT */
/*
 * Requests from several threads that share blocks.
 *
 * Real files with and without O_DIRECT, and a slow disk in memory.  The model
 * is a flat buffer: every thread writes at random to ranges of its own, and in
 * the end (and in between) every byte must be what was written last.
 */
#include "tests/unit/mem-disk.h"

#define N_WORKERS 8

static char *image;

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
    ret = co_writev(blk, offset, &qiov, 0);
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
    co_close_mem(bs);
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

/*
 * A write of a whole block and one of a part of it, at the same time: whichever
 * comes first, the rest of the block is what the whole one wrote.
 */
#define RACE_BLOCKS 6

typedef struct Racer {
    BlockBackend *blk;
    int block;
    bool whole, zeroes;
    uint8_t value;
} Racer;

static void coroutine_fn co_racer(void *opaque)
{
    Racer *r = opaque;
    int64_t offset = r->block * 4096;
    uint8_t *buf = g_aligned_alloc(1, 4096, 4096);

    memset(buf, r->value, 4096);
    if (r->whole && r->zeroes) {
        g_assert_cmpint(co_zeroes(r->blk, offset, 4096, 0), ==, 0);
    } else if (r->whole) {
        g_assert_cmpint(co_write(r->blk, offset, buf, 4096, 0), ==, 0);
    } else {
        g_assert_cmpint(co_write(r->blk, offset + 50, buf, 100, 0), ==, 0);
    }
    g_aligned_free(buf);
}

static void coroutine_fn co_race(BlockBackend *blk, BlockTestGang *gang,
                                 int round)
{
    uint8_t buf[4096], value = round % 4 ? 1 + round % 200 : 0;
    Racer racers[2 * RACE_BLOCKS];

    for (int i = 0; i < 2 * RACE_BLOCKS; i++) {
        bool whole = (i + round) % 2;

        racers[i] = (Racer) {
            blk, i / 2, whole, value == 0, whole ? value : 255,
        };
        block_test_gang_start(gang, i + i / 2, co_racer, &racers[i]);
    }
    wait_set_co_wait(&gang->done, block_test_gang_idle, gang);

    for (int i = 0; i < RACE_BLOCKS; i++) {
        g_assert_cmpint(co_read(blk, i * 4096, buf, 4096), ==, 0);
        for (int j = 0; j < 4096; j++) {
            bool part = j >= 50 && j < 150;

            g_assert_true(buf[j] == value || (part && buf[j] == 255));
        }
    }
}

static void coroutine_fn test_whole_and_part(void *opaque)
{
    BlockLimits bl = { .request_alignment = 4096, .min_mem_alignment = 512 };
    BlockDriverState *bs = co_open_mem(bl, "");
    BlockBackend *blk = block_test_co_attach(bs, "b", BLK_PERM_ALL,
                                             BLK_PERM_ALL);
    BlockTestGang *gang = block_test_gang_new();

    for (int i = 0; i < (g_test_quick() ? 200 : 5000); i++) {
        co_race(blk, gang, i);
    }
    block_test_gang_co_finish(gang);
    blk_co_free(blk);
    co_close_mem(bs);
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
            ret = r->seed % 4 ? blk_co_pwrite_zeroes(r->blk, at, qiov.size, 0)
                              : blk_co_pwritev(r->blk, at, &qiov, 0);
            g_assert_true(ret == 0 || ret == -EIO);
        }
        blk_end_request(r->blk);
    }
}

/* With @opaque, writes don't make the disk longer. */
static void coroutine_fn test_resize_race(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");
    BlockTestGang *gang = block_test_gang_new();
    BlockDriver fixed = bdrv_mem;
    Resizer resizers[6];

    fixed.can_grow = false;
    if (opaque) {
        blk_bs(blk)->drv = &fixed;
    }
    for (int i = 0; i < 6; i++) {
        resizers[i] = (Resizer) { blk, i };
        block_test_gang_start(gang, i, co_resizer, &resizers[i]);
    }
    block_test_gang_co_finish(gang);
    g_assert_cmpint(bdrv_getlength(blk_bs(blk)), >=, DISK_SIZE / 2);
    co_mem_done(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), DISK_SIZE);
    block_test_add("/block-race/resize", test_resize_race, NULL);
    block_test_add("/block-race/cut", test_resize_race, &(bool) { true });
    block_test_add("/block-race/whole-and-part", test_whole_and_part, NULL);
    block_test_add("/block-race/hammer/picky", test_hammer_mem,
                   (void *)&picky);
    block_test_add("/block-race/hammer/easy", test_hammer_mem, (void *)&easy);
    block_test_add("/block-race/hammer/file", test_hammer_file, (void *)"");
    block_test_add("/block-race/hammer/file-direct", test_hammer_file,
                   (void *)", 'cache': {'direct': true}");
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
