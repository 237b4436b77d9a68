/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps in memory: against an array of flags, from several threads,
 * and what requests of all kinds set.
 */
#include "block/dirty-bitmap.h"

#include <string.h>

#include "qapi/qapi-commands.h"
#include "tests/unit/block-test.h"

#define KiB 1024
#define MiB (INT64_C(1) << 20)
#define TiB (INT64_C(1) << 40)

static BlockDriverState *coroutine_fn co_open_null(int64_t size)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'node', 'size': %" PRIi64
        ", 'read-zeroes': true, 'discard': 'unmap'}", size);

    return block_test_co_open(json);
}

static void assert_area(const BdrvDirtyBitmap *bm, int64_t from, int64_t end,
                        int64_t offset, int64_t bytes)
{
    int64_t n = 0;

    if (bytes == 0) {
        g_assert_false(bdrv_dirty_bitmap_next(bm, &from, end, &n));
        return;
    }
    g_assert_true(bdrv_dirty_bitmap_next(bm, &from, end, &n));
    g_assert_cmpint(from, ==, offset);
    g_assert_cmpint(n, ==, bytes);
}

/* Random ranges, compared with one flag for each unit. */
static void coroutine_fn co_test_model(void *opaque)
{
    enum { BITS = 200000 };
    BlockDriverState *bs = co_open_null(BITS * 512 - 100);
    g_autofree uint8_t *shadow = g_malloc0(BITS);
    BdrvDirtyBitmap *bm = bdrv_dirty_bitmap_new(bs, "b", 9, false, NULL);

    bdrv_dirty_bitmap_insert(bs, bm);
    for (int i = 0; i < 200; i++) {
        int64_t offset = g_test_rand_int_range(0, BITS * 512 - 100);
        int64_t bytes = g_test_rand_int_range(1, i % 10 ? 5000 : 30000000);
        int64_t count = 0, at = 0, n;

        bytes = MIN(bytes, bdrv_getlength(bs) - offset);
        bdrv_co_note_dirty(bs, offset, bytes);
        memset(shadow + offset / 512, 1,
               (offset + bytes - 1) / 512 - offset / 512 + 1);
        for (int b = 0; b < BITS; b++) {
            count += shadow[b];
        }
        g_assert_cmpint(bdrv_co_dirty_bitmap_count(bm, bdrv_getlength(bs)), ==,
                        count * 512);
        for (int64_t end = 0; ; end = at += n) {
            bool more = bdrv_dirty_bitmap_next(bm, &at, bdrv_getlength(bs),
                                               &n);

            if (!more) {
                at = bdrv_getlength(bs);
            }
            g_assert_null(memchr(shadow + (end + 511) / 512, 1,
                                 MAX((at + 511) / 512 - (end + 511) / 512,
                                     0)));
            if (!more) {
                break;
            }
            g_assert_null(memchr(shadow + at / 512, 0, (n + 511) / 512));
        }
        if (i % 50 == 49) {
            bdrv_dirty_bitmap_clear(bm);
            memset(shadow, 0, BITS);
        }
    }
    block_test_co_close(bs);
}

static void coroutine_fn co_test_large(void *opaque)
{
    BlockDriverState *bs = co_open_null(512 * TiB);
    BdrvDirtyBitmap *bm = bdrv_dirty_bitmap_new(bs, "b", 16, false, NULL);
    BdrvDirtyBitmap *coarse = bdrv_dirty_bitmap_new(bs, "c", 31, false, NULL);
    Error *err = NULL;

    /* Whole chunks are constants: no memory, at once. */
    bdrv_dirty_bitmap_insert(bs, bm);
    bdrv_dirty_bitmap_insert(bs, coarse);
    bdrv_co_dirty_bitmap_set(bm, 100, 512 * TiB - 100);
    g_assert_cmpint(bdrv_co_dirty_bitmap_count(bm, 512 * TiB), ==, 512 * TiB);
    bdrv_co_dirty_bitmap_merge(coarse, bm, 512 * TiB);
    g_assert_cmpint(bdrv_co_dirty_bitmap_count(coarse, 512 * TiB), ==,
                    512 * TiB);
    assert_area(bm, 5, 512 * TiB, 5, 512 * TiB - 5);

    /* Shrinking cuts a constant in two. */
    bdrv_co_dirty_bitmaps_resized(bs, 100 * TiB + 70 * KiB);
    assert_area(bm, 0, 512 * TiB, 0, 100 * TiB + 128 * KiB);
    g_assert_cmpint(bdrv_co_dirty_bitmap_count(coarse, 512 * TiB), ==,
                    100 * TiB + 2048 * MiB);
    bdrv_co_dirty_bitmaps_resized(bs, 0);
    g_assert_cmpint(bdrv_co_dirty_bitmap_count(bm, 512 * TiB), ==, 0);

    g_assert_null(bdrv_dirty_bitmap_new(bs, "d", 9, false, &err));
    node_test_assert_error(err, "Too much space will be occupied by the "
                           "bitmap. Use larger granularity");
    /* What it can't say it does not pretend to know. */
    bdrv_co_dirty_bitmap_set(bm, BDRV_BITMAP_MAX_BITS << 16, 1);
    g_assert_true(bm->inconsistent);
    block_test_co_close(bs);
}

/* ---- threads ---- */

typedef struct Setter {
    BdrvDirtyBitmap *bm;
    unsigned part;
} Setter;

static void coroutine_fn setter_co_entry(void *opaque)
{
    Setter *s = opaque;

    for (int64_t bit = s->part; bit < 200000; bit += BLOCK_TEST_THREADS) {
        bdrv_co_dirty_bitmap_set(s->bm, bit * 512, 512);
    }
}

static void coroutine_fn co_test_threads(void *opaque)
{
    BlockDriverState *bs = co_open_null(100 * MiB);
    BdrvDirtyBitmap *bm = bdrv_dirty_bitmap_new(bs, "b", 9, false, NULL);
    BlockTestGang *gang = block_test_gang_new();
    Setter setters[BLOCK_TEST_THREADS];

    bdrv_dirty_bitmap_insert(bs, bm);
    for (unsigned i = 0; i < BLOCK_TEST_THREADS; i++) {
        setters[i] = (Setter) { bm, i };
        block_test_gang_start(gang, i, setter_co_entry, &setters[i]);
    }
    block_test_gang_co_finish(gang);
    assert_area(bm, 0, 100 * MiB, 0, 200000 * 512);
    block_test_co_close(bs);
}

/* ---- requests and commands ---- */

static int64_t count(BlockDriverState *bs, const char *name)
{
    return bdrv_co_dirty_bitmap_count(bdrv_dirty_bitmap_find(bs, name),
                                   bdrv_getlength(bs));
}

static void coroutine_fn co_add(const char *name, bool disabled,
                                const char *text)
{
    BlockDirtyBitmapAdd arg = {
        .node = (char *)"node", .name = (char *)name,
        .has_disabled = true, .disabled = disabled,
    };
    Error *err = NULL;

    qmp_block_dirty_bitmap_add(&arg, &err);
    if (text) {
        node_test_assert_error(err, text);
    } else {
        node_test_no_error(err);
    }
}

static void coroutine_fn co_command(
    void coroutine_fn (*co_command)(const BlockDirtyBitmap *, Error **),
    const char *name)
{
    BlockDirtyBitmap arg = { (char *)"node", (char *)name };
    Error *err = NULL;

    co_command(&arg, &err);
    node_test_no_error(err);
}

static void coroutine_fn co_test_requests(void *opaque)
{
    BlockDriverState *bs = co_open_null(100 * MiB);
    BlockBackend *blk = block_test_co_attach(bs, "user", BLK_PERM_ALL,
                                             BLK_PERM_ALL);
    uint8_t buf[100] = { 0 };
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    co_add("a", false, NULL);
    co_add("b", true, NULL);
    co_add("a", true, "Bitmap already exists: a");
    co_add("", true, "Bitmap name cannot be empty");
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), >=, 0);
    g_assert_cmpint(count(bs, "a"), ==, 0);
    g_assert_cmpint(blk_co_pwritev(blk, 65500, &qiov, 0), >=, 0);
    g_assert_cmpint(count(bs, "a"), ==, 128 * KiB);
    g_assert_cmpint(blk_co_pwrite_zeroes(blk, MiB, MiB, 0), >=, 0);
    g_assert_cmpint(count(bs, "a"), ==, MiB + 128 * KiB);
    g_assert_cmpint(blk_co_pdiscard(blk, 5 * MiB, 3 * MiB), >=, 0);
    g_assert_cmpint(count(bs, "a"), ==, 4 * MiB + 128 * KiB);
    g_assert_cmpint(count(bs, "b"), ==, 0);
    blk_end_request(blk);

    co_command(qmp_block_dirty_bitmap_enable, "b");
    co_command(qmp_block_dirty_bitmap_disable, "a");
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pwritev(blk, 50 * MiB, &qiov, 0), >=, 0);
    blk_end_request(blk);
    g_assert_cmpint(count(bs, "a"), ==, 4 * MiB + 128 * KiB);
    g_assert_cmpint(count(bs, "b"), ==, 64 * KiB);
    co_command(qmp_block_dirty_bitmap_clear, "a");
    g_assert_cmpint(count(bs, "a"), ==, 0);
    co_command(qmp_block_dirty_bitmap_remove, "b");
    g_assert_null(bdrv_dirty_bitmap_find(bs, "b"));
    blk_co_free(blk);
    block_test_co_close(bs);
}

typedef struct Late {
    BdrvDirtyBitmap *bm;
    BlockBackend *blk;
    Error *err;
    bool done;
} Late;

/* A request that is in flight ends, but not before it has done harm. */
static void coroutine_fn late_co_entry(void *opaque)
{
    Late *late = opaque;

    bdrv_co_dirty_bitmap_set(late->bm, INT64_MAX - MiB, MiB);
    g_assert_true(late->bm->inconsistent);
    blk_end_request(late->blk);
}

static void late_bh(void *opaque)
{
    coroutine_enter(coroutine_create(late_co_entry, opaque));
}

static void coroutine_fn merge_co_entry(void *opaque)
{
    BlockDirtyBitmapOrStr source = {
        .type = QTYPE_QSTRING, .u.local = (char *)"source",
    };
    BlockDirtyBitmapOrStrList list = { .value = &source };
    BlockDirtyBitmapMerge arg = {
        .node = (char *)"node", .target = (char *)"target", .bitmaps = &list,
    };
    Late *late = opaque;

    qmp_block_dirty_bitmap_merge(&arg, &late->err);
    late->done = true;
}

static void coroutine_fn enable_co_entry(void *opaque)
{
    BlockDirtyBitmap arg = { (char *)"node", (char *)"source" };
    Late *late = opaque;

    qmp_block_dirty_bitmap_enable(&arg, &late->err);
    late->done = true;
}

/* What was fine when a command began need not be when it has drained. */
static void coroutine_fn co_test_late(void *opaque)
{
    CoroutineEntry *const commands[] = { merge_co_entry, enable_co_entry };

    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        BlockDriverState *bs = co_open_null(100 * MiB);
        Late late = {
            .blk = block_test_co_attach(bs, "user", BLK_PERM_ALL,
                                        BLK_PERM_ALL),
        };

        co_add("source", true, NULL);
        co_add("target", true, NULL);
        late.bm = bdrv_dirty_bitmap_find(bs, "source");
        blk_co_begin_request(late.blk);
        coroutine_enter(coroutine_create(commands[i], &late));
        g_assert_false(late.done);
        aio_bh_schedule_oneshot(aio_context_current(), late_bh, &late);
        while (!late.done) {
            aio_co_sleep_ns(1000000);
        }
        node_test_assert_error(late.err, "Bitmap 'source' is inconsistent and "
                               "cannot be used");
        blk_co_free(late.blk);
        block_test_co_close(bs);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    block_test_add("/dirty-bitmap/model", co_test_model, NULL);
    block_test_add("/dirty-bitmap/large", co_test_large, NULL);
    block_test_add("/dirty-bitmap/threads", co_test_threads, NULL);
    block_test_add("/dirty-bitmap/requests", co_test_requests, NULL);
    block_test_add("/dirty-bitmap/late", co_test_late, NULL);
    return g_test_run();
}
