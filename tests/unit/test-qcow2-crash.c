/* SPDX-License-Identifier: MIT */
/*
 * qcow2 and power cuts.  A workload of several coroutines runs over
 * blklogwrites; then, for flushes and for moments between them, an image is
 * made of what a disk may have had at that moment.  It must open, hold
 * everything that a client had flushed by then (or what was written over it
 * later), have leaks at most by qemu-img's judgement and ours, and work.
 *
 * Version 2 has no dirty bit, which tells of changes to the flags COPIED that a
 * snapshot has begun.  There it may lack where it could be, or be where the
 * refcount has leaked: harmless, but qemu-img calls it an error.
 *
 * Environment: QCOW2_CRASH_SEED, QCOW2_CRASH_POINTS (cuts in each
 * configuration, default 10), QCOW2_CRASH_OPS (of each worker and session,
 * default 25).
 */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "block/check.h"
#include "block/snapshot.h"
#include "tests/unit/block-test.h"
#include "tests/unit/crash-disk.h"
#include "tests/unit/image-tools.h"

#define MAX_BYTES (4 << 20)
#define START_BYTES (3 << 20)
#define FILE_BYTES (64 << 20)
#define SESSIONS 3
#define WORKERS 4
#define FLAG_DIRTY 1
#define V2_CLUSTER 4096
#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)

typedef struct Config {
    const char *name;
    const char *create;         /* -o */
    bool backing, v2, data_file, compressed, snapshots, resize;
} Config;

static const Config configs[] = {
    { .name = "default", .create = "cluster_size=64k", .snapshots = true,
      .resize = true },
    { .name = "4k", .create = "cluster_size=4k", .backing = true },
    { .name = "4k-snapshots", .create = "cluster_size=4k", .snapshots = true,
      .resize = true },
    { .name = "512", .create = "cluster_size=512,refcount_bits=64",
      .resize = true },
    { .name = "512-snapshots", .create = "cluster_size=512",
      .snapshots = true },
    { .name = "extended", .create = "extended_l2=on,cluster_size=16k",
      .backing = true, .snapshots = true },
    { .name = "lazy", .create = "lazy_refcounts=on,cluster_size=4k",
      .resize = true },
    { .name = "lazy-snapshots", .create = "lazy_refcounts=on",
      .snapshots = true },
    { .name = "refcount-1", .create = "refcount_bits=1,cluster_size=1k",
      .resize = true },
    { .name = "v2", .create = "compat=0.10,cluster_size=4k", .v2 = true,
      .snapshots = true },
    { .name = "compressed", .create = "cluster_size=64k", .compressed = true,
      .snapshots = true },
    { .name = "compressed-4k", .create = "cluster_size=4k",
      .compressed = true },
    { .name = "data-file", .create = "data_file=%s,cluster_size=4k",
      .data_file = true },
};

static const char *const cache_options[] = {
    "",
    ", 'l2-cache-size': 4096, 'l2-cache-entry-size': 512",
    ", 'cache-size': 65536",
    ", 'overlap-check': 'all'",
    ", 'discard-no-unref': true",
};

typedef enum { OP_WRITE, OP_ZERO, OP_DISCARD, OP_RESIZE } OpKind;

/* What a client did to bytes [start, end).  Moments count from 1. */
typedef struct Op {
    OpKind kind;
    int64_t start, end;
    uint32_t stamp;             /* OP_WRITE */
    uint8_t *read;              /* OP_DISCARD: what was there afterwards */
    uint64_t begun, ended;      /* moments; 0: has not ended */
    uint64_t log;               /* bytes in the log when it began */
    int64_t len;                /* OP_RESIZE: the disk's, afterwards */
} Op;

/* A flush, or a snapshot or the end of a session, which flush as well. */
typedef struct Flush {
    uint64_t begun;             /* moment */
    uint64_t log;               /* bytes in the log when it had ended */
    bool closed;
} Flush;

/* A snapshot that is there from @log on, until @gone. */
typedef struct Snap {
    uint64_t log, gone;
    uint8_t *bytes;
    int64_t len;
} Snap;

typedef struct Moment {
    uint64_t log[2];
} Moment;

typedef struct Test {
    const Config *config;
    char *dir, *path, *data, *log[2], *before[2];
    GRand *rand;
    BlockDriverState *bs;
    BlockBackend *blk;
    int64_t len;
    pthread_mutex_t lock;       /* over all below */
    uint64_t moment;
    GPtrArray *ops;             /* Op, in the order in which they began */
    GArray *flushes;            /* Flush */
    GArray *snaps;              /* Snap */
    GArray *moments;            /* Moment: nothing was in flight */
    /* judging */
    uint8_t *base, *backing;
    int64_t base_len;
    GPtrArray *by_end;          /* Op, those that have ended */
    guint applied;              /* of by_end, to base */
} Test;

typedef struct Worker {
    Test *test;
    GRand *rand;
} Worker;

/* ---- history ---- */

static uint64_t log_bytes(const Test *t, int i)
{
    struct stat st;

    return t->log[i] && stat(t->log[i], &st) == 0 ? st.st_size : 0;
}

static bool overlaps_running(Test *t, int64_t start, int64_t end)
{
    for (guint i = t->ops->len; i-- > 0; ) {
        const Op *op = g_ptr_array_index(t->ops, i);

        if (!op->ended && op->start < end && start < op->end) {
            return true;
        }
    }
    return false;
}

/* NULL: somebody is at work there. */
static Op *op_begin(Test *t, OpKind kind, int64_t start, int64_t end)
{
    uint64_t log = log_bytes(t, 0);
    Op *op = NULL;

    pthread_mutex_lock(&t->lock);
    if (!overlaps_running(t, start, end)) {
        op = g_new0(Op, 1);
        *op = (Op) { .kind = kind, .start = start, .end = end, .log = log,
                     .begun = ++t->moment };
        g_ptr_array_add(t->ops, op);
    }
    pthread_mutex_unlock(&t->lock);
    return op;
}

static void op_end(Test *t, Op *op)
{
    pthread_mutex_lock(&t->lock);
    op->ended = ++t->moment;
    pthread_mutex_unlock(&t->lock);
}

static uint64_t flush_begin(Test *t)
{
    uint64_t moment;

    pthread_mutex_lock(&t->lock);
    moment = ++t->moment;
    pthread_mutex_unlock(&t->lock);
    return moment;
}

static void flush_end(Test *t, uint64_t begun, bool closed)
{
    Flush f = { .begun = begun, .log = log_bytes(t, 0), .closed = closed };

    pthread_mutex_lock(&t->lock);
    g_array_append_val(t->flushes, f);
    pthread_mutex_unlock(&t->lock);
}

/* Nobody is at work: a moment at which both logs may be cut. */
static void note_moment(Test *t)
{
    Moment now = { { log_bytes(t, 0), log_bytes(t, 1) } };

    g_array_append_val(t->moments, now);
}

static uint8_t op_byte(const Op *op, int64_t i)
{
    return op->kind == OP_WRITE ? op->stamp >> (i % 4 * 8) : 0;
}

static void op_free(gpointer data)
{
    Op *op = data;

    g_free(op->read);
    g_free(op);
}

/* ---- workload ---- */

static void coroutine_fn co_read(Test *t, int64_t start, int64_t end,
                                 uint8_t *buf)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, end - start);
    g_assert_cmpint(blk_co_preadv(t->blk, start, &qiov, 0), ==, 0);
}

static void coroutine_fn co_write(Test *t, Op *op, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(op->end - op->start);
    QEMUIOVector qiov;

    for (int64_t i = op->start; i < op->end; i++) {
        buf[i - op->start] = op_byte(op, i);
    }
    qemu_iovec_init_buf(&qiov, buf, op->end - op->start);
    g_assert_cmpint(blk_co_pwritev(t->blk, op->start, &qiov, flags), ==, 0);
}

static void coroutine_fn co_change(Worker *w, int what)
{
    Test *t = w->test;
    bool compress = t->config->compressed && what % 2;
    int64_t unit = what % 5 ? 512 : 1, max = what % 9 ? 24 << 10 : 300 << 10;
    int64_t start = g_rand_int_range(w->rand, 0, t->len / unit) * unit;
    int64_t end = start + g_rand_int_range(w->rand, 1, max / unit) * unit;
    OpKind kind = what < 70 ? OP_WRITE : what < 82 ? OP_ZERO : OP_DISCARD;
    Op *op;

    if (compress && kind == OP_WRITE) {
        start &= ~INT64_C(0xffff);
        end = start + 0x10000;
    }
    end = MIN(end, t->len);
    op = op_begin(t, kind, start, end);
    if (!op) {
        return;
    }
    switch (kind) {
    case OP_WRITE:
        op->stamp = g_rand_int(w->rand) | 0x01010101;
        co_write(t, op, compress ? BDRV_REQ_WRITE_COMPRESSED : 0);
        break;
    case OP_ZERO:
        g_assert_cmpint(blk_co_pwrite_zeroes(
            t->blk, start, end - start,
            what % 2 ? BDRV_REQ_MAY_UNMAP : 0), ==, 0);
        break;
    default:
        g_assert_cmpint(blk_co_pdiscard(t->blk, start, end - start), ==, 0);
        op->read = g_malloc(end - start);
        co_read(t, start, end, op->read);
    }
    op_end(t, op);
}

static void coroutine_fn co_request(Worker *w)
{
    Test *t = w->test;
    int what = g_rand_int_range(w->rand, 0, 100);

    blk_co_begin_request(t->blk);
    if (what >= 92) {
        uint64_t begun = flush_begin(t);

        g_assert_cmpint(blk_co_flush(t->blk), ==, 0);
        flush_end(t, begun, false);
    } else {
        co_change(w, what);
    }
    blk_end_request(t->blk);
    if (t->config->data_file) {
        note_moment(t);         /* there is one worker */
    }
}

static void coroutine_fn worker_entry(void *opaque)
{
    Worker *w = opaque;
    int n = image_test_number("QCOW2_CRASH_OPS", 25);

    if (w->test->config->data_file) {
        n *= WORKERS;
    }
    for (int i = 0; i < n; i++) {
        co_request(w);
    }
    g_rand_free(w->rand);
    g_free(w);
}

static void coroutine_fn co_load(Test *t)
{
    BlockTestGang *gang = block_test_gang_new();
    int n = t->config->data_file ? 1 : WORKERS;

    for (int i = 0; i < n; i++) {
        Worker *w = g_new(Worker, 1);

        w->test = t;
        w->rand = g_rand_new_with_seed(g_rand_int(t->rand));
        block_test_gang_start(gang, i, worker_entry, w);
    }
    block_test_gang_co_finish(gang);
}

/* ---- what is done while nothing is in flight ---- */

static void coroutine_fn co_resize(Test *t)
{
    int64_t old = t->len;
    int64_t len = g_rand_int_range(t->rand, 1 << 11, MAX_BYTES / 512) * 512;
    Op *op = op_begin(t, OP_RESIZE, MIN(old, len), MAX(old, len));
    Error *err = NULL;

    blk_co_begin_request(t->blk);
    blk_co_truncate(t->blk, len, PREALLOC_MODE_OFF, BDRV_REQ_ZERO_WRITE, &err);
    blk_end_request(t->blk);
    node_test_no_error(err);
    t->len = op->len = len;
    op_end(t, op);
}

static void coroutine_fn co_snapshot(Test *t)
{
    Snap *last = t->snaps->len ? &g_array_index(t->snaps, Snap,
                                                t->snaps->len - 1) : NULL;
    Error *err = NULL;

    if (last && last->gone == UINT64_MAX) {
        last->gone = log_bytes(t, 0);
        bdrv_co_snapshot_delete(t->bs, NULL, "s", &err);
    } else {
        uint64_t begun = flush_begin(t);
        Snap snap = { .gone = UINT64_MAX, .len = t->len };

        bdrv_co_snapshot_create(t->bs, "s", NULL, &err);
        flush_end(t, begun, false);
        snap.log = log_bytes(t, 0);
        snap.bytes = g_malloc(t->len);
        blk_co_begin_request(t->blk);
        co_read(t, 0, t->len, snap.bytes);
        blk_end_request(t->blk);
        g_array_append_val(t->snaps, snap);
    }
    node_test_no_error(err);
}

static void coroutine_fn co_open_logged(Test *t, int session)
{
    const char *append = session ? ", 'log-append': true" : "";
    int i = g_rand_int_range(t->rand, 0, G_N_ELEMENTS(cache_options));
    g_autofree char *data = t->config->data_file ? g_strdup_printf(
        ", 'data-file': {'driver': 'blklogwrites'%s, 'file': "
        "{'driver': 'file', 'filename': '%s'}, 'log': "
        "{'driver': 'file', 'filename': '%s'}}", append, t->data, t->log[1])
        : NULL;
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap'%s%s, "
        "'file': {'driver': 'blklogwrites'%s, 'discard': 'unmap', 'file': "
        "{'driver': 'file', 'discard': 'unmap', 'filename': '%s'}, 'log': "
        "{'driver': 'file', 'filename': '%s'}}}",
        t->config->v2 && strstr(cache_options[i], "unref")
        ? "" : cache_options[i], data ? data : "", append, t->path,
        t->log[0]);

    t->bs = block_test_co_open(json);
    t->blk = block_test_co_attach(t->bs, "crash", BLK_PERM_ALL, BLK_PERM_ALL);
    g_assert_cmpint(blk_getlength(t->blk), ==, t->len);
}

static void coroutine_fn co_session(Test *t, int session)
{
    uint64_t begun;

    co_open_logged(t, session);
    for (int i = 0; i < 3; i++) {
        co_load(t);
        if (t->config->snapshots && g_rand_int_range(t->rand, 0, 3)) {
            co_snapshot(t);
        } else if (t->config->resize && g_rand_boolean(t->rand)) {
            Snap *s = t->snaps->len ? &g_array_index(
                t->snaps, Snap, t->snaps->len - 1) : NULL;

            if (!s || s->gone != UINT64_MAX) {
                co_resize(t);
            }
        }
    }
    begun = flush_begin(t);
    blk_co_free(t->blk);
    block_test_co_close(t->bs);
    flush_end(t, begun, true);
    note_moment(t);
}

/* ---- judging ---- */

static gint by_ended(gconstpointer a, gconstpointer b)
{
    const Op *x = *(Op *const *)a, *y = *(Op *const *)b;

    return x->ended < y->ended ? -1 : x->ended > y->ended;
}

/* Let base be what had to be there since the last flush before @cut. */
static void advance_base(Test *t, uint64_t cut)
{
    uint64_t begun = 0;

    for (guint i = 0; i < t->flushes->len; i++) {
        const Flush *f = &g_array_index(t->flushes, Flush, i);

        if (f->log <= cut) {
            begun = MAX(begun, f->begun);
        }
    }
    while (t->applied < t->by_end->len) {
        const Op *op = g_ptr_array_index(t->by_end, t->applied);

        if (op->ended > begun) {
            break;
        }
        if (op->read) {
            memcpy(t->base + op->start, op->read, op->end - op->start);
        } else {
            for (int64_t i = op->start; i < op->end; i++) {
                t->base[i] = op_byte(op, i);
            }
        }
        if (op->kind == OP_RESIZE) {
            t->base_len = op->len;
        }
        t->applied++;
    }
}

static bool may_have_begun(const Test *t, const Op *op, uint64_t cut)
{
    const Op *next = t->applied < t->by_end->len
                     ? g_ptr_array_index(t->by_end, t->applied) : NULL;

    return next && op->ended >= next->ended && op->log <= cut;
}

/* @bytes is what the disk has; every byte as of the flush, or of later. */
static void check_bytes(Test *t, uint64_t cut, const uint8_t *bytes,
                        int64_t len)
{
    g_autofree bool *fine = g_new(bool, MAX(len, 1));
    bool len_fine = len == t->base_len;

    for (int64_t i = 0; i < len; i++) {
        fine[i] = bytes[i] == t->base[i];
    }
    for (guint n = 0; n < t->ops->len; n++) {
        const Op *op = g_ptr_array_index(t->ops, n);

        if (!may_have_begun(t, op, cut)) {
            continue;
        }
        for (int64_t i = op->start; i < MIN(op->end, len); i++) {
            fine[i] = fine[i] || bytes[i] == op_byte(op, i)
                      || (op->kind == OP_RESIZE && t->backing
                          && bytes[i] == t->backing[i]);
        }
        len_fine = len_fine || (op->kind == OP_RESIZE && op->len == len);
    }
    if (!len_fine) {
        g_error("%s: %" G_GINT64_FORMAT " bytes instead of %" G_GINT64_FORMAT,
                t->dir, len, t->base_len);
    }
    for (int64_t i = 0; i < len; i++) {
        if (!fine[i]) {
            g_error("%s: byte %#" G_GINT64_MODIFIER "x is %02x, flushed was "
                    "%02x", t->dir, i, bytes[i], t->base[i]);
        }
    }
}

static void coroutine_fn co_check_ours(BlockDriverState *bs, bool clean)
{
    BdrvCheckResult res;
    Error *err = NULL;

    bdrv_co_check(bs, &res, 0, NULL, &err);
    node_test_no_error(err);
    g_assert_cmpint(res.corruptions, ==, 0);
    g_assert_cmpint(res.check_errors, ==, 0);
    if (clean) {
        g_assert_cmpint(res.leaks, ==, 0);
    }
}

/* The image still works: write all over, flush. */
static void coroutine_fn co_use(Test *t, int64_t len)
{
    for (int i = 0; i < 20; i++) {
        int64_t start = g_rand_int_range(t->rand, 0, len);
        Op op = { OP_WRITE, start, MIN(start + 20000, len), 0x12345678 };

        if (i % 3 == 0) {
            blk_co_pdiscard(t->blk, op.start, op.end - op.start);
        }
        co_write(t, &op, 0);
    }
    g_assert_cmpint(blk_co_flush(t->blk), ==, 0);
}

static void coroutine_fn co_judge(Test *t, uint64_t cut, bool clean, bool use)
{
    g_autofree uint8_t *bytes = NULL;
    g_autofree char *data = t->config->data_file ? g_strdup_printf(
        ", 'data-file': {'driver': 'file', 'filename': '%s'}", t->data) : NULL;
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap', 'file': "
        "{'driver': 'file', 'filename': '%s'}%s}", t->path, data ? data : "");
    int64_t len;

    t->bs = block_test_co_open(json);
    t->blk = block_test_co_attach(t->bs, "judge", BLK_PERM_ALL, BLK_PERM_ALL);
    co_check_ours(t->bs, clean);
    len = blk_getlength(t->blk);
    bytes = g_malloc(len);
    blk_co_begin_request(t->blk);
    co_read(t, 0, len, bytes);
    check_bytes(t, cut, bytes, len);
    if (use) {
        co_use(t, len);
    }
    blk_end_request(t->blk);
    blk_co_free(t->blk);
    block_test_co_close(t->bs);
}

/* Those that must be there are there. */
static void check_snapshots(Test *t, uint64_t cut)
{
    g_autofree char *raw = g_build_filename(t->dir, "raw", NULL);

    for (guint i = 0; i < t->snaps->len; i++) {
        const Snap *snap = &g_array_index(t->snaps, Snap, i);
        g_autofree char *bytes = NULL;
        gsize len;

        if (cut < snap->log || cut > snap->gone) {
            continue;
        }
        image_test_run("qemu-img convert -q -U -l snapshot.name=s -f qcow2 "
                       "-O raw %s %s", t->path, raw);
        g_assert_true(g_file_get_contents(raw, &bytes, &len, NULL));
        g_assert_cmpint(len, ==, snap->len);
        g_assert_true(memcmp(bytes, snap->bytes, len) == 0);
    }
}

static bool is_dirty(const CrashDisk *d)
{
    return d->image[4 + 3] >= 3 && (d->image[79] & FLAG_DIRTY);
}

/*
 * COPIED is missing; or it is there, and nobody else has the cluster: its
 * refcount has leaked, raised for a snapshot that was not made, or not lowered
 * for one that is gone.
 */
static bool is_harmless(const char *line, const char *text)
{
    const char *entry = strstr(line, "entry=");
    g_autofree char *leak = NULL;
    uint64_t value, refcount;

    if (!strstr(line, "ERROR OFLAG_COPIED") || !entry
        || sscanf(entry, "entry=%" SCNx64 " refcount=%" SCNu64, &value,
                  &refcount) != 2) {
        return false;
    }
    leak = g_strdup_printf("Leaked cluster %" PRIu64 " refcount=%" PRIu64
                           " reference=1\n",
                           (value & OFFSET_MASK) / V2_CLUSTER, refcount);
    return refcount == 1 || strstr(text, leak);
}

/* Version 2: let COPIED be where it may be; nothing else is wrong. */
static void repair_flags(Test *t)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (image_test_status(NULL, &text, "qemu-img check -f qcow2 %s",
                          t->path) != 2) {
        return;
    }
    lines = g_strsplit(text, "\n", -1);
    for (int i = 0; lines[i]; i++) {
        if (strstr(lines[i], "ERROR") && !is_harmless(lines[i], text)) {
            g_error("%s: %s", t->dir, lines[i]);
        }
    }
    image_test_run("qemu-img check -q -r all -f qcow2 %s", t->path);
}

static void coroutine_fn co_judge_cut(Test *t, CrashDisk disks[2],
                                      uint64_t entries, const Moment *moment,
                                      int number)
{
    static const int keep[] = { 100, 0, 50, 90, 10 };
    uint64_t cut = entries ? disks[0].ends[entries - 1] : 0;
    int percent = keep[number % G_N_ELEMENTS(keep)];
    bool clean = false;

    for (guint i = 0; i < t->flushes->len; i++) {
        const Flush *f = &g_array_index(t->flushes, Flush, i);

        clean = clean || (f->closed && f->log == cut);
    }
    crash_disk_cut(&disks[0], entries, percent, t->rand);
    g_assert_true(g_file_set_contents(t->path, (char *)disks[0].image,
                                      disks[0].image_len, NULL));
    if (t->config->data_file) {
        crash_disk_cut(&disks[1],
                       crash_disk_entries(&disks[1], moment->log[1]), percent,
                       t->rand);
        g_assert_true(g_file_set_contents(t->data, (char *)disks[1].image,
                                          disks[1].image_len, NULL));
    }
    if (clean) {
        g_assert_false(is_dirty(&disks[0]));
    } else if (t->config->v2) {
        repair_flags(t);
    }
    if (!is_dirty(&disks[0])) {
        bool leaks = image_test_only_leaks(t->path);

        g_assert_true(!clean || !leaks);
    }
    advance_base(t, cut);
    if (!is_dirty(&disks[0])) {
        check_snapshots(t, cut);
    }
    co_judge(t, cut, clean, number % 3 == 0);
    if (number % 3 == 0 || is_dirty(&disks[0])) {
        image_test_only_leaks(t->path);
    }
}

static gint compare_numbers(gconstpointer a, gconstpointer b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Half of the cuts are at a flush, the others anywhere; in order. */
static void coroutine_fn co_judge_all(Test *t, CrashDisk disks[2])
{
    int points = image_test_number("QCOW2_CRASH_POINTS", 10);
    uint64_t n = disks[0].replay->n_entries;
    g_autofree uint64_t *cuts = g_new(uint64_t, points + SESSIONS);

    for (int i = 0; i < points; i++) {
        cuts[i] = g_rand_int_range(t->rand, 0, n + 1);
        while (i % 2 && cuts[i] > 0 && cuts[i] < n
               && !(disks[0].replay->entries[cuts[i] - 1].flags
                    & CRASH_FLUSH)) {
            cuts[i]++;
        }
    }
    for (guint i = 0, at = points; i < t->flushes->len; i++) {
        const Flush *f = &g_array_index(t->flushes, Flush, i);

        if (f->closed) {
            cuts[at++] = crash_disk_entries(&disks[0], f->log);
        }
    }
    qsort(cuts, points + SESSIONS, sizeof(*cuts), compare_numbers);
    for (int i = 0; i < points + SESSIONS; i++) {
        co_judge_cut(t, disks, cuts[i], NULL, i);
    }
}

/* Two logs: only where it is known how they go together. */
static void coroutine_fn co_judge_moments(Test *t, CrashDisk disks[2])
{
    int points = image_test_number("QCOW2_CRASH_POINTS", 10);
    guint step = MAX(t->moments->len / points, 1);

    for (guint i = g_rand_int_range(t->rand, 0, step); i < t->moments->len;
         i += step) {
        const Moment *m = &g_array_index(t->moments, Moment, i);

        co_judge_cut(t, disks, crash_disk_entries(&disks[0], m->log[0]), m,
                     i / step);
    }
}

/* ---- set-up ---- */

static void make_backing(Test *t)
{
    g_autofree char *base = g_build_filename(t->dir, "base", NULL);

    t->backing = g_malloc0(MAX_BYTES);
    for (int64_t i = 0; i < START_BYTES / 2; i++) {
        t->backing[i] = i / 4096 % 3 ? 0xb0 + i / 4096 % 11 : 0;
    }
    g_assert_true(g_file_set_contents(base, (char *)t->backing,
                                      START_BYTES / 2, NULL));
    image_test_run("qemu-img create -q -f qcow2 -b base -F raw -o %s %s %d",
                   t->config->create, t->path, START_BYTES);
    memcpy(t->base, t->backing, MAX_BYTES);
}

static void make_image(Test *t)
{
    t->base = g_malloc0(MAX_BYTES);
    t->len = t->base_len = START_BYTES;
    if (t->config->backing) {
        make_backing(t);
    } else {
        g_autofree char *create = t->config->data_file
            ? g_strdup_printf("data_file=%s,cluster_size=4k", t->data)
            : g_strdup(t->config->create);

        image_test_run("qemu-img create -q -f qcow2 -o %s %s %d", create,
                       t->path, START_BYTES);
    }
    for (int i = 0; i < 1 + t->config->data_file; i++) {
        image_test_run("cp %s %s", i ? t->data : t->path, t->before[i]);
        g_assert_true(g_file_set_contents(t->log[i], "", 0, NULL));
    }
}

static void snap_clear(gpointer data)
{
    g_free(((Snap *)data)->bytes);
}

static void test_init(Test *t, const Config *c, uint32_t seed)
{
    *t = (Test) { .config = c, .dir = image_test_folder("qsd-crash") };
    t->rand = g_rand_new_with_seed(seed);
    t->path = g_build_filename(t->dir, "image", NULL);
    t->before[0] = g_build_filename(t->dir, "before", NULL);
    t->log[0] = g_build_filename(t->dir, "log", NULL);
    if (c->data_file) {
        t->data = g_build_filename(t->dir, "data", NULL);
        t->before[1] = g_build_filename(t->dir, "before-data", NULL);
        t->log[1] = g_build_filename(t->dir, "log-data", NULL);
    }
    pthread_mutex_init(&t->lock, NULL);
    t->ops = g_ptr_array_new_with_free_func(op_free);
    t->by_end = g_ptr_array_new();
    t->flushes = g_array_new(false, false, sizeof(Flush));
    t->snaps = g_array_new(false, false, sizeof(Snap));
    g_array_set_clear_func(t->snaps, snap_clear);
    t->moments = g_array_new(false, false, sizeof(Moment));
    make_image(t);
}

static void test_deinit(Test *t)
{
    image_test_run("rm -r %s", t->dir);
    g_rand_free(t->rand);
    pthread_mutex_destroy(&t->lock);
    g_ptr_array_free(t->by_end, true);
    g_ptr_array_free(t->ops, true);
    g_array_free(t->flushes, true);
    g_array_free(t->snaps, true);
    g_array_free(t->moments, true);
    for (int i = 0; i < 2; i++) {
        g_free(t->log[i]);
        g_free(t->before[i]);
    }
    g_free(t->data);
    g_free(t->path);
    g_free(t->dir);
    g_free(t->base);
    g_free(t->backing);
}

static void coroutine_fn co_test(void *opaque)
{
    uint32_t seed = image_test_number("QCOW2_CRASH_SEED", g_test_rand_int());
    CrashDisk disks[2] = { 0 };
    Test t;

    g_test_message("QCOW2_CRASH_SEED=%u", seed);
    test_init(&t, opaque, seed);
    for (int i = 0; i < SESSIONS; i++) {
        co_session(&t, i);
    }
    for (guint i = 0; i < t.ops->len; i++) {
        g_ptr_array_add(t.by_end, g_ptr_array_index(t.ops, i));
    }
    g_ptr_array_sort(t.by_end, by_ended);
    for (int i = 0; i < 1 + t.config->data_file; i++) {
        crash_disk_init(&disks[i], t.before[i], t.log[i], FILE_BYTES);
    }
    if (t.config->data_file) {
        co_judge_moments(&t, disks);
    } else {
        co_judge_all(&t, disks);
    }
    for (int i = 0; i < 1 + t.config->data_file; i++) {
        crash_disk_deinit(&disks[i]);
    }
    test_deinit(&t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(configs); i++) {
        block_test_add_one(i % 2 ? AIO_BACKEND_EPOLL : AIO_BACKEND_IO_URING,
                           co_test, &configs[i], "/qcow2/crash/%s",
                           configs[i].name);
    }
    return g_test_run();
}
