/* SPDX-License-Identifier: MIT */
/*
 * qcow2: small images that make work without end.  Whatever is begun on them,
 * others have their turns meanwhile, and it ends when nobody wants it any more.
 */
#include <errno.h>

#include "block/block-int.h"
#include "block/check.h"
#include "block/dirty-bitmap.h"
#include "block/qcow2-format.h"
#include "tests/unit/block-test.h"

#define CLUSTER_BITS 21
#define CLUSTER (INT64_C(1) << CLUSTER_BITS)
#define L1_ENTRIES (1 << 19)
#define DISK_BYTES ((int64_t)L1_ENTRIES * (CLUSTER / 8) * CLUSTER)
#define FILE_CLUSTERS (INT64_C(1) << 21)        /* 4 TiB */

static char *dir, *path;

/* ---- the image ---- */

static void put(FILE *f, int64_t at, const void *data, size_t n)
{
    g_assert_cmpint(fseeko(f, at, SEEK_SET), ==, 0);
    g_assert_cmpuint(fwrite(data, 1, n, f), ==, n);
}

/* @n big-endian words, a and b by turns. */
static void put_words(FILE *f, int64_t at, size_t n, uint64_t a, uint64_t b)
{
    g_autofree uint64_t *words = g_new(uint64_t, n);

    for (size_t i = 0; i < n; i++) {
        words[i] = GUINT64_TO_BE(i % 2 ? b : a);
    }
    put(f, at, words, n * 8);
}

/*
 * All L1 entries lead to two L2 tables by turns, full of zero clusters.  All
 * entries of the refcount table lead to one block, in which all counts are 1,
 * and the file is as long as that says.
 */
static void make_image(void)
{
    Qcow2Header h = {
        .magic = GUINT32_TO_BE(QCOW2_MAGIC),
        .version = GUINT32_TO_BE(3),
        .cluster_bits = GUINT32_TO_BE(CLUSTER_BITS),
        .size = GUINT64_TO_BE(DISK_BYTES),
        .l1_size = GUINT32_TO_BE(L1_ENTRIES),
        .l1_table_offset = GUINT64_TO_BE(5 * CLUSTER),
        .refcount_table_offset = GUINT64_TO_BE(CLUSTER),
        .refcount_table_clusters = GUINT32_TO_BE(1),
        .refcount_order = GUINT32_TO_BE(4),
        .header_length = GUINT32_TO_BE(sizeof(Qcow2Header)),
    };
    g_autofree uint16_t *ones = g_new(uint16_t, CLUSTER / 2);
    FILE *f = fopen(path, "w");

    for (size_t i = 0; i < CLUSTER / 2; i++) {
        ones[i] = GUINT16_TO_BE(1);
    }
    put(f, 0, &h, sizeof(h));
    put_words(f, CLUSTER, FILE_CLUSTERS / (CLUSTER / 2), 2 * CLUSTER,
              2 * CLUSTER);
    put(f, 2 * CLUSTER, ones, CLUSTER);
    put_words(f, 3 * CLUSTER, 2 * CLUSTER / 8, 1, 1);
    put_words(f, 5 * CLUSTER, L1_ENTRIES, 3 * CLUSTER, 4 * CLUSTER);
    fclose(f);
    g_assert_cmpint(truncate(path, FILE_CLUSTERS * CLUSTER), ==, 0);
}

/* ---- work that somebody gives up ---- */

typedef struct Impatient {
    CoCancel cancel;
    BottomHalf *bh;
    bool others_ran;
} Impatient;

static void others_bh(void *opaque)
{
    Impatient *i = opaque;

    i->others_ran = true;
}

static bool is_cancelled(const CoCancel *cancel)
{
    return ((const Impatient *)cancel)->others_ran;
}

/* What is done from now on will be given up as soon as others have run. */
static void coroutine_fn co_begin(Impatient *i)
{
    *i = (Impatient) { .cancel.is_cancelled = is_cancelled };
    i->bh = aio_bh_new(aio_context_current(), others_bh, i);
    aio_bh_schedule(i->bh);
    coroutine_set_cancel(&i->cancel);
}

static void coroutine_fn co_end(Impatient *i, int ret)
{
    coroutine_set_cancel(NULL);
    g_assert_true(i->others_ran);
    g_assert_cmpint(ret, ==, -ECANCELED);
    aio_bh_delete(i->bh);
}

static BlockDriverState *coroutine_fn co_open(void)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'discard': 'unmap', "
        "'file': {'driver': 'file', 'filename': '%s'}}", path);

    make_image();
    return block_test_co_open(json);
}

static void coroutine_fn co_test_status(void *opaque)
{
    BlockDriverState *bs = co_open();
    int64_t pos = 0, n = 0;
    Impatient i;
    int ret;

    co_begin(&i);
    do {
        pos += n;
        ret = bdrv_co_block_status(bs, pos, DISK_BYTES - pos, &n, NULL, NULL);
    } while (ret >= 0 && pos + n < DISK_BYTES);
    co_end(&i, ret);

    co_begin(&i);
    g_assert_false(bdrv_co_is_zero_fast(bs, 0, DISK_BYTES));
    co_end(&i, -ECANCELED);
    block_test_co_close(bs);
}

/* The refcounts say that no cluster is free, and again and again. */
static void coroutine_fn co_test_alloc(void *opaque)
{
    BlockDriverState *bs = co_open();
    BlockBackend *blk = block_test_co_attach(bs, "a user", BLK_PERM_WRITE,
                                             BLK_PERM_ALL);
    g_autofree void *buf = g_malloc0(4096);
    QEMUIOVector qiov;
    Impatient i;

    qemu_iovec_init_buf(&qiov, buf, 4096);
    co_begin(&i);
    co_end(&i, blk_co_pwritev(blk, 0, &qiov, 0));
    blk_co_free(blk);
    block_test_co_close(bs);
}

static void coroutine_fn co_test_check(void *opaque)
{
    static const BdrvCheckHooks silent;
    BlockDriverState *bs = co_open();
    BdrvCheckResult res = { 0 };
    Error *err = NULL;
    Impatient i;

    co_begin(&i);
    co_end(&i, bdrv_co_check(bs, &res, 0, &silent, &err));
    node_test_assert_error(err, "Check failed: Operation canceled");
    block_test_co_close(bs);
}

/* ---- requests that need no broken image ---- */

static BlockBackend *coroutine_fn co_open_null(BlockDriverState **bs)
{
    *bs = block_test_co_open("{'driver': 'null-co', 'node-name': 'null', "
                             "'size': 4611686018427387904}");
    return block_test_co_attach(*bs, "a user", BLK_PERM_WRITE, BLK_PERM_ALL);
}

static void coroutine_fn co_test_zeroes(void *opaque)
{
    BlockDriverState *bs;
    BlockBackend *blk = co_open_null(&bs);
    Impatient i;

    co_begin(&i);
    co_end(&i, blk_co_pwrite_zeroes(blk, 0, INT64_C(1) << 62, 0));
    blk_co_free(blk);
    block_test_co_close(bs);
}

/* Every second bit. */
static void coroutine_fn co_test_bitmap(void *opaque)
{
    BlockDriverState *bs = block_test_co_open(
        "{'driver': 'null-co', 'node-name': 'null', 'size': 34359738368}");
    BdrvDirtyBitmap *from = bdrv_dirty_bitmap_new(bs, "a", 9, false, NULL);
    BdrvDirtyBitmap *to = bdrv_dirty_bitmap_new(bs, "b", 9, false, NULL);
    uint64_t words[512];
    Impatient i;

    for (size_t w = 0; w < G_N_ELEMENTS(words); w++) {
        words[w] = UINT64_C(0x5555555555555555);
    }
    for (int64_t first = 0; first < 1 << 20; first += 512) {
        bdrv_dirty_bitmap_or_words(from, 1 << 26, first, 512, words);
    }
    co_begin(&i);
    co_end(&i, bdrv_co_dirty_bitmap_merge(to, from, bdrv_getlength(bs)));
    bdrv_dirty_bitmap_free(from);
    bdrv_dirty_bitmap_free(to);
    block_test_co_close(bs);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        CoroutineEntry *entry;
    } tests[] = {
        { "status", co_test_status },
        { "alloc", co_test_alloc },
        { "check", co_test_check },
        { "zeroes", co_test_zeroes },
        { "bitmap", co_test_bitmap },
    };
    int status;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("qcow2-endless-XXXXXX", NULL);
    path = g_build_filename(dir, "image", NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        block_test_add_one(AIO_BACKEND_AUTO, tests[i].entry, NULL,
                           "/qcow2-endless/%s", tests[i].name);
    }
    status = g_test_run();
    g_unlink(path);
    g_rmdir(dir);
    g_free(path);
    g_free(dir);
    return status;
}
