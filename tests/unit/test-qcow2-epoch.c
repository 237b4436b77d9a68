/* SPDX-License-Identifier: MIT */
/*
 * qcow2: clusters that are given up while a request that has looked them up is
 * still on its way to them.  They must not get another use before it is there.
 */
#include <string.h>

#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define CLUSTER 65536
#define OLD 0x5a
#define NEW 0x77
#define LATE 0x33

typedef enum { READ, READ_COMPRESSED, WRITE } Kind;

static const struct {
    const char *name, *event;
    bool compressed;
} kinds[] = {
    [READ] = { "read", "read_aio", false },
    [READ_COMPRESSED] = { "read-compressed", "read_compressed", true },
    [WRITE] = { "write", "write_aio", false },
};

typedef struct Late {
    BlockBackend *blk;
    Kind kind;
    uint8_t buf[CLUSTER];
    WaitSet done;
    bool ended;
} Late;

static void coroutine_fn co_request(BlockBackend *blk, bool write,
                                    int64_t cluster, uint8_t *buf,
                                    BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, CLUSTER);
    blk_co_begin_request(blk);
    g_assert_cmpint(write ? blk_co_pwritev(blk, cluster * CLUSTER, &qiov,
                                           flags)
                          : blk_co_preadv(blk, cluster * CLUSTER, &qiov, 0),
                    ==, 0);
    blk_end_request(blk);
}

static void coroutine_fn co_fill(BlockBackend *blk, int64_t cluster,
                                 uint8_t fill, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    memset(buf, fill, CLUSTER);
    co_request(blk, true, cluster, buf, flags);
}

static void coroutine_fn co_flush(BlockBackend *blk)
{
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    blk_end_request(blk);
}

static void coroutine_fn late_entry(void *opaque)
{
    Late *late = opaque;

    co_request(late->blk, late->kind == WRITE, 0, late->buf, 0);
    late->ended = true;
    wait_set_wake(&late->done);
}

static bool has_ended(void *opaque)
{
    return ((Late *)opaque)->ended;
}

static bool is_all(const uint8_t *buf, uint8_t value)
{
    return buf[0] == value && memcmp(buf, buf + 1, CLUSTER - 1) == 0;
}

static void coroutine_fn co_test(void *opaque)
{
    Kind kind = GPOINTER_TO_INT(opaque);
    g_autofree char *dir = image_test_folder("qsd-epoch");
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap', "
        "'file': {'driver': 'blkdebug', 'discard': 'unmap', 'image': "
        "{'driver': 'file', 'discard': 'unmap', 'filename': '%s/image'}, "
        "'set-state': [{'event': 'vmstate_load', 'state': 1, 'new_state': "
        "2}], 'inject-error': [{'event': '%s', 'state': 2, 'errno': 0, "
        "'once': true, 'delay-ns': 20000000}]}}", dir, kinds[kind].event);
    g_autofree uint8_t *buf = g_malloc(CLUSTER);
    BlockDriverState *bs;
    Late late = { .kind = kind };

    image_test_run("qemu-img create -q -f qcow2 %s/image 4M", dir);
    bs = block_test_co_open(json);
    late.blk = block_test_co_attach(bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
    co_fill(late.blk, 0, OLD, kinds[kind].compressed
                              ? BDRV_REQ_WRITE_COMPRESSED : 0);
    co_flush(late.blk);
    BLKDBG_EVENT(bs->file, BLKDBG_VMSTATE_LOAD);

    memset(late.buf, LATE, CLUSTER);
    wait_set_init(&late.done);
    coroutine_enter(coroutine_create(late_entry, &late));
    blk_co_begin_request(late.blk);
    g_assert_cmpint(blk_co_pdiscard(late.blk, 0, CLUSTER), ==, 0);
    blk_end_request(late.blk);
    /* What nobody uses is free after that, and taken by the next write. */
    co_flush(late.blk);
    co_flush(late.blk);
    co_fill(late.blk, 1, NEW, 0);
    wait_set_co_wait(&late.done, has_ended, &late);
    wait_set_deinit(&late.done);

    g_assert_true(kind == WRITE || is_all(late.buf, OLD)
                  || is_all(late.buf, 0));
    co_request(late.blk, false, 1, buf, 0);
    g_assert_true(is_all(buf, NEW));
    blk_co_free(late.blk);
    block_test_co_close(bs);
    image_test_run("qemu-img check -q -f qcow2 %s/image", dir);
    image_test_run("rm -r %s", dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/epoch/%s",
                                                kinds[i].name);

        block_test_add(path, co_test, GINT_TO_POINTER(i));
    }
    return g_test_run();
}
