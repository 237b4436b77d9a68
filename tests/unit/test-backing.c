/* SPDX-License-Identifier: MIT */
/*
 * Backing chains: what is opened, what is refused, and I/O through them.
 */
#include "tests/unit/cow-disk.h"

#include "qapi/qapi-commands.h"

#define KiB 1024

static char *dir;

static char *in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void make(const char *name, int64_t length, const char *backing,
                 const char *format)
{
    g_autofree char *path = in_dir(name);

    cow_create(path, length, backing, format, NULL);
}

/* A raw file, filled with @fill. */
static void make_raw(const char *name, int64_t length, char fill)
{
    g_autofree char *path = in_dir(name);
    g_autofree char *data = g_malloc(length + 1);
    g_autoptr(GError) error = NULL;

    memset(data, fill, length);
    g_file_set_contents(path, data, length, &error);
    g_assert_no_error(error);
}

static BlockDriverState *coroutine_fn co_try(const char *node,
                                             const char *name,
                                             const char *more, Error **errp)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': '%s', 'file': {'driver': 'file', "
        "'filename': '%s/%s'}%s}", node, dir, name, more);

    return node_test_co_try_open(errp, json);
}

static BlockDriverState *coroutine_fn co_open(const char *node,
                                              const char *name,
                                              const char *more)
{
    Error *err = NULL;
    BlockDriverState *bs = co_try(node, name, more, &err);

    node_test_no_error(err);
    return bs;
}

/* @text may have one %s for the folder. */
static void coroutine_fn co_open_fails(const char *name, const char *more,
                                       const char *text)
{
    Error *err = NULL;
    g_auto(GStrv) parts = g_strsplit(text, "%s", -1);
    g_autofree char *full = g_strjoinv(dir, parts);

    g_assert_null(co_try("top", name, more, &err));
    node_test_assert_error(err, full);
    g_assert_true(TAILQ_EMPTY(&bdrv_all_nodes));
}

static void coroutine_fn co_check(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, int value)
{
    BlockBackend *blk = block_test_co_attach(bs, "reader",
                                             BLK_PERM_CONSISTENT_READ,
                                             BLK_PERM_ALL);
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;

    memset(buf, 0xee, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, offset, &qiov, 0), ==, 0);
    blk_end_request(blk);
    for (int64_t i = 0; i < bytes; i++) {
        g_assert_cmpint(buf[i], ==, value);
    }
    blk_co_free(blk);
}

/* @flags may be ZERO_WRITE or WRITE_COMPRESSED. */
static int coroutine_fn co_write(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, int value,
                                 BdrvRequestFlags flags)
{
    BlockBackend *blk = block_test_co_attach(bs, "writer", BLK_PERM_WRITE,
                                             BLK_PERM_ALL);
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;
    int ret;

    memset(buf, value, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    ret = blk_co_pwritev(blk, offset, &qiov, flags);
    blk_end_request(blk);
    blk_co_free(blk);
    return ret;
}

static int coroutine_fn co_status(BlockDriverState *bs, int64_t offset,
                                  int64_t *pnum)
{
    return bdrv_co_block_status(bs, offset, bdrv_getlength(bs) - offset, pnum,
                                NULL, NULL);
}

/* ---- what an option says ---- */

static BlockDriverState *coroutine_fn co_open_raw(const char *node,
                                                  const char *name)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': '%s', 'file': {'driver': 'file', "
        "'filename': '%s/%s'}}", node, dir, name);

    return block_test_co_open(json);
}

static void coroutine_fn test_option(void *opaque)
{
    g_autofree char *inline_raw = g_strdup_printf(
        ", 'backing': {'driver': 'raw', 'file': {'driver': 'file', "
        "'filename': '%s/base'}}", dir);
    BlockDriverState *base, *bs;

    make_raw("base", 64 * KiB, 'b');
    make("top", 64 * KiB, "missing", "raw");

    bs = co_open("top", "top", ", 'backing': null");
    g_assert_null(bs->backing);
    co_check(bs, 0, 64 * KiB, 0);
    g_assert_nonnull(strstr(bs->filename, "\"backing\": null"));
    block_test_co_close(bs);

    bs = co_open("top", "top", inline_raw);
    co_check(bs, 0, 64 * KiB, 'b');
    g_assert_true(bs->backing->bs->read_only);
    g_assert_true(bs->backing->bs->implicit);
    g_assert_cmpstr(bs->backing_name, ==, "missing");
    g_assert_nonnull(strstr(bs->filename, "\"backing\": {"));
    block_test_co_close(bs);

    base = co_open_raw("base", "base");
    bs = co_open("top", "top", ", 'backing': 'base'");
    g_assert_true(bdrv_backing_bs(bs) == base);
    co_check(bs, 0, 64 * KiB, 'b');
    block_test_co_close(bs);
    block_test_co_close(base);

    co_open_fails("top", ", 'backing': 'nobody'", "Could not open backing "
                  "file: Cannot find device='nobody' nor node-name='nobody'");
    co_open_fails("top", "", "Could not open backing file: Could not open "
                  "'%s/missing': No such file or directory");
    co_open_fails("top", ", 'backing': {'driver': 'file', 'filename': '/x'}",
                  "Could not open backing file: Could not open '/x': No such "
                  "file or directory");
}

/* ---- what an image says ---- */

static void coroutine_fn co_check_named(const char *backing,
                                        const char *format, const char *driver,
                                        int value)
{
    BlockDriverState *bs;

    make("top", 64 * KiB, backing, format);
    bs = co_open("top", "top", "");
    g_assert_cmpstr(bdrv_get_format_name(bs->backing->bs), ==, driver);
    g_assert_cmpstr(bs->filename, ==, bs->file->bs->filename);
    g_assert_cmpstr(bs->backing_name, ==, backing);
    g_assert_true(bs->backing->bs->read_only);
    co_check(bs, 0, 64 * KiB, value);
    block_test_co_close(bs);
}

static void coroutine_fn test_image(void *opaque)
{
    g_autofree char *absolute = in_dir("base");
    g_autofree char *prefixed = g_strconcat("file:", absolute, NULL);
    g_autofree char *folder = in_dir("sub");

    make_raw("base", 64 * KiB, 'b');
    g_mkdir(folder, 0700);
    make_raw("sub/base", 64 * KiB, 's');
    make("sub/mid", 64 * KiB, "base", "raw");
    make_raw("a:b", 64 * KiB, 'c');

    co_check_named("base", "raw", "raw", 'b');
    co_check_named("base", NULL, "raw", 'b');
    co_check_named("base", "file", "file", 'b');
    co_check_named(absolute, "raw", "raw", 'b');
    co_check_named("file:base", "raw", "raw", 'b');
    co_check_named(prefixed, NULL, "raw", 'b');
    co_check_named("./a:b", "raw", "raw", 'c');
    /* Each name counts from the folder of the image that it stands in. */
    co_check_named("sub/mid", "qcow2", "qcow2", 's');
    co_check_named("sub/mid", NULL, "qcow2", 's');
}

static void coroutine_fn co_refused(const char *backing, const char *format,
                                    const char *text)
{
    g_autofree char *full = g_strconcat("Could not open backing file: ", text,
                                        NULL);

    make("top", 64 * KiB, backing, format);
    co_open_fails("top", "", full);
}

static void coroutine_fn test_image_refused(void *opaque)
{
    static const char luks[4096] = "LUKS\xba\xbe";
    g_autofree char *luks_path = in_dir("luks");

    make_raw("base", 64 * KiB, 'b');
    g_file_set_contents(luks_path, luks, sizeof(luks), NULL);

    co_refused("nbd://h/x", "raw", "The image names 'nbd://h/x' as its "
               "backing file; images must not use protocol 'nbd', only paths "
               "of files");
    co_refused("json:{\"driver\": \"null-co\"}", NULL, "The image names "
               "'json:{\"driver\": \"null-co\"}' as its backing file; images "
               "must not use protocol 'json', only paths of files");
    co_refused("fat:/tmp", "raw", "The image names 'fat:/tmp' as its backing "
               "file; images must not use protocol 'fat', only paths of "
               "files");
    co_refused("/dev/null", "raw", "The image names '/dev/null' as its "
               "backing file; images must not use character devices");
    co_refused("/tmp", "raw", "'file' driver requires '/tmp' to be a regular "
               "file");
    co_refused("base", "foo", "Unknown driver 'foo'");
    co_refused("base", "null-co", "Unknown driver 'null-co'");
    co_refused("base", "compress", "Unknown driver 'compress'");
    co_refused("luks", NULL, "Unknown driver 'luks'");
    co_refused("base", "qcow2", "Image is not in qcow2 format");
    co_refused("base", "host_device", "'host_device' driver requires "
               "'%s/base' to be either a character or block device");
    co_refused("none", "raw", "Could not open '%s/none': No such file or "
               "directory");
}

static void coroutine_fn test_safe(void *opaque)
{
    BlockDriverState *bs;

    make_raw("base", 64 * KiB, 'b');
    make("top", 64 * KiB, "base", "raw");
    co_open_fails("top", ", 'safe-image': true", "Could not open backing "
                  "file: The image names 'base' as its backing file, but "
                  "with safe-image=on no such name is followed");
    bs = co_open("top", "top", ", 'safe-image': true, 'backing': null");
    block_test_co_close(bs);
    make("top", 64 * KiB, NULL, NULL);
    bs = co_open("top", "top", ", 'safe-image': true");
    block_test_co_close(bs);
}

static void coroutine_fn test_no_directory(void *opaque)
{
    g_autofree char *path = in_dir("top");
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'top', 'file': {'driver': "
        "'blkdebug', 'image': {'driver': 'raw', 'offset': 0, 'file': "
        "{'driver': 'file', 'filename': '%s'}}}}", path);
    BlockDriverState *bs;

    /* Filters and windows do not change where the image lies. */
    make_raw("base", 64 * KiB, 'b');
    make("top", 64 * KiB, "base", "raw");
    bs = block_test_co_open(json);
    co_check(bs, 0, 64 * KiB, 'b');
    block_test_co_close(bs);
}

/* ---- chains that have no end ---- */

#define LOOP_TEXT(name) "The image names '%s/" name "' as its backing file, " \
    "which is based on that image itself"

static void coroutine_fn test_loop(void *opaque)
{
    g_autofree char *link_path = in_dir("link");
    g_autofree char *top_path = in_dir("top");

    make("top", 64 * KiB, "top", "qcow2");
    co_open_fails("top", ", 'read-only': true",
                  "Could not open backing file: " LOOP_TEXT("top"));
    make("mid", 64 * KiB, "top", NULL);
    make("top", 64 * KiB, "mid", "qcow2");
    co_open_fails("top", ", 'read-only': true", "Could not open backing file: "
                  "Could not open backing file: " LOOP_TEXT("top"));
    make("top", 64 * KiB, "link", "qcow2");
    g_assert_cmpint(symlink(top_path, link_path), ==, 0);
    co_open_fails("top", ", 'read-only': true",
                  "Could not open backing file: " LOOP_TEXT("link"));
    g_unlink(link_path);
}

static void make_chain(int n)
{
    make_raw("0", 64 * KiB, 'z');
    for (int i = 1; i <= n; i++) {
        g_autofree char *name = g_strdup_printf("%d", i);
        g_autofree char *below = g_strdup_printf("%d", i - 1);

        make(name, 64 * KiB, below, i == 1 ? "raw" : "qcow2");
    }
}

static void coroutine_fn test_depth(void *opaque)
{
    BlockDriverState *bs;
    Error *err = NULL;
    int64_t n;

    make_chain(300);
    bs = co_open("top", "250", "");
    co_check(bs, 0, 64 * KiB, 'z');
    g_assert_cmpint(co_status(bs, 0, &n) & BDRV_BLOCK_DATA, !=, 0);
    g_assert_cmpint(n, ==, 64 * KiB);
    g_assert_cmpint(co_write(bs, 100, 10, 'y', 0), ==, 0);
    co_check(bs, 100, 10, 'y');
    co_check(bs, 110, 1000, 'z');
    block_test_co_close(bs);

    g_assert_null(co_try("top", "300", "", &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "There are too many nodes "
                            "to open, one above the other (more than 256)"));
    error_free(err);
    g_assert_true(TAILQ_EMPTY(&bdrv_all_nodes));
}

/* The same node by node. */
static void coroutine_fn test_height(void *opaque)
{
    BlockDriverState *nodes[BDRV_MAX_HEIGHT + 1];
    int n = 0;

    nodes[n++] = block_test_co_open("{'driver': 'null-co', 'node-name': "
                                    "'n0'}");
    for (; n <= BDRV_MAX_HEIGHT; n++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'raw', 'node-name': 'n%d', 'file': 'n%d'}", n, n - 1);

        nodes[n] = block_test_co_open(json);
    }
    block_test_co_open_fails(
        "{'driver': 'raw', 'node-name': 'more', 'file': 'n256'}",
        "Node 'more' has too many nodes below it (more than 256, one above "
        "the other)");
    while (n-- > 0) {
        block_test_co_close(nodes[n]);
    }
}

/* ---- I/O ---- */

static void coroutine_fn test_short_backing(void *opaque)
{
    BlockDriverState *bs;
    int64_t n;

    make_raw("base", 10000, 'b');
    make("mid", 40000, "base", "raw");
    make("top", 100000, "mid", "qcow2");
    bs = co_open("top", "top", "");
    co_check(bs, 0, 10000, 'b');
    co_check(bs, 10000, 90000, 0);
    g_assert_cmpint(co_status(bs, 0, &n), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 10000);
    g_assert_cmpint(co_status(bs, 10000, &n), ==, BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 30000);
    g_assert_cmpint(co_status(bs, 40000, &n), ==,
                    BDRV_BLOCK_ZERO | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 60000);
    g_assert_true(bdrv_co_is_zero_fast(bs, 10000, 90000));
    g_assert_true(bdrv_co_is_zero_fast(bs, 10000, 1 << 30));
    g_assert_false(bdrv_co_is_zero_fast(bs, 9999, 10));

    /* A part of a cluster brings the rest along. */
    g_assert_cmpint(co_write(bs, 9000, 10, 't', 0), ==, 0);
    co_check(bs, 8192, 9000 - 8192, 'b');
    co_check(bs, 9000, 10, 't');
    co_check(bs, 9010, 10000 - 9010, 'b');
    co_check(bs, 10000, 40000, 0);
    block_test_co_close(bs);
}

static void coroutine_fn test_status_above(void *opaque)
{
    BlockDriverState *bs, *mid, *base, *file;
    int64_t n, map;
    int ret;

    make_raw("base", 64 * KiB, 'b');
    make("mid", 64 * KiB, "base", "raw");
    make("top", 64 * KiB, "mid", "qcow2");
    mid = co_open("mid", "mid", "");
    base = bdrv_backing_bs(mid);
    g_assert_cmpint(co_write(mid, 16 * KiB, 8 * KiB, 'm', 0), ==, 0);
    bs = co_open("top", "top", ", 'backing': 'mid'");
    g_assert_cmpint(co_write(bs, 0, 4 * KiB, 't', 0), ==, 0);
    g_assert_cmpint(co_write(bs, 4 * KiB, 4 * KiB, 0, BDRV_REQ_ZERO_WRITE),
                    ==, 0);

    ret = bdrv_co_block_status_above(bs, mid, 0, 64 * KiB, &n, &map, &file);
    g_assert_cmpint(ret, ==, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 4 * KiB);
    g_assert_cmpint(map, ==, CLUSTER);
    g_assert_true(file == bs->file->bs);

    ret = bdrv_co_block_status_above(bs, mid, 4 * KiB, 60 * KiB, &n, &map,
                                     &file);
    g_assert_cmpint(ret, ==, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED);
    g_assert_cmpint(n, ==, 4 * KiB);

    ret = bdrv_co_block_status_above(bs, mid, 8 * KiB, 56 * KiB, &n, &map,
                                     &file);
    g_assert_cmpint(ret, ==, BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 56 * KiB);

    ret = bdrv_co_block_status_above(bs, base, 8 * KiB, 56 * KiB, &n, &map,
                                     &file);
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpint(n, ==, 8 * KiB);

    ret = bdrv_co_block_status(bs, 24 * KiB, 56 * KiB, &n, &map, &file);
    g_assert_cmpint(ret, ==, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_EOF);
    g_assert_cmpint(map, ==, 24 * KiB);
    g_assert_true(file == base->file->bs);
    block_test_co_close(bs);
    block_test_co_close(mid);
}

/* A cluster whose place in the file is a hole reads as zeroes. */
static void coroutine_fn test_status_hole(void *opaque)
{
    g_autofree char *path = in_dir("top");
    CowHeader h;
    BlockDriverState *bs;
    int64_t n;
    int fd;

    make("top", 64 * KiB, NULL, NULL);
    fd = open(path, O_RDWR);
    g_assert_cmpint(pread(fd, &h, sizeof(h), 0), ==, sizeof(h));
    memset(h.state, COW_DATA, 16);
    g_assert_cmpint(pwrite(fd, &h, sizeof(h), 0), ==, sizeof(h));
    close(fd);

    /* The file ends before any of them. */
    bs = co_open("top", "top", "");
    g_assert_cmpint(co_status(bs, 0, &n), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 64 * KiB);
    block_test_co_close(bs);
}

static void coroutine_fn test_grow(void *opaque)
{
    BlockDriverState *bs;
    Error *err = NULL;
    QmpBlockResizeArg arg = { .node_name = (char *)"top", .size = 64 * KiB };

    make_raw("base", 64 * KiB, 'b');
    make("top", 16 * KiB, "base", "raw");
    bs = co_open("top", "top", "");
    qmp_block_resize(&arg, &err);
    node_test_no_error(err);
    co_check(bs, 0, 16 * KiB, 'b');
    co_check(bs, 16 * KiB, 48 * KiB, 0);
    block_test_co_close(bs);
}

static void coroutine_fn test_zero_parts(void *opaque)
{
    BlockDriverState *bs;
    CowDisk *s;

    make_raw("base", 64 * KiB, 'b');
    make("top", 64 * KiB, "base", "raw");
    bs = co_open("top", "top", "");
    s = bs->opaque;
    /* Parts of two clusters, none whole. */
    g_assert_cmpint(co_write(bs, 4000, 200, 0, BDRV_REQ_ZERO_WRITE), ==, 0);
    g_assert_cmpint(s->part_zeroes, ==, 2);
    co_check(bs, 0, 4000, 'b');
    co_check(bs, 4000, 200, 0);
    co_check(bs, 4200, 4000, 'b');
    /* Two parts and a whole one; the driver knows that one part is zero. */
    s->h.state[4] = COW_ZERO;
    g_assert_cmpint(co_write(bs, 10000, 8000, 0, BDRV_REQ_ZERO_WRITE), ==, 0);
    g_assert_cmpint(s->part_zeroes, ==, 4);
    g_assert_cmpint(s->h.state[2], ==, COW_DATA);
    g_assert_cmpint(s->h.state[3], ==, COW_ZERO);
    g_assert_cmpint(s->h.state[4], ==, COW_ZERO);
    co_check(bs, 9000, 1000, 'b');
    co_check(bs, 10000, 8000, 0);
    block_test_co_close(bs);
}

static void coroutine_fn test_parts(void *opaque)
{
    BlockDriverState *bs;
    uint8_t a[100], b[50];
    struct iovec iov[] = { { a, sizeof(a) }, { b, sizeof(b) } };
    QEMUIOVector qiov;

    make_raw("base", 64 * KiB, 'b');
    make("top", 64 * KiB, "base", "raw");
    bs = co_open("top", "top", "");
    qemu_iovec_init_external(&qiov, iov, 2);
    memset(a, 1, sizeof(a));
    memset(b, 2, sizeof(b));
    g_assert_cmpint(bdrv_co_preadv_part(bs->backing, 0, 40, &qiov, 80, 0), ==,
                    0);
    g_assert_cmpint(a[79], ==, 1);
    g_assert_cmpint(a[80], ==, 'b');
    g_assert_cmpint(a[99], ==, 'b');
    g_assert_cmpint(b[19], ==, 'b');
    g_assert_cmpint(b[20], ==, 2);
    g_assert_cmpint(bdrv_co_read_backing(bs, 64 * KiB - 10, 30, &qiov, 0), ==,
                    0);
    g_assert_cmpint(a[9], ==, 'b');
    g_assert_cmpint(a[10], ==, 0);
    g_assert_cmpint(a[29], ==, 0);
    g_assert_cmpint(a[30], ==, 1);
    block_test_co_close(bs);
}

/* ---- permissions ---- */

static void coroutine_fn test_permissions(void *opaque)
{
    BlockDriverState *base, *one, *two;
    BlockBackend *blk;
    Error *err = NULL;

    make_raw("base", 64 * KiB, 'b');
    make("one", 64 * KiB, NULL, NULL);
    make("two", 64 * KiB, NULL, NULL);
    base = co_open_raw("base", "base");
    one = co_open("one", "one", ", 'backing': 'base'");
    two = co_open("two", "two", ", 'backing': 'base'");
    g_assert_cmpint(one->file->perm, ==, BLK_PERM_CONSISTENT_READ
                    | BLK_PERM_WRITE | BLK_PERM_RESIZE);
    g_assert_cmpint(one->file->shared_perm & (BLK_PERM_WRITE
                                              | BLK_PERM_RESIZE), ==, 0);

    blk = block_test_co_attach(one, "guest", BLK_PERM_CONSISTENT_READ
                               | BLK_PERM_WRITE, BLK_PERM_CONSISTENT_READ);
    g_assert_cmpint(one->backing->perm, ==, BLK_PERM_CONSISTENT_READ);
    g_assert_cmpint(one->backing->shared_perm, ==, BLK_PERM_CONSISTENT_READ
                    | BLK_PERM_WRITE_UNCHANGED);
    g_assert_null(node_test_co_try_attach(&err, base, BLK_PERM_WRITE,
                                          BLK_PERM_ALL));
    node_test_assert_error(err, "Permission conflict on node 'base': "
                           "permissions 'write' are both required by test "
                           "(uses node 'base' as 'root' child) and unshared "
                           "by node 'one' (uses node 'base' as 'backing' "
                           "child).");
    blk_co_free(blk);
    block_test_co_close(two);
    block_test_co_close(one);
    block_test_co_close(base);
}

/* ---- data file ---- */

static void coroutine_fn test_data_file(void *opaque)
{
    g_autofree char *path = in_dir("top");
    g_autofree char *data = in_dir("data");
    g_autofree char *data_node = g_strdup_printf(
        ", 'data-file': {'driver': 'file', 'filename': '%s'}", data);
    BlockDriverState *bs;
    BdrvChild *child;

    make_raw("data", 0, 0);
    cow_create(path, 64 * KiB, NULL, NULL, data);
    co_open_fails("top", ", 'safe-image': true", "The image names '%s/data' "
                  "as its data file, but with safe-image=on no such name is "
                  "followed");
    bs = co_open("top", "top", "");
    child = ((CowDisk *)bs->opaque)->data;
    g_assert_cmpstr(child->name, ==, "data-file");
    g_assert_cmpstr(bdrv_get_format_name(child->bs), ==, "file");
    g_assert_cmpstr(bs->filename, ==, path);
    g_assert_cmpint(co_write(bs, 0, 4 * KiB, 'd', 0), ==, 0);
    g_assert_cmpint(bdrv_getlength(child->bs), ==, 8 * KiB);
    block_test_co_close(bs);

    cow_create(path, 64 * KiB, NULL, NULL, "nbd:x");
    co_open_fails("top", "", "The image names 'nbd:x' as its data file; "
                  "images must not use protocol 'nbd', only paths of files");
    bs = co_open("top", "top", data_node);
    block_test_co_close(bs);
}

/* ---- compress ---- */

static void coroutine_fn test_compress(void *opaque)
{
    BlockDriverState *bs, *top;
    g_autofree char *raw = g_strdup_printf(
        "{'driver': 'compress', 'node-name': 'c', 'file': {'driver': 'raw', "
        "'file': {'driver': 'file', 'filename': '%s/base'}}}", dir);
    CowDisk *s;
    int64_t n;

    make_raw("base", 64 * KiB, 'b');
    block_test_co_open_fails(raw, "Compression is not supported for "
                             "underlying format: raw");
    /* It ends within a cluster. */
    make("top", 64 * KiB - 1000, "base", "raw");
    top = co_open("top", "top", "");
    s = top->opaque;
    bs = block_test_co_open("{'driver': 'compress', 'node-name': 'c', "
                            "'file': 'top'}");
    g_assert_cmpint(co_write(bs, 100, 8 * KiB, 'x', 0), ==, 0);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(s->h.state[i], ==, COW_COMPRESSED);
    }
    g_assert_cmpint(s->h.state[3], ==, COW_NONE);
    co_check(bs, 0, 100, 'b');
    co_check(bs, 100, 8 * KiB, 'x');
    co_check(bs, 8 * KiB + 100, 4 * KiB - 100, 'b');
    g_assert_cmpint(co_write(bs, 64 * KiB - 1500, 500, 'y', 0), ==, 0);
    g_assert_cmpint(s->h.state[15], ==, COW_COMPRESSED);
    co_check(top, 64 * KiB - 1500, 500, 'y');
    g_assert_cmpint(bdrv_getlength(top), ==, 64 * KiB - 1000);
    g_assert_cmpint(co_status(bs, 0, &n), ==, BDRV_BLOCK_DATA
                    | BDRV_BLOCK_ALLOCATED);
    g_assert_cmpint(co_write(bs, 16 * KiB, 4 * KiB, 0, BDRV_REQ_ZERO_WRITE),
                    ==, 0);
    g_assert_cmpint(s->h.state[4], ==, COW_ZERO);
    block_test_co_close(bs);
    block_test_co_close(top);
}

/* ---- queries ---- */

static void coroutine_fn test_queries(void *opaque)
{
    QmpQueryNamedBlockNodesArg arg = { 0 };
    g_autofree char *base = in_dir("base");
    g_autofree char *mid = in_dir("mid");
    BlockDeviceInfoList *list, *l;
    BlockDriverState *bs;
    Error *err = NULL;

    make_raw("base", 64 * KiB, 'b');
    make("mid", 64 * KiB, "base", "raw");
    make("top", 64 * KiB, "mid", NULL);
    bs = co_open("top", "top", "");
    list = qmp_query_named_block_nodes(&arg, &err);
    node_test_no_error(err);
    for (l = list; l && strcmp(l->value->node_name, "top"); l = l->next) {
    }
    g_assert_nonnull(l);
    g_assert_cmpstr(l->value->backing_file, ==, mid);
    g_assert_cmpint(l->value->backing_file_depth, ==, 2);
    g_assert_cmpstr(l->value->image->backing_filename, ==, "mid");
    g_assert_cmpstr(l->value->image->full_backing_filename, ==, mid);
    g_assert_null(l->value->image->backing_filename_format);
    g_assert_cmpint(l->value->image->cluster_size, ==, CLUSTER);
    g_assert_cmpstr(l->value->image->backing_image->filename, ==, mid);
    g_assert_cmpstr(l->value->image->backing_image->backing_filename_format,
                    ==, "raw");
    g_assert_cmpstr(l->value->image->backing_image->backing_image->filename,
                    ==, base);
    qapi_free_BlockDeviceInfoList(list);
    block_test_co_close(bs);
}

static void remove_all(const char *path)
{
    GDir *d = g_dir_open(path, 0, NULL);
    const char *name;

    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *entry = g_build_filename(path, name, NULL);

        if (g_file_test(entry, G_FILE_TEST_IS_DIR)) {
            remove_all(entry);
        } else {
            g_unlink(entry);
        }
    }
    g_clear_pointer(&d, g_dir_close);
    g_rmdir(path);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("qsd-backing-XXXXXX", NULL);
    block_test_add("/backing/option", test_option, NULL);
    block_test_add("/backing/image", test_image, NULL);
    block_test_add("/backing/image/refused", test_image_refused, NULL);
    block_test_add("/backing/image/safe", test_safe, NULL);
    block_test_add("/backing/image/directory", test_no_directory, NULL);
    block_test_add("/backing/loop", test_loop, NULL);
    block_test_add("/backing/depth", test_depth, NULL);
    block_test_add("/backing/height", test_height, NULL);
    block_test_add("/backing/short", test_short_backing, NULL);
    block_test_add("/backing/status/above", test_status_above, NULL);
    block_test_add("/backing/status/hole", test_status_hole, NULL);
    block_test_add("/backing/grow", test_grow, NULL);
    block_test_add("/backing/zero-parts", test_zero_parts, NULL);
    block_test_add("/backing/parts", test_parts, NULL);
    block_test_add("/backing/permissions", test_permissions, NULL);
    block_test_add("/backing/data-file", test_data_file, NULL);
    block_test_add("/backing/compress", test_compress, NULL);
    block_test_add("/backing/queries", test_queries, NULL);
    ret = g_test_run();
    remove_all(dir);
    g_free(dir);
    return ret;
}
