/* SPDX-License-Identifier: MIT */
/*
 * qcow2 on storage that fails.  For each of the driver's events (blkdebug) and
 * images that need all of them: the I/O that follows fails, once or until
 * further notice, while coroutines of several threads work.  Clients get
 * errors; whatever the file holds at that moment has leaks at most and all
 * that had been flushed; and when storage answers again, so does the node,
 * and nothing is missing.
 *
 * Environment: QCOW2_ERRORS_SEED, QCOW2_ERRORS_ROUNDS (times that each event is
 * tried, default 1), QCOW2_ERRORS_EVENT (only this one).
 */
#include <string.h>
#include <unistd.h>

#include "block/check.h"
#include "block/snapshot.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define MAX_BYTES (2 << 20)
#define WORKERS 3
#define OPS_BEFORE 3        /* of each worker, while all is fine */
#define OPS 16              /* in a round that fails */
#define ROUNDS_FAILING 3

/* Events that our code never raises itself. */
#define ARM BLKDBG_VMSTATE_LOAD
#define DISARM BLKDBG_VMSTATE_SAVE

typedef struct Config {
    const char *name;
    const char *create;         /* -o */
    int64_t len, grown;         /* bytes; the length it grows to */
    bool compressed;
    const char *const *events;
} Config;

/*
 * Events, and after a colon the kind of I/O that fails.  Without, any that
 * follows does.
 */
static const char *const small_events[] = {
    "l1_update", "l1_grow_alloc_table", "l1_grow_write_table",
    "l1_grow_activate_table", "l2_load", "l2_update", "l2_alloc_cow_read",
    "l2_alloc_write", "read_aio", "read_backing_aio", "write_aio", "cow_read",
    "cow_write", "reftable_grow", "reftable_update", "refblock_load",
    "refblock_update_part", "refblock_alloc", "refblock_alloc_hookup",
    "refblock_alloc_write_blocks", "refblock_alloc_write_table",
    "refblock_alloc_switch_table", "cluster_alloc", "cluster_free",
    "flush_to_os", "flush_to_disk", "l1_grow_activate_table:flush",
    "refblock_alloc_switch_table:flush", "l2_update:flush",
    "l1_update:flush", "reftable_update:flush", "refblock_update_part:flush",
    NULL,
};

static const char *const extended_events[] = {
    "l1_update", "l2_load", "l2_update", "l2_alloc_cow_read",
    "l2_alloc_write", "read_aio", "write_aio", "cow_read", "cow_write",
    "refblock_update_part", "cluster_alloc", "cluster_free", "flush_to_os",
    "flush_to_disk", NULL,
};

static const char *const compressed_events[] = {
    "l2_update_compressed", "read_compressed", "write_compressed",
    "cluster_alloc_bytes", "cluster_free", "l2_update", "read_aio",
    "cow_read", "cow_write", "flush_to_disk", NULL,
};

static const char *const lazy_events[] = {
    "l2_update", "l1_update", "refblock_load", "refblock_update_part",
    "refblock_alloc", "cluster_alloc", "cow_write", "flush_to_os",
    "flush_to_disk", NULL,
};

static const Config configs[] = {
    { "small", "cluster_size=512,refcount_bits=64", 1 << 20, MAX_BYTES, false,
      small_events },
    { "extended", "extended_l2=on,cluster_size=16k", MAX_BYTES, MAX_BYTES,
      false, extended_events },
    { "compressed", "cluster_size=4k", MAX_BYTES, MAX_BYTES, true,
      compressed_events },
    { "lazy", "lazy_refcounts=on,cluster_size=4k,refcount_bits=64", MAX_BYTES,
      MAX_BYTES, false, lazy_events },
};

/* What somebody did, or tried, since the last flush that succeeded. */
typedef struct Op {
    int64_t start, end;
    uint32_t stamp;
    bool unsure;                /* what it left: it failed */
} Op;

typedef struct Test {
    const Config *config;
    const char *event;
    int error;
    bool once;
    char *dir, *path, *copy;
    BlockDriverState *bs;
    BlockBackend *blk;
    GRand *rand;
    int64_t len;
    uint8_t *shadow;            /* what is read */
    uint8_t *flushed;           /* what is read at least after a crash */
    uint8_t *original;          /* what the image had at first */
    pthread_mutex_t lock;       /* over ops */
    GArray *ops;                /* Op */
    unsigned n_failed;          /* atomic */
} Test;

typedef struct Worker {
    Test *test;
    int ops;
    int64_t start, end;         /* its own part of the disk */
    GRand *rand;
} Worker;

/* ---- requests ---- */

static uint8_t op_byte(const Op *op, int64_t i)
{
    return op->stamp >> (i % 4 * 8);
}

/* Remember @op and how it went. */
static void note(Test *t, const Op *op, int ret)
{
    Op copy = *op;

    copy.unsure = op->unsure || ret < 0;
    if (ret < 0) {
        g_assert_cmpint(ret, ==, -t->error);
        __atomic_fetch_add(&t->n_failed, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_lock(&t->lock);
    g_array_append_val(t->ops, copy);
    pthread_mutex_unlock(&t->lock);
}

/* Has somebody tried to let byte @i be @value?  @unsure: and failed? */
static bool may_be(Test *t, int64_t i, uint8_t value, bool unsure)
{
    bool may = false;

    pthread_mutex_lock(&t->lock);
    for (guint n = 0; !may && n < t->ops->len; n++) {
        const Op *op = &g_array_index(t->ops, Op, n);

        may = (op->unsure || !unsure) && op->start <= i && i < op->end
              && op_byte(op, i) == value;
    }
    pthread_mutex_unlock(&t->lock);
    return may;
}

/* What is read is what it was; it stays, whatever it is after a failure. */
static int coroutine_fn co_read(Test *t, int64_t start, int64_t end)
{
    g_autofree uint8_t *buf = g_malloc(end - start);
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, end - start);
    ret = blk_co_preadv(t->blk, start, &qiov, 0);
    if (ret < 0) {
        g_assert_cmpint(ret, ==, -t->error);
        __atomic_fetch_add(&t->n_failed, 1, __ATOMIC_RELAXED);
        return ret;
    }
    for (int64_t i = start; i < end; i++) {
        uint8_t value = buf[i - start];

        if (value != t->shadow[i] && !may_be(t, i, value, true)) {
            g_error("%s: byte %#" G_GINT64_MODIFIER "x is %02x instead of "
                    "%02x", t->event, i, value, t->shadow[i]);
        }
        t->shadow[i] = value;
    }
    return 0;
}

static int coroutine_fn co_write(Test *t, const Op *op, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(op->end - op->start);
    QEMUIOVector qiov;

    for (int64_t i = op->start; i < op->end; i++) {
        buf[i - op->start] = op_byte(op, i);
    }
    qemu_iovec_init_buf(&qiov, buf, op->end - op->start);
    return blk_co_pwritev(t->blk, op->start, &qiov, flags);
}

static void coroutine_fn co_change(Worker *w, int64_t start, int64_t end,
                                   int what)
{
    Test *t = w->test;
    Op op = { .start = start, .end = end };
    int ret;

    if (what < 60) {
        bool compress = t->config->compressed && what % 2;

        if (compress) {
            op.start &= ~INT64_C(4095);
            op.end = op.start + 4096;
        }
        op.stamp = g_rand_int(w->rand) | 0x01010101;
        ret = co_write(t, &op, compress ? BDRV_REQ_WRITE_COMPRESSED : 0);
    } else if (what < 75) {
        ret = blk_co_pwrite_zeroes(t->blk, start, end - start,
                                   what % 2 ? BDRV_REQ_MAY_UNMAP : 0);
    } else {
        ret = blk_co_pdiscard(t->blk, start, end - start);
        /* Its edges may stay as they are, so it is as if it had failed. */
        op.unsure = true;
    }
    note(t, &op, ret);
    for (int64_t i = op.start; ret >= 0 && !op.unsure && i < op.end; i++) {
        t->shadow[i] = op_byte(&op, i);
    }
    if (ret < 0 || op.unsure) {
        co_read(t, op.start, op.end);
    }
}

static void coroutine_fn worker_entry(void *opaque)
{
    Worker *w = opaque;
    Test *t = w->test;

    blk_co_begin_request(t->blk);
    for (int i = 0; i < w->ops; i++) {
        int what = g_rand_int_range(w->rand, 0, 100);
        int64_t max = what % 5 ? 6000 : 60000;
        int64_t start = g_rand_int_range(w->rand, w->start, w->end);
        int64_t end = start + g_rand_int_range(w->rand, 1, max);

        end = MIN(end, w->end);
        if (what < 85) {
            co_change(w, start, end, what);
        } else {
            co_read(t, start, end);
        }
    }
    blk_end_request(t->blk);
    g_rand_free(w->rand);
    g_free(w);
}

static void coroutine_fn co_round(Test *t, int ops)
{
    BlockTestGang *gang = block_test_gang_new();
    int64_t part = t->len / WORKERS & ~INT64_C(4095);

    for (int i = 0; i < WORKERS; i++) {
        Worker *w = g_new(Worker, 1);

        *w = (Worker) { t, ops, i * part, (i + 1) * part,
                        g_rand_new_with_seed(g_rand_int(t->rand)) };
        block_test_gang_start(gang, i, worker_entry, w);
    }
    block_test_gang_co_finish(gang);
}

/* ---- while no request is in flight ---- */

static int coroutine_fn co_flush(Test *t)
{
    int ret;

    blk_co_begin_request(t->blk);
    ret = blk_co_flush(t->blk);
    blk_end_request(t->blk);
    if (ret < 0) {
        g_assert_cmpint(ret, ==, -t->error);
        __atomic_fetch_add(&t->n_failed, 1, __ATOMIC_RELAXED);
        return ret;
    }
    for (guint i = t->ops->len; i-- > 0; ) {
        if (!g_array_index(t->ops, Op, i).unsure) {
            g_array_remove_index(t->ops, i);
        }
    }
    memcpy(t->flushed, t->shadow, MAX_BYTES);
    return 0;
}

static int coroutine_fn co_grow(Test *t)
{
    Error *err = NULL;
    int ret;

    blk_co_begin_request(t->blk);
    ret = blk_co_truncate(t->blk, t->config->grown, PREALLOC_MODE_OFF,
                          BDRV_REQ_ZERO_WRITE, &err);
    blk_end_request(t->blk);
    if (ret >= 0) {
        g_assert_null(err);
        t->len = t->config->grown;
    } else {
        g_assert_nonnull(err);
        __atomic_fetch_add(&t->n_failed, 1, __ATOMIC_RELAXED);
        /* The last flush may be what has failed. */
        t->len = blk_getlength(t->blk);
        g_assert_true(t->len == t->config->len
                      || t->len == t->config->grown);
    }
    error_free(err);
    g_assert_cmpint(blk_getlength(t->blk), ==, t->len);
    return ret;
}

/* The file as it is now, as if the process had been killed. */
static void coroutine_fn co_check_copy(Test *t)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'copy', 'file': {'driver': 'file', "
        "'filename': '%s'}}", t->copy);
    BlockDriverState *bs;
    BlockBackend *blk;
    BdrvCheckResult res;
    QEMUIOVector qiov;
    Error *err = NULL;
    int64_t len;
    g_autofree uint8_t *buf = NULL;

    image_test_run("cp %s %s", t->path, t->copy);
    bs = block_test_co_open(json);
    blk = block_test_co_attach(bs, "copy", BLK_PERM_ALL, BLK_PERM_ALL);
    bdrv_co_check(bs, &res, 0, NULL, &err);
    node_test_no_error(err);
    g_assert_cmpint(res.corruptions, ==, 0);
    g_assert_cmpint(res.check_errors, ==, 0);
    len = MIN(blk_getlength(blk), t->len);
    buf = g_malloc(len);
    qemu_iovec_init_buf(&qiov, buf, len);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
    blk_end_request(blk);
    for (int64_t i = 0; i < len; i++) {
        if (buf[i] != t->flushed[i] && !may_be(t, i, buf[i], false)) {
            g_error("%s: if killed, byte %#" G_GINT64_MODIFIER "x is %02x "
                    "instead of %02x", t->event, i, buf[i], t->flushed[i]);
        }
    }
    blk_co_free(blk);
    block_test_co_close(bs);
}

/* ---- a test ---- */

static char *event_name(const Test *t)
{
    return g_strndup(t->event, strcspn(t->event, ":"));
}

static void coroutine_fn co_open(Test *t)
{
    const char *colon = strchr(t->event, ':');
    g_autofree char *event = event_name(t);
    g_autofree char *iotype = colon ? g_strdup_printf(", 'iotype': '%s'",
                                                      colon + 1)
                                    : g_strdup("");
    g_autofree char *rules = g_strdup_printf(
        "'inject-error': [{'event': '%s', 'state': 2, 'errno': %d, 'once': "
        "%s%s}, {'event': 'vmstate_save', 'errno': 0}], 'set-state': "
        "[{'event': 'vmstate_load', 'state': 1, 'new_state': 2}, {'event': "
        "'vmstate_save', 'state': 2, 'new_state': 3}]", event, t->error,
        t->once ? "true" : "false", iotype);
    bool below = !strcmp(t->event, "read_backing_aio");
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap', "
        "'l2-cache-size': 4096, 'l2-cache-entry-size': 512, "
        "'refcount-cache-size': %d, 'file': {'driver': 'blkdebug', "
        "'image': {'driver': 'file', 'filename': '%s'}%s%s}%s%s%s%s%s}",
        t->config->len == MAX_BYTES ? 65536 : 4096, t->path,
        below ? "" : ", ", below ? "" : rules,
        below ? ", 'backing': {'driver': 'blkdebug', 'image': {'driver': "
                "'file', 'filename': '" : "", below ? t->dir : "",
        below ? "/base'}, " : "", below ? rules : "", below ? "}" : "");

    t->bs = block_test_co_open(json);
    t->blk = block_test_co_attach(t->bs, "errors", BLK_PERM_ALL,
                                  BLK_PERM_ALL);
}

static void coroutine_fn co_event(Test *t, BlkdebugEvent event)
{
    BLKDBG_EVENT(strcmp(t->event, "read_backing_aio") ? t->bs->file
                                                      : t->bs->backing, event);
}

/* Has the rule that acts once done so? */
static bool coroutine_fn co_has_fired(Test *t)
{
    g_autofree char *name = event_name(t);
    BlkdebugEvent event = 0;
    BdrvChild *child = strcmp(t->event, "read_backing_aio") ? t->bs->file
                                                            : t->bs->backing;

    while (strcmp(BlkdebugEvent_str(event), name)) {
        event++;
    }
    co_event(t, event);
    return bdrv_co_flush(child->bs) >= 0;
}

/* Let everything happen that an event is for. */
static void coroutine_fn co_fail(Test *t)
{
    Error *err = NULL;

    co_event(t, ARM);
    for (int i = 0; i < ROUNDS_FAILING; i++) {
        co_round(t, OPS);
        co_flush(t);
        co_check_copy(t);
        /* If that fails, others go on. */
        if (i != 1 && t->len < t->config->grown) {
            co_grow(t);
        }
        if (i == ROUNDS_FAILING - 2) {
            if (!bdrv_co_snapshot_create(t->bs, "second", NULL, &err)) {
                t->n_failed++;
            }
            error_free(err);
        }
    }
    co_check_copy(t);
    if (t->once && !co_has_fired(t)) {
        g_error("%s does not happen", t->event);
    }
    co_event(t, DISARM);
}

/* Storage is fine again: so is everything else. */
static void coroutine_fn co_recover(Test *t)
{
    blk_co_begin_request(t->blk);
    g_assert_cmpint(co_read(t, 0, t->len), ==, 0);
    blk_end_request(t->blk);
    g_array_set_size(t->ops, 0);
    g_assert_cmpint(co_flush(t), ==, 0);
    if (t->len < t->config->grown) {
        g_assert_cmpint(co_grow(t), ==, 0);
    }
    co_round(t, OPS);
    g_assert_cmpint(co_flush(t), ==, 0);
    co_check_copy(t);
    blk_co_free(t->blk);
    block_test_co_close(t->bs);

    image_test_only_leaks(t->path);
    t->blk = NULL;
    image_test_run("cp %s %s", t->path, t->copy);
    co_check_copy(t);
}

static void coroutine_fn co_event_test(Test *t)
{
    unsigned before;

    image_test_run("cp %s/original %s", t->dir, t->path);
    t->len = t->config->len;
    t->n_failed = 0;
    memcpy(t->shadow, t->original, MAX_BYTES);
    memcpy(t->flushed, t->original, MAX_BYTES);
    g_array_set_size(t->ops, 0);
    alarm(100);                 /* a hang is a failure */
    co_open(t);
    co_round(t, OPS_BEFORE);
    g_assert_cmpint(t->n_failed, ==, 0);
    g_assert_cmpint(co_flush(t), ==, 0);
    co_fail(t);
    before = t->n_failed;
    /* One error alone may hit I/O that is tried again, or for freeing. */
    if (before == 0 && !t->once) {
        g_error("%s: nobody got an error", t->event);
    }
    co_recover(t);
    g_assert_cmpint(t->n_failed, ==, before);
    alarm(0);
}

/* ---- set-up ---- */

/* Data, compressed data and a snapshot over half a backing file. */
static void coroutine_fn co_make_image(Test *t)
{
    g_autofree char *base = g_build_filename(t->dir, "base", NULL);
    g_autofree char *raw = g_build_filename(t->dir, "raw", NULL);
    g_autofree char *text = NULL;
    gsize len;

    for (int64_t i = 0; i < MAX_BYTES / 3; i++) {
        t->original[i] = 0xb0 + i / 4096 % 11;
    }
    g_assert_true(g_file_set_contents(base, (char *)t->original,
                                      MAX_BYTES / 3, NULL));
    image_test_run("qemu-img create -q -f qcow2 -b base -F raw -o %s %s " "%"
                   G_GINT64_FORMAT, t->config->create, t->path, t->config->len);
    image_test_run("qemu-io -f qcow2 -c 'write -q -P 1 100k 60k' -c 'write -q "
                   "-P 2 600k 424k' %s %s", t->config->compressed ?
                   "-c 'write -q -c -P 3 200k 256k'" :
                   "-c 'write -q -P 3 200k 100k'", t->path);
    /* The refcount table of the smallest clusters must be nearly full. */
    for (int i = 0; i < 3; i++) {
        image_test_run("qemu-img snapshot -c s%d %s", i, t->path);
        image_test_run("qemu-io -f qcow2 -c 'write -q -P %d 600k %dk' %s", i +
                       4, i == 2 ? 330 : 424, t->path);
    }
    image_test_run("qemu-img snapshot -c first %s", t->path);
    image_test_run("qemu-img convert -f qcow2 -O raw %s %s", t->path, raw);
    g_assert_true(g_file_get_contents(raw, &text, &len, NULL));
    memset(t->original, 0, MAX_BYTES);
    memcpy(t->original, text, len);
    image_test_run("mv %s %s/original", t->path, t->dir);
}

static void coroutine_fn co_test(void *opaque)
{
    static const int errors[] = { EIO, ENOSPC };
    uint32_t seed = image_test_number("QCOW2_ERRORS_SEED", g_test_rand_int());
    int rounds = image_test_number("QCOW2_ERRORS_ROUNDS", 1);
    const char *only = g_getenv("QCOW2_ERRORS_EVENT");
    Test t = {
        .config = opaque,
        .dir = image_test_folder("qsd-errors"),
        .shadow = g_malloc(MAX_BYTES),
        .flushed = g_malloc(MAX_BYTES),
        .original = g_malloc0(MAX_BYTES),
        .ops = g_array_new(false, false, sizeof(Op)),
        .rand = g_rand_new_with_seed(seed),
    };

    g_test_message("QCOW2_ERRORS_SEED=%u", seed);
    t.path = g_build_filename(t.dir, "image", NULL);
    t.copy = g_build_filename(t.dir, "copy", NULL);
    pthread_mutex_init(&t.lock, NULL);
    co_make_image(&t);
    for (int i = 0; t.config->events[i]; i++) {
        t.event = t.config->events[i];
        for (int j = 0; j < 2 * rounds; j++) {
            t.error = errors[j % 2];
            t.once = (i + j) % 2;
            if (!only || !strcmp(only, t.event)) {
                g_test_message("%s, %s, errno %d", t.event,
                               t.once ? "once" : "always", t.error);
                co_event_test(&t);
            }
        }
    }
    image_test_run("rm -r %s", t.dir);
    pthread_mutex_destroy(&t.lock);
    g_array_free(t.ops, true);
    g_rand_free(t.rand);
    g_free(t.shadow);
    g_free(t.flushed);
    g_free(t.original);
    g_free(t.path);
    g_free(t.copy);
    g_free(t.dir);
}

/* What cannot be read on opening: says so, and changes nothing. */
static void coroutine_fn co_open_test(void *opaque)
{
    static const char *const texts[][2] = {
        { "'event': 'reftable_load'", "Could not initialize refcount handling: "
          "Input/output error" },
        { "'event': 'none', 'iotype': 'read'",
          "Could not read qcow2 header: Input/output error" },
    };
    g_autofree char *dir = image_test_folder("qsd-errors");

    image_test_run("qemu-img create -q -f qcow2 %s/image 1M", dir);
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'qcow2', 'node-name': 'q', 'file': {'driver': "
            "'blkdebug', 'image': {'driver': 'file', 'filename': '%s/image'}, "
            "'inject-error': [{%s}]}}", dir, texts[i][0]);

        block_test_co_open_fails(json, texts[i][1]);
    }
    image_test_run("qemu-img check -q %s/image", dir);
    image_test_run("rm -r %s", dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    block_test_add_one(AIO_BACKEND_IO_URING, co_open_test, NULL,
                       "/qcow2/errors/open");
    for (unsigned i = 0; i < G_N_ELEMENTS(configs); i++) {
        block_test_add_one(i % 2 ? AIO_BACKEND_EPOLL : AIO_BACKEND_IO_URING,
                           co_test, &configs[i], "/qcow2/errors/%s",
                           configs[i].name);
    }
    return g_test_run();
}
