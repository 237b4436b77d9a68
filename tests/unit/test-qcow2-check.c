/* SPDX-License-Identifier: MIT */
/*
 * Check and repair of qcow2 images: images made by qemu-img, broken in one
 * place each, are checked and repaired here and by qemu-img.  Both find the
 * same; what was repaired here passes there, and the guest's data are what they
 * were.
 */
#include <inttypes.h>

#include "block/check.h"
#include "block/qcow2-format.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "tests/unit/qcow2-image.h"

#define KEYS 9
static const char *const keys[KEYS] = {
    "corruptions", "leaks", "check-errors", "corruptions-fixed",
    "leaks-fixed", "total-clusters", "allocated-clusters",
    "fragmented-clusters", "compressed-clusters",
};

typedef struct Result {
    bool ok;                    /* the check came to its end */
    int64_t n[KEYS];
    int64_t end_offset;
} Result;

/* ---- ways to break an image ---- */

enum {
    QUICK    = 1 << 0,          /* of each kind of image */
    REMAPS   = 1 << 1,          /* the guest's data change with it */
    ONLY_US  = 1 << 2,          /* repairing is too much for qemu-img 7.2 */
    UNSOUND  = 1 << 3,          /* something is left that nobody can repair */
};

typedef struct Damage {
    const char *name;
    bool (*apply)(TestImage *im);       /* false: does not apply */
    unsigned flags;
} Damage;

static uint64_t last_cluster(const TestImage *im)
{
    uint64_t at = test_image_find_l2(im, TEST_L2_DATA, true);

    return (test_image_get(im, at) & QCOW2_L2E_OFFSET_MASK)
           >> im->h.cluster_bits;
}

static bool has_data_file(const TestImage *im)
{
    return im->h.incompatible_features & QCOW2_INCOMPAT_DATA_FILE;
}

static bool xor_l2(TestImage *im, TestL2Kind kind, uint64_t bits)
{
    uint64_t at = test_image_find_l2(im, kind, true);

    if (!at) {
        return false;
    }
    test_image_set(im, at, test_image_get(im, at) ^ bits);
    return true;
}

static bool set_l2(TestImage *im, uint64_t entry)
{
    test_image_set(im, test_image_find_l2(im, TEST_L2_DATA, true), entry);
    return true;
}

static bool xor_l1(TestImage *im, uint64_t bits)
{
    uint64_t at = im->h.l1_table_offset;

    test_image_set(im, at, test_image_get(im, at) ^ bits);
    return true;
}

static bool set_reftable(TestImage *im, uint64_t index, uint64_t entry)
{
    test_image_set(im, im->h.refcount_table_offset + index * 8, entry);
    return true;
}

static bool d_none(TestImage *im)
{
    (void)im;
    return true;
}

static bool d_leak(TestImage *im)
{
    uint64_t n = im->bytes->len >> im->h.cluster_bits;

    test_image_append(im, im->cluster_size * 2);
    test_image_set_refcount(im, n, 1);
    return true;
}

static bool d_refcount_high(TestImage *im)
{
    if (im->h.refcount_order == 0 || has_data_file(im)) {
        return false;
    }
    test_image_set_refcount(im, last_cluster(im), 2);
    return true;
}

static bool d_refcount_zero(TestImage *im)
{
    test_image_set_refcount(im, 1, 0);
    return true;
}

static bool d_refcount_header(TestImage *im)
{
    test_image_set_refcount(im, 0, 0);
    return true;
}

static bool d_copied_data(TestImage *im)
{
    return xor_l2(im, TEST_L2_DATA, QCOW2_OFLAG_COPIED);
}

static bool d_copied_zero(TestImage *im)
{
    return xor_l2(im, TEST_L2_ZERO, QCOW2_OFLAG_COPIED);
}

static bool d_copied_l2(TestImage *im)
{
    return xor_l1(im, QCOW2_OFLAG_COPIED);
}

static bool d_copied_compressed(TestImage *im)
{
    return xor_l2(im, TEST_L2_COMPRESSED, QCOW2_OFLAG_COPIED);
}

static bool d_compressed_far(TestImage *im)
{
    return xor_l2(im, TEST_L2_COMPRESSED, UINT64_C(1) << 45);
}

static bool d_compressed_data_file(TestImage *im)
{
    return has_data_file(im)
           && xor_l2(im, TEST_L2_DATA, QCOW2_OFLAG_COMPRESSED);
}

static bool d_l1_reserved(TestImage *im)
{
    return xor_l1(im, UINT64_C(1) << 60);
}

static bool d_l1_far(TestImage *im)
{
    return xor_l1(im, UINT64_C(1) << 40);
}

static bool d_l2_reserved(TestImage *im)
{
    return xor_l2(im, TEST_L2_DATA, UINT64_C(1) << 60);
}

static bool d_l2_unaligned(TestImage *im)
{
    return im->cluster_size > 512 && xor_l2(im, TEST_L2_DATA, 512);
}

static bool d_zero_unaligned(TestImage *im)
{
    return im->cluster_size > 512 && xor_l2(im, TEST_L2_ZERO, 512);
}

static bool d_l2_far(TestImage *im)
{
    return xor_l2(im, TEST_L2_DATA, UINT64_C(1) << 40);
}

static bool d_l2_end(TestImage *im)
{
    return set_l2(im, QCOW2_OFLAG_COPIED | im->bytes->len);
}

static bool d_l2_twice(TestImage *im)
{
    uint64_t first = test_image_find_l2(im, TEST_L2_DATA, false);

    return set_l2(im, test_image_get(im, first));
}

static bool d_l2_gone(TestImage *im)
{
    return set_l2(im, 0);
}

static bool d_bitmap_both(TestImage *im)
{
    uint64_t at = test_image_find_l2(im, TEST_L2_DATA, true);

    if (im->extended_l2) {
        test_image_set(im, at + 8, UINT64_C(0x0000000100000001));
    }
    return im->extended_l2;
}

static bool d_bitmap_alone(TestImage *im)
{
    return im->extended_l2 && set_l2(im, 0);
}

/* What moves in a repair was a table of two kinds. */
static bool d_l1_reftable(TestImage *im)
{
    for (uint32_t i = 0; i < im->h.l1_size; i++) {
        uint64_t at = im->h.l1_table_offset + i * 8;

        if (test_image_get(im, at) == 0) {
            test_image_set(im, at, im->h.refcount_table_offset);
            return true;
        }
    }
    return false;
}

static bool d_reftable_reserved(TestImage *im)
{
    return set_reftable(im, 0, test_image_refblock(im) | 1);
}

static bool d_reftable_unaligned(TestImage *im)
{
    return im->cluster_size > 512
           && set_reftable(im, 0, test_image_refblock(im) + 512);
}

static bool d_reftable_empty(TestImage *im)
{
    return set_reftable(im, 0, 0);
}

static bool d_reftable_end(TestImage *im)
{
    return set_reftable(im, 1, im->bytes->len);
}

static bool d_reftable_twice(TestImage *im)
{
    return set_reftable(im, 1, test_image_refblock(im));
}

static bool d_reftable_data(TestImage *im)
{
    return !has_data_file(im)
           && set_reftable(im, 0, last_cluster(im) << im->h.cluster_bits);
}

static bool d_refblock_zeroes(TestImage *im)
{
    memset(im->bytes->data + test_image_refblock(im), 0, im->cluster_size);
    return true;
}

static bool d_refblock_ones(TestImage *im)
{
    memset(im->bytes->data + test_image_refblock(im), 0xff, im->cluster_size);
    return true;
}

static bool set_incompatible(TestImage *im, uint64_t bit)
{
    if (im->h.version >= 3) {
        test_image_set(im, offsetof(Qcow2Header, incompatible_features),
                       im->h.incompatible_features | bit);
    }
    return im->h.version >= 3;
}

static bool d_dirty(TestImage *im)
{
    return set_incompatible(im, QCOW2_INCOMPAT_DIRTY);
}

static bool d_corrupt(TestImage *im)
{
    return set_incompatible(im, QCOW2_INCOMPAT_CORRUPT);
}

static bool d_dirty_leak(TestImage *im)
{
    return d_leak(im) && d_dirty(im);
}

static bool d_snapshot_unaligned(TestImage *im)
{
    uint64_t at = im->h.snapshots_offset;

    if (!im->h.nb_snapshots || im->cluster_size == 512) {
        return false;
    }
    test_image_set(im, at, test_image_get(im, at) + 512);
    return true;
}

static bool d_snapshot_large(TestImage *im)
{
    if (im->h.nb_snapshots) {
        test_image_set32(im, im->h.snapshots_offset
                         + offsetof(Qcow2SnapshotHeader, l1_size),
                         0x7f000000);
    }
    return im->h.nb_snapshots;
}

static bool d_snapshot_extra(TestImage *im)
{
    if (im->h.nb_snapshots) {
        test_image_set32(im, im->h.snapshots_offset
                         + offsetof(Qcow2SnapshotHeader, extra_data_size), 0);
    }
    return im->h.nb_snapshots;
}

static bool d_snapshot_count(TestImage *im)
{
    if (im->h.nb_snapshots) {
        test_image_set32(im, offsetof(Qcow2Header, nb_snapshots), 2);
    }
    return im->h.nb_snapshots;
}

static bool d_snapshot_empty(TestImage *im)
{
    if (im->h.nb_snapshots) {
        test_image_set(im, test_image_get(im, im->h.snapshots_offset), 0);
    }
    return im->h.nb_snapshots;
}

static const Damage damages[] = {
    { "none", d_none, QUICK },
    { "leak", d_leak, QUICK },
    { "refcount-high", d_refcount_high, QUICK },
    { "refcount-zero", d_refcount_zero, QUICK },
    { "refcount-header", d_refcount_header, 0 },
    { "copied-data", d_copied_data, QUICK },
    { "copied-zero", d_copied_zero, 0 },
    { "copied-l2", d_copied_l2, QUICK },
    { "copied-compressed", d_copied_compressed, UNSOUND },
    { "compressed-far", d_compressed_far, REMAPS | UNSOUND },
    { "compressed-data-file", d_compressed_data_file, QUICK | REMAPS
                                                      | UNSOUND },
    { "l1-reserved", d_l1_reserved, UNSOUND },
    { "l1-far", d_l1_far, REMAPS | UNSOUND },
    { "l2-reserved", d_l2_reserved, QUICK | UNSOUND },
    { "l2-unaligned", d_l2_unaligned, REMAPS | UNSOUND },
    { "zero-unaligned", d_zero_unaligned, 0 },
    { "l2-far", d_l2_far, REMAPS | UNSOUND },
    { "l2-end", d_l2_end, REMAPS | UNSOUND },
    { "l2-twice", d_l2_twice, REMAPS },
    { "l2-gone", d_l2_gone, REMAPS },
    { "bitmap-both", d_bitmap_both, QUICK | REMAPS | UNSOUND },
    { "bitmap-alone", d_bitmap_alone, QUICK | REMAPS | UNSOUND },
    { "l1-reftable", d_l1_reftable, QUICK | REMAPS },
    { "reftable-reserved", d_reftable_reserved, ONLY_US },
    { "reftable-unaligned", d_reftable_unaligned, ONLY_US },
    { "reftable-empty", d_reftable_empty, QUICK },
    { "reftable-end", d_reftable_end, 0 },
    { "reftable-twice", d_reftable_twice, 0 },
    { "reftable-data", d_reftable_data, 0 },
    { "refblock-zeroes", d_refblock_zeroes, QUICK },
    { "refblock-ones", d_refblock_ones, 0 },
    { "dirty", d_dirty, 0 },
    { "corrupt", d_corrupt, QUICK },
    { "dirty-leak", d_dirty_leak, 0 },
    { "snapshot-unaligned", d_snapshot_unaligned, UNSOUND },
    { "snapshot-large", d_snapshot_large, UNSOUND | ONLY_US },
    { "snapshot-extra", d_snapshot_extra, 0 },
    { "snapshot-count", d_snapshot_count, 0 },
    { "snapshot-empty", d_snapshot_empty, 0 },
};

/* ---- images ---- */

typedef struct Kind {
    const char *name, *options;
    bool snapshot, compressed, bitmap;
} Kind;

static const Kind kinds[] = {
    { "v3", "compat=1.1", true, true, false },
    { "v2", "compat=0.10", true, true, false },
    { "cluster-512", "cluster_size=512", true, true, false },
    { "cluster-2M", "cluster_size=2M,refcount_bits=32", true, true, false },
    { "extended-l2", "extended_l2=on", true, true, false },
    { "refcount-1", "refcount_bits=1", false, true, false },
    { "refcount-8", "refcount_bits=8", true, true, false },
    { "refcount-64", "refcount_bits=64", true, true, false },
    { "zstd", "compression_type=zstd", false, true, false },
    { "bitmap", "compat=1.1", false, true, true },
    { "data-file", "data_file=DATA", false, false, false },
    { "data-file-raw", "data_file=DATA,data_file_raw=on", false, false,
      false },
    { "data-file-extended-l2", "data_file=DATA,extended_l2=on", false, false,
      false },
};

typedef struct Test {
    const Kind *kind;
    char *dir, *image, *ours, *theirs, *data;
} Test;

static char *test_path(const Test *t, const char *name)
{
    return g_build_filename(t->dir, name, NULL);
}

static void make_image(Test *t)
{
    const Kind *k = t->kind;
    g_auto(GStrv) parts = g_strsplit(k->options, "DATA", -1);
    g_autofree char *options = g_strjoinv(t->data, parts);

    image_test_run("qemu-img create -q -f qcow2 -o %s %s 4M", options,
                   t->image);
    image_test_run("qemu-io -c 'write -P 1 0 256k' -c 'write -P 2 1M 64k'"
                   " -c 'write -P 3 1536k 4k' -c 'write -z 0 64k'"
                   " -c 'write -z 2M 128k'%s %s", k->compressed
                   ? " -c 'write -c -P 4 2M 2M'" : "", t->image);
    if (k->bitmap) {
        image_test_run("qemu-img bitmap --add %s b0", t->image);
        image_test_run("qemu-io -c 'write -P 7 1800k 64k' %s", t->image);
    }
    if (k->snapshot) {
        image_test_run("qemu-img snapshot -c s1 %s", t->image);
        image_test_run("qemu-io -c 'write -P 5 64k 64k' "
                       "-c 'write -P 6 1700k 64k' %s", t->image);
    }
    image_test_run("qemu-img check %s", t->image);
}

static void test_init(Test *t, const Kind *kind)
{
    t->kind = kind;
    t->dir = image_test_folder("qsd-check");
    t->image = test_path(t, "image.qcow2");
    t->ours = test_path(t, "ours.qcow2");
    t->theirs = test_path(t, "theirs.qcow2");
    t->data = test_path(t, "data.raw");
    make_image(t);
}

static void test_deinit(Test *t)
{
    image_test_run("rm -r %s", t->dir);
    g_free(t->dir);
    g_free(t->image);
    g_free(t->ours);
    g_free(t->theirs);
    g_free(t->data);
}

/* ---- checking ---- */

static Result check_theirs(const char *path, const char *repair)
{
    Result r = { 0 };
    g_autofree char *out = NULL;
    QObject *obj;
    const QDict *dict;

    image_test_status(&out, NULL, "qemu-img check --output=json %s%s %s",
                      repair ? "-r " : "", repair ? repair : "", path);
    if (!*out) {
        return r;
    }
    obj = qobject_from_json(out, NULL);
    dict = qobject_to_qdict(obj);
    g_assert_nonnull(dict);
    r.ok = true;
    for (int i = 0; i < KEYS; i++) {
        r.n[i] = qdict_get_int(dict, keys[i], 0);
    }
    r.end_offset = qdict_get_int(dict, "image-end-offset", 0);
    qobject_unref(obj);
    return r;
}

static void fill_result(Result *r, const BdrvCheckResult *from)
{
    const int64_t n[KEYS] = {
        from->corruptions, from->leaks, from->check_errors,
        from->corruptions_fixed, from->leaks_fixed, from->total_clusters,
        from->allocated_clusters, from->fragmented_clusters,
        from->compressed_clusters,
    };

    memcpy(r->n, n, sizeof(n));
    r->end_offset = from->image_end_offset;
    r->ok = true;
}

static void coroutine_fn co_check_node(BlockDriverState *bs, int fix,
                                       Result *r)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ
                    | (fix ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0);
    BlockBackend *blk = block_test_co_attach(bs, "check", perm, BLK_PERM_ALL);
    BdrvCheckResult res, again;
    Error *err = NULL;

    if (bdrv_co_check(bs, &res, fix, NULL, &err) >= 0) {
        if (res.corruptions_fixed || res.leaks_fixed) {
            g_assert_cmpint(bdrv_co_check(bs, &again, 0, NULL, &err), ==, 0);
            again.corruptions_fixed = res.corruptions_fixed;
            again.leaks_fixed = res.leaks_fixed;
            res = again;
        }
        fill_result(r, &res);
    }
    error_free(err);
    blk_co_free(blk);
}

/* As "qemu-img check" does it. */
static Result coroutine_fn co_check_ours(const char *path, int fix)
{
    Result r = { 0 };
    Error *err = NULL;
    BlockDriverState *bs;
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'read-only': %s, 'file': "
        "{'driver': 'file', 'filename': '%s'}}", fix ? "false" : "true",
        path);

    bdrv_open_for_check = true;
    bs = node_test_co_try_open(&err, json);
    if (bs) {
        co_check_node(bs, fix, &r);
        block_test_co_close(bs);
    }
    error_free(err);
    bdrv_open_for_check = false;
    return r;
}

static void compare(const char *what, const Result *ours,
                    const Result *theirs)
{
    g_assert_cmpint(ours->ok, ==, theirs->ok);
    for (int i = 0; ours->ok && i < KEYS; i++) {
        if (ours->n[i] != theirs->n[i]) {
            g_error("%s: %s is %" PRIi64 ", for qemu-img %" PRIi64, what,
                    keys[i], ours->n[i], theirs->n[i]);
        }
    }
}

/* What was repaired here, as qemu-img sees it. */
static void judge(const Test *t, const Damage *d, const char *what, int fix)
{
    Result after = check_theirs(t->ours, NULL);

    if (!after.ok && !(d->flags & UNSOUND)) {
        g_error("%s: qemu-img can't check it any more", what);
    }
    if (after.n[1] || ((fix & BDRV_FIX_ERRORS) && !(d->flags & UNSOUND)
                       && (after.n[0] || after.n[2]))) {
        g_error("%s: %" PRIi64 " corruptions, %" PRIi64 " leaks, %" PRIi64
                " check errors are left", what, after.n[0], after.n[1],
                after.n[2]);
    }
    if (!(d->flags & REMAPS)
        && image_test_status(NULL, NULL, "qemu-img compare %s %s", t->image,
                             t->ours)) {
        g_error("%s: the guest's data have changed", what);
    }
}

static void coroutine_fn co_one(const Test *t, const Damage *d, int mode)
{
    static const char *const repair[] = { NULL, "leaks", "all" };
    static const int fix[] = { 0, BDRV_FIX_LEAKS,
                               BDRV_FIX_LEAKS | BDRV_FIX_ERRORS };
    g_autofree char *what = g_strdup_printf("%s, %s, -r %s", t->kind->name,
                                            d->name, repair[mode]);
    Result ours, theirs;
    TestImage im;

    test_image_load(&im, t->image);
    if (d->apply(&im)) {
        test_image_save(&im, t->ours);
        ours = co_check_ours(t->ours, fix[mode]);
        if (mode < 2 || !(d->flags & ONLY_US)) {
            test_image_save(&im, t->theirs);
            theirs = check_theirs(t->theirs, repair[mode]);
            compare(what, &ours, &theirs);
            if (mode == 0 && ours.ok) {
                g_assert_cmpint(ours.end_offset, ==, theirs.end_offset);
            }
        }
        if (mode == 2) {
            judge(t, d, what, fix[mode]);
        }
    }
    test_image_free(&im);
}

static void coroutine_fn co_kind(void *opaque)
{
    const Kind *k = opaque;
    Test t;

    test_init(&t, k);
    for (size_t i = 0; i < G_N_ELEMENTS(damages); i++) {
        if (k == kinds || (damages[i].flags & QUICK) || g_test_slow()) {
            for (int mode = 0; mode < 3; mode++) {
                if (mode == 1 && k != kinds && !g_test_slow()) {
                    continue;
                }
                co_one(&t, &damages[i], mode);
            }
        }
    }
    test_deinit(&t);
}

/* ---- what else there is to see ---- */

/* An image with the dirty bit is repaired by opening it. */
static void coroutine_fn co_repair_at_open(void *opaque)
{
    Test t;
    TestImage im;
    BlockDriverState *bs;
    g_autofree char *json = NULL;
    Result after;

    (void)opaque;
    test_init(&t, &kinds[0]);
    test_image_load(&im, t.image);
    g_assert_true(d_dirty(&im) && d_leak(&im) && d_copied_data(&im)
                  && d_refcount_zero(&im));
    test_image_save(&im, t.ours);
    test_image_free(&im);

    json = g_strdup_printf("{'driver': 'qcow2', 'node-name': 'node', 'file': "
                           "{'driver': 'file', 'filename': '%s'}}", t.ours);
    bs = block_test_co_open(json);
    block_test_co_close(bs);
    after = check_theirs(t.ours, NULL);
    g_assert_true(after.ok);
    g_assert_cmpint(after.n[0] + after.n[1] + after.n[2], ==, 0);
    image_test_run("qemu-img compare %s %s", t.image, t.ours);
    test_image_load(&im, t.ours);
    g_assert_cmpuint(im.h.incompatible_features, ==, 0);
    test_image_free(&im);
    test_deinit(&t);
}

/* Memory and time follow from the file, not from what the image says. */
static void coroutine_fn co_hostile(void *opaque)
{
    Test t;
    Result r;

    (void)opaque;
    test_init(&t, &kinds[2]);          /* small clusters */
    image_test_run("cp %s %s", t.image, t.ours);
    image_test_run("truncate -s 15T --no-create %s", t.ours);
    r = co_check_ours(t.ours, 0);
    g_assert_false(r.ok);
    test_deinit(&t);
}

typedef struct Seen {
    unsigned messages;
    double last;
} Seen;

static void on_message(void *opaque, const char *line)
{
    Seen *seen = opaque;

    if (seen->messages++ == 0) {
        g_assert_true(g_str_has_prefix(line, "ERROR OFLAG_COPIED L2 cluster: "
                                             "l1_index=0 l1_entry="));
        g_assert_true(g_str_has_suffix(line, "0000 refcount=1"));
    }
}

static void on_progress(void *opaque, double part)
{
    Seen *seen = opaque;

    g_assert_cmpfloat(part, >=, seen->last);
    g_assert_cmpfloat(part, <=, 1);
    seen->last = part;
}

static void coroutine_fn co_hooks(void *opaque)
{
    Seen seen = { 0 };
    BdrvCheckHooks hooks = { on_message, on_progress, &seen };
    BdrvCheckResult res;
    Error *err = NULL;
    Test t;
    TestImage im;
    BlockDriverState *bs;
    g_autofree char *json = NULL;

    (void)opaque;
    test_init(&t, &kinds[0]);
    test_image_load(&im, t.image);
    d_copied_l2(&im);
    test_image_save(&im, t.ours);
    test_image_free(&im);
    json = g_strdup_printf("{'driver': 'qcow2', 'node-name': 'node', "
                           "'read-only': true, 'file': "
                           "{'driver': 'file', 'filename': '%s'}}", t.ours);
    bs = block_test_co_open(json);
    g_assert_cmpint(bdrv_co_check(bs, &res, 0, &hooks, &err), ==, 0);
    g_assert_cmpint(res.corruptions, ==, 1);
    g_assert_cmpuint(seen.messages, ==, 1);
    g_assert_cmpfloat(seen.last, >=, 0.999);
    g_assert_cmpint(bdrv_co_check(bs, &res, BDRV_FIX_LEAKS, &hooks, &err), ==,
                    -EPERM);
    node_test_assert_error(err, "Device 'node' is read only");
    block_test_co_close(bs);
    test_deinit(&t);
}

static void coroutine_fn co_no_check(void *opaque)
{
    BlockDriverState *bs = block_test_co_open(
        "{'driver': 'null-co', 'node-name': 'node', 'read-zeroes': true}");
    BdrvCheckResult res;
    Error *err = NULL;

    (void)opaque;
    g_assert_cmpint(bdrv_co_check(bs, &res, 0, NULL, &err), ==, -ENOTSUP);
    node_test_assert_error(err, "This image format does not support checks");
    block_test_co_close(bs);
}

static void add(const char *name, CoroutineEntry *entry, const void *opaque)
{
    block_test_add_one(AIO_BACKEND_EPOLL, entry, opaque, "/qcow2-check/%s",
                       name);
}

int main(int argc, char **argv)
{
    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    add("unsupported", co_no_check, NULL);
    add("repair-at-open", co_repair_at_open, NULL);
    add("hostile", co_hostile, NULL);
    add("hooks", co_hooks, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *name = g_strdup_printf("image/%s", kinds[i].name);

        add(name, co_kind, &kinds[i]);
    }
    return g_test_run();
}
