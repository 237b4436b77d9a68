/* SPDX-License-Identifier: MIT */
/*
 * Snapshots inside of qcow2 images: made, applied and deleted here, seen and
 * judged by qemu-img, and the other way round; broken tables; and every state
 * in which a crash can leave the file in the middle of an operation.
 */
#include <inttypes.h>

#include "block/check.h"
#include "block/snapshot.h"
#include "qapi/qapi-commands.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "tests/unit/log-writes-test.h"
#include "tests/unit/qcow2-image.h"
#include "util/co-event.h"

#define MiB (1 << 20)

typedef struct Test {
    const char *options;        /* -o of qemu-img create */
    char *dir, *image, *copy, *log;
    BlockDriverState *bs;
    BlockBackend *blk;
} Test;

static void test_init(Test *t, const char *options)
{
    *t = (Test) { .options = options };
    t->dir = image_test_folder("qsd-snapshot");
    t->image = g_build_filename(t->dir, "image.qcow2", NULL);
    t->copy = g_build_filename(t->dir, "copy.qcow2", NULL);
    t->log = g_build_filename(t->dir, "log", NULL);
    image_test_run("qemu-img create -q -f qcow2 -o %s %s 3M", options,
                   t->image);
}

static void test_deinit(Test *t)
{
    image_test_run("rm -r %s", t->dir);
    g_free(t->dir);
    g_free(t->image);
    g_free(t->copy);
    g_free(t->log);
}

/* ---- nodes ---- */

static void coroutine_fn co_open_json(Test *t, const char *json)
{
    t->bs = block_test_co_open(json);
    t->blk = block_test_co_attach(t->bs, "test", BLK_PERM_ALL, BLK_PERM_ALL);
}

static void coroutine_fn co_open(Test *t, const char *path)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'discard': 'unmap', 'file': "
        "{'driver': 'file', 'filename': '%s'}}", path);

    co_open_json(t, json);
}

static void coroutine_fn co_close(Test *t)
{
    blk_co_free(t->blk);
    block_test_co_close(t->bs);
}

static void coroutine_fn co_write(Test *t, int value, int64_t offset,
                                  int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;

    memset(buf, value, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(t->blk);
    g_assert_cmpint(blk_co_pwritev(t->blk, offset, &qiov, 0), ==, 0);
    blk_end_request(t->blk);
}

/* All of the guest's data; the caller frees. */
static uint8_t *coroutine_fn co_read(Test *t)
{
    int64_t len = blk_getlength(t->blk);
    uint8_t *buf = g_malloc0(4 * MiB);
    QEMUIOVector qiov;

    g_assert_cmpint(len, <=, 4 * MiB);
    qemu_iovec_init_buf(&qiov, buf, len);
    blk_co_begin_request(t->blk);
    g_assert_cmpint(blk_co_preadv(t->blk, 0, &qiov, 0), ==, 0);
    blk_end_request(t->blk);
    return buf;
}

static bool same(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, 4 * MiB) == 0;
}

static void coroutine_fn co_create(Test *t, const char *name)
{
    Error *err = NULL;

    bdrv_co_snapshot_create(t->bs, name, NULL, &err);
    node_test_no_error(err);
}

static void coroutine_fn co_apply(Test *t, const char *name)
{
    Error *err = NULL;

    bdrv_co_snapshot_apply(t->bs, name, &err);
    node_test_no_error(err);
}

static void coroutine_fn co_delete(Test *t, const char *name)
{
    Error *err = NULL;

    bdrv_co_snapshot_delete(t->bs, NULL, name, &err);
    node_test_no_error(err);
}

/* ---- what it should do ---- */

static const char *const all_options[] = {
    "compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=2M",
    "extended_l2=on", "refcount_bits=64", "refcount_bits=8",
    "lazy_refcounts=on",
};

/* Writes between snapshots; what each of them holds. */
static void coroutine_fn co_life(void *opaque)
{
    uint8_t *first, *second, *third, *now;
    Test t;

    test_init(&t, opaque);
    image_test_run("qemu-io -c 'write -c -P 9 2M 1M' %s", t.image);
    co_open(&t, t.image);
    co_write(&t, 1, 0, 300000);
    co_write(&t, 2, 1 * MiB, 70000);
    co_create(&t, "one");
    first = co_read(&t);
    co_write(&t, 3, 1000, 5000);
    co_write(&t, 4, 2 * MiB + 100, 70000);
    second = co_read(&t);
    g_assert_false(same(first, second));
    co_create(&t, "two");
    co_write(&t, 5, 200000, 900000);
    third = co_read(&t);

    co_apply(&t, "one");
    now = co_read(&t);
    g_assert_true(same(now, first));
    co_write(&t, 6, 0, 3 * MiB);
    g_free(now);
    co_apply(&t, "2");                  /* the number */
    now = co_read(&t);
    g_assert_true(same(now, second));
    co_close(&t);
    image_test_run("qemu-img check %s", t.image);

    /* It survives, and qemu-img sees the same. */
    image_test_run("qemu-img snapshot -a one %s", t.image);
    co_open(&t, t.image);
    g_free(now);
    now = co_read(&t);
    g_assert_true(same(now, first));
    co_delete(&t, "one");
    g_free(now);
    now = co_read(&t);
    g_assert_true(same(now, first));
    co_apply(&t, "two");
    co_write(&t, 7, 123456, 234567);
    co_delete(&t, "two");
    g_assert_null(bdrv_snapshot_list(t.bs, NULL));
    co_close(&t);
    image_test_run("qemu-img check %s", t.image);
    g_free(first);
    g_free(second);
    g_free(third);
    g_free(now);
    test_deinit(&t);
}

/* The list as qemu-img prints it. */
static void coroutine_fn co_list(void *opaque)
{
    g_autofree char *out = NULL;
    SnapshotInfoList *list;
    QObject *obj;
    const QList *theirs;
    TestImage im;
    Test t;

    (void)opaque;
    test_init(&t, "compat=1.1");
    image_test_run("qemu-img snapshot -c theirs %s", t.image);
    /* As if a machine had been saved with it. */
    test_image_load(&im, t.image);
    test_image_set(&im, im.h.snapshots_offset + sizeof(Qcow2SnapshotHeader),
                   UINT64_C(5) << 32);
    test_image_save(&im, t.image);
    test_image_free(&im);

    co_open(&t, t.image);
    co_create(&t, "ours");
    list = bdrv_snapshot_list(t.bs, NULL);
    co_close(&t);
    g_assert_nonnull(list);
    g_assert_nonnull(list->next);
    g_assert_null(list->next->next);
    g_assert_cmpstr(list->value->id, ==, "1");
    g_assert_cmpstr(list->value->name, ==, "theirs");
    g_assert_cmpint(list->value->vm_state_size, ==, INT64_C(5) << 32);
    g_assert_cmpstr(list->next->value->id, ==, "2");
    g_assert_cmpstr(list->next->value->name, ==, "ours");
    g_assert_false(list->next->value->has_icount);

    out = image_test_output("qemu-img info --output=json %s", t.image);
    obj = qobject_from_json(out, NULL);
    theirs = qdict_get_qlist(qobject_to_qdict(obj), "snapshots");
    g_assert_cmpuint(qlist_size(theirs), ==, 2);
    for (SnapshotInfoList *l = list; l; l = l->next) {
        const QDict *d = qobject_to_qdict(qlist_at(theirs, l != list));

        g_assert_cmpstr(qdict_get_str(d, "name"), ==, l->value->name);
        g_assert_cmpint(qdict_get_int(d, "vm-state-size", -1), ==,
                        l->value->vm_state_size);
        g_assert_cmpint(qdict_get_int(d, "date-sec", -1), ==,
                        l->value->date_sec);
        g_assert_cmpint(qdict_get_int(d, "date-nsec", -1), ==,
                        l->value->date_nsec);
    }
    qobject_unref(obj);
    qapi_free_SnapshotInfoList(list);
    test_deinit(&t);
}

/* The disk has changed its size since. */
static void coroutine_fn co_sizes(void *opaque)
{
    uint8_t *small, *large, *now;
    Test t;

    test_init(&t, opaque);
    co_open(&t, t.image);
    co_write(&t, 1, 0, 3 * MiB);
    co_create(&t, "small");
    small = co_read(&t);
    co_close(&t);
    image_test_run("qemu-img resize -q %s 4M", t.image);
    co_open(&t, t.image);
    co_write(&t, 2, 2 * MiB, 2 * MiB);
    co_create(&t, "large");
    large = co_read(&t);
    co_apply(&t, "small");
    g_assert_cmpint(blk_getlength(t.blk), ==, 3 * MiB);
    now = co_read(&t);
    g_assert_true(same(now, small));
    g_free(now);
    co_apply(&t, "large");
    g_assert_cmpint(blk_getlength(t.blk), ==, 4 * MiB);
    now = co_read(&t);
    g_assert_true(same(now, large));
    co_close(&t);
    image_test_run("qemu-img check %s", t.image);
    g_free(small);
    g_free(large);
    g_free(now);
    test_deinit(&t);
}

/* ---- what it should refuse ---- */

static void coroutine_fn co_refuses(void *opaque)
{
    Error *err = NULL;
    Test t;

    (void)opaque;
    test_init(&t, "refcount_bits=1");
    co_open(&t, t.image);
    co_write(&t, 1, 0, 100000);
    /* Nothing can have two users. */
    g_assert_false(bdrv_co_snapshot_create(t.bs, "x", NULL, &err));
    node_test_assert_error(err, "Failed to share the image's clusters: "
                           "Invalid argument");
    g_assert_null(bdrv_snapshot_list(t.bs, NULL));
    g_assert_false(bdrv_co_snapshot_apply(t.bs, "x", &err));
    node_test_assert_error(err, "Failed to load snapshot: No such file or "
                           "directory");
    g_assert_false(bdrv_co_snapshot_delete(t.bs, NULL, "x", &err));
    node_test_assert_error(err, "Can't find the snapshot");
    co_close(&t);
    image_test_run("qemu-img check %s", t.image);
    image_test_run("rm %s", t.image);

    image_test_run("qemu-img create -q -f qcow2 -o data_file=%s %s 1M", t.copy,
                   t.image);
    co_open(&t, t.image);
    g_assert_false(bdrv_co_snapshot_create(t.bs, "x", NULL, &err));
    node_test_assert_error(err, "Images with an external data file have no "
                           "internal snapshots");
    co_close(&t);
    image_test_run("rm %s", t.image);

    image_test_run("qemu-img create -q -f qcow2 %s 1M", t.image);
    co_open(&t, t.image);
    co_create(&t, "x");
    g_assert_false(bdrv_co_snapshot_create(t.bs, "y", "1", &err));
    node_test_assert_error(err, "A snapshot with id '1' exists already");
    co_close(&t);
    test_deinit(&t);
}

/* A refcount in the middle is at its limit: all is as before. */
static void coroutine_fn co_overflow(void *opaque)
{
    Error *err = NULL;
    Test t;

    (void)opaque;
    test_init(&t, "refcount_bits=2");
    co_open(&t, t.image);
    co_write(&t, 1, 0, 3 * MiB);
    co_create(&t, "a");
    co_create(&t, "b");
    co_write(&t, 2, 0, 1 * MiB);
    g_assert_false(bdrv_co_snapshot_create(t.bs, "c", NULL, &err));
    node_test_assert_error(err, "Failed to share the image's clusters: "
                           "Invalid argument");
    co_delete(&t, "a");
    co_create(&t, "c");
    co_close(&t);
    image_test_run("qemu-img check %s", t.image);
    test_deinit(&t);
}

static void coroutine_fn co_open_broken(Test *t, TestImage *im,
                                        const char *text)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'file': "
        "{'driver': 'file', 'filename': '%s'}}", t->copy);
    Error *err = NULL;

    test_image_save(im, t->copy);
    test_image_free(im);
    test_image_load(im, t->image);
    g_assert_null(node_test_co_try_open(&err, json));
    if (text) {
        node_test_assert_error(err, text);
    }
    error_free(err);
}

/* Tables that no program would write. */
static void coroutine_fn co_broken_tables(void *opaque)
{
    TestImage im;
    Test t;
    uint64_t at;

    (void)opaque;
    test_init(&t, "compat=1.1");
    image_test_run("qemu-img snapshot -c x %s", t.image);
    test_image_load(&im, t.image);
    at = im.h.snapshots_offset;

    test_image_set32(&im, at + offsetof(Qcow2SnapshotHeader, extra_data_size),
                     UINT32_MAX);
    co_open_broken(&t, &im, "Too much extra metadata in snapshot table entry "
                   "0");
    test_image_set32(&im, offsetof(Qcow2Header, nb_snapshots), UINT32_MAX);
    co_open_broken(&t, &im, "Snapshot table too large");
    test_image_set32(&im, offsetof(Qcow2Header, nb_snapshots), 65536);
    co_open_broken(&t, &im, NULL);
    test_image_set(&im, offsetof(Qcow2Header, snapshots_offset), 512);
    co_open_broken(&t, &im, "Snapshot table offset invalid");
    test_image_set(&im, offsetof(Qcow2Header, snapshots_offset),
                   UINT64_C(1) << 62);
    co_open_broken(&t, &im, "Snapshot table offset invalid");
    test_image_set(&im, offsetof(Qcow2Header, snapshots_offset),
                   UINT64_C(1) << 40);
    co_open_broken(&t, &im, "Snapshot table offset invalid");
    test_image_free(&im);
    test_deinit(&t);
}

/* L1 tables and entries that lead nowhere: an error, and no damage. */
static void coroutine_fn co_broken_l1(void *opaque)
{
    Error *err = NULL;
    TestImage im;
    Test t;

    (void)opaque;
    test_init(&t, "compat=1.1");
    image_test_run("qemu-io -c 'write -P 1 0 1M' %s", t.image);
    image_test_run("qemu-img snapshot -c x %s", t.image);
    test_image_load(&im, t.image);
    test_image_set32(&im, im.h.snapshots_offset
                     + offsetof(Qcow2SnapshotHeader, l1_size), 0x7fffffff);
    test_image_save(&im, t.copy);
    co_open(&t, t.copy);
    g_assert_false(bdrv_co_snapshot_apply(t.bs, "x", &err));
    node_test_assert_error(err, "Snapshot L1 table too large");
    g_assert_false(bdrv_co_snapshot_delete(t.bs, NULL, "x", &err));
    node_test_assert_error(err, "Snapshot L1 table too large");
    co_close(&t);
    test_image_free(&im);

    test_image_load(&im, t.image);
    test_image_set(&im, im.h.snapshots_offset,
                   test_image_get(&im, im.h.snapshots_offset) + 512);
    test_image_save(&im, t.copy);
    co_open(&t, t.copy);
    g_assert_false(bdrv_co_snapshot_apply(t.bs, "x", &err));
    node_test_assert_error(err, "Snapshot L1 table offset invalid");
    co_close(&t);
    test_image_free(&im);

    /* Far beyond the file: nobody has counted that. */
    test_image_load(&im, t.image);
    test_image_set(&im, test_image_get(&im, im.h.snapshots_offset),
                   UINT64_C(1) << 40);
    test_image_save(&im, t.copy);
    co_open(&t, t.copy);
    g_assert_false(bdrv_co_snapshot_apply(t.bs, "x", &err));
    error_free(err);
    co_close(&t);
    test_image_free(&im);
    test_deinit(&t);
}

/* ---- commands of several monitors at once ---- */

typedef struct Commands {
    unsigned running, failed;
    CoEvent done;
} Commands;

typedef struct Command {
    Commands *all;
    void coroutine_fn (*co_run)(Error **errp);
    const char *fails;          /* how it may fail, or NULL */
} Command;

static void coroutine_fn co_command_entry(void *opaque)
{
    const Command *c = opaque;
    Error *err = NULL;

    c->co_run(&err);
    if (err && !(c->fails && strstr(error_get_pretty(err), c->fails))) {
        g_error("unexpected error: %s", error_get_pretty(err));
    }
    c->all->failed += err != NULL;
    error_free(err);
    if (--c->all->running == 0) {
        co_event_set(&c->all->done);
    }
}

static void coroutine_fn co_cmd_create(Error **errp)
{
    BlockdevSnapshotInternal arg = { .device = (char *)"node",
                                     .name = (char *)"new" };

    qmp_blockdev_snapshot_internal_sync(&arg, errp);
}

static void coroutine_fn co_cmd_delete(Error **errp)
{
    QmpBlockdevSnapshotDeleteInternalSyncArg arg = {
        .device = (char *)"node", .name = (char *)"old",
    };

    qapi_free_SnapshotInfo(qmp_blockdev_snapshot_delete_internal_sync(&arg,
                                                                      errp));
}

static void coroutine_fn co_cmd_grow(Error **errp)
{
    QmpBlockResizeArg arg = { .node_name = (char *)"node", .size = 4 * MiB };

    qmp_block_resize(&arg, errp);
}

static void coroutine_fn co_cmd_shrink(Error **errp)
{
    QmpBlockResizeArg arg = { .node_name = (char *)"node", .size = 1 * MiB };

    qmp_block_resize(&arg, errp);
}

static void coroutine_fn co_cmd_add_bitmap(Error **errp)
{
    BlockDirtyBitmapAdd arg = {
        .node = (char *)"node", .name = (char *)"bitmap",
        .has_persistent = true, .persistent = true,
    };

    qmp_block_dirty_bitmap_add(&arg, errp);
}

static void coroutine_fn co_cmd_remove_bitmap(Error **errp)
{
    BlockDirtyBitmap arg = { .node = (char *)"node",
                             .name = (char *)"stored" };

    qmp_block_dirty_bitmap_remove(&arg, errp);
}

static void coroutine_fn co_cmd_del(Error **errp)
{
    QmpBlockdevDelArg arg = { .node_name = (char *)"node" };

    qmp_blockdev_del(&arg, errp);
}

/*
 * All commands at once, in another order each time: of two that want the same
 * one gets an error, and what they all leave is an image.
 */
static void coroutine_fn co_commands(void *opaque)
{
    Commands all;
    Command commands[] = {
        { &all, co_cmd_create, "already exists" },
        { &all, co_cmd_delete, "does not exist" },
        { &all, co_cmd_grow, NULL },
        { &all, co_cmd_add_bitmap, "already exists" },
        { &all, co_cmd_create, "already exists" },
        { &all, co_cmd_shrink, NULL },
        { &all, co_cmd_remove_bitmap, "not found" },
        { &all, co_cmd_delete, "does not exist" },
        { &all, co_cmd_del, "is in use" },
        { &all, co_cmd_remove_bitmap, "not found" },
        { &all, co_cmd_add_bitmap, "already exists" },
        { &all, co_cmd_grow, NULL },
    };
    unsigned n = G_N_ELEMENTS(commands);
    Test t;

    for (unsigned round = 0; round < n; round++) {
        SnapshotInfoList *list;

        test_init(&t, "cluster_size=4k");
        image_test_run("qemu-io -c 'write -q -P 1 0 3M' %s", t.image);
        image_test_run("qemu-img snapshot -c old %s", t.image);
        image_test_run("qemu-img bitmap --add %s stored", t.image);
        co_open(&t, t.image);
        all = (Commands) { .running = n };
        for (unsigned i = 0; i < n; i++) {
            coroutine_enter(coroutine_create(co_command_entry,
                                             &commands[(i * 5 + round) % n]));
        }
        co_event_wait(&all.done, -1);
        g_assert_cmpint(all.failed, ==, 5);
        list = bdrv_snapshot_list(t.bs, NULL);
        g_assert_cmpstr(list->value->name, ==, "new");
        g_assert_null(list->next);
        qapi_free_SnapshotInfoList(list);
        co_write(&t, 2, 0, 1 * MiB);
        co_close(&t);
        image_test_run("qemu-img check -q %s", t.image);
        test_deinit(&t);
    }
}

/* ---- crashes ---- */

typedef struct Crash {
    Test *t;
    uint8_t *base;              /* the file before, with room */
    size_t len, used;
    Replay *log;
    uint8_t *before, *after;    /* the guest's data */
    uint8_t *snapshot;          /* that of "one", while there is one */
    bool v2;
} Crash;

/* Does "one", if it is there, hold what it should? */
static void coroutine_fn co_judge_snapshot(Crash *c)
{
    SnapshotInfoList *list = bdrv_snapshot_list(c->t->bs, NULL);
    g_autofree uint8_t *now = NULL;

    if (list) {
        co_apply(c->t, "one");
        now = co_read(c->t);
        g_assert_true(same(now, c->snapshot));
    }
    qapi_free_SnapshotInfoList(list);
}

/* The file is @disk: it opens, holds what it did or will, and is sound. */
static void coroutine_fn co_judge(Crash *c, const uint8_t *disk, uint64_t at)
{
    Test *t = c->t;
    g_autofree uint8_t *now = NULL;
    int status;

    g_assert_true(g_file_set_contents(t->copy, (const char *)disk, c->used,
                                      NULL));
    co_open(t, t->copy);
    now = co_read(t);
    if (!same(now, c->before) && !same(now, c->after)) {
        g_error("after %" PRIu64 " writes the guest's data are neither", at);
    }
    /* It goes on as if nothing had been. */
    co_judge_snapshot(c);
    co_write(t, 8, 100, 3 * MiB - 200);
    co_judge_snapshot(c);
    co_close(t);
    status = image_test_status(NULL, NULL, "qemu-img check %s", t->copy);
    if (status != 0 && status != 3 && !c->v2) {
        g_error("after %" PRIu64 " writes the image is broken: %d", at,
                status);
    }
}

/* Entries [0, @n), less some of those that were not flushed. */
static void coroutine_fn co_judge_state(Crash *c, uint64_t n, GRand *rand)
{
    g_autofree uint8_t *disk = g_malloc(c->len);
    uint64_t flushed = 0;

    memcpy(disk, c->base, c->len);
    for (uint64_t i = 0; i < n; i++) {
        if (c->log->entries[i].flags & 1) {
            flushed = i;
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        Replay one = *c->log;

        if (rand && i > flushed && g_rand_boolean(rand)) {
            continue;
        }
        one.entries += i;
        replay_apply(&one, 1, disk, c->len);
    }
    co_judge(c, disk, n);
}

static void coroutine_fn co_open_logged(Test *t)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'file': "
        "{'driver': 'blklogwrites', 'file': "
        "{'driver': 'file', 'filename': '%s'}, 'log': "
        "{'driver': 'file', 'filename': '%s'}}}", t->image, t->log);

    g_assert_true(g_file_set_contents(t->log, "", 0, NULL));
    co_open_json(t, json);
}

typedef void coroutine_fn CoOperation(Test *t, const char *name);

static void coroutine_fn co_crash(Test *t, CoOperation *co_op,
                                  uint8_t *snapshot)
{
    Crash c = { .t = t, .len = 16 * MiB, .snapshot = snapshot,
                .v2 = strstr(t->options, "0.10") };
    GRand *rand = g_rand_new_with_seed(1);
    g_autofree char *bytes = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(t->image, &bytes, &len, NULL));
    c.base = g_malloc0(c.len);
    memcpy(c.base, bytes, len);
    co_open_logged(t);
    c.before = co_read(t);
    co_op(t, "one");
    c.after = co_read(t);
    if (!c.snapshot) {
        c.snapshot = c.after;
    }
    co_close(t);
    g_free(g_steal_pointer(&bytes));
    g_assert_true(g_file_get_contents(t->image, &bytes, &len, NULL));
    c.used = len;
    c.log = replay_open(t->log);
    for (uint64_t n = 0; n <= c.log->n_entries; n++) {
        co_judge_state(&c, n, NULL);
        for (unsigned i = 0; i < (g_test_slow() ? 5 : n % 2); i++) {
            co_judge_state(&c, n, rand);
        }
    }
    replay_free(c.log);
    g_rand_free(rand);
    g_free(c.base);
    g_free(c.before);
    g_free(c.after);
}

static void coroutine_fn co_crashes(void *opaque)
{
    uint8_t *snapshot;
    Test t;

    test_init(&t, opaque);
    co_open(&t, t.image);
    co_write(&t, 1, 0, 1 * MiB);
    co_write(&t, 2, 2 * MiB, 100000);
    snapshot = co_read(&t);
    co_close(&t);
    co_crash(&t, co_create, snapshot);
    co_open(&t, t.image);
    co_write(&t, 3, 500000, 700000);
    co_close(&t);
    co_crash(&t, co_apply, snapshot);
    co_open(&t, t.image);
    co_write(&t, 4, 300000, 300000);
    co_close(&t);
    co_crash(&t, co_delete, snapshot);
    g_free(snapshot);
    test_deinit(&t);
}

static void add(const char *name, const char *more, CoroutineEntry *entry,
                const void *opaque)
{
    block_test_add_one(AIO_BACKEND_EPOLL, entry, opaque, "/qcow2-snapshot/%s%s",
                       name, more);
}

int main(int argc, char **argv)
{
    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(all_options); i++) {
        add("life/", all_options[i], co_life, all_options[i]);
    }
    add("list", "", co_list, NULL);
    add("sizes/", "v3", co_sizes, "compat=1.1");
    add("sizes/", "small-clusters", co_sizes, "cluster_size=512");
    add("refuses", "", co_refuses, NULL);
    add("overflow", "", co_overflow, NULL);
    add("broken-tables", "", co_broken_tables, NULL);
    add("broken-l1", "", co_broken_l1, NULL);
    add("commands", "", co_commands, NULL);
    add("crash/", "v3", co_crashes, "compat=1.1");
    add("crash/", "v2", co_crashes, "compat=0.10");
    add("crash/", "lazy", co_crashes, "lazy_refcounts=on");
    return g_test_run();
}
