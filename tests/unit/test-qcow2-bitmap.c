/* SPDX-License-Identifier: MIT */
/*
 * qcow2: bitmaps in images: read as qemu-img and qemu-io made them, written and
 * judged by them, after a crash, and in images whose maker means harm.
 */
#include "block/dirty-bitmap.h"

#include <string.h>

#include "block/qcow2.h"
#include "qapi/qapi-commands.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define KiB 1024
#define MiB (1024 * 1024)

static char *dir, *path, *copy_path, *data_path;

/* ---- the node ---- */

static BlockDriverState *coroutine_fn co_try_open(const char *image,
                                                  const char *more,
                                                  Error **errp)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'discard': 'unmap', %s "
        "'file': {'driver': 'file', 'filename': '%s'}}", more, image);

    return node_test_co_try_open(errp, json);
}

static BlockDriverState *coroutine_fn co_open(const char *image)
{
    Error *err = NULL;
    BlockDriverState *bs = co_try_open(image, "", &err);

    node_test_no_error(err);
    return bs;
}

static void coroutine_fn co_write(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes)
{
    BlockBackend *blk = block_test_co_attach(bs, "user", BLK_PERM_ALL,
                                             BLK_PERM_ALL);
    g_autofree uint8_t *buf = g_malloc0(bytes);
    QEMUIOVector qiov;

    memset(buf, 0x5a, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pwritev(blk, offset, &qiov, 0), >=, 0);
    blk_end_request(blk);
    blk_co_free(blk);
}

static void coroutine_fn co_resize(BlockDriverState *bs, int64_t len)
{
    QmpBlockResizeArg arg = { .node_name = bs->node_name, .size = len };
    Error *err = NULL;

    qmp_block_resize(&arg, &err);
    node_test_no_error(err);
}

static void coroutine_fn co_add(const char *name, uint32_t granularity,
                                bool disabled)
{
    BlockDirtyBitmapAdd arg = {
        .node = (char *)"node", .name = (char *)name,
        .has_granularity = true, .granularity = granularity,
        .has_persistent = true, .persistent = true,
        .has_disabled = true, .disabled = disabled,
    };
    Error *err = NULL;

    qmp_block_dirty_bitmap_add(&arg, &err);
    node_test_no_error(err);
}

static void coroutine_fn co_remove(const char *name)
{
    BlockDirtyBitmap arg = { (char *)"node", (char *)name };
    Error *err = NULL;

    qmp_block_dirty_bitmap_remove(&arg, &err);
    node_test_no_error(err);
}

static void coroutine_fn co_assert_not_found(const char *name)
{
    BlockDirtyBitmap arg = { .node = (char *)"node", .name = (char *)name };
    g_autofree char *text = g_strdup_printf("Dirty bitmap '%s' not found",
                                            name);
    Error *err = NULL;

    qmp_block_dirty_bitmap_remove(&arg, &err);
    node_test_assert_error(err, text);
}

static const BdrvDirtyBitmap *find(BlockDriverState *bs, const char *name)
{
    const BdrvDirtyBitmap *bm = bdrv_dirty_bitmap_find(bs, name);

    g_assert_nonnull(bm);
    g_assert_true(bm->persistent);
    return bm;
}

/* "offset+bytes ..." in KiB of what is dirty. */
static char *areas(BlockDriverState *bs, const char *name)
{
    const BdrvDirtyBitmap *bm = find(bs, name);
    GString *text = g_string_new(NULL);
    int64_t offset = 0, bytes;

    g_assert_false(bm->inconsistent);
    while (bdrv_dirty_bitmap_next(bm, &offset, bdrv_getlength(bs), &bytes)) {
        g_string_append_printf(text, "%s%" PRIi64 "+%" PRIi64,
                               text->len ? " " : "", offset / KiB,
                               bytes / KiB);
        offset += bytes;
    }
    return g_string_free(text, false);
}

static void assert_areas(BlockDriverState *bs, const char *name,
                         const char *expected)
{
    g_autofree char *text = areas(bs, name);

    g_assert_cmpstr(text, ==, expected);
}

/* What qemu-img says of a bitmap: "auto", "in-use,auto" or so; NULL: none. */
static char *flags_of(const char *name)
{
    g_autofree char *text = image_test_output("qemu-img info -U --output json "
                                              "%s", path);
    g_autoptr(QObject) obj = qobject_from_json(text, NULL);
    QDict *info = qdict_get_qdict(qobject_to_qdict(obj), "format-specific");
    QList *list = qdict_get_qlist(qdict_get_qdict(info, "data"), "bitmaps");
    GString *flags = g_string_new(NULL);

    for (size_t i = 0; list && i < qlist_size(list); i++) {
        QDict *b = qobject_to_qdict(qlist_at(list, i));
        QList *f = qdict_get_qlist(b, "flags");

        if (strcmp(qdict_get_str(b, "name"), name)) {
            continue;
        }
        for (size_t j = 0; j < qlist_size(f); j++) {
            g_string_append_printf(flags, "%s%s", j ? "," : "",
                                   qstring_get(qobject_to_qstring(
                                       qlist_at(f, j))));
        }
        return g_string_free(flags, false);
    }
    g_string_free(flags, true);
    return NULL;
}

static void assert_flags(const char *name, const char *expected)
{
    g_autofree char *flags = flags_of(name);

    g_assert_cmpstr(flags, ==, expected);
}

/* The image is clean, and qemu-img can take @name apart (NULL: none). */
static void judge(const char *name)
{
    image_test_run("qemu-img check -q %s", path);
    if (name) {
        image_test_run("qemu-img bitmap --add --disable -g 512 %s judge", path);
        image_test_run("qemu-img bitmap --merge %s %s judge", name, path);
    }
}

/* ---- there and back ---- */

static const char *const kinds[] = {
    "compat=1.1", "cluster_size=512", "cluster_size=2M", "extended_l2=on",
    "refcount_bits=1", "lazy_refcounts=on", "data_file=%s",
};

static void make(const char *kind, int64_t len)
{
    g_auto(GStrv) parts = g_strsplit(kind, "%s", 2);
    g_autofree char *options = g_strjoinv(data_path, parts);

    g_unlink(data_path);
    image_test_run("qemu-img create -q -f qcow2 -o %s %s %" PRIi64, options,
                   path, len);
}

/* Made by qemu-img, used by us, judged by qemu-img, read again. */
static void coroutine_fn co_test_theirs(void *opaque)
{
    BlockDriverState *bs;

    make(opaque, 16 * MiB + 512);
    image_test_run("qemu-img bitmap --add -g 4k %s one", path);
    image_test_run("qemu-io -f qcow2 -c 'write 8k 4k' -c 'discard 1M 8k' "
                   "-c 'write 16777216 512' %s", path);
    image_test_run("qemu-img bitmap --add --disable -g 64k %s two", path);
    image_test_run("qemu-img bitmap --add -g 512 %s full", path);
    image_test_run("qemu-io -f qcow2 -c 'write -z 0 16777728' %s", path);
    image_test_run("qemu-img bitmap --disable %s full", path);
    image_test_run("qemu-img bitmap --clear %s one", path);
    image_test_run("qemu-io -f qcow2 -c 'write 8k 4k' -c 'discard 1M 8k' "
                   "-c 'write 16777216 512' %s", path);

    bs = co_open(path);
    assert_areas(bs, "one", "8+4 1024+8 16384+0");
    assert_areas(bs, "two", "");
    assert_areas(bs, "full", "0+16384");
    g_assert_true(find(bs, "one")->recording);
    g_assert_false(find(bs, "two")->recording);
    assert_flags("one", "in-use,auto");
    assert_flags("two", "in-use");
    co_write(bs, 2 * MiB, 4 * KiB);
    assert_areas(bs, "one", "8+4 1024+8 2048+4 16384+0");
    block_test_co_close(bs);
    assert_flags("one", "auto");
    assert_flags("two", "");
    judge("one");

    bs = co_open(path);
    assert_areas(bs, "one", "8+4 1024+8 2048+4 16384+0");
    assert_areas(bs, "two", "");
    assert_areas(bs, "full", "0+16384");
    assert_areas(bs, "judge", "8+4 1024+8 2048+4 16384+0");
    co_remove("two");
    assert_flags("two", NULL);
    block_test_co_close(bs);
    judge(NULL);

    bs = co_open(path);
    co_remove("one");
    co_remove("full");
    co_remove("judge");
    block_test_co_close(bs);
    assert_flags("one", NULL);
    judge(NULL);
}

/* Made by us; qemu-img copies them to another image, which we read. */
static void coroutine_fn co_test_ours(void *opaque)
{
    BlockDriverState *bs;

    make(opaque, 16 * MiB);
    bs = co_open(path);
    co_add("small", 512, false);
    co_add("large", 1u << 31, false);
    co_add("mid", 64 * KiB, false);
    co_add("off", 64 * KiB, true);
    co_write(bs, 3 * MiB, 512);
    co_resize(bs, 40 * MiB);
    co_write(bs, 39 * MiB, MiB);
    co_resize(bs, 39 * MiB + 512 * KiB);
    assert_flags("small", NULL);
    block_test_co_close(bs);
    judge("small");
    assert_flags("mid", "auto");
    assert_flags("off", "");
    image_test_run("qemu-img convert -q -f qcow2 -O qcow2 --bitmaps %s %s",
                   path, copy_path);
    for (int i = 0; i < 2; i++) {
        bs = co_open(i ? copy_path : path);
        assert_areas(bs, "small", "3072+0 39936+512");
        assert_areas(bs, "large", "0+40448");
        assert_areas(bs, "mid", "3072+64 39936+512");
        assert_areas(bs, "off", "");
        block_test_co_close(bs);
    }
    judge(NULL);
}

/* ---- use without bitmaps, read-only, crash ---- */

static void coroutine_fn co_test_read_only(void *opaque)
{
    g_autofree char *before = NULL, *after = NULL;
    gsize n, m;
    BlockDriverState *bs;
    Error *err = NULL;

    make(kinds[0], 16 * MiB);
    image_test_run("qemu-img bitmap --add %s b", path);
    g_assert_true(g_file_get_contents(path, &before, &n, NULL));
    bs = co_try_open(path, "'read-only': true,", &err);
    node_test_no_error(err);
    assert_areas(bs, "b", "");
    block_test_co_close(bs);
    g_assert_true(g_file_get_contents(path, &after, &m, NULL));
    g_assert_cmpmem(before, n, after, m);
}

static void coroutine_fn co_test_crash(void *opaque)
{
    BlockDriverState *bs;

    make(kinds[0], 16 * MiB);
    image_test_run("qemu-img bitmap --add %s b", path);
    bs = co_open(path);
    co_add("new", 512, false);
    co_write(bs, MiB, MiB);
    image_test_run("cp %s %s", path, copy_path);
    block_test_co_close(bs);
    image_test_run("mv %s %s", copy_path, path);

    bs = co_open(path);
    g_assert_true(find(bs, "b")->inconsistent);
    g_assert_null(bdrv_dirty_bitmap_find(bs, "new"));
    block_test_co_close(bs);
    assert_flags("b", "in-use,auto");
    image_test_run("qemu-img check -q -r leaks %s", path);

    bs = co_open(path);
    co_remove("b");
    co_add("b", 512, false);
    block_test_co_close(bs);
    judge("b");
}

/* ---- hostile images ---- */

typedef struct Image {
    uint8_t *data;
    gsize len;
    uint64_t dir, table;        /* of the first bitmap */
} Image;

static uint64_t get64(const Image *img, uint64_t at)
{
    uint64_t word;

    memcpy(&word, img->data + at, 8);
    return GUINT64_FROM_BE(word);
}

static void put(Image *img, uint64_t at, uint64_t value, unsigned bytes)
{
    while (bytes--) {
        img->data[at + bytes] = value;
        value >>= 8;
    }
}

/* Two bitmaps "a" and "b" with one cluster each; where the extension is. */
static uint64_t make_two(Image *img)
{
    uint64_t ext = QCOW2_HEADER_V3_SIZE + 8;

    make(kinds[0], 16 * MiB);
    image_test_run("qemu-img bitmap --add %s a", path);
    image_test_run("qemu-img bitmap --add %s b", path);
    image_test_run("qemu-io -f qcow2 -c 'write 8k 4k' %s", path);
    g_assert_true(g_file_get_contents(path, (char **)&img->data, &img->len,
                                      NULL));
    while (get64(img, ext) >> 32 != QCOW2_EXT_BITMAPS) {
        ext += 8 + ((get64(img, ext) & UINT32_MAX) + 7) / 8 * 8;
    }
    img->dir = get64(img, ext + 24);
    img->table = get64(img, img->dir);
    return ext + 8;
}

typedef struct Hostile {
    const char *name;
    enum { IN_EXT, IN_DIR, IN_TABLE } where;
    int offset;
    unsigned bytes;
    uint64_t value;
    const char *error;          /* a part of the text; NULL: it opens */
    bool listed;                /* "a" is there, but inconsistent */
} Hostile;

/* Entries are 24 bytes and a name of one, padded to 32. */
static const Hostile hostile[] = {
    { "directory-outside", IN_EXT, 16, 8, 1u << 30, "beyond the end" },
    { "too-many", IN_EXT, 0, 4, 3, "too small" },
    { "too-few", IN_EXT, 0, 4, 1, "more than its entries" },
    { "name-size-0", IN_DIR, 18, 2, 0, "invalid name" },
    { "name-size-huge", IN_DIR, 18, 2, 65535, "beyond the directory's end" },
    { "extra-huge", IN_DIR, 20, 4, 0xffffffff, "beyond the directory's end" },
    { "name-zero", IN_DIR, 24, 1, 0, "invalid name" },
    { "name-not-utf8", IN_DIR, 24, 1, 0xff, "invalid name" },
    { "same-names", IN_DIR, 24, 1, 'b', "name 'b' of another" },
    { "table-unaligned", IN_DIR, 0, 8, 0x50001, "invalid table offset" },
    { "table-at-0", IN_DIR, 0, 8, 0, "invalid table offset" },
    { "table-far", IN_DIR, 0, 8, UINT64_C(1) << 62 | 65536, NULL, true },
    { "table-is-directory", IN_DIR, 0, 8, UINT64_MAX, "more than once" },
    { "table-size-0", IN_DIR, 8, 4, 0, NULL, true },
    { "table-size-huge", IN_DIR, 8, 4, UINT32_MAX, NULL, true },
    { "unknown-flags", IN_DIR, 12, 4, 0x10, NULL },
    { "unknown-type", IN_DIR, 16, 1, 7, NULL },
    { "granularity-0", IN_DIR, 17, 1, 0, NULL },
    { "granularity-63", IN_DIR, 17, 1, 63, NULL },
    { "granularity-255", IN_DIR, 17, 1, 255, NULL },
    { "reserved-bits", IN_TABLE, 0, 8, 2, NULL, true },
    { "unaligned-data", IN_TABLE, 0, 8, 0x200, NULL, true },
    { "data-far", IN_TABLE, 0, 8, UINT64_C(0x80000000000000), NULL, true },
    { "data-and-ones", IN_TABLE, 0, 8, 0x10001, NULL, true },
    { "data-is-table", IN_TABLE, 0, 8, UINT64_MAX, "more than once" },
    { "data-is-refcounts", IN_TABLE, 0, 8, 65536, "other metadata" },
    { "data-is-header", IN_TABLE, 0, 8, 0, NULL },
};

static void coroutine_fn co_test_hostile(void *opaque)
{
    const Hostile *h = opaque;
    Image img;
    uint64_t ext = make_two(&img), value = h->value;
    const uint64_t base[] = { ext, img.dir, img.table };
    const BdrvDirtyBitmap *a;
    BlockDriverState *bs;
    Error *err = NULL;

    if (value == UINT64_MAX) {
        value = h->where == IN_DIR ? img.dir : img.table;
    }
    put(&img, base[h->where] + h->offset, value, h->bytes);
    g_assert_true(g_file_set_contents(path, (char *)img.data, img.len, NULL));
    g_free(img.data);
    bs = co_try_open(path, "", &err);
    if (h->error) {
        g_assert_null(bs);
        if (!strstr(error_get_pretty(err), h->error)) {
            g_error("%s", error_get_pretty(err));
        }
        error_free(err);
        return;
    }
    node_test_no_error(err);
    a = bdrv_dirty_bitmap_find(bs, "a");
    g_assert_true(h->listed ? a->inconsistent : !a || !a->inconsistent);
    assert_areas(bs, "b", "0+64");
    co_write(bs, 10 * MiB, 1);
    if (!a || h->listed) {
        co_remove("a");
        co_assert_not_found("a");
    }
    block_test_co_close(bs);
    bs = co_open(path);
    assert_areas(bs, "b", "0+64 10240+64");
    g_assert_cmpuint(((BDRVQcow2State *)bs->opaque)->nb_bitmaps, ==,
                     a && !h->listed ? 2 : 1);
    block_test_co_close(bs);
}

/* Somebody wrote to the image who knows nothing of bitmaps. */
static void coroutine_fn co_test_autoclear(void *opaque)
{
    Image img;
    BlockDriverState *bs;

    make_two(&img);
    put(&img, offsetof(Qcow2Header, autoclear_features), 0, 8);
    g_assert_true(g_file_set_contents(path, (char *)img.data, img.len, NULL));
    g_free(img.data);
    bs = co_open(path);
    g_assert_null(bs->dirty_bitmaps);
    co_add("a", 512, false);
    block_test_co_close(bs);
    assert_flags("a", "auto");
    assert_flags("b", NULL);
    image_test_run("qemu-img check -q -r leaks %s", path);
    judge("a");
}

/* ---- main ---- */

static void add(const char *group, const char *name, CoroutineEntry *entry,
                const void *opaque)
{
    block_test_add_one(AIO_BACKEND_AUTO, entry, opaque, "/qcow2-bitmap/%s/%s",
                       group, name);
}

int main(int argc, char **argv)
{
    int ret;

    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    dir = image_test_folder("qsd-bitmap");
    path = g_build_filename(dir, "image", NULL);
    copy_path = g_build_filename(dir, "copy", NULL);
    data_path = g_build_filename(dir, "data", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        add("theirs", kinds[i], co_test_theirs, kinds[i]);
        add("ours", kinds[i], co_test_ours, kinds[i]);
    }
    add("single", "read-only", co_test_read_only, NULL);
    add("single", "crash", co_test_crash, NULL);
    add("single", "autoclear", co_test_autoclear, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(hostile); i++) {
        add("hostile", hostile[i].name, co_test_hostile, &hostile[i]);
    }
    ret = g_test_run();
    image_test_run("rm -r %s", dir);
    return ret;
}
