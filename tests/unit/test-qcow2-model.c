/* SPDX-License-Identifier: MIT */
/*
 * qcow2 against a model: random requests from coroutines of several threads
 * on ranges that do not overlap (but share clusters), and after each what a
 * flat array says.  Between rounds everything stands still: the image is read
 * whole, resized, gets snapshots, is closed, judged by qemu-img, reopened with
 * other options.
 *
 * Environment: QCOW2_MODEL_SEED, QCOW2_MODEL_ROUNDS (default 6),
 * QCOW2_MODEL_OPS (of each worker and round, default 60), QCOW2_MODEL_WORKERS
 * (default 8; 1 makes a run repeatable).
 */
#include <string.h>

#include "block/snapshot.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define MAX_BYTES (12 << 20)
#define START_BYTES (8 << 20)

typedef struct Config {
    const char *name;
    const char *create;         /* -o */
    const char *backing;        /* size of a raw or qcow2 backing, or NULL */
    bool v2;                    /* no zero clusters: discards may do nothing */
    bool data_file;
    bool compressed;            /* begins so, and writes some */
    bool no_resize;
    bool snapshots;
} Config;

static const Config configs[] = {
    { .name = "default", .create = "lazy_refcounts=off", .snapshots = true },
    { .name = "512", .create = "cluster_size=512", .snapshots = true },
    { .name = "4k", .create = "cluster_size=4k", .backing = "6M" },
    { .name = "2M", .create = "cluster_size=2M", .backing = "5000K" },
    { .name = "extended", .create = "extended_l2=on", .snapshots = true },
    { .name = "extended-16k", .create = "extended_l2=on,cluster_size=16k",
      .backing = "7M", .snapshots = true },
    { .name = "refcount-1", .create = "refcount_bits=1" },
    { .name = "refcount-2", .create = "refcount_bits=2,cluster_size=1k" },
    { .name = "refcount-8", .create = "refcount_bits=8,cluster_size=2k",
      .snapshots = true },
    { .name = "refcount-64", .create = "refcount_bits=64,cluster_size=512" },
    { .name = "v2", .create = "compat=0.10", .v2 = true, .snapshots = true },
    { .name = "v2-backing", .create = "compat=0.10,cluster_size=4k",
      .backing = "8M", .v2 = true },
    { .name = "lazy", .create = "lazy_refcounts=on,cluster_size=4k" },
    { .name = "data-file", .create = "data_file=%s", .data_file = true },
    { .name = "data-file-raw", .create = "data_file=%s,data_file_raw=on",
      .data_file = true, .no_resize = true },
    { .name = "zlib", .create = "compression_type=zlib", .compressed = true,
      .snapshots = true },
    { .name = "zstd", .create = "compression_type=zstd,cluster_size=16k",
      .compressed = true, .snapshots = true },
    { .name = "metadata", .create = "preallocation=metadata" },
    { .name = "falloc", .create = "preallocation=falloc,cluster_size=8k" },
};

static const char *const cache_options[] = {
    "",
    ", 'l2-cache-size': 65536, 'l2-cache-entry-size': 512",
    ", 'cache-size': 1048576",
    ", 'overlap-check': 'all'",
    ", 'overlap-check': 'none', 'detect-zeroes': 'unmap'",
    ", 'discard-no-unref': true",
    ", 'cache-clean-interval': 1",
};

typedef struct Range {
    int64_t start, end;
    LIST_ENTRY(Range) next;
} Range;

typedef struct Model {
    const Config *config;
    char *dir, *path;
    GRand *rand;                /* of the main coroutine */
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t *shadow;
    int64_t len;
    uint8_t *snapshot;          /* what the snapshot 's' has, or NULL */
    int64_t snapshot_len;
    pthread_mutex_t lock;
    LIST_HEAD(, Range) ranges;  /* in use */
    int ops;
} Model;

typedef struct Worker {
    Model *model;
    GRand *rand;
} Worker;

/* ---- ranges ---- */

static bool take_range(Worker *w, Range *r, int64_t max)
{
    Model *m = w->model;
    Range *other;

    for (int i = 0; i < 10; i++) {
        bool fine = true;
        int64_t unit = g_rand_int_range(w->rand, 0, 8) ? 512 : 1;

        r->start = g_rand_int_range(w->rand, 0, m->len / unit) * unit;
        r->end = r->start + g_rand_int_range(w->rand, 1, max / unit) * unit;
        r->end = MIN(r->end, m->len);
        pthread_mutex_lock(&m->lock);
        LIST_FOREACH(other, &m->ranges, next) {
            fine = fine && (other->end <= r->start || r->end <= other->start);
        }
        if (fine) {
            LIST_INSERT_HEAD(&m->ranges, r, next);
        }
        pthread_mutex_unlock(&m->lock);
        if (fine) {
            return true;
        }
    }
    return false;
}

static void put_range(Model *m, Range *r)
{
    pthread_mutex_lock(&m->lock);
    LIST_REMOVE(r, next);
    pthread_mutex_unlock(&m->lock);
}

/* ---- requests ---- */

static void coroutine_fn co_read(Model *m, const Range *r, uint8_t *buf)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, r->end - r->start);
    g_assert_cmpint(blk_co_preadv(m->blk, r->start, &qiov, 0), ==, 0);
}

static void compare(Model *m, int64_t start, int64_t end, const uint8_t *buf)
{
    for (int64_t i = start; i < end; i++) {
        if (buf[i - start] != m->shadow[i]) {
            g_error("%s: byte %" G_GINT64_FORMAT " of request [%"
                    G_GINT64_FORMAT ", %" G_GINT64_FORMAT ") is %02x instead "
                    "of %02x", m->config->name, i, start, end,
                    buf[i - start], m->shadow[i]);
        }
    }
}

static void coroutine_fn co_check(Model *m, const Range *r)
{
    g_autofree uint8_t *buf = g_malloc(r->end - r->start);

    co_read(m, r, buf);
    compare(m, r->start, r->end, buf);
}

/* In two pieces, with now and then a block of zeroes. */
static void coroutine_fn co_write(Worker *w, const Range *r,
                                  BdrvRequestFlags flags)
{
    Model *m = w->model;
    int64_t bytes = r->end - r->start, cut = bytes / 3;
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;

    if (g_rand_int_range(w->rand, 0, 10) == 0) {
        memset(buf, 0, bytes);
    } else {
        uint32_t stamp = g_rand_int(w->rand);

        for (int64_t i = 0; i < bytes; i++) {
            buf[i] = stamp >> (i % 4 * 8);
        }
    }
    qemu_iovec_init(&qiov, 2);
    if (cut) {
        qemu_iovec_add(&qiov, buf, cut);
    }
    qemu_iovec_add(&qiov, buf + cut, bytes - cut);
    g_assert_cmpint(blk_co_pwritev(m->blk, r->start, &qiov, flags), ==, 0);
    qemu_iovec_destroy(&qiov);
    memcpy(m->shadow + r->start, buf, bytes);
}

static void coroutine_fn co_write_zeroes(Worker *w, const Range *r)
{
    Model *m = w->model;
    BdrvRequestFlags flags = g_rand_boolean(w->rand) ? BDRV_REQ_MAY_UNMAP : 0;

    g_assert_cmpint(blk_co_pwrite_zeroes(m->blk, r->start, r->end - r->start,
                                         flags), ==, 0);
    memset(m->shadow + r->start, 0, r->end - r->start);
}

/* What has been discarded reads as before or as zeroes. */
static void coroutine_fn co_discard(Worker *w, const Range *r)
{
    Model *m = w->model;
    g_autofree uint8_t *buf = g_malloc(r->end - r->start);

    g_assert_cmpint(blk_co_pdiscard(m->blk, r->start, r->end - r->start), ==,
                    0);
    co_read(m, r, buf);
    for (int64_t i = r->start; i < r->end; i++) {
        if (buf[i - r->start] == 0) {
            m->shadow[i] = 0;
        }
    }
    compare(m, r->start, r->end, buf);
}

/* What is said to be zeroes is zeroes. */
static void coroutine_fn co_status(Worker *w, const Range *r)
{
    Model *m = w->model;
    int64_t pnum = 0;
    int ret = blk_co_block_status(m->blk, r->start, r->end - r->start, &pnum);

    g_assert_cmpint(ret, >=, 0);
    g_assert_cmpint(pnum, >, 0);
    if (ret & BDRV_BLOCK_ZERO) {
        g_assert_true(buffer_is_zero(m->shadow + r->start,
                                     MIN(pnum, r->end - r->start)));
    }
}

/* A whole 64 KiB, which is whole clusters but for the largest. */
static void coroutine_fn co_compress(Worker *w, Range *r)
{
    Model *m = w->model;
    int64_t start = r->start & ~0xffff;
    Range whole = { start, MIN(start + 0x10000, m->len) };
    Range *other;
    bool fine = true;

    pthread_mutex_lock(&m->lock);
    LIST_FOREACH(other, &m->ranges, next) {
        fine = fine && (other == r || other->end <= whole.start
                        || whole.end <= other->start);
    }
    if (fine) {
        LIST_INSERT_HEAD(&m->ranges, &whole, next);
    }
    pthread_mutex_unlock(&m->lock);
    if (fine) {
        co_write(w, &whole, BDRV_REQ_WRITE_COMPRESSED);
        put_range(m, &whole);
    }
}

static void coroutine_fn co_request(Worker *w)
{
    Model *m = w->model;
    int what = g_rand_int_range(w->rand, 0, 100);
    int64_t max = what % 7 ? 32 << 10 : 700 << 10;
    Range r;

    blk_co_begin_request(m->blk);
    if (what >= 95) {
        g_assert_cmpint(blk_co_flush(m->blk), ==, 0);
    } else if (take_range(w, &r, max)) {
        if (what < 40) {
            co_write(w, &r, 0);
        } else if (what < 45 && m->config->compressed) {
            co_compress(w, &r);
        } else if (what < 55) {
            co_write_zeroes(w, &r);
        } else if (what < 65) {
            co_discard(w, &r);
        } else if (what < 70) {
            co_status(w, &r);
        } else {
            co_check(m, &r);
        }
        put_range(m, &r);
    }
    blk_end_request(m->blk);
}

static void coroutine_fn worker_entry(void *opaque)
{
    Worker *w = opaque;

    for (int i = 0; i < w->model->ops; i++) {
        co_request(w);
    }
    g_rand_free(w->rand);
    g_free(w);
}

/* ---- rounds ---- */

static void coroutine_fn co_round(Model *m)
{
    BlockTestGang *gang = block_test_gang_new();
    int n = image_test_number("QCOW2_MODEL_WORKERS", 8);

    for (int i = 0; i < n; i++) {
        Worker *w = g_new(Worker, 1);

        w->model = m;
        w->rand = g_rand_new_with_seed(g_rand_int(m->rand));
        block_test_gang_start(gang, i, worker_entry, w);
    }
    block_test_gang_co_finish(gang);
}

static void coroutine_fn co_check_all(Model *m)
{
    Range all = { 0, m->len };

    blk_co_begin_request(m->blk);
    co_check(m, &all);
    blk_end_request(m->blk);
}

static void coroutine_fn co_open(Model *m)
{
    int i = g_rand_int_range(m->rand, 0, G_N_ELEMENTS(cache_options));
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap'%s, "
        "'file': {'driver': 'file', 'filename': '%s'}}",
        m->config->v2 && strstr(cache_options[i], "no-unref")
        ? "" : cache_options[i], m->path);

    m->bs = block_test_co_open(json);
    m->blk = block_test_co_attach(m->bs, "model", BLK_PERM_ALL, BLK_PERM_ALL);
    g_assert_cmpint(blk_getlength(m->blk), ==, m->len);
}

static void judge(Model *m)
{
    g_autofree char *raw = g_build_filename(m->dir, "shadow", NULL);

    image_test_run("qemu-img check -q -f qcow2 %s", m->path);
    g_assert_true(g_file_set_contents(raw, (char *)m->shadow, m->len, NULL));
    image_test_run("qemu-img compare -q -f raw -F qcow2 %s %s", raw, m->path);
    if (strstr(m->config->create, "raw=on")) {
        /* The data file alone is the disk. */
        image_test_run("cmp %s %s/data", raw, m->dir);
    }
    g_remove(raw);
}

static void coroutine_fn co_close(Model *m)
{
    blk_co_free(m->blk);
    block_test_co_close(m->bs);
    judge(m);
}

static void coroutine_fn co_resize(Model *m)
{
    int64_t len = g_rand_int_range(m->rand, 1 << 11, MAX_BYTES / 512) * 512;
    Error *err = NULL;

    blk_co_begin_request(m->blk);
    blk_co_truncate(m->blk, len, PREALLOC_MODE_OFF, BDRV_REQ_ZERO_WRITE, &err);
    blk_end_request(m->blk);
    node_test_no_error(err);
    if (len > m->len) {
        memset(m->shadow + m->len, 0, len - m->len);
    }
    m->len = len;
}

static void coroutine_fn co_snapshot(Model *m)
{
    Error *err = NULL;

    if (!m->snapshot) {
        bdrv_co_snapshot_create(m->bs, "s", NULL, &err);
        m->snapshot = g_memdup2(m->shadow, m->len);
        m->snapshot_len = m->len;
    } else if (g_rand_boolean(m->rand)) {
        bdrv_co_snapshot_apply(m->bs, "s", &err);
        m->len = m->snapshot_len;
        memcpy(m->shadow, m->snapshot, m->len);
    } else {
        bdrv_co_snapshot_delete(m->bs, NULL, "s", &err);
        g_clear_pointer(&m->snapshot, g_free);
    }
    node_test_no_error(err);
    g_assert_cmpint(blk_getlength(m->blk), ==, m->len);
    co_check_all(m);
}

/* ---- images ---- */

static void make_image(Model *m)
{
    const Config *c = m->config;
    g_autofree char *data = g_build_filename(m->dir, "data", NULL);
    g_autofree char *base = g_build_filename(m->dir, "base", NULL);
    g_autofree char *raw = g_build_filename(m->dir, "raw", NULL);
    g_autofree char *create = NULL;

    if (c->data_file) {
        create = g_strdup_printf(strstr(c->create, "raw")
                                 ? "data_file=%s,data_file_raw=on"
                                 : "data_file=%s", data);
    } else {
        create = g_strdup(c->create);
    }
    if (c->compressed) {
        /* Text-like, so that it can be compressed. */
        for (int64_t i = 0; i < m->len; i++) {
            m->shadow[i] = (i / 5000) ^ (i % 37);
        }
        g_assert_true(g_file_set_contents(raw, (char *)m->shadow, m->len,
                                          NULL));
        image_test_run("qemu-img convert -q -c -f raw -O qcow2 -o %s %s %s",
                       create, raw, m->path);
    } else if (c->backing) {
        image_test_run("qemu-img create -q -f qcow2 %s %s", base, c->backing);
        for (int i = 1; i < 20; i++) {
            image_test_run("qemu-io -f qcow2 -c 'write -q -P %d %d 70k' %s", i,
                           i * 240000 / 512 * 512, base);
            memset(m->shadow + i * 240000 / 512 * 512, i, 70 << 10);
        }
        image_test_run("qemu-img create -q -f qcow2 -o %s -b base -F qcow2 "
                       "%s %d", create, m->path, START_BYTES);
    } else {
        image_test_run("qemu-img create -q -f qcow2 -o %s %s %d", create,
                       m->path, START_BYTES);
    }
}

static void coroutine_fn co_test(void *opaque)
{
    const Config *c = opaque;
    uint32_t seed = image_test_number("QCOW2_MODEL_SEED", g_test_rand_int());
    int rounds = image_test_number("QCOW2_MODEL_ROUNDS", 6);
    Model m = {
        .config = c,
        .dir = image_test_folder("qsd-model"),
        .rand = g_rand_new_with_seed(seed),
        .shadow = g_malloc0(MAX_BYTES),
        .len = START_BYTES,
        .ops = image_test_number("QCOW2_MODEL_OPS", 60),
    };

    g_test_message("QCOW2_MODEL_SEED=%u", seed);
    m.path = g_build_filename(m.dir, "image", NULL);
    pthread_mutex_init(&m.lock, NULL);
    make_image(&m);
    co_open(&m);
    for (int i = 0; i < rounds; i++) {
        co_round(&m);
        co_check_all(&m);
        switch (g_rand_int_range(m.rand, 0, 3)) {
        case 0:
            co_close(&m);
            co_open(&m);
            break;
        case 1:
            if (!c->no_resize && !m.snapshot) {
                co_resize(&m);
            }
            break;
        case 2:
            if (c->snapshots) {
                co_snapshot(&m);
            }
            break;
        }
    }
    co_close(&m);
    image_test_run("rm -r %s", m.dir);
    pthread_mutex_destroy(&m.lock);
    g_rand_free(m.rand);
    g_free(m.snapshot);
    g_free(m.shadow);
    g_free(m.path);
    g_free(m.dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(configs); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/model/%s",
                                                configs[i].name);

        block_test_add(path, co_test, (void *)&configs[i]);
    }
    return g_test_run();
}
