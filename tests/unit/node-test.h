/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of block drivers: nodes, users and scratch files.
 *
 * Coroutines, on the main thread's context.
 */
#ifndef TESTS_UNIT_NODE_TEST_H
#define TESTS_UNIT_NODE_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "qapi/json.h"
#include "qapi/visit.h"
#include "tests/unit/co-test.h"

/* Fails the test with the message if there is one. */
static inline void node_test_no_error(Error *err)
{
    if (err) {
        g_error("unexpected error: %s", error_get_pretty(err));
    }
}

/* Open the node that JSON text @json describes. */
static inline BlockDriverState *coroutine_fn
node_test_co_try_open(Error **errp, const char *json)
{
    Error *err = NULL;
    g_autoptr(BlockdevOptions) opts = NULL;
    QObject *obj = qobject_from_json(json, &err);

    node_test_no_error(err);
    opts = qapi_from_qobject(&qapi_type_BlockdevOptions, obj, false, &err);
    qobject_unref(obj);
    node_test_no_error(err);
    return bdrv_co_open(opts, true, errp);
}

/* Driver @driver on @path, with more options as JSON members (or ""). */
static inline BlockDriverState *coroutine_fn
node_test_co_try_open_file(Error **errp, const char *driver, const char *path,
                           const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': '%s', 'node-name': 'node', 'filename': '%s'%s%s}",
        driver, path, *more ? ", " : "", more);

    return node_test_co_try_open(errp, json);
}

static inline BlockDriverState *coroutine_fn
node_test_co_open_file(const char *driver, const char *path, const char *more)
{
    Error *err = NULL;
    BlockDriverState *bs = node_test_co_try_open_file(&err, driver, path,
                                                      more);

    node_test_no_error(err);
    return bs;
}

static inline BlockBackend *coroutine_fn
node_test_co_try_attach(Error **errp, BlockDriverState *bs, uint64_t perm,
                        uint64_t shared)
{
    BlockBackend *blk = blk_new("test", perm, shared);

    if (!blk_co_attach(blk, bs, errp)) {
        blk_co_free(blk);
        return NULL;
    }
    return blk;
}

/* A user who may do everything. */
static inline BlockBackend *coroutine_fn
node_test_co_attach(BlockDriverState *bs)
{
    Error *err = NULL;
    BlockBackend *blk = node_test_co_try_attach(&err, bs, BLK_PERM_ALL,
                                                BLK_PERM_ALL);

    node_test_no_error(err);
    return blk;
}

/* Check and free an error. */
#define node_test_assert_error(err, text)                       \
    do {                                                        \
        g_assert_nonnull(err);                                  \
        g_assert_cmpstr(error_get_pretty(err), ==, (text));     \
        g_clear_pointer(&(err), error_free);                    \
    } while (0)

/* A new file of @size bytes (a hole) in folder @dir; the caller frees. */
static inline char *node_test_scratch(const char *dir, int64_t size)
{
    char *path = g_build_filename(dir, "qsd-test-XXXXXX", NULL);
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
    return path;
}

/* One line of a command's output, or NULL if it failed; the caller frees. */
static inline char *node_test_run(const char *command)
{
    char *out = NULL;
    int status;

    if (!g_spawn_command_line_sync(command, &out, NULL, &status, NULL)
        || status != 0) {
        g_free(out);
        return NULL;
    }
    return g_strchomp(out);
}

#endif /* TESTS_UNIT_NODE_TEST_H */
