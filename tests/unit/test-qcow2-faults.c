/* SPDX-License-Identifier: MIT */
/*
 * qcow2: all that is no request of a client (opening and closing, snapshots,
 * bitmaps, lengths, checks, repairs, making images) on storage that fails: the
 * first request to the file, then the second, and so on until there is none
 * left, each one alone and with all that follow.  Somebody gets an error;
 * what is in the file then has leaks at most, and shows what was there before
 * or what is to be there afterwards; and when it is tried again, it succeeds.
 *
 * The same for work that is given up wherever it may be: that leaves no leak,
 * either.
 */
#include <string.h>
#include <unistd.h>

#include "block/check.h"
#include "block/create.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"
#include "qapi/qapi-commands.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "tests/unit/qcow2-image.h"

#define KiB 1024
#define MAX_REQUESTS 2000
/* Sanitizers take their time: not each request in each way. */
#ifdef __SANITIZE_ADDRESS__
#define STEP 3
#else
#define STEP 1
#endif
#define WRITTEN (130 * KiB)
#define WRITTEN_BYTES (20 * KiB)

/* ---- the disk, in memory ---- */

static struct {
    BlockDriverState *bs;
    const BlockDriver *null_driver;
    GByteArray *bytes;
    unsigned n;                 /* requests so far */
    unsigned fail_at;           /* number of the one that fails */
    bool once;                  /* the only one */
    bool failed;
} disk;

static int disk_request(void)
{
    unsigned i = disk.n++;

    if (i == disk.fail_at || (i > disk.fail_at && !disk.once)) {
        disk.failed = true;
        return -EIO;
    }
    return 0;
}

static void disk_reach(int64_t end)
{
    guint old = disk.bytes->len;

    if (end > old) {
        g_byte_array_set_size(disk.bytes, end);
        memset(disk.bytes->data + old, 0, end - old);
    }
}

static int coroutine_fn disk_co_preadv(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    int ret = disk_request();

    if (ret >= 0) {
        g_assert_cmpint(offset + bytes, <=, disk.bytes->len);
        qemu_iovec_from_buf(qiov, 0, disk.bytes->data + offset, bytes);
    }
    return ret;
}

static int coroutine_fn disk_co_pwritev(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    int ret = disk_request();

    if (ret >= 0) {
        disk_reach(offset + bytes);
        qemu_iovec_to_buf(qiov, 0, disk.bytes->data + offset, bytes);
    }
    return ret;
}

static int coroutine_fn disk_co_pwrite_zeroes(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    int ret = disk_request();

    if (ret >= 0) {
        disk_reach(offset + bytes);
        memset(disk.bytes->data + offset, 0, bytes);
    }
    return ret;
}

static int coroutine_fn disk_co_flush(BlockDriverState *bs)
{
    return disk_request();
}

static int coroutine_fn disk_co_truncate(BlockDriverState *bs, int64_t offset,
                                         PreallocMode prealloc,
                                         BdrvRequestFlags flags, Error **errp)
{
    int ret = disk_request();

    if (ret >= 0) {
        disk_reach(offset);
        g_byte_array_set_size(disk.bytes, offset);
    } else {
        error_setg(errp, "storage fails");
    }
    return ret;
}

static const BlockDriver bdrv_disk = {
    .format_name = "null-co",
    .driver = BLOCKDEV_DRIVER_NULL_CO,
    .is_protocol = true,
    .can_grow = true,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
    .bdrv_co_preadv = disk_co_preadv,
    .bdrv_co_pwritev = disk_co_pwritev,
    .bdrv_co_pwrite_zeroes = disk_co_pwrite_zeroes,
    .bdrv_co_flush = disk_co_flush,
    .bdrv_co_truncate = disk_co_truncate,
};

/* A disk with these contents, of which request @fail_at fails. */
static void coroutine_fn disk_co_open(const GByteArray *bytes,
                                      unsigned fail_at, bool once)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'disk', 'size': %u}", bytes->len);

    disk.bs = block_test_co_open(json);
    disk.null_driver = disk.bs->drv;
    disk.bs->drv = &bdrv_disk;
    disk.bytes = g_byte_array_sized_new(bytes->len);
    g_byte_array_append(disk.bytes, bytes->data, bytes->len);
    disk.n = 0;
    disk.fail_at = fail_at;
    disk.once = once;
    disk.failed = false;
}

static void coroutine_fn disk_co_close(void)
{
    disk.bs->drv = disk.null_driver;
    block_test_co_close(disk.bs);
    g_byte_array_unref(disk.bytes);
}

/* ---- images ---- */

typedef enum {
    PLAIN, EXTENDED, LAZY, DIRTY, LEAKS, REFCOUNTS, COPIED, REBUILD, SNAPSHOTS,
    FILLED_14, FILLED_15, EMPTY, IMAGES,
} Image;

static GByteArray *images[IMAGES];

/* Two snapshots, data that they share and data that they don't, a bitmap. */
static void make_image(Image i, const char *dir, const char *options)
{
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    TestImage im;

    image_test_run("qemu-img create -q -f qcow2 -o %s %s 200k", options, path);
    image_test_run("qemu-io -f qcow2 -c 'write -q -P 1 0 50k' -c 'write -q -P "
                   "2 100k 20k' %s", path);
    image_test_run("qemu-img snapshot -c first %s", path);
    image_test_run("qemu-io -f qcow2 -c 'write -q -P 3 20k 40k' -c 'write -q "
                   "-z 100k 8k' %s", path);
    image_test_run("qemu-img snapshot -c second %s", path);
    image_test_run("qemu-io -f qcow2 -c 'write -q -P 4 48k 40k' %s", path);
    image_test_run("qemu-img bitmap --add -g 4k %s bits", path);
    test_image_load(&im, path);
    images[i] = im.bytes;
}

static void copy_image(Image i, TestImage *im, const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "copy", NULL);

    g_assert_true(g_file_set_contents(path, (char *)images[PLAIN]->data,
                                      images[PLAIN]->len, NULL));
    test_image_load(im, path);
    images[i] = im->bytes;
}

/*
 * The first free cluster is number @first of 16: the search for such asks if it
 * is to go on at each 16th.
 */
static void fill_image(Image i, unsigned first, const char *dir)
{
    TestImage im;
    const uint8_t *block;
    uint64_t old, end;

    copy_image(i, &im, dir);
    old = im.bytes->len / 4096;
    end = (old | 15) + 1 + first;
    block = im.bytes->data + test_image_refblock(&im);
    for (uint64_t c = 0; c < end; c++) {
        if (!block[2 * c] && !block[2 * c + 1]) {
            test_image_set_refcount(&im, c, 1);
        }
    }
    test_image_append(&im, (end - old) * 4096);
    /* Nor does the old table of snapshots become free. */
    test_image_set_refcount(&im, im.h.snapshots_offset / 4096, 2);
}

static void make_images(void)
{
    g_autofree char *dir = image_test_folder("qsd-faults");
    TestImage im;
    uint64_t at;

    make_image(PLAIN, dir, "cluster_size=4k");
    make_image(EXTENDED, dir, "cluster_size=16k,extended_l2=on");
    make_image(LAZY, dir, "cluster_size=4k,lazy_refcounts=on");
    copy_image(DIRTY, &im, dir);
    test_image_set(&im, 72, QCOW2_INCOMPAT_DIRTY);
    test_image_set_refcount(&im, im.bytes->len / 4096, 1);
    test_image_append(&im, 4096);
    copy_image(LEAKS, &im, dir);
    test_image_set_refcount(&im, im.bytes->len / 4096, 1);
    test_image_append(&im, 4096);
    copy_image(REFCOUNTS, &im, dir);
    at = test_image_get(&im, test_image_find_l2(&im, TEST_L2_DATA, false));
    test_image_set_refcount(&im, (at & QCOW2_L2E_OFFSET_MASK) / 4096, 0);
    copy_image(COPIED, &im, dir);
    at = test_image_find_l2(&im, TEST_L2_DATA, true);
    test_image_set(&im, at, test_image_get(&im, at) ^ QCOW2_OFLAG_COPIED);
    at = im.h.l1_table_offset;
    test_image_set(&im, at, test_image_get(&im, at) ^ QCOW2_OFLAG_COPIED);
    fill_image(FILLED_14, 14, dir);
    fill_image(FILLED_15, 15, dir);
    copy_image(REBUILD, &im, dir);
    test_image_set(&im, im.h.refcount_table_offset, 0);
    copy_image(SNAPSHOTS, &im, dir);
    test_image_set32(&im, im.h.snapshots_offset + 36, 2000);
    test_image_append(&im, 4096);
    images[EMPTY] = g_byte_array_new();
    image_test_run("rm -r %s", dir);
}

/* ---- what is done ---- */

static BlockDriverState *node;
static BlockBackend *user;

static bool coroutine_fn co_open(const char *more, Error **errp)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'file': 'disk'%s}", more);

    node = node_test_co_try_open(errp, json);
    if (node) {
        user = block_test_co_attach(node, "faults", node->read_only
                                    ? BLK_PERM_CONSISTENT_READ : BLK_PERM_ALL,
                                    BLK_PERM_ALL);
    }
    return node;
}

static void coroutine_fn co_close(void)
{
    blk_co_free(user);
    block_test_co_close(node);
}

static bool failed(int ret, Error **errp)
{
    if (ret < 0 && errp && !*errp) {
        error_setg_errno(errp, -ret, "it fails");
    }
    return ret < 0;
}

static bool coroutine_fn co_nothing(Error **errp)
{
    return true;
}

static bool coroutine_fn co_create_snapshot(Error **errp)
{
    return bdrv_co_snapshot_create(node, "third", NULL, errp);
}

static bool coroutine_fn co_delete_snapshot(Error **errp)
{
    return bdrv_co_snapshot_delete(node, NULL, "first", errp);
}

static bool coroutine_fn co_apply_snapshot(Error **errp)
{
    return bdrv_co_snapshot_apply(node, "first", errp);
}

static bool has_snapshot(const char *name)
{
    SnapshotInfoList *list = bdrv_snapshot_list(node, NULL);
    bool found = false;

    for (const SnapshotInfoList *e = list; e; e = e->next) {
        found |= !strcmp(e->value->name, name);
    }
    qapi_free_SnapshotInfoList(list);
    return found;
}

static bool is_created(void)
{
    return has_snapshot("third");
}

static bool is_deleted(void)
{
    return !has_snapshot("first");
}

static bool coroutine_fn co_remove_bitmap(Error **errp)
{
    BlockDirtyBitmap arg = { (char *)"node", (char *)"bits" };
    Error *err = NULL;

    qmp_block_dirty_bitmap_remove(&arg, &err);
    error_propagate(errp, err);
    return !err;
}

static bool is_removed(void)
{
    return !bdrv_dirty_bitmap_find(node, "bits");
}

static bool coroutine_fn co_write(int value, int64_t offset, int64_t bytes,
                                  BdrvRequestFlags flags, Error **errp)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;
    int ret;

    memset(buf, value, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(user);
    ret = flags & BDRV_REQ_ZERO_WRITE
          ? blk_co_pwrite_zeroes(user, offset, bytes, BDRV_REQ_MAY_UNMAP)
          : blk_co_pwritev(user, offset, &qiov, flags);
    if (ret >= 0) {
        ret = blk_co_flush(user);
    }
    blk_end_request(user);
    return !failed(ret, errp);
}

static bool coroutine_fn co_write_data(Error **errp)
{
    return co_write(9, WRITTEN, WRITTEN_BYTES, 0, errp);
}

static bool coroutine_fn co_write_compressed(Error **errp)
{
    return co_write(9, 128 * KiB, 16 * KiB, BDRV_REQ_WRITE_COMPRESSED, errp);
}

static bool coroutine_fn co_write_zeroes(Error **errp)
{
    return co_write(0, 45 * KiB, 30 * KiB, BDRV_REQ_ZERO_WRITE, errp);
}

static bool coroutine_fn co_resize(int64_t size, PreallocMode prealloc,
                                   Error **errp)
{
    int ret;

    blk_co_begin_request(user);
    ret = blk_co_truncate(user, size, prealloc, BDRV_REQ_ZERO_WRITE, errp);
    if (ret >= 0) {
        ret = blk_co_flush(user);
    }
    blk_end_request(user);
    return !failed(ret, errp);
}

static bool coroutine_fn co_grow(Error **errp)
{
    return co_resize(5000 * KiB, PREALLOC_MODE_OFF, errp);
}

static bool coroutine_fn co_grow_metadata(Error **errp)
{
    return co_resize(300 * KiB, PREALLOC_MODE_METADATA, errp);
}

static bool coroutine_fn co_grow_full(Error **errp)
{
    return co_resize(300 * KiB, PREALLOC_MODE_FULL, errp);
}

static bool coroutine_fn co_shrink(Error **errp)
{
    return co_resize(60 * KiB, PREALLOC_MODE_OFF, errp);
}

/* Nothing is left of it, whatever ends it. */
static bool coroutine_fn co_abort(Error **errp)
{
    QObject *obj = qobject_from_json(
        "{'actions': [{'type': 'blockdev-snapshot-internal-sync', 'data': "
        "{'device': 'node', 'name': 'third'}}, {'type': 'abort', 'data': "
        "{}}]}", NULL);
    g_autoptr(QmpTransactionArg) arg = qapi_from_qobject(
        &qapi_type_QmpTransactionArg, obj, false, NULL);
    Error *err = NULL;
    bool ok;

    qobject_unref(obj);
    qmp_transaction(arg, &err);
    g_assert_nonnull(err);
    g_assert_false(is_created());
    ok = strstr(error_get_pretty(err), "Abort action");
    error_propagate(ok ? NULL : errp, err);
    return ok;
}

/* The tables are shared, so shrinking takes clusters; it is never given up. */
static bool coroutine_fn co_shrink_shared(Error **errp)
{
    if (!co_create_snapshot(errp)) {
        return false;
    }
    g_assert_true(co_shrink(errp));
    return true;
}

static bool coroutine_fn co_check_fix(int fix, Error **errp)
{
    BdrvCheckResult res = { 0 };
    int ret = bdrv_co_check(node, &res, fix, NULL, errp);

    if (ret >= 0 && (res.check_errors
                     || (fix && (res.corruptions || res.leaks)))) {
        ret = -EIO;
    }
    return !failed(ret, errp);
}

static bool coroutine_fn co_check(Error **errp)
{
    return co_check_fix(0, errp);
}

static bool coroutine_fn co_repair(Error **errp)
{
    return co_check_fix(BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, errp);
}

static bool coroutine_fn co_create(const char *more, Error **errp)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'file': 'disk', 'size': 204800, 'cluster-size': "
        "16384%s}", more);
    QObject *obj = qobject_from_json(json, NULL);
    BlockdevCreateOptions *options = qapi_from_qobject(
        &qapi_type_BlockdevCreateOptions, obj, false, NULL);
    bool ok = bdrv_co_create(options, errp);

    qapi_free_BlockdevCreateOptions(options);
    qobject_unref(obj);
    return ok;
}

static bool coroutine_fn co_create_plain(Error **errp)
{
    return co_create("", errp);
}

static bool coroutine_fn co_create_metadata(Error **errp)
{
    return co_create(", 'preallocation': 'metadata', 'extended-l2': true",
                     errp);
}

typedef struct Op {
    const char *name;
    Image image;
    bool (*co_run)(Error **errp);
    bool (*is_done)(void);      /* it cannot be done twice */
    bool makes_node;            /* there is none to begin with */
    bool is_broken;             /* the image, at first */
    bool in_parts;              /* an error may leave a part of it done */
} Op;

static const Op ops[] = {
    { "open", PLAIN, co_nothing },
    { "open/dirty", DIRTY, co_nothing },
    { "snapshot/create", PLAIN, co_create_snapshot, is_created },
    { "snapshot/delete", PLAIN, co_delete_snapshot, is_deleted },
    { "snapshot/apply", PLAIN, co_apply_snapshot },
    { "snapshot/extended", EXTENDED, co_apply_snapshot },
    { "bitmap/store", PLAIN, co_write_data, .in_parts = true },
    { "bitmap/remove", PLAIN, co_remove_bitmap, is_removed },
    { "write/extended", EXTENDED, co_write_data, .in_parts = true },
    { "write/compressed", PLAIN, co_write_compressed, .in_parts = true },
    { "write/zeroes", EXTENDED, co_write_zeroes, .in_parts = true },
    { "write/lazy", LAZY, co_write_data, .in_parts = true },
    { "resize/grow", PLAIN, co_grow },
    { "resize/metadata", PLAIN, co_grow_metadata },
    { "resize/full", EXTENDED, co_grow_full },
    { "resize/shrink", PLAIN, co_shrink, .in_parts = true },
    { "check", PLAIN, co_check },
    { "repair/leaks", LEAKS, co_repair },
    { "repair/refcounts", REFCOUNTS, co_repair, .is_broken = true },
    { "repair/copied", COPIED, co_repair, .is_broken = true },
    { "repair/rebuild", REBUILD, co_repair, .is_broken = true },
    { "repair/snapshots", SNAPSHOTS, co_repair, .is_broken = true },
    { "create", EMPTY, co_create_plain, .makes_node = true },
    { "create/metadata", EMPTY, co_create_metadata, .makes_node = true },
};

/* The same where the last search for a cluster asks before it is done. */
static const Op only_given_up[] = {
    { "given-up/snapshot", FILLED_15, co_create_snapshot, is_created },
    { "given-up/abort", FILLED_14, co_abort },
    { "given-up/shrink", FILLED_14, co_shrink_shared, is_created },
};

/* ---- the judgement ---- */

/* Once more on the same node, as storage is fine again. */
static void coroutine_fn co_again(const Op *op)
{
    Error *err = NULL;

    disk.fail_at = UINT_MAX;
    if (!op->is_done || !op->is_done()) {
        op->co_run(&err);
        node_test_no_error(err);
    }
}

/*
 * All of it, done (if @again, until it is) and closed: false if somebody got an
 * error.
 */
static bool coroutine_fn co_do(const Op *op, bool again)
{
    Error *err = NULL;
    bool ok = true;

    bdrv_close_failed = false;
    if (!op->makes_node) {
        bdrv_open_for_check = op->is_broken;
        ok = co_open("", &err);
        bdrv_open_for_check = false;
    }
    if (ok) {
        ok = op->co_run(&err);
        if (!ok && again) {
            co_again(op);
        }
        if (!op->makes_node) {
            co_close();
        }
    }
    g_assert_true(ok == !err);
    error_free(err);
    return ok && !bdrv_close_failed;
}

/* The bitmap, if it can be used, knows of what co_write_data() wrote. */
static bool bitmap_is_right(const Op *op)
{
    const BdrvDirtyBitmap *bits = bdrv_dirty_bitmap_find(node, "bits");
    int64_t offset = WRITTEN & ~(4 * KiB - 1), at = offset, bytes;

    return op->co_run != co_write_data || !bits || bits->inconsistent
           || (bdrv_dirty_bitmap_next(bits, &at, 200 * KiB, &bytes)
               && at == offset && bytes >= WRITTEN_BYTES);
}

/* The guest's disk; NULL if there is none.  Nothing is wrong but leaks. */
static GByteArray *coroutine_fn co_look(const Op *op, bool repaired,
                                        bool *is_done)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    BdrvCheckResult res;
    QEMUIOVector qiov;
    Error *err = NULL;

    if (!co_open(", 'read-only': true", &err)) {
        g_assert_true(!repaired || op->makes_node);
        error_free(err);
        return NULL;
    }
    g_assert_cmpint(bdrv_co_check(node, &res, 0, NULL, &err), ==, 0);
    node_test_no_error(err);
    if (repaired) {
        g_assert_cmpint(res.corruptions, ==, 0);
        g_assert_cmpint(res.check_errors, ==, 0);
    }
    g_byte_array_set_size(data, blk_getlength(user));
    qemu_iovec_init_buf(&qiov, data->data, data->len);
    blk_co_begin_request(user);
    g_assert_cmpint(blk_co_preadv(user, 0, &qiov, 0), ==, 0);
    blk_end_request(user);
    *is_done = op->is_done && op->is_done();
    if (data->len > WRITTEN && data->data[WRITTEN] == 9) {
        g_assert_true(bitmap_is_right(op));
    }
    co_close();
    return g_steal_pointer(&data);
}

static bool same(const GByteArray *a, const GByteArray *b)
{
    return a && b && a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* What is to be cut off may be gone already. */
static bool is_between(const GByteArray *now, const GByteArray *before,
                       const GByteArray *after)
{
    if (now->len != before->len) {
        return false;
    }
    for (guint i = 0; i < now->len; i++) {
        uint8_t new = i < after->len ? after->data[i] : 0;

        if (now->data[i] != before->data[i] && now->data[i] != new) {
            return false;
        }
    }
    return true;
}

/* Does the file say that it needs a repair? */
static bool is_dirty(void)
{
    return disk.bytes->len >= 80 && (disk.bytes->data[79]
                                     & QCOW2_INCOMPAT_DIRTY);
}

/* What is in the file when not all has gone well. */
static bool may_be(const Op *op, const GByteArray *now,
                   const GByteArray *before, const GByteArray *after)
{
    return !now || op->makes_node || same(now, before) || same(now, after)
           || (op->in_parts && is_between(now, before, after));
}

/* Request @fail_at fails; false if there are not so many. */
static bool coroutine_fn co_try(const Op *op, unsigned fail_at, bool once,
                                bool again, const GByteArray *before,
                                const GByteArray *after)
{
    g_autoptr(GByteArray) now = NULL, later = NULL;
    bool is_done = false, ok, hit;

    disk_co_open(images[op->image], fail_at, once);
    ok = co_do(op, again);
    hit = disk.failed;
    g_assert_true(hit || ok);
    disk.fail_at = UINT_MAX;
    now = co_look(op, ok || !(is_dirty() || op->is_broken), &is_done);
    g_assert_true(ok ? same(now, after) && is_done == !!op->is_done
                     : may_be(op, now, before, after));
    g_assert_true(co_do(is_done ? &ops[0] : op, false));
    later = co_look(op, true, &is_done);
    g_assert_true(same(later, after));
    disk_co_close();
    return hit;
}

/* ---- work that is given up ---- */

typedef struct Cancel {
    CoCancel cancel;            /* first: the callback casts */
    unsigned n;                 /* how often it may go on */
    bool hit;
} Cancel;

static bool is_cancelled(const CoCancel *cancel)
{
    Cancel *c = (Cancel *)cancel;

    c->hit |= c->n == 0;
    c->n -= !c->hit;
    return c->hit;
}

/* It is given up when it asks for the @n-th time; false if it does not. */
static bool coroutine_fn co_try_cancelled(const Op *op, unsigned n,
                                          const GByteArray *before,
                                          const GByteArray *after)
{
    g_autoptr(GByteArray) now = NULL;
    Cancel cancel = { { is_cancelled }, n, false };
    BdrvCheckResult old, res;
    Error *err = NULL;
    bool is_done, ok;

    disk_co_open(images[op->image], UINT_MAX, false);
    g_assert_true(co_open("", NULL));
    g_assert_cmpint(bdrv_co_check(node, &old, 0, NULL, NULL), ==, 0);
    coroutine_set_cancel(&cancel.cancel);
    ok = op->co_run(&err);
    coroutine_set_cancel(NULL);
    g_assert_true(cancel.hit || ok);
    error_free(err);
    g_assert_cmpint(bdrv_co_check(node, &res, 0, NULL, NULL), ==, 0);
    g_assert_cmpint(res.corruptions + res.check_errors, ==, 0);
    g_assert_cmpint(res.leaks, <=, old.leaks);
    co_close();
    g_assert_false(is_dirty());
    now = co_look(op, true, &is_done);
    g_assert_true(ok ? same(now, after) && is_done == !!op->is_done
                     : may_be(op, now, before, after));
    disk_co_close();
    return cancel.hit;
}

static void coroutine_fn co_test_cancelled(const Op *op,
                                           const GByteArray *before,
                                           const GByteArray *after)
{
    unsigned n = 0;

    while (co_try_cancelled(op, n, before, after)) {
        g_test_message("%s: given up at %u", op->name, n);
        n += 1 + n / 16;
    }
}

/* ---- tests ---- */

static void coroutine_fn co_test(void *opaque)
{
    const Op *op = opaque;
    bool may_fail = op >= ops && op < ops + G_N_ELEMENTS(ops);
    g_autoptr(GByteArray) before = NULL, after = NULL;
    bool is_done;

    alarm(100);                 /* a hang is a failure */
    disk_co_open(images[op->image], UINT_MAX, false);
    before = co_look(op, false, &is_done);
    g_assert_true(co_do(op, false));
    after = co_look(op, true, &is_done);
    g_assert_nonnull(after);
    disk_co_close();
    if (!op->makes_node && !op->is_broken) {
        co_test_cancelled(op, before, after);
    }
    for (int way = 0; may_fail && way < 3; way++) {
        unsigned n = way % STEP;

        while (co_try(op, n, way == 1, way == 2, before, after)) {
            g_test_message("%s: request %u, way %d", op->name, n, way);
            n += STEP;
            g_assert_cmpuint(n, <, MAX_REQUESTS);
        }
    }
    alarm(0);
}

int main(int argc, char **argv)
{
    int status;

    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    make_images();
    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
        block_test_add_one(AIO_BACKEND_EPOLL, co_test, &ops[i],
                           "/qcow2/faults/%s", ops[i].name);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(only_given_up); i++) {
        block_test_add_one(AIO_BACKEND_EPOLL, co_test, &only_given_up[i],
                           "/qcow2/faults/%s", only_given_up[i].name);
    }
    status = g_test_run();
    for (Image i = 0; i < IMAGES; i++) {
        g_byte_array_unref(images[i]);
    }
    return status;
}
