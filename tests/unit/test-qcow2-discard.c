/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what discards, zeroes and deleted snapshots do to the file below, as
 * the options pass-discard-* and discard-no-unref say.
 */
#include <string.h>

#include "block/qcow2.h"
#include "block/snapshot.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define CLUSTER 65536
#define FILL 0x5a
#define WRITTEN 6           /* clusters */
#define GONE 2              /* of these */

typedef enum { DO_DISCARD, DO_ZERO, DO_SNAPSHOT } Action;

typedef struct Case {
    const char *name;
    const char *create;     /* -o; %s: the data file */
    const char *options;
    Action action;
    bool passed;            /* the file below loses the data */
} Case;

#define DATA_FILE "data_file=%s"
#define RAW_FILE "data_file=%s,data_file_raw=on"

static const Case cases[] = {
    { "default", "compat=1.1", "", DO_DISCARD, true },
    { "no", "compat=1.1", ", 'pass-discard-request': false", DO_DISCARD,
      false },
    { "v2", "compat=0.10", "", DO_DISCARD, true },
    { "no-unref", "compat=1.1", ", 'discard-no-unref': true", DO_DISCARD,
      true },
    { "no-unref/no", "compat=1.1", ", 'discard-no-unref': true, "
      "'pass-discard-request': false", DO_DISCARD, false },
    { "data-file", DATA_FILE, "", DO_DISCARD, true },
    { "data-file/no", DATA_FILE, ", 'pass-discard-request': false",
      DO_DISCARD, false },
    { "raw", RAW_FILE, "", DO_DISCARD, true },
    { "raw/no", RAW_FILE, ", 'pass-discard-request': false", DO_DISCARD,
      false },
    { "zero", "compat=1.1", "", DO_ZERO, true },
    { "zero/data-file", DATA_FILE, "", DO_ZERO, true },
    { "zero/data-file/no", DATA_FILE, ", 'pass-discard-request': false",
      DO_ZERO, false },
    /* It has to have the guest's zeroes. */
    { "zero/raw/no", RAW_FILE, ", 'pass-discard-request': false", DO_ZERO,
      true },
    { "snapshot", "compat=1.1", "", DO_SNAPSHOT, true },
    { "snapshot/no", "compat=1.1", ", 'pass-discard-snapshot': false",
      DO_SNAPSHOT, false },
};

/* Clusters of FILL that the file has. */
static size_t count_filled(const char *path)
{
    g_autofree char *data = NULL;
    size_t n = 0;
    gsize len;

    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    for (gsize i = 0; i < len; i++) {
        n += data[i] == FILL;
    }
    return n / CLUSTER;
}

static void coroutine_fn co_write(BlockBackend *blk, int64_t cluster,
                                  int64_t n, uint8_t fill)
{
    g_autofree uint8_t *buf = g_malloc(n * CLUSTER);
    QEMUIOVector qiov;

    memset(buf, fill, n * CLUSTER);
    qemu_iovec_init_buf(&qiov, buf, n * CLUSTER);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pwritev(blk, cluster * CLUSTER, &qiov, 0), ==, 0);
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    blk_end_request(blk);
}

static void coroutine_fn co_act(const Case *c, BlockDriverState *bs,
                                BlockBackend *blk)
{
    Error *err = NULL;

    if (c->action == DO_SNAPSHOT) {
        bdrv_co_snapshot_create(bs, "s", NULL, &err);
        node_test_no_error(err);
        co_write(blk, 1, GONE, 1);
        bdrv_co_snapshot_delete(bs, NULL, "s", &err);
        node_test_no_error(err);
        return;
    }
    blk_co_begin_request(blk);
    if (c->action == DO_ZERO) {
        g_assert_cmpint(blk_co_pwrite_zeroes(blk, CLUSTER, GONE * CLUSTER,
                                             BDRV_REQ_MAY_UNMAP), ==, 0);
    } else {
        g_assert_cmpint(blk_co_pdiscard(blk, CLUSTER, GONE * CLUSTER), ==, 0);
    }
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    blk_end_request(blk);
}

static void coroutine_fn co_test(void *opaque)
{
    const Case *c = opaque;
    g_autofree char *dir = image_test_folder("qsd-discard");
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    g_autofree char *data = g_build_filename(dir, "data", NULL);
    g_auto(GStrv) parts = g_strsplit(c->create, "%s", 2);
    g_autofree char *create = g_strjoinv(data, parts);
    bool external = parts[1];
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap'%s, "
        "'file': {'driver': 'file', 'discard': 'unmap', 'filename': '%s'}"
        "%s%s%s}", c->options, path, external
        ? ", 'data-file': {'driver': 'file', 'discard': 'unmap', "
          "'filename': '" : "", external ? data : "", external ? "'}" : "");
    const char *holder = external ? data : path;
    BlockDriverState *bs;
    BlockBackend *blk;

    image_test_run("qemu-img create -q -f qcow2 -o %s %s 1M", create, path);
    bs = block_test_co_open(json);
    blk = block_test_co_attach(bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
    co_write(blk, 0, WRITTEN, FILL);
    g_assert_cmpuint(count_filled(holder), ==, WRITTEN);
    co_act(c, bs, blk);
    g_assert_cmpuint(count_filled(holder), ==,
                     c->passed ? WRITTEN - GONE : WRITTEN);
    blk_co_free(blk);
    block_test_co_close(bs);
    image_test_run("qemu-img check -q -f qcow2 %s", path);
    image_test_run("rm -r %s", dir);
}

/* What writes give up is not remembered without limit until a flush. */
static void coroutine_fn co_test_limit(void *opaque)
{
    g_autofree char *dir = image_test_folder("qsd-discard");
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', "
        "'file': {'driver': 'file', 'filename': '%s'}}", path);
    g_autofree uint8_t *buf = g_malloc0(1 << 20);
    BlockDriverState *bs;
    BDRVQcow2State *s;
    BlockBackend *blk;
    QEMUIOVector qiov;

    image_test_run("qemu-img create -q -f qcow2 -o cluster_size=512,"
                   "preallocation=metadata %s 36M", path);
    image_test_run("qemu-img snapshot -c s %s", path);
    bs = block_test_co_open(json);
    s = bs->opaque;
    blk = block_test_co_attach(bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
    qemu_iovec_init_buf(&qiov, buf, 1 << 20);
    for (int64_t i = 0; i < 36; i++) {
        blk_co_begin_request(blk);
        g_assert_cmpint(blk_co_pwritev(blk, i << 20, &qiov, 0), ==, 0);
        blk_end_request(blk);
        g_assert_cmpuint(__atomic_load_n(&s->n_pending, __ATOMIC_RELAXED), <=,
                         65536);
    }
    blk_co_free(blk);
    block_test_co_close(bs);
    image_test_run("qemu-img check -q -f qcow2 %s", path);
    image_test_run("rm -r %s", dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2/discard/%s",
                                                cases[i].name);

        block_test_add(name, co_test, (void *)&cases[i]);
    }
    block_test_add("/qcow2/discard/limit", co_test_limit, NULL);
    return g_test_run();
}
