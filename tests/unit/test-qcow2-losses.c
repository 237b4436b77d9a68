/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the ways in which programs are known to have lost their users' data,
 * one test each.
 */
#include <string.h>

#include "block/check.h"
#include "block/snapshot.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "tests/unit/qcow2-image.h"

#define MIB (1 << 20)
#define SIZE (4 * MIB)

typedef struct Image {
    char *dir, *path;
    uint8_t *shadow;            /* what the disk has */
    BlockDriverState *bs;
    BlockBackend *blk;
} Image;

/* ---- images ---- */

/* A new image; with @backing half of it shows 0x5a from another file. */
static void image_init(Image *im, const char *create, bool backing)
{
    g_autofree char *base = NULL;

    *im = (Image) {
        .dir = image_test_folder("qsd-losses"),
        .shadow = g_malloc0(SIZE),
    };
    base = g_build_filename(im->dir, "base", NULL);
    im->path = g_build_filename(im->dir, "image", NULL);
    if (backing) {
        memset(im->shadow, 0x5a, SIZE / 2);
        g_assert_true(g_file_set_contents(base, (char *)im->shadow, SIZE / 2,
                                          NULL));
    }
    image_test_run("qemu-img create -q -f qcow2 -o %s %s %s %d", create, backing
                   ? "-b base -F raw" : "", im->path, SIZE);
}

/* Open it with more options; over blkdebug if that has @rules. */
static void coroutine_fn co_open(Image *im, const char *more,
                                 const char *rules)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap'%s, 'file': "
        "%s{'driver': 'file', 'discard': 'unmap', 'filename': '%s'}%s%s}",
        more, rules ? "{'driver': 'blkdebug', 'discard': 'unmap', 'image': "
                    : "", im->path, rules ? rules : "", rules ? "}" : "");

    im->bs = block_test_co_open(json);
    im->blk = block_test_co_attach(im->bs, "losses", BLK_PERM_ALL,
                                   BLK_PERM_ALL);
}

static void coroutine_fn co_close(Image *im)
{
    blk_co_free(im->blk);
    block_test_co_close(im->bs);
}

/* qemu-img finds the image clean and equal to the shadow. */
static void judge(Image *im)
{
    g_autofree char *raw = g_build_filename(im->dir, "raw", NULL);

    image_test_run("qemu-img check -q -f qcow2 %s", im->path);
    g_assert_true(g_file_set_contents(raw, (char *)im->shadow, SIZE, NULL));
    image_test_run("qemu-img compare -q -f raw -F qcow2 %s %s", raw, im->path);
}

static void image_deinit(Image *im)
{
    image_test_run("rm -r %s", im->dir);
    g_free(im->dir);
    g_free(im->path);
    g_free(im->shadow);
}

/* ---- requests ---- */

static int coroutine_fn co_try_write(Image *im, int64_t offset, int64_t bytes,
                                     uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;
    int ret;

    memset(buf, value, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(im->blk);
    ret = blk_co_pwritev(im->blk, offset, &qiov, 0);
    blk_end_request(im->blk);
    return ret;
}

static void coroutine_fn co_write(Image *im, int64_t offset, int64_t bytes,
                                  uint8_t value)
{
    g_assert_cmpint(co_try_write(im, offset, bytes, value), ==, 0);
    memset(im->shadow + offset, value, bytes);
}

static void coroutine_fn co_discard(Image *im, int64_t offset, int64_t bytes)
{
    blk_co_begin_request(im->blk);
    g_assert_cmpint(blk_co_pdiscard(im->blk, offset, bytes), ==, 0);
    blk_end_request(im->blk);
}

static int coroutine_fn co_try_read(Image *im, int64_t offset, int64_t bytes,
                                    uint8_t *buf)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(im->blk);
    ret = blk_co_preadv(im->blk, offset, &qiov, 0);
    blk_end_request(im->blk);
    return ret;
}

static void coroutine_fn co_check(Image *im, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(co_try_read(im, offset, bytes, buf), ==, 0);
    g_assert_true(memcmp(buf, im->shadow + offset, bytes) == 0);
}

static void coroutine_fn co_flush(Image *im)
{
    blk_co_begin_request(im->blk);
    g_assert_cmpint(blk_co_flush(im->blk), ==, 0);
    blk_end_request(im->blk);
}

/* ---- several queues that share unsynchronised state ---- */

typedef struct Queue {
    Image *im;
    int number;
} Queue;

#define QUEUES 6
#define PIECE 3000      /* no multiple of anything */

/* Every QUEUES-th piece of the disk: all share clusters and tables. */
static void coroutine_fn queue_entry(void *opaque)
{
    Queue *q = opaque;

    for (int64_t at = q->number * PIECE; at + PIECE <= SIZE;
         at += QUEUES * PIECE) {
        co_write(q->im, at, PIECE, 1 + (at / PIECE) % 250);
    }
    g_free(q);
}

static void coroutine_fn test_queues(void *opaque)
{
    static const char *const create[] = {
        "cluster_size=64k", "cluster_size=512", "extended_l2=on",
        "cluster_size=4k,lazy_refcounts=on",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(create); i++) {
        BlockTestGang *gang = block_test_gang_new();
        Image im;

        image_init(&im, create[i], i % 2);
        co_open(&im, "", NULL);
        for (int n = 0; n < QUEUES; n++) {
            Queue *q = g_new(Queue, 1);

            *q = (Queue) { &im, n };
            block_test_gang_start(gang, n, queue_entry, q);
        }
        block_test_gang_co_finish(gang);
        co_check(&im, 0, SIZE);
        co_close(&im);
        judge(&im);
        image_deinit(&im);
    }
}

/* ---- an allocator that hands out a live L2 table ---- */

static void coroutine_fn co_churn(Image *im, GRand *rand)
{
    for (int i = 0; i < 60; i++) {
        int64_t at = g_rand_int_range(rand, 0, SIZE / 4096) * 4096;
        int64_t bytes = g_rand_int_range(rand, 1, 40) * 4096;

        bytes = MIN(bytes, SIZE - at);
        if (i % 2) {
            co_discard(im, at, bytes);
            memset(im->shadow + at, 0, bytes);
        } else {
            co_write(im, at, bytes, 1 + i);
        }
        if (i % 16 == 0) {
            co_flush(im);
        }
    }
}

static void coroutine_fn test_allocator(void *opaque)
{
    GRand *rand = g_rand_new_with_seed(4711);
    Image im;

    image_init(&im, "cluster_size=512", false);
    for (int session = 0; session < 4; session++) {
        co_open(&im, ", 'l2-cache-size': 4096, 'l2-cache-entry-size': 512, "
                "'refcount-cache-size': 2048, 'overlap-check': 'all'", NULL);
        for (int i = 0; i < 8; i++) {
            BdrvCheckResult res;
            Error *err = NULL;

            co_churn(&im, rand);
            co_check(&im, 0, SIZE);
            co_flush(&im);
            bdrv_co_check(im.bs, &res, 0, NULL, &err);
            node_test_no_error(err);
            g_assert_cmpint(res.corruptions, ==, 0);
            if (i == 3) {
                bdrv_co_snapshot_create(im.bs, "s", NULL, &err);
            } else if (i == 5) {
                bdrv_co_snapshot_delete(im.bs, NULL, "s", &err);
            }
            node_test_no_error(err);
        }
        co_close(&im);
        judge(&im);
    }
    image_deinit(&im);
    g_rand_free(rand);
}

/* The image file's cluster at @offset, which the caller frees. */
static char *read_cluster(const Image *im, uint64_t offset, uint64_t size)
{
    g_autofree char *file = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(im->path, &file, &len, NULL));
    g_assert_cmpuint(offset + size, <=, len);
    return g_memdup2(file + offset, size);
}

typedef enum { L1_TABLE, L2_TABLE, REFTABLE, REFBLOCK, HEADER } Victim;

static uint64_t find_victim(const TestImage *file, Victim what)
{
    switch (what) {
    case L1_TABLE:
        return file->h.l1_table_offset;
    case L2_TABLE:
        return test_image_find_l2(file, TEST_L2_DATA, false);
    case REFTABLE:
        return file->h.refcount_table_offset;
    case REFBLOCK:
        return test_image_refblock(file);
    default:
        return 0;
    }
}

/*
 * Live metadata is free, says its refcount; or guest cluster 1 has it as data,
 * which the guest gives up, or a snapshot.  In any case it stays what it is.
 */
typedef enum { UNCOUNTED, DISCARDED, IN_SNAPSHOT } How;

static void coroutine_fn co_give_up(Image *im, How how)
{
    Error *err = NULL;

    if (how == IN_SNAPSHOT) {
        g_assert_false(bdrv_co_snapshot_delete(im->bs, NULL, "s", &err));
        error_free(err);
    } else if (how == DISCARDED) {
        co_discard(im, 65536, 65536);
        blk_co_begin_request(im->blk);
        g_assert_cmpint(blk_co_flush(im->blk), ==, -EIO);
        blk_end_request(im->blk);
    }
}

static void coroutine_fn co_hand_out_metadata(Victim what, How how,
                                              const char *more)
{
    g_autofree char *before = NULL, *after = NULL;
    TestImage file;
    uint64_t l2, victim;
    Image im;

    image_init(&im, "cluster_size=64k", false);
    image_test_run("qemu-io -f qcow2 -c 'write -q 0 64k' %s", im.path);
    if (how == IN_SNAPSHOT) {
        image_test_run("qemu-img snapshot -c s %s", im.path);
    }
    test_image_load(&file, im.path);
    l2 = find_victim(&file, L2_TABLE);
    victim = find_victim(&file, what);
    if (how != UNCOUNTED) {
        test_image_set(&file, l2 + 8, victim | (victim ? QCOW2_OFLAG_COPIED
                                                : QCOW2_OFLAG_COMPRESSED));
    } else {
        test_image_set_refcount(&file, victim / 65536, 0);
    }
    test_image_save(&file, im.path);
    test_image_free(&file);
    before = read_cluster(&im, victim, 65536);

    co_open(&im, more, NULL);
    co_give_up(&im, how);
    g_assert_cmpint(co_try_write(&im, MIB, 65536, 0xee), ==, -EIO);
    co_close(&im);
    after = read_cluster(&im, victim, 65536);
    if (what == HEADER) {
        after[79] &= ~2;        /* the corrupt bit */
    }
    g_assert_true(memcmp(before, after, 65536) == 0);
    image_deinit(&im);
}

static void coroutine_fn test_live_metadata(void *opaque)
{
    for (Victim what = L1_TABLE; what <= HEADER; what++) {
        co_hand_out_metadata(what, UNCOUNTED, "");
        co_hand_out_metadata(what, DISCARDED, "");
        co_hand_out_metadata(what, DISCARDED, ", 'discard-no-unref': true");
        if (what != HEADER) {
            co_hand_out_metadata(what, IN_SNAPSHOT, "");
        }
    }
}

/* The cluster of an L2 table that was in the cache becomes another one. */
static void coroutine_fn test_reused_table(void *opaque)
{
    TestImage file;
    Image im;

    image_init(&im, "cluster_size=512", false);
    image_test_run("qemu-io -f qcow2 -c 'write -q -P 1 0 32k' %s", im.path);
    memset(im.shadow, 1, 32768);
    /* As if a snapshot had it as well, so that it is copied and given up. */
    test_image_load(&file, im.path);
    test_image_set(&file, file.h.l1_table_offset,
                   test_image_get(&file, file.h.l1_table_offset)
                   & ~QCOW2_OFLAG_COPIED);
    test_image_save(&file, im.path);
    test_image_free(&file);

    co_open(&im, "", NULL);
    co_check(&im, 0, SIZE);
    co_write(&im, 512, 512, 2);
    co_flush(&im);
    co_write(&im, 65536, 512, 3);
    co_check(&im, 0, SIZE);
    co_close(&im);
    judge(&im);
    image_deinit(&im);
}

/*
 * The L1 table is a refcount block as well, for clusters that are about to be
 * taken (@near) or never.  Neither use may write it.
 */
static void coroutine_fn co_share_l1(bool near)
{
    g_autofree char *before = NULL, *after = NULL;
    TestImage file;
    uint64_t l1;
    Image im;

    image_init(&im, "cluster_size=512,refcount_bits=64", false);
    image_test_run("qemu-io -f qcow2 -c 'write -q 0 4k' %s", im.path);
    test_image_load(&file, im.path);
    /* The second half of the table is empty: as refcounts, all free. */
    l1 = file.h.l1_table_offset + 512;
    test_image_set(&file, file.h.refcount_table_offset + (near ? 1 : 40) * 8,
                   l1);
    test_image_save(&file, im.path);
    test_image_free(&file);
    before = read_cluster(&im, l1, 512);

    co_open(&im, ", 'refcount-cache-size': 2048", NULL);
    if (near) {
        /* More refcount blocks than there is room for. */
        co_try_write(&im, 0, MIB, 0xee);
    } else {
        g_assert_cmpint(co_try_write(&im, 3 * MIB, 512, 0xee), ==, 0);
    }
    blk_co_begin_request(im.blk);
    g_assert_cmpint(blk_co_flush(im.blk), ==, -EIO);
    blk_end_request(im.blk);
    co_close(&im);
    after = read_cluster(&im, l1, 512);
    g_assert_true(memcmp(before, after, 512) == 0);
    image_deinit(&im);
}

static void coroutine_fn test_shared_table(void *opaque)
{
    co_share_l1(true);
    co_share_l1(false);
}

/* ---- a warm L2 cache over a backing file ---- */

static void coroutine_fn test_warm_cache(void *opaque)
{
    static const char *const create[] = {
        "cluster_size=64k", "cluster_size=4k", "extended_l2=on",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(create); i++) {
        Image im;

        image_init(&im, create[i], true);
        co_open(&im, "", NULL);
        co_check(&im, 0, SIZE);
        for (int64_t at = 1000; at < SIZE - 100000; at += 150000) {
            co_write(&im, at, 100, 0x11);
            co_check(&im, 0, SIZE);
            co_write(&im, at + 70000, 5000, 0x22);
            co_check(&im, at & ~0xffff, 200000 - (at & 0xffff) > SIZE - at
                     ? SIZE - (at & ~0xffff) : 100000);
        }
        co_flush(&im);
        co_check(&im, 0, SIZE);
        co_discard(&im, MIB, MIB);
        memset(im.shadow + MIB, 0, MIB);
        co_check(&im, 0, SIZE);
        co_write(&im, MIB + 70001, 3, 0x33);
        co_check(&im, 0, SIZE);
        co_close(&im);
        judge(&im);
        co_open(&im, "", NULL);
        co_check(&im, 0, SIZE);
        co_close(&im);
        image_deinit(&im);
    }
}

/* ---- the first 64 KiB ---- */

/* Tables that offer the header's cluster: nobody may write there. */
static void coroutine_fn co_offer_first_cluster(const char *more)
{
    g_autofree char *before = NULL, *after = NULL;
    gsize len;
    Image im;

    image_init(&im, "cluster_size=64k", false);
    g_assert_true(g_file_get_contents(im.path, &before, &len, NULL));
    /* Nothing is in use, says the refcount block. */
    image_test_run("dd if=/dev/zero of=%s bs=64k seek=2 count=1 conv=notrunc "
                   "status=none", im.path);
    co_open(&im, more, NULL);
    g_assert_cmpint(co_try_write(&im, 0, 65536, 0xee), ==, -EIO);
    g_assert_cmpint(co_try_write(&im, MIB, 65536, 0xee), ==, -EIO);
    co_close(&im);
    g_assert_true(g_file_get_contents(im.path, &after, &len, NULL));
    g_assert_cmpuint(len, >=, 65536);
    /* But for the corrupt bit. */
    after[79] &= ~2;
    g_assert_true(memcmp(before, after, 65536) == 0);
    image_deinit(&im);
}

static void coroutine_fn test_first_cluster(void *opaque)
{
    co_offer_first_cluster("");
    co_offer_first_cluster(", 'overlap-check': 'none'");
}

/* The guest's first 64 KiB, with work going on everywhere else. */
static void coroutine_fn test_first_bytes(void *opaque)
{
    Image im;

    image_init(&im, "cluster_size=64k", false);
    co_open(&im, "", NULL);
    co_write(&im, 0, 65536, 0x42);
    for (int i = 1; i < 40; i++) {
        int64_t at = i * 100000;

        co_write(&im, at, 60000, i);
        co_discard(&im, at, 0);
        co_discard(&im, 65536, 65536 * (i % 3));
        memset(im.shadow + 65536, 0, 65536 * (i % 3));
        co_flush(&im);
    }
    co_check(&im, 0, SIZE);
    co_close(&im);
    judge(&im);
    image_deinit(&im);
}

/* ---- discard during a write with copy-on-write ---- */

typedef struct Slow {
    Image *im;
    int64_t at;
    WaitSet *done;
    bool ended;                 /* atomic */
} Slow;

static void coroutine_fn slow_write_entry(void *opaque)
{
    Slow *slow = opaque;

    g_assert_cmpint(co_try_write(slow->im, slow->at + 9000, 100, 0x77), ==,
                    0);
    __atomic_store_n(&slow->ended, true, __ATOMIC_SEQ_CST);
    wait_set_wake(slow->done);
}

static bool has_ended(void *opaque)
{
    Slow *slow = opaque;

    return __atomic_load_n(&slow->ended, __ATOMIC_SEQ_CST);
}

static void coroutine_fn co_discard_while_copying(Image *im, int64_t at)
{
    g_autofree uint8_t *buf = g_malloc(65536);
    WaitSet done;
    Slow slow = { .im = im, .at = at, .done = &done };
    uint8_t written;

    wait_set_init(&done);
    coroutine_enter(coroutine_create(slow_write_entry, &slow));
    g_assert_false(slow.ended);
    co_discard(im, at, 65536);
    wait_set_co_wait(&done, has_ended, &slow);
    wait_set_deinit(&done);

    /* One came after the other. */
    g_assert_cmpint(co_try_read(im, at, 65536, buf), ==, 0);
    written = buf[9000];
    g_assert_true(written == 0x77 || written == 0);
    memset(im->shadow + at, 0, 65536);
    memset(im->shadow + at + 9000, written, 100);
    g_assert_true(memcmp(im->shadow + at, buf, 65536) == 0);
}

static void coroutine_fn test_discard(void *opaque)
{
    static const char *const events[] = { "cow_read", "cow_write",
                                          "cluster_alloc", "write_aio" };

    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        g_autofree char *rules = g_strdup_printf(
            ", 'inject-error': [{'event': '%s', 'errno': 0, 'delay-ns': "
            "20000000}]", events[i]);
        Image im;

        image_init(&im, "cluster_size=64k", true);
        co_open(&im, "", rules);
        for (int n = 0; n < 4; n++) {
            co_discard_while_copying(&im, n * 3 * 65536);
        }
        co_check(&im, 0, SIZE);
        co_close(&im);
        judge(&im);
        image_deinit(&im);
    }
}

/* ---- zeroes with detect-zeroes=unmap ---- */

static void coroutine_fn test_detect_zeroes(void *opaque)
{
    static const int64_t ranges[][2] = {
        { 0, 65536 }, { 70000, 1 }, { 131072, 4096 }, { 200001, 100003 },
        { MIB - 1, 65538 }, { 2 * MIB - 512, 1024 }, { SIZE - 700, 700 },
        { 3 * MIB, 65536 },
    };
    static const char *const create[] = {
        "cluster_size=64k", "extended_l2=on", "compat=0.10",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(create); i++) {
        Error *err = NULL;
        Image im;

        image_init(&im, create[i], true);
        co_open(&im, ", 'detect-zeroes': 'unmap'", NULL);
        co_write(&im, 2 * MIB - 100000, MIB + 300000, 0x66);
        co_write(&im, SIZE - 65536, 65536, 0x67);
        bdrv_co_snapshot_create(im.bs, "s", NULL, &err);
        node_test_no_error(err);
        for (unsigned n = 0; n < G_N_ELEMENTS(ranges); n++) {
            co_write(&im, ranges[n][0], ranges[n][1], 0);
            co_check(&im, 0, SIZE);
        }
        co_close(&im);
        judge(&im);
        image_deinit(&im);
    }
}

/* ---- compressed clusters ---- */

/* Each can be read, also the last one, which ends with the file. */
static void coroutine_fn test_compressed(void *opaque)
{
    g_autofree char *raw = NULL;
    Image im;

    image_init(&im, "cluster_size=64k", false);
    raw = g_build_filename(im.dir, "raw", NULL);
    for (int64_t i = 0; i < SIZE; i++) {
        im.shadow[i] = i % 3 ? i / 700 : i * i / 977;
    }
    g_assert_true(g_file_set_contents(raw, (char *)im.shadow, SIZE, NULL));
    image_test_run("qemu-img convert -c -f raw -O qcow2 %s %s", raw, im.path);
    co_open(&im, "", NULL);
    for (int64_t at = SIZE - 65536; at >= 0; at -= 65536) {
        co_check(&im, at + 65535, 1);
    }
    for (int64_t at = 0; at < SIZE; at += 3 * 65536) {
        co_write(&im, at + 100, 1000, 0x21);
    }
    co_check(&im, 0, SIZE);
    co_close(&im);
    judge(&im);
    image_deinit(&im);
}

/* A damaged one fails when it is read, and nothing else does. */
static void coroutine_fn test_damaged(void *opaque)
{
    g_autofree uint8_t *buf = g_malloc(65536);
    TestImage file;
    uint64_t host;
    Image im;

    image_init(&im, "cluster_size=64k", false);
    image_test_run("qemu-io -f qcow2 -c 'write -q -c -P 1 0 64k' -c 'write "
                   "-q -c -P 2 64k 64k' -c 'write -q -c -P 3 128k 64k' %s",
                   im.path);
    memset(im.shadow, 1, 65536);
    memset(im.shadow + 131072, 3, 65536);
    test_image_load(&file, im.path);
    host = test_image_get(&file, test_image_find_l2(&file, TEST_L2_COMPRESSED,
                                                    false) + 8)
           & ((UINT64_C(1) << (62 - (16 - 8))) - 1);
    for (int i = 0; i < 40; i++) {
        file.bytes->data[host + i] ^= 0xa5 + i;
    }
    test_image_save(&file, im.path);
    test_image_free(&file);
    co_open(&im, "", NULL);
    co_check(&im, 0, 65536);
    g_assert_cmpint(co_try_read(&im, 65536, 65536, buf), ==, -EIO);
    co_check(&im, 131072, 65536);
    /* Writing all of it anew makes it good again. */
    co_write(&im, 65536, 65536, 0x55);
    co_check(&im, 0, SIZE);
    co_close(&im);
    judge(&im);
    image_deinit(&im);
}

/* ---- lazy_refcounts ---- */

static void check_lazy(Image *im)
{
    g_autofree char *text = image_test_output("qemu-img info -U %s", im->path);

    g_assert_nonnull(strstr(text, "lazy refcounts: true"));
}

static void coroutine_fn test_lazy(void *opaque)
{
    g_autofree char *killed = NULL;
    TestImage file;
    Error *err = NULL;
    Image im;

    image_init(&im, "lazy_refcounts=on", false);
    killed = g_build_filename(im.dir, "killed", NULL);
    co_open(&im, "", NULL);
    co_write(&im, 0, MIB, 1);
    co_flush(&im);
    check_lazy(&im);
    bdrv_co_snapshot_create(im.bs, "s", NULL, &err);
    node_test_no_error(err);
    co_write(&im, 0, MIB / 2, 2);
    co_flush(&im);
    image_test_run("cp %s %s", im.path, killed);
    co_close(&im);
    check_lazy(&im);
    judge(&im);
    /* An option that says otherwise is for as long as it is open. */
    co_open(&im, ", 'lazy-refcounts': false", NULL);
    co_write(&im, 2 * MIB, MIB, 3);
    memset(im.shadow + 2 * MIB, 0, MIB);
    co_close(&im);
    check_lazy(&im);

    /* An unknown autoclear bit: the whole header is written anew. */
    test_image_load(&file, im.path);
    test_image_set(&file, offsetof(Qcow2Header, autoclear_features), 0x20);
    test_image_save(&file, im.path);
    test_image_free(&file);
    co_open(&im, "", NULL);
    co_close(&im);
    check_lazy(&im);

    image_test_run("mv %s %s", killed, im.path);
    co_open(&im, "", NULL);     /* repairs */
    co_check(&im, 0, SIZE);
    co_close(&im);
    check_lazy(&im);
    judge(&im);
    image_deinit(&im);
}

/* True if the file itself, now, has the dirty bit. */
static bool file_is_dirty(const Image *im)
{
    g_autofree char *head = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(im->path, &head, &len, NULL));
    return head[79] & 1;
}

/*
 * A new L1 table is in use at once, its refcounts are not in the file: who
 * opens that after a crash must know.
 */
static void coroutine_fn test_lazy_grow(void *opaque)
{
    Error *err = NULL;
    Image im;

    image_init(&im, "cluster_size=512,lazy_refcounts=on", false);
    co_open(&im, "", NULL);
    g_assert_false(file_is_dirty(&im));
    blk_co_begin_request(im.blk);
    g_assert_cmpint(blk_co_truncate(im.blk, 8 * SIZE, PREALLOC_MODE_OFF, 0,
                                    &err), ==, 0);
    blk_end_request(im.blk);
    g_assert_true(file_is_dirty(&im));
    co_close(&im);
    g_assert_false(file_is_dirty(&im));
    image_test_run("qemu-img check -q -f qcow2 %s", im.path);
    image_deinit(&im);
}

/* ---- a refcount block that is everywhere, and full ---- */

static void put_be(FILE *f, long offset, uint64_t value, unsigned bytes)
{
    uint64_t be = GUINT64_TO_BE(value << (64 - 8 * bytes));

    g_assert_cmpint(fseek(f, offset, SEEK_SET), ==, 0);
    g_assert_cmpuint(fwrite(&be, bytes, 1, f), ==, 1);
}

/* Looking for a free cluster in 2^19 times the same block takes no time. */
static void coroutine_fn test_same_block(void *opaque)
{
    const unsigned entries = 1 << 19, table = 1 << 20, block = 1 << 19;
    g_autofree uint8_t *buf = g_malloc(1 << 16);
    Image im;
    FILE *f;

    image_init(&im, "cluster_size=64k", false);
    f = fopen(im.path, "r+");
    g_assert_nonnull(f);
    for (unsigned i = 0; i < 1 << 15; i++) {
        put_be(f, block + i * 2, 1, 2);
    }
    for (unsigned i = 0; i < entries; i++) {
        put_be(f, table + i * 8, block, 8);
    }
    put_be(f, 48, table, 8);
    put_be(f, 56, entries * 8 >> 16, 4);
    g_assert_cmpint(fclose(f), ==, 0);

    co_open(&im, ", 'overlap-check': 'none'", NULL);
    g_assert_cmpint(co_try_write(&im, 0, 1 << 16, 1), ==, -EIO);
    g_assert_cmpint(co_try_read(&im, 0, 1 << 16, buf), ==, 0);
    co_close(&im);
    image_deinit(&im);
}

/* ---- main ---- */

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        CoroutineEntry *entry;
    } tests[] = {
        { "queues", test_queues },
        { "allocator", test_allocator },
        { "live-metadata", test_live_metadata },
        { "reused-table", test_reused_table },
        { "shared-table", test_shared_table },
        { "warm-cache", test_warm_cache },
        { "first-cluster", test_first_cluster },
        { "first-bytes", test_first_bytes },
        { "discard", test_discard },
        { "detect-zeroes", test_detect_zeroes },
        { "compressed", test_compressed },
        { "damaged", test_damaged },
        { "lazy-refcounts", test_lazy },
        { "lazy-grow", test_lazy_grow },
        { "same-block", test_same_block },
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/losses/%s",
                                                tests[i].name);

        block_test_add(path, tests[i].entry, NULL);
    }
    return g_test_run();
}
