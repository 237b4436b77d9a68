/* SPDX-License-Identifier: MIT */
/*
 * Graphs whose levels use the one below twice.  With so many levels nothing
 * ends that goes each way: every walk visits each node once.
 */
#include "qapi/qapi-commands.h"
#include "tests/unit/block-test.h"

#define LEVELS 60

/* Stands for drivers that need two nodes; goes by the name of one. */
typedef struct Pair {
    unsigned flushes;
} Pair;

static bool coroutine_fn pair_co_open(BlockDriverState *bs,
                                      const BlockdevOptions *options,
                                      Error **errp)
{
    const BlockdevOptionsBlklogwrites *o = &options->u.blklogwrites;

    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_DATA
                                                 | BDRV_CHILD_PRIMARY, errp)
        || !bdrv_co_open_child(bs, o->log, "log", BDRV_CHILD_DATA, errp)) {
        return false;
    }
    bs->total_bytes = bdrv_getlength(bs->file->bs);
    return true;
}

static int coroutine_fn pair_co_flush(BlockDriverState *bs)
{
    Pair *pair = bs->opaque;

    pair->flushes++;
    return 0;
}

static const BlockDriver bdrv_pair = {
    .format_name = "blklogwrites",
    .driver = BLOCKDEV_DRIVER_BLKLOGWRITES,
    .instance_size = sizeof(Pair),
    .bdrv_co_open = pair_co_open,
    .bdrv_co_flush = pair_co_flush,
};

extern const BlockDriver bdrv_file, bdrv_null_co, bdrv_throttle;

const BlockDriver *const bdrv_drivers[] = {
    &bdrv_file, &bdrv_null_co, &bdrv_pair, &bdrv_throttle, NULL,
};

static BlockDriverState *coroutine_fn co_open_ladder(void)
{
    BlockDriverState *bs = block_test_co_open(
        "{'driver': 'null-co', 'node-name': 'l0', 'size': 1048576}");

    for (int i = 1; i <= LEVELS; i++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'blklogwrites', 'node-name': 'l%d', 'file': 'l%d', "
            "'log': 'l%d'}", i, i - 1, i - 1);

        bs = block_test_co_open(json);
    }
    return bs;
}

static void coroutine_fn co_test_life(void *opaque)
{
    BlockDriverState *top = co_open_ladder(), *bs;
    g_autoptr(BlockDeviceInfoList) nodes = NULL;
    g_autoptr(BlockStatsList) stats = NULL;
    BlockBackend *blk = block_test_co_attach(top, "a user",
                                             BLK_PERM_CONSISTENT_READ,
                                             BLK_PERM_ALL);

    g_assert_cmpuint(bdrv_find_node("l0")->perm, ==,
                     BLK_PERM_CONSISTENT_READ);
    g_assert_true(blk_co_set_perm(blk, 0, BLK_PERM_ALL, NULL));
    g_assert_cmpuint(bdrv_find_node("l0")->perm, ==, 0);

    g_assert_cmpint(blk_co_flush(blk), ==, 0);
    TAILQ_FOREACH(bs, &bdrv_all_nodes, next) {
        if (bs->drv == &bdrv_pair) {
            g_assert_cmpuint(((Pair *)bs->opaque)->flushes, ==, 1);
        }
    }
    g_assert_cmpint(blk_co_get_allocated_file_size(blk), ==, 0);

    nodes = qmp_query_named_block_nodes(&(QmpQueryNamedBlockNodesArg) { 0 },
                                        NULL);
    g_assert_cmpuint(strlen(nodes->value->file), ==, 4095);
    g_assert_true(g_str_has_prefix(nodes->value->file, "json:{\"driver\""));
    g_assert_true(g_str_has_suffix(nodes->value->file, "..."));
    stats = qmp_query_blockstats(&(QmpQueryBlockstatsArg) {
        .has_query_nodes = true, .query_nodes = true }, NULL);
    g_assert_nonnull(stats);

    blk_co_free(blk);
    bdrv_co_close_all();
}

typedef struct Drainer {
    BlockDriverState *bs;
    bool drained;
} Drainer;

static void coroutine_fn co_drain(void *opaque)
{
    Drainer *d = opaque;

    bdrv_graph_co_lock();
    bdrv_co_drained_begin_locked(d->bs);
    d->drained = true;
    bdrv_graph_unlock();
}

/* A request on top, delayed by nobody, is waited for at the bottom. */
static void coroutine_fn co_test_drain(void *opaque)
{
    BlockDriverState *top = co_open_ladder();
    BlockBackend *blk = block_test_co_attach(top, "a user", 0, BLK_PERM_ALL);
    Drainer d = { .bs = bdrv_find_node("l0") };

    blk_co_begin_request(blk);
    coroutine_enter(coroutine_create(co_drain, &d));
    g_assert_false(d.drained);
    g_assert_cmpint(top->drain_count, ==, 2);
    blk_end_request(blk);
    while (!d.drained) {
        aio_co_sleep_ns(0);
    }
    bdrv_drained_end(d.bs);
    g_assert_cmpint(top->drain_count, ==, 0);
    blk_co_free(blk);
    bdrv_co_close_all();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    block_test_add("/graph-shared/life", co_test_life, NULL);
    block_test_add("/graph-shared/drain", co_test_drain, NULL);
    return g_test_run();
}
