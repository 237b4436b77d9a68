/* SPDX-License-Identifier: MIT */
/*
 * The blkdebug driver: rules, events and states, its file of rules, limits,
 * permissions, and rules that several threads share.
 */
#include "tests/unit/block-test.h"

#include <string.h>
#include "block/blkdebug-config.h"

#define SIZE (1 << 20)

static char *image;                     /* a file of SIZE bytes */

/* blkdebug "d" over the image, with more options. */
static BlockDriverState *coroutine_fn co_open_debug(const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'blkdebug', 'node-name': 'd', 'discard': 'unmap', "
        "'image': {'driver': 'file', 'filename': '%s'}%s}", image, more);

    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, SIZE), ==, 0);
    return block_test_co_open(json);
}

/* A user of raw over blkdebug. */
static BlockBackend *coroutine_fn co_open_raw(const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'blkdebug', "
        "'node-name': 'd', 'image': {'driver': 'file', 'filename': '%s'}%s}}",
        image, more);

    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, SIZE), ==, 0);
    return block_test_co_attach(block_test_co_open(json), "b", BLK_PERM_ALL,
                                BLK_PERM_ALL);
}

static BlockBackend *coroutine_fn co_open_user(const char *more)
{
    return block_test_co_attach(co_open_debug(more), "b", BLK_PERM_ALL,
                                BLK_PERM_ALL);
}

static void coroutine_fn co_close_user(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    blk_co_free(blk);
    block_test_co_close(bs);
}

typedef enum Op { READ, WRITE, ZEROES, DISCARD, FLUSH, STATUS } Op;

static int coroutine_fn co_do(BlockBackend *blk, Op op, int64_t offset,
                              int64_t bytes)
{
    g_autofree char *buf = g_malloc0(bytes + 1);
    QEMUIOVector qiov;
    int64_t n;
    int ret;

    memset(buf, 'x', bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    switch (op) {
    case READ:
        ret = blk_co_preadv(blk, offset, &qiov, 0);
        break;
    case WRITE:
        ret = blk_co_pwritev(blk, offset, &qiov, 0);
        break;
    case ZEROES:
        ret = blk_co_pwrite_zeroes(blk, offset, bytes, 0);
        break;
    case DISCARD:
        ret = blk_co_pdiscard(blk, offset, bytes);
        break;
    case FLUSH:
        ret = blk_co_flush(blk);
        break;
    default:
        ret = MIN(blk_co_block_status(blk, offset, bytes, &n), 0);
        break;
    }
    blk_end_request(blk);
    return ret;
}

#define assert_op(blk, op, want) \
    g_assert_cmpint(co_do(blk, op, 0, 4096), ==, want)

/* ---- options ---- */

static void coroutine_fn test_options(void *opaque)
{
    static const struct {
        const char *more, *text;
    } cases[] = {
        { "'align': 3", "Cannot meet constraints with align 3" },
        { "'align': -1", "Value '-1' is out of range for parameter "
          "'align'" },
        { "'align': 4294967296",
          "Cannot meet constraints with align 4294967296" },
        { "'align': 4096, 'max-transfer': 512",
          "Cannot meet constraints with max-transfer 512" },
        { "'max-transfer': -5", "Value '-5' is out of range for parameter "
          "'max-transfer'" },
        { "'max-transfer': 2147483647",
          "Cannot meet constraints with max-transfer 2147483647" },
        { "'opt-write-zero': 4096, 'max-write-zero': 6000",
          "Cannot meet constraints with max-write-zero 6000" },
        { "'align': 512, 'opt-write-zero': 1000",
          "Cannot meet constraints with opt-write-zero 1000" },
        { "'opt-discard': 4096, 'max-discard': 6000",
          "Cannot meet constraints with max-discard 6000" },
        { "'config': '/nonexistent/file'", "Could not read blkdebug config "
          "file: No such file or directory" },
        { "'config': '/'", "Cannot read config file: Is a directory" },
        { "'inject-error': [{'event': 'none', 'errno': -5}]",
          "Parameter 'errno' expects a number from 0 to 511" },
        { "'inject-error': [{'event': 'none', 'errno': 512}]",
          "Parameter 'errno' expects a number from 0 to 511" },
        { "'inject-error': [{'event': 'none', 'delay-ns': -1}]",
          "Parameter 'delay-ns' expects a non-negative number below 2^64" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'blkdebug', 'node-name': 'd', 'image': {'driver': "
            "'null-co'}, %s}", cases[i].more);

        block_test_co_open_fails(json, cases[i].text);
    }
    block_test_co_open_fails("{'driver': 'blkdebug', 'node-name': 'd', "
                             "'image': 'missing'}", "Cannot find "
                             "device='missing' nor node-name='missing'");
}

static void coroutine_fn test_names(void *opaque)
{
    g_autofree char *plain = g_strdup_printf("blkdebug::%s", image);
    BlockDriverState *bs = co_open_debug("");

    g_assert_cmpstr(bs->filename, ==, plain);
    g_assert_cmpstr(bs->file->name, ==, "image");
    block_test_co_close(bs);

    bs = co_open_debug(", 'align': 512, 'inject-error': "
                       "[{'event': 'none', 'errno': 28}]");
    g_assert_true(g_str_has_prefix(bs->filename, "json:{\"driver\": "
                                   "\"blkdebug\", \"align\": 512, "
                                   "\"inject-error\": [{\"event\": \"none\", "
                                   "\"errno\": 28}], \"image\": {"));
    block_test_co_close(bs);
}

/* ---- errors ---- */

static void coroutine_fn test_iotype(void *opaque)
{
    static const char *const names[] = {
        "read", "write", "write-zeroes", "discard", "flush", "block-status",
    };
    BlockBackend *blk;

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *rule = g_strdup_printf(
            ", 'inject-error': [{'event': 'none', 'errno': 28, "
            "'iotype': '%s'}]", names[i]);

        blk = co_open_user(rule);
        for (Op op = READ; op <= STATUS; op++) {
            assert_op(blk, op, op == (Op)i ? -ENOSPC : 0);
        }
        assert_op(blk, i, -ENOSPC);
        co_close_user(blk);
    }

    blk = co_open_user(", 'inject-error': [{'event': 'none'}]");
    for (Op op = READ; op <= STATUS; op++) {
        assert_op(blk, op, op == STATUS ? 0 : -EIO);
    }
    co_close_user(blk);
}

/* An error without effect on the image, and then none any more. */
static void coroutine_fn test_once(void *opaque)
{
    BlockBackend *blk = co_open_user(
        ", 'inject-error': [{'event': 'none', 'iotype': 'write', "
        "'errno': 28, 'once': true}, {'event': 'none', 'iotype': 'write', "
        "'immediately': true, 'once': true}]");
    char buf[4096];
    QEMUIOVector qiov;

    assert_op(blk, WRITE, -ENOSPC);
    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
    g_assert_true(buffer_is_zero(buf, sizeof(buf)));
    blk_end_request(blk);
    assert_op(blk, WRITE, -EIO);
    assert_op(blk, WRITE, 0);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
    g_assert_cmpint(buf[0] + buf[4095], ==, 2 * 'x');
    blk_end_request(blk);
    co_close_user(blk);
}

static void coroutine_fn test_sector(void *opaque)
{
    BlockBackend *blk = co_open_user(
        ", 'inject-error': [{'event': 'none', 'sector': 16}, "
        "{'event': 'none', 'iotype': 'flush', 'sector': 0}, "
        "{'event': 'none', 'sector': 9223372036854775807}]");

    g_assert_cmpint(co_do(blk, READ, 0, 8192), ==, 0);
    g_assert_cmpint(co_do(blk, READ, 0, 8193), ==, -EIO);
    g_assert_cmpint(co_do(blk, WRITE, 8703, 1), ==, -EIO);
    g_assert_cmpint(co_do(blk, WRITE, 8704, 1), ==, 0);
    g_assert_cmpint(co_do(blk, READ, 8192, 512), ==, -EIO);
    assert_op(blk, FLUSH, 0);
    co_close_user(blk);
}

/* A rule without an error hides those after it. */
static void coroutine_fn test_no_error(void *opaque)
{
    BlockBackend *blk = co_open_user(
        ", 'inject-error': [{'event': 'none', 'iotype': 'read', 'errno': 0, "
        "'delay-ns': 2000000}, {'event': 'none'}]");
    int64_t start = clock_now_ns();

    assert_op(blk, READ, 0);
    g_assert_cmpint(clock_now_ns() - start, >=, 2000000);
    assert_op(blk, WRITE, -EIO);
    co_close_user(blk);
}

/* ---- events and states ---- */

/* What is active stays so until other errors become active. */
static void coroutine_fn test_active(void *opaque)
{
    BlockBackend *blk = co_open_raw(
        ", 'inject-error': [{'event': 'none', 'iotype': 'write'}, "
        "{'event': 'read_aio', 'errno': 28}]");

    assert_op(blk, WRITE, -EIO);
    assert_op(blk, READ, -ENOSPC);
    assert_op(blk, WRITE, -ENOSPC);
    co_close_user(blk);

    /* Changes of state and errors of other states are none. */
    blk = co_open_raw(
        ", 'inject-error': [{'event': 'none', 'iotype': 'write'}, "
        "{'event': 'read_aio', 'state': 5}], "
        "'set-state': [{'event': 'read_aio', 'new_state': 2}]");
    assert_op(blk, READ, 0);
    assert_op(blk, WRITE, -EIO);
    co_close_user(blk);
}

static void coroutine_fn test_state(void *opaque)
{
    BlockBackend *blk;

    blk = co_open_raw(
        ", 'inject-error': [{'event': 'write_aio', 'state': 3, "
        "'once': true}], 'set-state': ["
        "{'event': 'write_aio', 'state': 1, 'new_state': 2},"
        "{'event': 'write_aio', 'state': 2, 'new_state': 3},"
        "{'event': 'read_aio', 'state': 3, 'new_state': 1}]");
    assert_op(blk, WRITE, 0);
    assert_op(blk, WRITE, 0);
    assert_op(blk, WRITE, -EIO);
    assert_op(blk, WRITE, 0);
    co_close_user(blk);

    /* The state from before the event counts; of two changes the first. */
    blk = co_open_raw(
        ", 'inject-error': [{'event': 'read_aio', 'state': 1, 'once': true}, "
        "{'event': 'write_aio', 'state': 2, 'errno': 28}], 'set-state': ["
        "{'event': 'read_aio', 'new_state': 2},"
        "{'event': 'read_aio', 'new_state': 3}]");
    assert_op(blk, WRITE, 0);
    assert_op(blk, READ, -EIO);
    assert_op(blk, WRITE, -ENOSPC);
    co_close_user(blk);
}

/* Which event comes with which request: a rule for it, then the request. */
static void coroutine_fn test_events(void *opaque)
{
    static const struct {
        const char *event, *iotype;
        Op op;
        int64_t offset, bytes;
        Op victim;                      /* of what fails: itself or this */
    } cases[] = {
        { "read_aio", "read", READ, 0, 4096, READ },
        { "write_aio", "write", WRITE, 0, 4096, WRITE },
        { "flush_to_os", "flush", FLUSH, 0, 0, FLUSH },
        { "flush_to_disk", "flush", FLUSH, 0, 0, FLUSH },
        { "pwritev", "write", WRITE, 0, 4096, WRITE },
        { "pwritev", "write", WRITE, 100, 7, WRITE },
        { "pwritev_zero", "write-zeroes", ZEROES, 0, 4096, ZEROES },
        { "pwritev", "write", ZEROES, 100, 7, ZEROES },
        { "pwritev_done", "read", WRITE, 0, 4096, READ },
        { "pwritev_done", "read", WRITE, 100, 7, READ },
        { "pwritev_done", "read", ZEROES, 0, 4096, READ },
        { "pwritev_rmw_head", "read", WRITE, 100, 7, WRITE },
        { "pwritev_rmw_tail", "read", WRITE, 100, 7, WRITE },
        { "pwritev_rmw_after_head", "write", WRITE, 100, 7, WRITE },
        { "pwritev_rmw_after_tail", "write", WRITE, 100, 7, WRITE },
        { "pwritev_rmw_head", "read", WRITE, 100, 3996, WRITE },
        { "pwritev_rmw_tail", "read", WRITE, 0, 5000, WRITE },
        { "pwritev_rmw_after_tail", "write", WRITE, 0, 5000, WRITE },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *rule = g_strdup_printf(
            ", 'align': 4096, 'inject-error': [{'event': '%s', "
            "'iotype': '%s'}]", cases[i].event, cases[i].iotype);
        BlockBackend *blk = co_open_raw(rule);
        bool itself = cases[i].op == cases[i].victim;
        BlockDriverState *debug = blk_bs(blk)->file->bs;
        BlockBackend *below = block_test_co_attach(debug, "d", BLK_PERM_ALL,
                                                   BLK_PERM_ALL);

        if (!itself) {
            g_assert_cmpint(co_do(below, cases[i].victim, 0, 4096), ==, 0);
        }
        g_assert_cmpint(co_do(blk, cases[i].op, cases[i].offset,
                              cases[i].bytes), ==, itself ? -EIO : 0);
        g_assert_cmpint(co_do(below, cases[i].victim, cases[i].offset,
                              cases[i].bytes), ==, -EIO);
        blk_co_free(below);
        co_close_user(blk);
    }

    /* Aligned writes read nothing. */
    {
        BlockBackend *blk = co_open_raw(
            ", 'align': 4096, 'inject-error': ["
            "{'event': 'pwritev_rmw_head'}, {'event': 'pwritev_rmw_tail'}]");

        assert_op(blk, WRITE, 0);
        co_close_user(blk);
    }
}

/* ---- limits, length, permissions ---- */

static void coroutine_fn test_limits(void *opaque)
{
    BlockBackend *blk = co_open_user(
        ", 'align': 4096, 'max-transfer': 8192, 'opt-write-zero': 8192, "
        "'max-write-zero': 16384, 'opt-discard': 16384, 'max-discard': 32768, "
        "'inject-error': [{'event': 'none', 'iotype': 'write', "
        "'sector': 32}]");
    const BlockLimits *bl = &blk_bs(blk)->bl;
    char first;
    int fd;

    g_assert_cmpint(bl->request_alignment, ==, 4096);
    g_assert_cmpint(bl->max_transfer, ==, 8192);
    g_assert_cmpint(bl->pwrite_zeroes_alignment, ==, 8192);
    g_assert_cmpint(bl->max_pwrite_zeroes, ==, 16384);
    g_assert_cmpint(bl->pdiscard_alignment, ==, 16384);
    g_assert_cmpint(bl->max_pdiscard, ==, 32768);

    /* Cut into pieces, of which the third fails: 8 KiB each. */
    g_assert_cmpint(co_do(blk, WRITE, 0, 32768), ==, -EIO);
    fd = open(image, O_RDONLY);
    g_assert_cmpint(pread(fd, &first, 1, 16383), ==, 1);
    g_assert_cmpint(first, ==, 'x');
    g_assert_cmpint(pread(fd, &first, 1, 16384), ==, 1);
    g_assert_cmpint(first, ==, 0);
    close(fd);
    co_close_user(blk);
}

/* Units of zeroing and discard that are no powers of 2. */
static void coroutine_fn test_odd_units(void *opaque)
{
    BlockBackend *blk = co_open_user(
        ", 'align': 512, 'opt-write-zero': 1536, "
        "'max-write-zero': 4608, 'opt-discard': 7680");
    g_autofree char *bytes = g_malloc(32768);
    int fd = open(image, O_RDONLY);

    g_assert_cmpint(co_do(blk, WRITE, 0, 32768), ==, 0);
    g_assert_cmpint(co_do(blk, ZEROES, 1000, 19000), ==, 0);
    g_assert_cmpint(pread(fd, bytes, 32768, 0), ==, 32768);
    for (int i = 0; i < 32768; i++) {
        g_assert_cmpint(bytes[i], ==, i >= 1000 && i < 20000 ? 0 : 'x');
    }
    /* Only the unit from 23040 to 30720 is wholly in it. */
    g_assert_cmpint(co_do(blk, DISCARD, 22000, 10000), ==, 0);
    g_assert_cmpint(pread(fd, bytes, 32768, 0), ==, 32768);
    for (int i = 20000; i < 32768; i++) {
        g_assert_true(bytes[i] == 'x' || (i >= 23040 && i < 30720));
    }
    close(fd);
    co_close_user(blk);
}

static void coroutine_fn test_length(void *opaque)
{
    static const char text[] = "Cannot get 'write' permission without "
        "'resize': Image size is not a multiple of request alignment";
    BlockDriverState *bs;
    BlockBackend *blk;
    Error *err = NULL;
    struct stat st;

    bs = co_open_debug(", 'align': 4096");
    blk = block_test_co_attach(bs, "b", BLK_PERM_ALL, BLK_PERM_ALL);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_truncate(blk, 5000, PREALLOC_MODE_OFF, 0, &err), ==,
                    0);
    g_assert_cmpint(blk_getlength(blk), ==, 5000);
    blk_end_request(blk);
    /* A whole block is written, and what is too much cut off again. */
    g_assert_cmpint(co_do(blk, WRITE, 4990, 10), ==, 0);
    g_assert_cmpint(stat(image, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 5000);
    blk_co_free(blk);

    g_assert_null(node_test_co_try_attach(
        &err, bs, BLK_PERM_WRITE, BLK_PERM_ALL));
    node_test_assert_error(err, text);
    blk = block_test_co_attach(bs, "b", BLK_PERM_CONSISTENT_READ,
                               BLK_PERM_ALL);
    blk_co_free(blk);
    block_test_co_close(bs);
}

static void coroutine_fn test_perms(void *opaque)
{
    BlockDriverState *file = node_test_co_open_file("file", image, "");
    BlockDriverState *bs = block_test_co_open(
        "{'driver': 'blkdebug', 'node-name': 'd', 'image': 'node', "
        "'take-child-perms': ['write', 'resize'], "
        "'unshare-child-perms': ['write']}");
    Error *err = NULL;

    g_assert_cmpint(bs->file->perm, ==, BLK_PERM_WRITE | BLK_PERM_RESIZE);
    g_assert_cmpint(bs->file->shared_perm, ==, BLK_PERM_ALL & ~BLK_PERM_WRITE);
    g_assert_null(node_test_co_try_attach(&err, file, BLK_PERM_WRITE,
                                          BLK_PERM_ALL));
    node_test_assert_error(err, "Permission conflict on node 'node': "
                           "permissions 'write' are both required by test "
                           "(uses node 'node' as 'root' child) and unshared by "
                           "node 'd' (uses node 'node' as 'image' child).");
    block_test_co_close(bs);
    block_test_co_close(file);
}

/* ---- the file of rules ---- */

static void coroutine_fn test_config(void *opaque)
{
    static const char text[] =
        "# the second write fails\n"
        "\n"
        "[set-state]\n"
        "event = \"write_aio\"\n"
        "state = \"1\"\n"
        "new_state = \"2\"\n"
        "[inject-error \"id\"]\r\n"
        "\tevent=\"write_aio\"\n"
        "  state = \"2\"\n"
        "errno = \"5\"\n"
        "errno = \"28\"\n"
        "once = \"on\"";
    g_autofree char *path = node_test_scratch(g_get_tmp_dir(), 0);
    g_autofree char *more = g_strdup_printf(
        ", 'config': '%s', 'inject-error': [{'event': 'read_aio', "
        "'iotype': 'read'}]", path);
    g_autofree char *only = g_strdup_printf(", 'config': '%s'", path);
    g_autofree char *name = g_strdup_printf("blkdebug:%s:%s", path, image);
    BlockDriverState *bs;
    BlockBackend *blk;

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    blk = co_open_raw(more);
    assert_op(blk, WRITE, 0);
    assert_op(blk, WRITE, -ENOSPC);
    assert_op(blk, WRITE, 0);
    assert_op(blk, READ, -EIO);
    co_close_user(blk);

    bs = co_open_debug(only);
    g_assert_cmpstr(bs->filename, ==, name);
    block_test_co_close(bs);
    g_unlink(path);
}

static void test_bad_config(void)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        { "[bogus]\n", "There is no option group 'bogus'" },
        { "[inject-error]\nbogus = \"1\"\nevent = \"none\"\n",
          "Parameter 'bogus' is unexpected" },
        { "[inject-error]\nevent = \"bogus\"\n",
          "invalid parameter value: bogus" },
        { "[inject-error]\nerrno = \"5\"\n", "Missing event name for rule" },
        { "[inject-error]\n[set-state]\n", "Missing event name for rule" },
        { "event = \"none\"\n", "no group defined" },
        { "[inject-error\n", "Missing ']' after 'inject-error'" },
        { "[", "Missing ']' after ''" },
        { "[]", "There is no option group ''" },
        { "[inject-error]\ngarbage\n", "Invalid parameter 'garbage'" },
        { "[inject-error]\n= \"5\"\n", "Invalid parameter '= \"5\"'" },
        { "[inject-error]\nevent = none\n",
          "Parameter 'event' expects a value in quotes" },
        { "[inject-error]\nevent = \"none\n",
          "Parameter 'event' expects a value in quotes" },
        { "[inject-error]\nevent = \"\n",
          "Parameter 'event' expects a value in quotes" },
        { "[inject-error]\nevent = \"none\" x\n",
          "Parameter 'event' expects a value in quotes" },
        { "[inject-error]\nevent = \"none\"\nerrno = \"x\"\n",
          "Parameter 'errno' expects integer" },
        { "[inject-error]\nevent = \"none\"\nonce = \"maybe\"\n",
          "Parameter 'once' expects 'on' or 'off'" },
        { "[set-state]\nevent = \"none\"\n",
          "Parameter 'new_state' is missing" },
        { "\xff", "The blkdebug config file is not a text file" },
    };
    BlkdebugConfig config = { 0 };
    Error *err = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_false(blkdebug_config_parse(&config, cases[i].text,
                                             strlen(cases[i].text), &err));
        node_test_assert_error(err, cases[i].error);
        blkdebug_config_deinit(&config);
    }
    g_assert_false(blkdebug_config_parse(&config, "\0", 1, &err));
    g_clear_pointer(&err, error_free);
    g_assert_false(blkdebug_config_read(&config, "/dev/zero", &err));
    node_test_assert_error(err, "Cannot read config file: File too large");
    g_assert_true(blkdebug_config_parse(&config, "", 0, &err));
    g_assert_null(config.inject_error);
    blkdebug_config_deinit(&config);
}

/* ---- threads ---- */

#define N_WORKERS 12
#define N_WRITES 50
#define N_ERRORS 100

typedef struct Load {
    BlockBackend *blk;
    unsigned failed;                    /* atomic */
} Load;

static void coroutine_fn load_entry(void *opaque)
{
    Load *load = opaque;

    for (int i = 0; i < N_WRITES; i++) {
        int ret = co_do(load->blk, WRITE, i * 4096, 4096);

        g_assert_true(ret == 0 || ret == -ENOSPC);
        if (ret < 0) {
            __atomic_fetch_add(&load->failed, 1, __ATOMIC_RELAXED);
        }
        g_assert_cmpint(co_do(load->blk, READ, i * 4096, 4096), ==, 0);
    }
}

/* Every error comes exactly once, whoever gets it. */
static void coroutine_fn test_threads(void *opaque)
{
    g_autoptr(GString) rules = g_string_new(
        ", 'set-state': [{'event': 'read_aio', 'new_state': 2}], "
        "'inject-error': [");
    BlockTestGang *gang;
    Load load = { 0 };

    for (int i = 0; i < N_ERRORS; i++) {
        g_string_append_printf(rules, "{'event': 'write_aio', 'once': true, "
                               "'iotype': 'write', 'errno': 28%s},",
                               i % 3 ? "" : ", 'delay-ns': 10000");
    }
    g_string_append(rules, "{'event': 'none', 'errno': 0}]");
    load.blk = co_open_raw(rules->str);
    gang = block_test_gang_new();
    for (int i = 0; i < N_WORKERS; i++) {
        block_test_gang_start(gang, i, load_entry, &load);
    }
    block_test_gang_co_finish(gang);
    g_assert_cmpuint(load.failed, ==, N_ERRORS);
    co_close_user(load.blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), SIZE);
    block_test_add("/blkdebug/options", test_options, NULL);
    block_test_add("/blkdebug/names", test_names, NULL);
    block_test_add("/blkdebug/iotype", test_iotype, NULL);
    block_test_add("/blkdebug/once", test_once, NULL);
    block_test_add("/blkdebug/sector", test_sector, NULL);
    block_test_add("/blkdebug/no-error", test_no_error, NULL);
    block_test_add("/blkdebug/active", test_active, NULL);
    block_test_add("/blkdebug/state", test_state, NULL);
    block_test_add("/blkdebug/events", test_events, NULL);
    block_test_add("/blkdebug/limits", test_limits, NULL);
    block_test_add("/blkdebug/odd-units", test_odd_units, NULL);
    block_test_add("/blkdebug/length", test_length, NULL);
    block_test_add("/blkdebug/perms", test_perms, NULL);
    block_test_add("/blkdebug/config", test_config, NULL);
    g_test_add_func("/blkdebug/bad-config", test_bad_config);
    block_test_add("/blkdebug/threads", test_threads, NULL);
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
