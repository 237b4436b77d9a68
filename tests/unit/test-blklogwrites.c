/* SPDX-License-Identifier: MIT */
/*
 * The blklogwrites driver: what is logged in which order, that a replay gives
 * the image, failures of image and log, and logs from hostile sources.
 */
#include "tests/unit/block-test.h"

#include <string.h>
#include "tests/unit/log-writes-test.h"
#include "tests/unit/request-test.h"

#define SIZE (256 * KiB)
#define ROOM (512 * KiB)                /* the image may grow up to here */

static char *image, *image_log;

/* Empty log, image of zeroes. */
static void reset_files(void)
{
    g_assert_cmpint(truncate(image_log, 0), ==, 0);
    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, SIZE), ==, 0);
}

/* The node over @file and @log, JSON texts. */
static BlockBackend *coroutine_fn co_open_over(const char *file,
                                               const char *log,
                                               const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'blklogwrites', 'node-name': 'd', 'discard': 'unmap', "
        "'file': %s, 'log': %s%s}", file, log, more);

    return block_test_co_attach(block_test_co_open(json), "b", BLK_PERM_ALL,
                                BLK_PERM_ALL);
}

static char *file_json(const char *path)
{
    return g_strdup_printf("{'driver': 'file', 'filename': '%s'}", path);
}

/* @path below blkdebug with one rule. */
static char *debug_json(const char *path, const char *rule)
{
    return g_strdup_printf(
        "{'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': "
        "'%s'}, 'inject-error': [{'event': 'none', %s}]}", path, rule);
}

static BlockBackend *coroutine_fn co_open_log(const char *more)
{
    g_autofree char *file = file_json(image);
    g_autofree char *log = file_json(image_log);

    return co_open_over(file, log, more);
}

static void coroutine_fn co_close_log(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    blk_co_free(blk);
    block_test_co_close(bs);
}

/* ---- requests ---- */

static int coroutine_fn co_fill(BlockBackend *blk, int64_t offset,
                                int64_t bytes, int c, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, c, bytes);
    return co_write(blk, offset, buf, bytes, flags);
}

/* ---- looking at the log ---- */

/* "sector+sectors:flags" of each entry. */
static char *describe_log(void)
{
    Replay *r = replay_open(image_log);
    GString *text = g_string_new(NULL);

    for (uint64_t i = 0; i < r->n_entries; i++) {
        g_string_append_printf(text, "%s%d+%d:%d", i ? " " : "",
                               (int)r->entries[i].sector,
                               (int)r->entries[i].n_sectors,
                               (int)r->entries[i].flags);
    }
    replay_free(r);
    return g_string_free(text, FALSE);
}

static void assert_log(const char *want)
{
    g_autofree char *got = describe_log();

    g_assert_cmpstr(got, ==, want);
}

/* The log applied to zeroes is the image. */
static void assert_replay(void)
{
    Replay *r = replay_open(image_log);
    g_autofree uint8_t *disk = g_malloc0(ROOM);
    g_autofree uint8_t *text = NULL;
    gsize len;

    replay_apply(r, r->n_entries, disk, ROOM);
    g_assert_true(g_file_get_contents(image, (char **)&text, &len, NULL));
    g_assert_cmpuint(len, <=, ROOM);
    g_assert_cmpmem(disk, len, text, len);
    replay_free(r);
}

/* ---- what is logged ---- */

static void coroutine_fn test_entries(void *opaque)
{
    BlockBackend *blk;
    Replay *r;

    reset_files();
    blk = co_open_log("");
    assert_log("");
    g_assert_cmpint(co_fill(blk, 4096, 1024, 'a', 0), ==, 0);
    g_assert_cmpint(co_fill(blk, 8192, 512, 'b', BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 4608, 1024, 0), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, 0);
    assert_log("8+2:0 16+1:2 9+2:0 0+0:1");
    /* A part of a sector is logged as the whole sector. */
    g_assert_cmpint(co_fill(blk, 4100, 7, 'c', 0), ==, 0);
    g_assert_cmpint(co_discard(blk, 16 * KiB, 8 * KiB), ==, 0);
    g_assert_cmpint(co_discard(blk, 1, 100), ==, 0);
    co_close_log(blk);
    assert_log("8+2:0 16+1:2 9+2:0 0+0:1 8+1:0 32+16:4 0+0:1");
    assert_replay();

    r = replay_open(image_log);
    g_assert_cmpint(r->sector_size, ==, 512);
    g_assert_cmpint(r->entries[0].data[1023], ==, 'a');
    g_assert_true(buffer_is_zero(r->entries[2].data, 1024));
    g_assert_cmpint(r->entries[4].data[3], ==, 'a');
    g_assert_cmpint(r->entries[4].data[4], ==, 'c');
    g_assert_cmpuint(r->len, ==, 512 * (1 + 7 + 2 + 1 + 2 + 1));
    replay_free(r);
}

static void coroutine_fn test_sector_size(void *opaque)
{
    BlockBackend *blk;

    reset_files();
    blk = co_open_log(", 'log-sector-size': 4096");
    g_assert_cmpint(blk_get_request_alignment(blk), ==, 4096);
    g_assert_cmpint(co_fill(blk, 5000, 10, 'a', 0), ==, 0);
    co_close_log(blk);
    assert_log("1+1:0 0+0:1");
    assert_replay();
}

static void coroutine_fn test_super_interval(void *opaque)
{
    BlockBackend *blk;

    reset_files();
    blk = co_open_log(", 'log-super-update-interval': 3");
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, 0);
    g_assert_cmpint(co_fill(blk, 512, 512, 'b', 0), ==, 0);
    assert_log("");
    g_assert_cmpint(co_zeroes(blk, 1024, 512, 0), ==, 0);
    assert_log("0+1:0 1+1:0 2+1:0");
    g_assert_cmpint(co_fill(blk, 512, 512, 'c', 0), ==, 0);
    assert_log("0+1:0 1+1:0 2+1:0");
    co_close_log(blk);
    assert_log("0+1:0 1+1:0 2+1:0 1+1:0 0+0:1");

    reset_files();
    blk = co_open_log(", 'log-super-update-interval': 18446744073709551615");
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, 0);
    assert_log("");
    co_close_log(blk);
    assert_log("0+1:0 0+0:1");
}

static void coroutine_fn test_truncate(void *opaque)
{
    BlockBackend *blk;

    reset_files();
    blk = co_open_log("");
    g_assert_cmpint(co_fill(blk, 0, SIZE, 'a', 0), ==, 0);
    g_assert_cmpint(co_truncate(blk, 1000, PREALLOC_MODE_OFF, NULL), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 1000);
    g_assert_cmpint(co_fill(blk, 990, 10, 'b', 0), ==, 0);
    g_assert_cmpint(co_truncate(blk, 10000, PREALLOC_MODE_OFF, NULL), ==, 0);
    g_assert_cmpint(co_fill(blk, 9999, 1, 'c', 0), ==, 0);
    g_assert_cmpint(co_truncate(blk, ROOM, PREALLOC_MODE_OFF, NULL), ==, 0);
    g_assert_cmpint(co_fill(blk, ROOM - 1, 1, 'd', 0), ==, 0);
    g_assert_cmpint(co_truncate(blk, 2048, PREALLOC_MODE_OFF, NULL), ==, 0);
    g_assert_cmpint(co_truncate(blk, SIZE, PREALLOC_MODE_OFF, NULL), ==, 0);
    co_close_log(blk);
    assert_log("0+512:0 1+1:0 2+510:4 1+1:0 19+1:0 1023+1:0 4+1020:4 0+0:1");
    assert_replay();
}

static void coroutine_fn test_read_only(void *opaque)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'blklogwrites', 'node-name': 'd', 'read-only': true, "
        "'file': {'driver': 'file', 'filename': '%s'}, "
        "'log': {'driver': 'file', 'filename': '%s'}}", image, image_log);
    BlockDriverState *bs;
    BlockBackend *blk;
    struct stat st;

    reset_files();
    bs = block_test_co_open(json);
    blk = block_test_co_attach(bs, "b", BLK_PERM_CONSISTENT_READ,
                               BLK_PERM_ALL);
    g_assert_cmpint(co_flush(blk), ==, 0);
    co_close_log(blk);
    g_assert_cmpint(stat(image_log, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 0);
}

/* ---- order ---- */

typedef struct Request {
    BlockBackend *blk;
    int64_t offset;                     /* of a write; -1: flush */
    int c;
    int ret;
    bool done;
} Request;

static void coroutine_fn request_entry(void *opaque)
{
    Request *req = opaque;

    req->ret = req->offset < 0 ? co_flush(req->blk)
                               : co_fill(req->blk, req->offset, 512, req->c,
                                          0);
    req->done = true;
}

/* Let it run until it waits. */
static void start(Request *req)
{
    coroutine_enter(coroutine_create(request_entry, req));
}

static void coroutine_fn co_finish(Request *req)
{
    while (!req->done) {
        aio_co_sleep_ns(100000);
    }
}

/* What ends while a flush is under way comes behind it. */
static void coroutine_fn test_flush_order(void *opaque)
{
    g_autofree char *file = debug_json(
        image, "'iotype': 'flush', 'once': true, 'errno': 0, "
        "'delay-ns': 20000000");
    g_autofree char *log = file_json(image_log);
    Request req;

    reset_files();
    req = (Request) { .blk = co_open_over(file, log, ""), .offset = -1 };
    g_assert_cmpint(co_fill(req.blk, 0, 512, 'a', 0), ==, 0);
    start(&req);
    g_assert_cmpint(co_fill(req.blk, 512, 512, 'b', 0), ==, 0);
    g_assert_false(req.done);
    co_finish(&req);
    g_assert_cmpint(req.ret, ==, 0);
    co_close_log(req.blk);
    assert_log("0+1:0 0+0:1 1+1:0 0+0:1");
}

/* The image gets writes that overlap in the order of the log. */
static void coroutine_fn test_overlap(void *opaque)
{
    g_autofree char *file = debug_json(
        image, "'iotype': 'write', 'once': true, 'errno': 0, "
        "'delay-ns': 20000000");
    g_autofree char *log = file_json(image_log);
    Request req;

    reset_files();
    req = (Request) { .blk = co_open_over(file, log, ""), .c = 'a' };
    start(&req);
    g_assert_cmpint(co_fill(req.blk, 1024, 512, 'c', 0), ==, 0);
    g_assert_false(req.done);
    g_assert_cmpint(co_fill(req.blk, 0, 1024, 'b', 0), ==, 0);
    g_assert_true(req.done);
    co_close_log(req.blk);
    assert_log("2+1:0 0+1:0 0+2:0 0+0:1");
    assert_replay();
}

/* ---- failures ---- */

static void coroutine_fn test_image_fails(void *opaque)
{
    g_autofree char *log = file_json(image_log);
    g_autofree char *file = debug_json(image, "'iotype': 'write', "
                                       "'once': true, 'errno': 28");
    g_autofree char *flush = debug_json(image, "'iotype': 'flush', "
                                        "'once': true");
    BlockBackend *blk;

    reset_files();
    blk = co_open_over(file, log, "");
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, -ENOSPC);
    g_assert_cmpint(co_fill(blk, 0, 1024, 'a', 0), ==, 0);
    co_close_log(blk);
    assert_log("0+2:0 0+0:1");
    assert_replay();

    /* A flush that fails leaves an entry without effect. */
    reset_files();
    blk = co_open_over(flush, log, "");
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, -EIO);
    g_assert_cmpint(co_flush(blk), ==, 0);
    co_close_log(blk);
    assert_log("0+1:0 0+0:0 0+0:1 0+0:1");
}

/* The last entry gives its place back: the request may be tried again. */
static void coroutine_fn test_log_fails(void *opaque)
{
    g_autofree char *file = file_json(image);
    g_autofree char *log = debug_json(image_log, "'iotype': 'write', "
                                      "'sector': 3, 'once': true, "
                                      "'errno': 28");
    BlockBackend *blk;

    reset_files();
    blk = co_open_over(file, log, "");
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, 0);
    g_assert_cmpint(co_fill(blk, 512, 512, 'b', 0), ==, -ENOSPC);
    g_assert_cmpint(co_fill(blk, 512, 1024, 'c', 0), ==, 0);
    co_close_log(blk);
    assert_log("0+1:0 1+2:0 0+0:1");
    assert_replay();
}

/* With entries behind the one that failed the log has ended. */
static void coroutine_fn test_log_ends(void *opaque)
{
    g_autofree char *log = debug_json(image_log, "'iotype': 'write', "
                                      "'sector': 3, 'once': true, "
                                      "'delay-ns': 20000000, 'errno': 28");
    g_autoptr(Error) err = NULL;
    Request req;
    BlockBackend *blk;
    struct stat st;

    reset_files();
    blk = co_open_over("{'driver': 'null-co', 'size': 262144}", log, "");
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, 0);
    req = (Request) { .blk = blk, .offset = 512, .c = 'b' };
    start(&req);
    g_assert_cmpint(co_fill(blk, 1024, 512, 'c', 0), ==, 0);
    g_assert_false(req.done);
    co_finish(&req);
    g_assert_cmpint(req.ret, ==, -ENOSPC);

    g_assert_cmpint(co_fill(blk, 2048, 512, 'd', 0), ==, -ENOSPC);
    g_assert_cmpint(co_zeroes(blk, 2048, 512, 0), ==, -ENOSPC);
    g_assert_cmpint(co_flush(blk), ==, -ENOSPC);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_truncate(blk, 0, PREALLOC_MODE_OFF, 0, &err), ==,
                    -ENOSPC);
    blk_end_request(blk);
    g_assert_cmpstr(error_get_pretty(err), ==, "The write log cannot be "
                    "continued: No space left on device");
    co_close_log(blk);
    assert_log("0+1:0");

    /* What has been counted is not lost by somebody who goes on. */
    blk = co_open_log(", 'log-append': true");
    g_assert_cmpint(co_fill(blk, 512, 512, 'e', 0), ==, 0);
    co_close_log(blk);
    assert_log("0+1:0 1+1:0 0+0:1");
    g_assert_cmpint(stat(image_log, &st), ==, 0);
    g_assert_cmpint(st.st_size, >=, 512 * 6);
}

/* ---- load ---- */

#define N_WORKERS 9
#define N_STEPS 60

typedef struct Load {
    BlockBackend *blk;
    unsigned seed;
} Load;

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return *seed >> 8;
}

static void coroutine_fn load_entry(void *opaque)
{
    Load *load = opaque;

    for (int i = 0; i < N_STEPS; i++) {
        unsigned what = next_random(&load->seed) % 16;
        int64_t offset = next_random(&load->seed) % (SIZE - 20000);
        int64_t bytes = 1 + next_random(&load->seed) % 20000;
        int c = 1 + next_random(&load->seed) % 255;
        int ret;

        if (what % 2) {
            offset &= ~511;
            bytes = (bytes + 511) & ~511;
        }
        if (what == 0) {
            ret = co_flush(load->blk);
        } else if (what < 3) {
            ret = co_zeroes(load->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
        } else if (what < 5) {
            ret = co_discard(load->blk, offset, bytes);
        } else {
            ret = co_fill(load->blk, offset, bytes, c,
                           what == 5 ? BDRV_REQ_FUA : 0);
        }
        g_assert_cmpint(ret, ==, 0);
    }
}

/* Several threads; a second round goes on with the log of the first. */
static void coroutine_fn test_load(void *opaque)
{
    reset_files();
    for (int round = 0; round < 2; round++) {
        BlockTestGang *gang = block_test_gang_new();
        BlockBackend *blk = co_open_log(
            round ? ", 'log-append': true, 'log-super-update-interval': 7"
                  : "");
        Load loads[N_WORKERS];

        for (int i = 0; i < N_WORKERS; i++) {
            loads[i] = (Load) { .blk = blk, .seed = round * 100 + i };
            block_test_gang_start(gang, i, load_entry, &loads[i]);
        }
        block_test_gang_co_finish(gang);
        co_close_log(blk);
        assert_replay();
    }
}

/* ---- opening ---- */

static void coroutine_fn co_open_fails(const char *more, const char *text)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'blklogwrites', 'node-name': 'd', 'file': {'driver': "
        "'null-co'}, 'log': {'driver': 'file', 'filename': '%s'}%s}",
        image_log, more);

    block_test_co_open_fails(json, text);
}

static void coroutine_fn test_options(void *opaque)
{
    static const char odd[] = "Cannot get 'write' permission without "
        "'resize': Image size is not a multiple of request alignment";
    Error *err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;

    reset_files();
    co_open_fails(", 'log-sector-size': 1000", "Invalid log sector size 1000");
    co_open_fails(", 'log-sector-size': 0", "Invalid log sector size 0");
    co_open_fails(", 'log-sector-size': 16", "Invalid log sector size 16");
    co_open_fails(", 'log-sector-size': 16777216",
                  "Invalid log sector size 16777216");
    co_open_fails(", 'log-super-update-interval': 0",
                  "Invalid log superblock update interval 0");
    co_open_fails(", 'log-append': true, 'log-sector-size': 512",
                  "log-append and log-sector-size are mutually exclusive");
    co_open_fails(", 'log-append': true", "Invalid log superblock magic");
    block_test_co_open_fails("{'driver': 'blklogwrites', 'node-name': 'd', "
                             "'file': {'driver': 'null-co'}, 'log': 'none'}",
                             "Cannot find device='none' nor "
                             "node-name='none'");
    block_test_co_open_fails("{'driver': 'blklogwrites', 'node-name': 'd', "
                             "'file': {'driver': 'null-co'}, 'log': {'driver':"
                             " 'null-co', 'read-only': true}}",
                             "Block node is read-only");
    block_test_co_open_fails("{'driver': 'blklogwrites', 'node-name': 'd', "
                             "'file': {'driver': 'null-co'}, 'log': {'driver':"
                             " 'null-co', 'size': 100}}",
                             "Could not write log superblock: Input/output "
                             "error");

    blk = co_open_log(", 'log-sector-size': 4096");
    bs = blk_bs(blk);
    g_assert_nonnull(strstr(bs->filename, "\"log-sector-size\": 4096"));
    g_assert_cmpint(co_truncate(blk, 1000, PREALLOC_MODE_OFF, NULL), ==, 0);
    blk_co_free(blk);
    g_assert_null(node_test_co_try_attach(&err, bs, BLK_PERM_WRITE,
                                          BLK_PERM_ALL));
    node_test_assert_error(err, odd);
    block_test_co_close(bs);
}

static void put_number(uint8_t *buf, size_t pos, uint64_t n, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        buf[pos + i] = n >> (8 * i);
    }
}

/* A log with a write of one sector, a mark and a discard. */
static void make_log(uint8_t *buf)
{
    memset(buf, 0, 5 * 512);
    put_number(buf, 0, 0x6a736677736872, 8);
    put_number(buf, 8, 1, 8);
    put_number(buf, 16, 3, 8);
    put_number(buf, 24, 512, 4);
    put_number(buf, 512, 3, 8);
    put_number(buf, 520, 1, 8);
    put_number(buf, 1536 + 16, 8, 8);
    put_number(buf, 1536 + 24, 4, 8);
    memcpy(buf + 1536 + 32, "mark", 4);
    put_number(buf, 2048 + 8, 1000, 8);
    put_number(buf, 2048 + 16, 4, 8);
}

static void write_log(const uint8_t *buf, size_t len)
{
    g_assert_true(g_file_set_contents(image_log, (const char *)buf, len,
                                      NULL));
}

static void patch_log(const uint8_t *buf, off_t pos, size_t len)
{
    int fd = open(image_log, O_WRONLY);

    g_assert_cmpint(pwrite(fd, buf, len, pos), ==, len);
    close(fd);
}

static void coroutine_fn test_hostile_log(void *opaque)
{
    static const struct {
        size_t pos;
        uint64_t n;
        int bytes;
        const char *error;
    } cases[] = {
        { 0, 1, 8, "Invalid log superblock magic" },
        { 8, 2, 8, "Unsupported log version 2" },
        { 8, UINT64_MAX, 8, "Unsupported log version 18446744073709551615" },
        { 24, 0, 4, "Invalid log sector size 0" },
        { 24, 1000, 4, "Invalid log sector size 1000" },
        { 24, 16, 4, "Invalid log sector size 16" },
        { 24, UINT32_MAX, 4, "Invalid log sector size 4294967295" },
        { 24, 8 << 20, 4, "Invalid log entry 0: the log ends before it" },
        { 16, 4, 8, "Invalid log entry 3: the log ends before it" },
        { 16, 1ull << 63, 8, "Invalid log entry 3: the log ends before it" },
        { 16, UINT64_MAX, 8, "Invalid log entry 3: the log ends before it" },
        { 520, 4, 8, "Invalid log entry 0: the log ends in its data" },
        { 520, 1ull << 55, 8, "Invalid log entry 0: sectors out of range" },
        { 520, UINT64_MAX, 8, "Invalid log entry 0: sectors out of range" },
        { 512, UINT64_MAX, 8, "Invalid log entry 0: sectors out of range" },
        { 528, 32, 8, "Invalid log entry 0: unknown flags" },
        { 528, 1ull << 63, 8, "Invalid log entry 0: unknown flags" },
        { 1560, 481, 8, "Invalid log entry 1: a mark that is too long" },
        { 2056, UINT64_MAX / 512, 8,
          "Invalid log entry 2: sectors out of range" },
    };
    uint8_t buf[5 * 512];
    BlockBackend *blk;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        make_log(buf);
        put_number(buf, cases[i].pos, cases[i].n, cases[i].bytes);
        write_log(buf, sizeof(buf));
        co_open_fails(", 'log-append': true", cases[i].error);
    }
    make_log(buf);
    write_log(buf, sizeof(buf) - 1);
    co_open_fails(", 'log-append': true",
                  "Invalid log entry 2: the log ends before it");
    write_log(buf, 25);
    co_open_fails(", 'log-append': true", "Invalid log sector size 0");

    write_log(buf, sizeof(buf));
    blk = co_open_log(", 'log-append': true");
    g_assert_nonnull(strstr(blk_bs(blk)->filename, "\"log-append\": true"));
    g_assert_cmpint(co_fill(blk, 0, 512, 'a', 0), ==, 0);
    co_close_log(blk);
    make_log(buf);
    put_number(buf, 1536 + 16, 0, 8);   /* the reader here knows no marks */
    put_number(buf, 1536 + 24, 0, 8);
    patch_log(buf + 1536, 1536, 512);
    assert_log("3+1:0 0+0:0 0+1000:4 0+1:0 0+0:1");
}

/* Random damage: it opens or it does not. */
static void coroutine_fn test_damaged_log(void *opaque)
{
    uint8_t buf[5 * 512];
    unsigned seed = 1, opened = 0;

    for (int i = 0; i < 300; i++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'blklogwrites', 'node-name': 'd', 'file': {'driver': "
            "'null-co'}, 'log': {'driver': 'file', 'filename': '%s'}, "
            "'log-append': true}", image_log);
        g_autoptr(Error) err = NULL;
        BlockDriverState *bs;

        make_log(buf);
        for (unsigned n = 1 + next_random(&seed) % 3; n > 0; n--) {
            static const uint16_t at[] = { 16, 24, 512, 1536, 2048 };
            unsigned pos = at[next_random(&seed) % G_N_ELEMENTS(at)]
                           + next_random(&seed) % 32;

            buf[pos] ^= 1 << next_random(&seed) % 8;
        }
        write_log(buf, sizeof(buf));
        bs = node_test_co_try_open(&err, json);
        g_assert_true(!bs == !!err);
        if (bs) {
            opened++;
            block_test_co_close(bs);
        }
    }
    g_assert_cmpuint(opened, >, 0);
    g_assert_cmpuint(opened, <, 300);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), SIZE);
    image_log = node_test_scratch(g_get_tmp_dir(), 0);
    block_test_add("/blklogwrites/entries", test_entries, NULL);
    block_test_add("/blklogwrites/sector-size", test_sector_size, NULL);
    block_test_add("/blklogwrites/super-interval", test_super_interval, NULL);
    block_test_add("/blklogwrites/truncate", test_truncate, NULL);
    block_test_add("/blklogwrites/read-only", test_read_only, NULL);
    block_test_add("/blklogwrites/flush-order", test_flush_order, NULL);
    block_test_add("/blklogwrites/overlap", test_overlap, NULL);
    block_test_add("/blklogwrites/image-fails", test_image_fails, NULL);
    block_test_add("/blklogwrites/log-fails", test_log_fails, NULL);
    block_test_add("/blklogwrites/log-ends", test_log_ends, NULL);
    block_test_add("/blklogwrites/load", test_load, NULL);
    block_test_add("/blklogwrites/options", test_options, NULL);
    block_test_add("/blklogwrites/hostile-log", test_hostile_log, NULL);
    block_test_add("/blklogwrites/damaged-log", test_damaged_log, NULL);
    ret = g_test_run();
    g_unlink(image);
    g_unlink(image_log);
    g_free(image);
    g_free(image_log);
    return ret;
}
