/* SPDX-License-Identifier: MIT */
/*
 * The node graph: names, references, inheritance, permissions, closing.
 */
#include "tests/unit/block-test.h"

#include "qapi/qapi-commands.h"

static char *image;                     /* 1 MiB, on disk */

#define NULL_NODE(name) \
    "{'driver': 'null-co', 'node-name': '" name "', 'size': 1048576}"

static char *file_node(const char *name, const char *more)
{
    return g_strdup_printf("{'driver': 'file', 'node-name': '%s', "
                           "'filename': '%s'%s}", name, image, more);
}

/* blockdev-del; NULL: it works. */
static void coroutine_fn co_del(const char *name, const char *text)
{
    Error *err = NULL;

    qmp_blockdev_del(&(QmpBlockdevDelArg) { .node_name = (char *)name }, &err);
    if (text) {
        node_test_assert_error(err, text);
    } else {
        node_test_no_error(err);
    }
}

/* ---- names ---- */

static void coroutine_fn test_names(void *opaque)
{
    static const char *const good[] = {
        "a", "Z9", "a.b-c_d", "a234567890123456789012345678901",
    };
    Error *err = NULL;

    block_test_co_open_fails("{'driver': 'null-co'}",
                             "'node-name' must be specified for the root node");
    block_test_co_open_fails(NULL_NODE("9x"), "Invalid node-name: '9x'");
    block_test_co_open_fails(NULL_NODE(""), "Invalid node-name: ''");
    block_test_co_open_fails(NULL_NODE("#block1"),
                             "Invalid node-name: '#block1'");
    block_test_co_open_fails(NULL_NODE("a b"), "Invalid node-name: 'a b'");
    block_test_co_open_fails(NULL_NODE("a2345678901234567890123456789012"),
                             "Node name too long");

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'null-co', 'node-name': '%s'}", good[i]);
        BlockDriverState *bs = block_test_co_open(json);

        g_assert_true(bdrv_find_node(good[i]) == bs);
        g_assert_true(bdrv_lookup_node(NULL, good[i], &err) == bs);
        g_assert_cmpstr(bdrv_get_node_name(bs), ==, good[i]);
    }
    block_test_co_open_fails(NULL_NODE("a"),
                             "Duplicate nodes with node-name='a'");
    g_assert_null(bdrv_lookup_node(NULL, "n", &err));
    node_test_assert_error(err, "Cannot find device='' nor node-name='n'");
    g_assert_null(bdrv_lookup_node("a", NULL, &err));
    node_test_assert_error(err, "Cannot find device='a' nor node-name=''");
    bdrv_co_close_all();
}

/* ---- children ---- */

static void coroutine_fn test_children(void *opaque)
{
    BlockDriverState *file, *raw, *inl;

    block_test_co_open_fails(
        "{'driver': 'raw', 'node-name': 'r', 'file': 'nope'}",
        "Cannot find device='nope' nor node-name='nope'");
    /* A node cannot be its own child, nor have its child take its name. */
    block_test_co_open_fails(
        "{'driver': 'raw', 'node-name': 'r', 'file': 'r'}",
        "Cannot find device='r' nor node-name='r'");
    block_test_co_open_fails(
        "{'driver': 'raw', 'node-name': 'r', "
        "'file': {'driver': 'null-co', 'node-name': 'r'}}",
        "Duplicate nodes with node-name='r'");
    g_assert_true(TAILQ_EMPTY(&bdrv_all_nodes));

    file = block_test_co_open(NULL_NODE("f"));
    raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'r', 'file': 'f'}");
    g_assert_true(raw->file->bs == file);
    g_assert_cmpint(file->refcnt, ==, 2);
    inl = block_test_co_open("{'driver': 'raw', 'node-name': 'i', "
                             "'file': {'driver': 'null-co', "
                             "'node-name': 'ic'}}");
    g_assert_true(inl->file->bs == bdrv_find_node("ic"));
    block_test_co_open("{'driver': 'raw', 'node-name': 'j', "
                       "'file': {'driver': 'null-co'}}");
    g_assert_true(g_str_has_prefix(
        bdrv_find_node("j")->file->bs->node_name, "#block"));

    co_del("nope", "Failed to find node with node-name='nope'");
    co_del("f", "Block device f is in use");
    co_del("ic", "Node ic is not owned by the monitor");
    co_del("r", NULL);
    co_del("f", NULL);
    co_del("i", NULL);
    g_assert_null(bdrv_find_node("ic"));
    co_del("j", NULL);
}

static void coroutine_fn test_close_all(void *opaque)
{
    block_test_co_open(NULL_NODE("f"));
    block_test_co_open("{'driver': 'raw', 'node-name': 'r', 'file': 'f'}");
    block_test_co_open("{'driver': 'raw', 'node-name': 's', 'file': 'f'}");
    block_test_co_open("{'driver': 'raw', 'node-name': 't', 'file': 'r'}");
    bdrv_co_close_all();
    g_assert_true(TAILQ_EMPTY(&bdrv_all_nodes));
}

/* ---- options ---- */

static void coroutine_fn test_inherit(void *opaque)
{
    BlockDriverState *raw, *file;

    raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'r', 'read-only': true, "
        "'auto-read-only': true, 'force-share': true, "
        "'cache': {'direct': true, 'no-flush': true}, "
        "'detect-zeroes': 'on', 'file': {'driver': 'null-co'}}");
    file = raw->file->bs;
    g_assert_true(file->read_only && file->auto_read_only);
    g_assert_true(file->force_share);
    g_assert_true(file->cache_direct && file->cache_no_flush);
    g_assert_cmpint(raw->detect_zeroes, ==, BLOCKDEV_DETECT_ZEROES_OPTIONS_ON);
    g_assert_cmpint(file->detect_zeroes, ==,
                    BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF);
    g_assert_false(raw->discard_unmap);
    g_assert_true(file->discard_unmap);
    block_test_co_close(raw);

    raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'r', 'read-only': true, "
        "'cache': {'direct': true}, 'file': {'driver': 'null-co', "
        "'read-only': false, 'discard': 'ignore', "
        "'cache': {'direct': false}}}");
    file = raw->file->bs;
    g_assert_false(file->read_only || file->cache_direct
                   || file->discard_unmap);
    block_test_co_close(raw);

    block_test_co_open_fails(
        "{'driver': 'null-co', 'node-name': 'n', 'detect-zeroes': 'unmap'}",
        "setting detect-zeroes to unmap is not allowed without setting "
        "discard operation to unmap");
    block_test_co_open_fails(
        "{'driver': 'null-co', 'node-name': 'n', 'force-share': true}",
        "force-share=on can only be used with read-only images");
}

static void coroutine_fn check_filename(const char *json, const char *name)
{
    BlockDriverState *bs = block_test_co_open(json);

    g_assert_cmpstr(bs->filename, ==, name);
    block_test_co_close(bs);
}

static void coroutine_fn test_filename(void *opaque)
{
    check_filename("{'driver': 'null-co', 'node-name': 'n'}", "null-co://");
    check_filename("{'driver': 'null-aio', 'node-name': 'n', 'size': 512}",
                   "json:{\"driver\": \"null-aio\", \"size\": 512}");
    check_filename("{'driver': 'raw', 'node-name': 'n', "
                   "'file': {'driver': 'null-co'}}", "null-co://");
    check_filename("{'driver': 'raw', 'node-name': 'n', 'offset': 512, "
                   "'file': {'driver': 'null-co'}}",
                   "json:{\"driver\": \"raw\", \"offset\": 512, "
                   "\"file\": {\"driver\": \"null-co\"}}");
}

/* ---- permissions ---- */

static void coroutine_fn co_attach_fails(BlockDriverState *bs,
                                         const char *name, uint64_t perm,
                                         uint64_t shared, const char *text)
{
    BlockBackend *blk = blk_new(name, perm, shared);
    Error *err = NULL;

    g_assert_false(blk_co_attach(blk, bs, &err));
    node_test_assert_error(err, text);
    blk_co_free(blk);
}

/* No child of @bs has an update left under way, and sums are true. */
static void check_settled(void)
{
    BlockDriverState *bs;
    BdrvChild *c;

    TAILQ_FOREACH(bs, &bdrv_all_nodes, next) {
        uint64_t perm = 0, shared = BLK_PERM_ALL;

        TAILQ_FOREACH(c, &bs->parents, next_parent) {
            g_assert_cmpuint(c->perm, ==, c->new_perm);
            g_assert_cmpuint(c->shared_perm, ==, c->new_shared);
            perm |= c->perm;
            shared &= c->shared_perm;
        }
        g_assert_cmpuint(bs->perm, ==, perm);
        g_assert_cmpuint(bs->shared_perm, ==, shared);
        g_assert_cmpint(bs->drain_count, ==, 0);
    }
}

static void coroutine_fn test_permissions(void *opaque)
{
    BlockDriverState *file = block_test_co_open(NULL_NODE("file0"));
    BlockDriverState *raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'disk', 'file': 'file0'}");
    BlockBackend *a, *b;
    Error *err = NULL;

    /* Without a window raw passes on what its users want. */
    a = block_test_co_attach(raw, "block export 'e1'",
                             BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                             BLK_PERM_ALL & ~BLK_PERM_WRITE);
    g_assert_cmpuint(file->perm, ==,
                     BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE);
    co_attach_fails(file, "block export 'e2'", BLK_PERM_WRITE, BLK_PERM_ALL,
                    "Permission conflict on node 'file0': permissions 'write' "
                    "are both required by block export 'e2' (uses node "
                    "'file0' as 'root' child) and unshared by node 'disk' "
                    "(uses node 'file0' as 'file' child).");
    check_settled();
    co_attach_fails(raw, "block export 'e2'",
                    BLK_PERM_WRITE | BLK_PERM_RESIZE,
                    BLK_PERM_ALL & ~BLK_PERM_CONSISTENT_READ,
                    "Permission conflict on node 'disk': permissions "
                    "'consistent read' are both required by "
                    "block export 'e1' (uses node 'disk' as 'root' child) and "
                    "unshared by block export 'e2' (uses node 'disk' as "
                    "'root' child).");
    check_settled();
    co_del("disk", "Node disk is in use");

    /* A reader may come, and may not become a writer. */
    b = block_test_co_attach(raw, "b", BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    g_assert_false(blk_co_set_perm(b, BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    node_test_assert_error(err,
        "Permission conflict on node 'disk': permissions 'write' are both "
        "required by b (uses node 'disk' as 'root' child) and unshared by "
        "block export 'e1' (uses node 'disk' as 'root' child).");
    check_settled();
    blk_co_free(a);
    check_settled();
    g_assert_true(blk_co_set_perm(b, BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    g_assert_cmpuint(file->perm, ==, BLK_PERM_WRITE);
    blk_co_free(b);
    g_assert_cmpuint(file->perm, ==, 0);
    bdrv_co_close_all();
}

static void coroutine_fn test_window_permissions(void *opaque)
{
    BlockDriverState *file = block_test_co_open(NULL_NODE("a"));
    BlockBackend *blk;

    block_test_co_open("{'driver': 'raw', 'node-name': 'd1', 'file': 'a', "
                       "'size': 1024}");
    block_test_co_open("{'driver': 'raw', 'node-name': 'd2', 'file': 'a', "
                       "'offset': 1024}");
    co_attach_fails(file, NULL, BLK_PERM_RESIZE, BLK_PERM_ALL,
                    "Permission conflict on node 'a': permissions 'resize' "
                    "are both required by an unnamed block device (uses node "
                    "'a' as 'root' child) and unshared by node 'd2' (uses "
                    "node 'a' as 'file' child).");
    co_attach_fails(bdrv_find_node("d2"), "x", BLK_PERM_RESIZE, BLK_PERM_ALL,
                    "Permission conflict on node 'a': permissions 'resize' "
                    "are both required by node 'd2' (uses node 'a' as 'file' "
                    "child) and unshared by node 'd1' (uses node 'a' as "
                    "'file' child).");
    check_settled();
    blk = block_test_co_attach(file, "w", BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_co_free(blk);
    bdrv_co_close_all();
}

static void coroutine_fn test_read_only(void *opaque)
{
    BlockDriverState *raw, *ro = block_test_co_open(
        "{'driver': 'null-co', 'node-name': 'ro', 'read-only': true}");
    uint8_t byte = 0;
    QEMUIOVector qiov;
    BlockBackend *blk;
    Error *err = NULL;

    raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'r', 'file': 'ro'}");
    g_assert_true(bdrv_is_read_only(ro));
    g_assert_false(bdrv_is_read_only(raw));
    co_attach_fails(ro, "w", BLK_PERM_WRITE, BLK_PERM_ALL,
                    "Block node is read-only");
    co_attach_fails(raw, "w", BLK_PERM_WRITE, BLK_PERM_ALL,
                    "Block node is read-only");
    check_settled();

    blk = block_test_co_attach(raw, "r", BLK_PERM_CONSISTENT_READ
                               | BLK_PERM_RESIZE, BLK_PERM_ALL);
    qemu_iovec_init_buf(&qiov, &byte, 1);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pwritev(blk, 0, &qiov, 0), ==, -EPERM);
    g_assert_cmpint(blk_co_pwrite_zeroes(blk, 0, 1, 0), ==, -EPERM);
    g_assert_cmpint(blk_co_pdiscard(blk, 0, 1), ==, -EPERM);
    g_assert_cmpint(blk_co_truncate(blk, 1, PREALLOC_MODE_OFF, 0, &err), ==,
                    -EACCES);
    node_test_assert_error(err, "Image is read-only");
    blk_end_request(blk);
    blk_co_free(blk);
    bdrv_co_close_all();
}

/* auto-read-only: the file is opened for writing when a writer comes. */
static void coroutine_fn test_auto_read_only(void *opaque)
{
    g_autofree char *json = file_node("f", ", 'auto-read-only': true");
    BlockDriverState *bs = block_test_co_open(json);
    BlockBackend *blk = block_test_co_attach(bs, "r", BLK_PERM_CONSISTENT_READ,
                                             BLK_PERM_ALL);
    uint8_t buf[512] = "hello";
    Error *err = NULL;
    QEMUIOVector qiov;

    g_assert_false(bdrv_is_read_only(bs));
    g_assert_true(blk_co_set_perm(blk, BLK_PERM_CONSISTENT_READ
                                  | BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pwritev(blk, 0, &qiov, 0), ==, 0);
    blk_end_request(blk);
    g_assert_true(blk_co_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                                  &err));
    memset(buf, 0, sizeof(buf));
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
    blk_end_request(blk);
    g_assert_cmpstr((char *)buf, ==, "hello");
    blk_co_free(blk);
    block_test_co_close(bs);
}

/* ---- resize, queries ---- */

static void coroutine_fn co_resize(const char *device, const char *node,
                                   int64_t size, const char *text)
{
    Error *err = NULL;

    qmp_block_resize(&(QmpBlockResizeArg) {
        .device = (char *)device, .node_name = (char *)node, .size = size,
    }, &err);
    if (text) {
        node_test_assert_error(err, text);
    } else {
        node_test_no_error(err);
    }
}

static void coroutine_fn test_resize(void *opaque)
{
    g_autofree char *json = file_node("f", "");
    BlockDriverState *file = block_test_co_open(json);
    BlockDriverState *raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'r', 'file': 'f'}");

    block_test_co_open(NULL_NODE("n"));
    co_resize(NULL, "r", 2 << 20, NULL);
    g_assert_cmpint(bdrv_getlength(raw), ==, 2 << 20);
    g_assert_cmpint(bdrv_getlength(file), ==, 2 << 20);
    co_resize(NULL, "f", 1000, NULL);
    g_assert_cmpint(bdrv_getlength(raw), ==, 1000);
    co_resize(NULL, "r", 1 << 20, NULL);
    g_assert_cmpint(bdrv_getlength(file), ==, 1 << 20);

    co_resize(NULL, "r", -1, "Parameter 'size' expects a >0 size");
    co_resize("r", NULL, 1, "Cannot find device='r' nor node-name=''");
    co_resize(NULL, NULL, 1, "Cannot find device='' nor node-name=''");
    co_resize(NULL, "r", INT64_MAX, "offset(9223372036854775807) exceeds "
              "maximum(9223372035781033984)");
    co_resize(NULL, "n", 1, "Image format driver does not support resize");
    block_test_co_open("{'driver': 'raw', 'node-name': 'w', 'file': 'n', "
                       "'size': 512}");
    co_resize(NULL, "w", 1024, "Cannot resize fixed-size raw disks");
    check_settled();
    bdrv_co_close_all();
}

static void coroutine_fn test_queries(void *opaque)
{
    BlockDriverState *raw;
    g_autoptr(BlockDeviceInfoList) nodes = NULL;
    g_autoptr(BlockStatsList) stats = NULL;
    BlockBackend *blk;
    uint8_t buf[1024] = { 1 };
    QEMUIOVector qiov;

    block_test_co_open(NULL_NODE("f"));
    raw = block_test_co_open("{'driver': 'raw', 'node-name': 'r', "
                             "'file': 'f', 'detect-zeroes': 'on', "
                             "'cache': {'no-flush': true}}");
    blk = block_test_co_attach(raw, "b", BLK_PERM_ALL, BLK_PERM_ALL);
    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
    g_assert_cmpint(blk_co_pwritev(blk, 4096, &qiov, 0), ==, 0);
    g_assert_cmpint(blk_co_preadv(blk, 1048576, &qiov, 0), ==, -EIO);
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    blk_end_request(blk);
    blk_co_free(blk);

    nodes = qmp_query_named_block_nodes(&(QmpQueryNamedBlockNodesArg) { 0 },
                                        NULL);
    g_assert_cmpstr(nodes->value->node_name, ==, "r");
    g_assert_cmpstr(nodes->value->drv, ==, "raw");
    g_assert_cmpint(nodes->value->image->virtual_size, ==, 1048576);
    g_assert_cmpint(nodes->value->image->actual_size, ==, 0);
    g_assert_true(nodes->value->cache->no_flush);
    g_assert_cmpstr(nodes->value->children->value->child, ==, "file");
    g_assert_cmpstr(nodes->value->children->value->node_name, ==, "f");
    g_assert_cmpstr(nodes->next->value->node_name, ==, "f");
    g_assert_null(nodes->next->next);

    g_assert_null(qmp_query_block(&(QmpQueryBlockArg) { 0 }, NULL));
    g_assert_null(qmp_query_blockstats(&(QmpQueryBlockstatsArg) { 0 }, NULL));
    stats = qmp_query_blockstats(&(QmpQueryBlockstatsArg) {
        .has_query_nodes = true, .query_nodes = true }, NULL);
    g_assert_cmpstr(stats->value->node_name, ==, "f");
    g_assert_cmpstr(stats->next->value->node_name, ==, "r");
    g_assert_cmpstr(stats->next->value->parent->node_name, ==, "f");
    g_assert_cmpint(stats->next->value->stats->rd_bytes, ==, 1024);
    g_assert_cmpint(stats->next->value->stats->rd_operations, ==, 1);
    g_assert_cmpint(stats->next->value->stats->wr_operations, ==, 1);
    g_assert_cmpint(stats->next->value->stats->flush_operations, ==, 1);
    g_assert_cmpint(stats->next->value->stats->invalid_rd_operations, ==, 1);
    g_assert_cmpint(stats->next->value->stats->wr_highest_offset, ==, 5120);
    bdrv_co_close_all();
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), 1 << 20);
    block_test_add("/graph/names", test_names, NULL);
    block_test_add("/graph/children", test_children, NULL);
    block_test_add("/graph/close-all", test_close_all, NULL);
    block_test_add("/graph/inherit", test_inherit, NULL);
    block_test_add("/graph/filename", test_filename, NULL);
    block_test_add("/graph/permissions", test_permissions, NULL);
    block_test_add("/graph/permissions/window", test_window_permissions, NULL);
    block_test_add("/graph/read-only", test_read_only, NULL);
    block_test_add("/graph/auto-read-only", test_auto_read_only, NULL);
    block_test_add("/graph/resize", test_resize, NULL);
    block_test_add("/graph/queries", test_queries, NULL);
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
