/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of the file drivers: a table of cases, each run with and
 * without io_uring, and small steps in coroutines.
 */
#ifndef TESTS_UNIT_FILE_TEST_H
#define TESTS_UNIT_FILE_TEST_H

#include "block/block-int.h"
#include "tests/unit/node-test.h"
#include "tests/unit/request-test.h"

/* Folders: on a disk, with luck, and in memory. */
#define FILE_TEST_DISK g_get_tmp_dir()
#define FILE_TEST_MEM "/dev/shm"

typedef void coroutine_fn CaseFunc(const char *dir, const char *opts);

typedef struct Case {
    AioBackend backend;
    const char *dir;
    const char *opts;
    CaseFunc *func;
} Case;

static inline void coroutine_fn case_entry(void *opaque)
{
    const Case *c = opaque;

    c->func(c->dir, c->opts);
}

static inline void run_case(gconstpointer data)
{
    const Case *c = data;
    AioContext *ctx = co_test_context_new(c->backend, true);

    if (!ctx) {
        return;
    }
    co_test_run(case_entry, (void *)data);
    aio_context_free(ctx);
}

/* As formats do it: past the end of the file. */
static inline int coroutine_fn co_append(BlockBackend *blk, int64_t offset,
                                         void *buf, int64_t bytes,
                                         BdrvRequestFlags flags)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(blk);
    ret = buf ? bdrv_co_pwritev(blk_root(blk), offset, &qiov, flags)
              : bdrv_co_pwrite_zeroes(blk_root(blk), offset, bytes, flags);
    blk_end_request(blk);
    return ret;
}

static inline int64_t coroutine_fn co_allocated(BlockBackend *blk)
{
    int64_t ret;

    blk_co_begin_request(blk);
    ret = blk_co_get_allocated_file_size(blk);
    blk_end_request(blk);
    return ret;
}

static inline void fill(uint8_t *buf, size_t bytes, uint32_t seed)
{
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1103515245 + 12345;
        buf[i] = (seed >> 16) | 1;          /* never zero */
    }
}

static inline void assert_zero(const uint8_t *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        g_assert_cmpint(buf[i], ==, 0);
    }
}

static inline void coroutine_fn co_close(BlockDriverState *bs,
                                         BlockBackend *blk)
{
    blk_co_free(blk);
    bdrv_co_unref(bs);
}

static inline void remove_file(char *path)
{
    g_assert_cmpint(unlink(path), ==, 0);
    g_free(path);
}

/* Opening fails with @fmt, in which %s stands for @path. */
static inline void coroutine_fn expect_refusal(const char *driver,
                                               const char *path,
                                               const char *opts,
                                               const char *fmt)
{
    g_auto(GStrv) parts = g_strsplit(fmt, "%s", 2);
    g_autofree char *want = g_strjoinv(path, parts);
    Error *err = NULL;

    g_assert_null(node_test_co_try_open_file(&err, driver, path, opts));
    node_test_assert_error(err, want);
    g_assert_null(bdrv_find_node("node"));
}

static inline void add(const char *name, const char *opts, const char *dir,
                       CaseFunc *func)
{
    static const struct {
        AioBackend backend;
        const char *name;
    } backends[] = {
        { AIO_BACKEND_IO_URING, "io_uring" }, { AIO_BACKEND_EPOLL, "epoll" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(backends); i++) {
        g_autofree char *path = g_strdup_printf(
            "/file-posix/%s%s%s/%s/%s", name, *opts ? "/" : "", opts,
            strcmp(dir, FILE_TEST_MEM) ? "disk" : "tmpfs", backends[i].name);
        Case *c = g_new(Case, 1);

        if (backends[i].backend == AIO_BACKEND_EPOLL
            && strstr(opts, "'io_uring'")) {
            g_free(c);
            continue;
        }
        *c = (Case) {
            .backend = backends[i].backend, .dir = dir, .opts = opts,
            .func = func,
        };
        g_test_add_data_func_full(path, c, run_case, g_free);
    }
}

#endif /* TESTS_UNIT_FILE_TEST_H */
