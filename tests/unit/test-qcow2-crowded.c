/* SPDX-License-Identifier: MIT */
/*
 * qcow2: a cache of L2 slices that is all dirty, on a disk that takes no more
 * of them.  Who needs room to change something gets an error; reads, and writes
 * to what is mapped, go on.
 */
#include <string.h>

#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "tests/unit/request-test.h"

#define CLUSTER (64 * KiB)
#define SLICES 12
#define SLICE_BYTES (4 * MiB)       /* what a slice maps; or half of that */

/* The first cluster of each slice is mapped from the beginning. */
static int coroutine_fn co_fill(BlockBackend *blk, unsigned slice,
                                unsigned cluster, uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    memset(buf, value, CLUSTER);
    return co_write(blk, (int64_t)slice * SLICE_BYTES + cluster * CLUSTER, buf,
                    CLUSTER, 0);
}

static void coroutine_fn co_check(BlockBackend *blk, unsigned slice,
                                  unsigned cluster, uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    g_assert_cmpint(co_read(blk, (int64_t)slice * SLICE_BYTES
                            + cluster * CLUSTER, buf, CLUSTER), ==, 0);
    for (unsigned i = 0; i < CLUSTER; i++) {
        g_assert_cmpint(buf[i], ==, value);
    }
}

static BlockDriverState *coroutine_fn co_open(const char *dir)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'l2-cache-size': 1024, "
        "'l2-cache-entry-size': 512, 'file': {'driver': 'blkdebug', 'image': "
        "{'driver': 'file', 'filename': '%s/image'}, 'set-state': ["
        "{'event': 'vmstate_load', 'state': 1, 'new_state': 2}, "
        "{'event': 'vmstate_save', 'state': 2, 'new_state': 3}], "
        "'inject-error': [{'event': 'l2_update', 'state': 2, 'errno': 28, "
        "'iotype': 'write'}, {'event': 'write_aio', 'state': 2, 'errno': 0, "
        "'iotype': 'write'}, {'event': 'l2_update', 'state': 3, 'errno': 0, "
        "'iotype': 'write'}, {'event': 'write_aio', 'state': 3, 'errno': 0, "
        "'iotype': 'write'}]}}", dir);

    return block_test_co_open(json);
}

static void coroutine_fn co_test(void *opaque)
{
    const char *options = opaque;
    g_autofree char *dir = image_test_folder("qsd-crowded");
    BlockDriverState *bs;
    BlockBackend *blk;
    unsigned changed = 0;

    image_test_run("qemu-img create -q -f qcow2 -o %s %s/image 64M", options,
                   dir);
    bs = co_open(dir);
    blk = block_test_co_attach(bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
    for (unsigned i = 0; i < SLICES; i++) {
        g_assert_cmpint(co_fill(blk, i, 0, i + 1), ==, 0);
    }
    g_assert_cmpint(co_flush(blk), ==, 0);

    BLKDBG_EVENT(bs->file, BLKDBG_VMSTATE_LOAD);
    while (changed < SLICES && co_fill(blk, changed, 1, 0x80) == 0) {
        changed++;
    }
    g_assert_cmpuint(changed, >, 0);
    g_assert_cmpuint(changed, <, SLICES);
    g_assert_cmpint(co_flush(blk), ==, -ENOSPC);
    for (unsigned i = 0; i < SLICES; i++) {
        co_check(blk, i, 0, i + 1);
        co_check(blk, i, 1, i < changed ? 0x80 : 0);
        g_assert_cmpint(co_fill(blk, i, 0, 0x40 + i), ==, 0);
        co_check(blk, i, 0, 0x40 + i);
    }

    /* There is room again: nothing was lost. */
    BLKDBG_EVENT(bs->file, BLKDBG_VMSTATE_SAVE);
    for (unsigned i = changed; i < SLICES; i++) {
        g_assert_cmpint(co_fill(blk, i, 1, 0x80), ==, 0);
    }
    blk_co_free(blk);
    block_test_co_close(bs);
    g_assert_false(bdrv_close_failed);

    bs = co_open(dir);
    blk = block_test_co_attach(bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
    for (unsigned i = 0; i < SLICES; i++) {
        co_check(blk, i, 0, 0x40 + i);
        co_check(blk, i, 1, 0x80);
    }
    blk_co_free(blk);
    block_test_co_close(bs);
    image_test_run("qemu-img check -q -f qcow2 %s/image", dir);
    image_test_run("rm -r %s", dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    block_test_add("/qcow2/crowded", co_test, (void *)"cluster_size=64k");
    block_test_add("/qcow2/crowded/extended-l2", co_test,
                   (void *)"cluster_size=64k,extended_l2=on");
    return g_test_run();
}
