/* SPDX-License-Identifier: MIT */
/*
 * Writes to the header of a qcow2 image that report an error although they
 * were carried out, or half of them, or that are not stable, or after which
 * storage answers nothing any more.  Whatever the header was to switch to, the
 * node and the file must go on with the same tables.
 */
#include "block/qcow2.h"

#include <string.h>

#include "block/snapshot.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define LEN (3 << 20)
#define GROWN (6 << 20)
#define SHRUNK (1 << 20)
#define BIG_START (200 << 10)           /* what fills the refcount table */
#define BIG_END (2700 << 10)
#define BIG_BYTE 0x77
#define HEADER 512                      /* bytes */

extern const BlockDriver bdrv_file;

typedef enum { LANDED, TORN, UNSTABLE, DEAD, N_FAULTS } Fault;

static const char *const fault_names[] = {
    "landed", "torn", "unstable", "dead",
};

/* ---- storage ---- */

static struct {
    Fault fault;
    int left;               /* header writes until it fails; 0: none does */
    bool hit;
    bool flush_fails;       /* once */
    bool dead;
} storage;

static int coroutine_fn faulty_co_pwritev(BlockDriverState *bs,
                                          int64_t offset, int64_t bytes,
                                          QEMUIOVector *qiov,
                                          BdrvRequestFlags flags)
{
    g_autofree uint8_t *half = NULL;
    QEMUIOVector part;
    int ret;

    if (storage.dead) {
        return -EIO;
    }
    if (offset >= HEADER || storage.left == 0 || --storage.left > 0) {
        return bdrv_file.bdrv_co_pwritev(bs, offset, bytes, qiov, flags);
    }
    storage.hit = true;
    if (storage.fault == TORN) {
        half = g_malloc(bytes);
        qemu_iovec_to_buf(qiov, 0, half, bytes);
        qemu_iovec_init_buf(&part, half, bytes / 2);
        ret = bdrv_file.bdrv_co_pwritev(bs, offset, bytes / 2, &part, flags);
    } else {
        ret = bdrv_file.bdrv_co_pwritev(bs, offset, bytes, qiov, flags);
    }
    g_assert_cmpint(ret, >=, 0);
    storage.dead = storage.fault == DEAD;
    storage.flush_fails = storage.fault == UNSTABLE;
    return storage.flush_fails ? 0 : -EIO;
}

static int coroutine_fn faulty_co_preadv(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         BdrvRequestFlags flags)
{
    return storage.dead ? -EIO : bdrv_file.bdrv_co_preadv(bs, offset, bytes,
                                                          qiov, flags);
}

static int coroutine_fn faulty_co_flush(BlockDriverState *bs)
{
    if (storage.dead || storage.flush_fails) {
        storage.flush_fails = false;
        return -EIO;
    }
    return bdrv_file.bdrv_co_flush(bs);
}

static BlockDriver faulty;

/* ---- nodes ---- */

typedef struct Test {
    char *dir, *path, *copy;
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t *shadow;
    bool big_unsure;
} Test;

static void coroutine_fn co_open(Test *t, const char *path)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'file': {'driver': 'file', "
        "'filename': '%s', 'node-name': 'file'}}", path);

    storage.dead = storage.flush_fails = storage.hit = false;
    t->bs = block_test_co_open(json);
    t->blk = block_test_co_attach(t->bs, "test", BLK_PERM_ALL, BLK_PERM_ALL);
    faulty = bdrv_file;
    faulty.bdrv_co_pwritev = faulty_co_pwritev;
    faulty.bdrv_co_preadv = faulty_co_preadv;
    faulty.bdrv_co_flush = faulty_co_flush;
    bdrv_find_node("file")->drv = &faulty;
}

static void coroutine_fn co_close(Test *t)
{
    blk_co_free(t->blk);
    block_test_co_close(t->bs);
}

static int coroutine_fn co_fill(Test *t, int value, int64_t start, int64_t end)
{
    g_autofree uint8_t *buf = g_malloc(end - start);
    QEMUIOVector qiov;
    int ret;

    memset(buf, value, end - start);
    qemu_iovec_init_buf(&qiov, buf, end - start);
    blk_co_begin_request(t->blk);
    ret = blk_co_pwritev(t->blk, start, &qiov, 0);
    if (ret >= 0) {
        ret = blk_co_flush(t->blk);
    }
    blk_end_request(t->blk);
    return ret;
}

/* Pieces all over the disk: new L2 tables, new clusters. */
static void coroutine_fn co_write_pieces(Test *t, int value)
{
    for (int64_t at = value * 700; at + 3000 < SHRUNK; at += 100000) {
        g_assert_cmpint(co_fill(t, value, at, at + 3000), ==, 0);
        memset(t->shadow + at, value, 3000);
    }
}

static void coroutine_fn co_compare(Test *t)
{
    int64_t len = MIN(blk_getlength(t->blk), LEN);
    g_autofree uint8_t *buf = g_malloc(len);
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, len);
    blk_co_begin_request(t->blk);
    g_assert_cmpint(blk_co_preadv(t->blk, 0, &qiov, 0), ==, 0);
    blk_end_request(t->blk);
    for (int64_t i = 0; i < len; i++) {
        if (buf[i] != t->shadow[i]
            && !(t->big_unsure && buf[i] == BIG_BYTE && i >= BIG_START
                 && i < BIG_END)) {
            g_error("byte %#" G_GINT64_MODIFIER "x is %02x instead of %02x",
                    i, buf[i], t->shadow[i]);
        }
    }
}

/* ---- what switches something ---- */

static bool coroutine_fn co_resize(Test *t, int64_t len, Error **errp)
{
    int ret;

    blk_co_begin_request(t->blk);
    ret = blk_co_truncate(t->blk, len, PREALLOC_MODE_OFF, 0, errp);
    blk_end_request(t->blk);
    return ret >= 0;
}

static bool coroutine_fn co_op_grow(Test *t, Error **errp)
{
    return co_resize(t, GROWN, errp);
}

static bool coroutine_fn co_op_shrink(Test *t, Error **errp)
{
    return co_resize(t, SHRUNK, errp);
}

static bool coroutine_fn co_op_refcounts(Test *t, Error **errp)
{
    if (co_fill(t, BIG_BYTE, BIG_START, BIG_END) < 0) {
        t->big_unsure = true;
        error_setg(errp, "writing failed");
        return false;
    }
    memset(t->shadow + BIG_START, BIG_BYTE, BIG_END - BIG_START);
    t->big_unsure = false;
    return true;
}

static bool coroutine_fn co_op_create(Test *t, Error **errp)
{
    return bdrv_co_snapshot_create(t->bs, "new", NULL, errp);
}

static bool coroutine_fn co_op_delete(Test *t, Error **errp)
{
    g_autoptr(SnapshotInfoList) list = bdrv_snapshot_list(t->bs, NULL);

    if (!list) {
        return true;            /* what failed was to say that all is clean */
    }
    return bdrv_co_snapshot_delete(t->bs, NULL, "empty", errp);
}

static bool coroutine_fn co_op_apply(Test *t, Error **errp)
{
    uint64_t before = ((BDRVQcow2State *)t->bs->opaque)->l1_table_offset;
    bool ok = bdrv_co_snapshot_apply(t->bs, "empty", errp);

    /* It may have failed at tidying up, after the switch. */
    if (((BDRVQcow2State *)t->bs->opaque)->l1_table_offset != before) {
        memset(t->shadow, 0, LEN);
    }
    return ok;
}

static bool coroutine_fn co_op_bitmap(Test *t, Error **errp)
{
    return t->bs->drv->bdrv_co_remove_stored_bitmap(t->bs, "bitmap", errp);
}

typedef bool coroutine_fn Op(Test *t, Error **errp);

static const struct {
    const char *name, *create;
    bool bitmap;
    Op *co_op;
} ops[] = {
    { "grow", "compat=1.1", false, co_op_grow },
    { "grow-v2", "compat=0.10", false, co_op_grow },
    { "shrink", "compat=1.1", false, co_op_shrink },
    { "refcounts", "refcount_bits=64", false, co_op_refcounts },
    { "lazy", "lazy_refcounts=on,refcount_bits=64", false, co_op_refcounts },
    { "snapshot-create", "compat=1.1", false, co_op_create },
    { "snapshot-create-v2", "compat=0.10", false, co_op_create },
    { "snapshot-delete", "compat=1.1", false, co_op_delete },
    { "snapshot-apply", "compat=1.1", false, co_op_apply },
    { "bitmap-remove", "compat=1.1", true, co_op_bitmap },
};

/* ---- tests ---- */

/* Were the process killed now, the image would be sound. */
static void coroutine_fn co_judge_copy(Test *t)
{
    Test copy = *t;

    image_test_run("cp %s %s", t->path, t->copy);
    bdrv_find_node("file")->node_name[0] = 'F';
    t->bs->node_name[0] = 'N';
    co_open(&copy, t->copy);
    co_compare(&copy);
    co_close(&copy);
    image_test_only_leaks(t->copy);
    bdrv_find_node("File")->node_name[0] = 'f';
    t->bs->node_name[0] = 'n';
}

/* The header write number @n of the operation fails; false: it has fewer. */
static bool coroutine_fn co_fail(Test *t, Op *co_op, Fault fault, int n)
{
    Error *err = NULL;
    bool ok;

    image_test_run("cp %s/original %s", t->dir, t->path);
    memset(t->shadow, 0, LEN);
    t->big_unsure = false;
    co_open(t, t->path);
    co_write_pieces(t, 1);
    storage.fault = fault;
    storage.left = n;
    ok = co_op(t, &err);
    storage.left = 0;
    if (!storage.hit) {
        node_test_no_error(err);
        co_close(t);
        return false;
    }
    /* Saying that the image is clean again is not what was asked for. */
    g_assert_true(!ok || n > 1);
    g_assert_true(ok == !err);
    g_clear_pointer(&err, error_free);
    storage.dead = storage.flush_fails = false;

    co_write_pieces(t, 2);
    co_compare(t);
    co_judge_copy(t);
    if (!ok) {
        co_op(t, &err);
        node_test_no_error(err);
    }
    co_write_pieces(t, 3);
    co_compare(t);
    co_close(t);
    image_test_only_leaks(t->path);
    return true;
}

/* The header writes of closing fail: nobody is there to try again. */
static bool coroutine_fn co_fail_closing(Test *t, Fault fault, int n)
{
    bool hit;

    image_test_run("cp %s/original %s", t->dir, t->path);
    memset(t->shadow, 0, LEN);
    co_open(t, t->path);
    co_write_pieces(t, 1);
    storage.fault = fault;
    storage.left = n;
    co_close(t);
    storage.left = 0;
    hit = storage.hit;
    co_open(t, t->path);
    co_compare(t);
    co_close(t);
    image_test_only_leaks(t->path);
    return hit;
}

static void coroutine_fn co_test(void *opaque)
{
    int i = GPOINTER_TO_INT(opaque);
    Test t = {
        .dir = image_test_folder("qsd-switch"),
        .shadow = g_malloc0(LEN),
    };

    t.path = g_build_filename(t.dir, "image", NULL);
    t.copy = g_build_filename(t.dir, "copy", NULL);
    image_test_run("qemu-img create -q -f qcow2 -o cluster_size=512,%s %s %d",
                   ops[i].create, t.path, LEN);
    if (ops[i].bitmap) {
        image_test_run("qemu-img bitmap --add %s bitmap", t.path);
        image_test_run("qemu-img bitmap --add %s other", t.path);
    } else if (ops[i].co_op != co_op_grow && ops[i].co_op != co_op_shrink) {
        image_test_run("qemu-img snapshot -c empty %s", t.path);
    }
    image_test_run("mv %s %s/original", t.path, t.dir);

    for (Fault fault = 0; fault < N_FAULTS; fault++) {
        int n = 1;

        while (co_fail(&t, ops[i].co_op, fault, n)) {
            g_test_message("%s, write %d", fault_names[fault], n);
            n++;
        }
        g_assert_cmpint(n, >, 1);
        n = 1;
        while ((ops[i].bitmap || strstr(ops[i].create, "lazy"))
               && co_fail_closing(&t, fault, n)) {
            n++;
        }
    }
    image_test_run("rm -r %s", t.dir);
    g_free(t.dir);
    g_free(t.path);
    g_free(t.copy);
    g_free(t.shadow);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
        BlockTest *test = g_new(BlockTest, 1);
        g_autofree char *path = g_strdup_printf("/qcow2/switch/%s",
                                                ops[i].name);

        *test = (BlockTest) { AIO_BACKEND_EPOLL, co_test,
                              GINT_TO_POINTER((int)i) };
        g_test_add_data_func_full(path, test, block_test_run, g_free);
    }
    return g_test_run();
}
