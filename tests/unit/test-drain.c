/* SPDX-License-Identifier: MIT */
/*
 * Drained sections under load from several threads, changes of the graph
 * meanwhile, and requests that a throttle holds back.
 */
#include "tests/unit/block-test.h"

#include "block/throttle-groups.h"
#include "qapi/qapi-commands.h"

#define N_USERS 3
#define WORKERS_PER_USER 6

#define FILTER_JSON                                                         \
    "{'driver': 'throttle', 'node-name': 'filter', 'throttle-group': 'g', " \
    "'file': 'file0'}"

/*
 *   user 0 -> raw ----> file0
 *   user 1 -> filter -> file0      (throttle without limits)
 *   user 2 -> other
 */
typedef struct Load {
    BlockDriverState *nodes[5];             /* file0 raw filter other top */
    BlockBackend *blks[N_USERS];
    int inside[N_USERS];                    /* atomic */
    int64_t ops[N_USERS];                   /* atomic */
    bool stop;                              /* atomic */
    WaitSet progress;
    BlockTestGang *gang;
} Load;

enum { FILE0, RAW, FILTER, OTHER };

typedef struct LoadWorker {
    Load *load;
    int user;
} LoadWorker;

static void coroutine_fn co_drained_begin(BlockDriverState *bs)
{
    bdrv_graph_co_lock();
    bdrv_co_drained_begin_locked(bs);
    bdrv_graph_unlock();
}

static void coroutine_fn co_load_worker(void *opaque)
{
    LoadWorker *w = opaque;
    Load *load = w->load;
    BlockBackend *blk = load->blks[w->user];
    uint8_t buf[512];
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    for (int i = 0; !__atomic_load_n(&load->stop, __ATOMIC_SEQ_CST); i++) {
        blk_co_begin_request(blk);
        __atomic_fetch_add(&load->inside[w->user], 1, __ATOMIC_SEQ_CST);
        if (i % 3) {
            g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
        } else {
            g_assert_cmpint(blk_co_pwritev(blk, 512, &qiov, 0), ==, 0);
        }
        __atomic_fetch_sub(&load->inside[w->user], 1, __ATOMIC_SEQ_CST);
        blk_end_request(blk);
        __atomic_fetch_add(&load->ops[w->user], 1, __ATOMIC_SEQ_CST);
        wait_set_wake(&load->progress);
    }
    g_free(w);
}

static Load *coroutine_fn co_load_start(void)
{
    Load *load = g_new0(Load, 1);
    static const char *const json[] = {
        "{'driver': 'null-co', 'node-name': 'file0', 'latency-ns': 20000}",
        "{'driver': 'raw', 'node-name': 'raw', 'file': 'file0'}",
        FILTER_JSON,
        "{'driver': 'null-co', 'node-name': 'other', 'latency-ns': 20000}",
    };
    static const int roots[N_USERS] = { RAW, FILTER, OTHER };

    g_assert_nonnull(throttle_group_new("g", NULL, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(json); i++) {
        load->nodes[i] = block_test_co_open(json[i]);
    }
    wait_set_init(&load->progress);
    load->gang = block_test_gang_new();
    for (int i = 0; i < N_USERS; i++) {
        load->blks[i] = block_test_co_attach(load->nodes[roots[i]], "user",
                                             BLK_PERM_ALL & ~BLK_PERM_RESIZE,
                                             BLK_PERM_ALL);
        for (int j = 0; j < WORKERS_PER_USER; j++) {
            LoadWorker *w = g_new(LoadWorker, 1);

            *w = (LoadWorker) { load, i };
            block_test_gang_start(load->gang, j, co_load_worker, w);
        }
    }
    return load;
}

static void coroutine_fn co_load_stop(Load *load)
{
    __atomic_store_n(&load->stop, true, __ATOMIC_SEQ_CST);
    block_test_gang_co_finish(load->gang);
    for (int i = 0; i < N_USERS; i++) {
        g_assert_cmpint(blk_in_flight(load->blks[i]), ==, 0);
        blk_co_free(load->blks[i]);
    }
    bdrv_co_close_all();
    throttle_group_free(throttle_group_by_id("g"));
    wait_set_deinit(&load->progress);
    g_free(load);
}

typedef struct Target {
    Load *load;
    int64_t ops[N_USERS];
} Target;

static bool target_reached(void *opaque)
{
    Target *t = opaque;

    for (int i = 0; i < N_USERS; i++) {
        if (__atomic_load_n(&t->load->ops[i], __ATOMIC_SEQ_CST) < t->ops[i]) {
            return false;
        }
    }
    return true;
}

/* Wait until the users in @mask have done @n more requests each. */
static void coroutine_fn co_wait_progress(Load *load, unsigned mask, int n)
{
    Target t = { .load = load };

    for (int i = 0; i < N_USERS; i++) {
        if (mask & (1u << i)) {
            t.ops[i] = __atomic_load_n(&load->ops[i], __ATOMIC_SEQ_CST) + n;
        }
    }
    wait_set_co_wait(&load->progress, target_reached, &t);
}

static void assert_outside(Load *load, unsigned mask)
{
    for (int i = 0; i < N_USERS; i++) {
        if (mask & (1u << i)) {
            g_assert_cmpint(__atomic_load_n(&load->inside[i],
                                            __ATOMIC_SEQ_CST), ==, 0);
        }
    }
}

static void coroutine_fn test_load(void *opaque)
{
    static const unsigned users_above[] = { 3, 1, 2, 4 };
    Load *load = co_load_start();

    for (int i = 0; i < (g_test_quick() ? 60 : 1000); i++) {
        int node = i % 4, inner = (i / 4) % 4;
        unsigned mask = users_above[node];
        unsigned rest = 7 & ~mask;

        co_drained_begin(load->nodes[node]);
        assert_outside(load, mask);
        if (i % 3 == 0) {
            /* Others go on, those above stay out. */
            co_wait_progress(load, rest, 3);
            assert_outside(load, mask);
        }
        if (i % 5 == 0) {
            co_drained_begin(load->nodes[inner]);
            assert_outside(load, mask | users_above[inner]);
            bdrv_drained_end(load->nodes[node]);
            assert_outside(load, users_above[inner]);
            bdrv_drained_end(load->nodes[inner]);
        } else {
            bdrv_drained_end(load->nodes[node]);
        }
        if (i % 4 == 0) {
            co_wait_progress(load, 7, 2);
        }
    }
    co_load_stop(load);
}

/* Nodes and users come and go below and beside users in full swing. */
static void coroutine_fn test_graph_changes(void *opaque)
{
    Load *load = co_load_start();

    for (int i = 0; i < (g_test_quick() ? 30 : 500); i++) {
        BlockDriverState *top = block_test_co_open(
            "{'driver': 'raw', 'node-name': 'top', 'file': {'driver': 'raw', "
            "'file': 'file0'}}");
        BlockBackend *blk = block_test_co_attach(top, "b",
                                                 BLK_PERM_CONSISTENT_READ,
                                                 BLK_PERM_ALL);
        Error *err = NULL;

        if (i % 2) {
            co_drained_begin(load->nodes[FILE0]);
        }
        g_assert_true(blk_co_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL,
                                      &err));
        blk_co_free(blk);
        block_test_co_close(top);
        if (i % 2) {
            assert_outside(load, 3);
            bdrv_drained_end(load->nodes[FILE0]);
        }
        co_wait_progress(load, 7, 1);
    }
    co_load_stop(load);
}

/* ---- attaching and waiting ---- */

typedef struct Entrant {
    BlockBackend *blk;
    int n_entered;                          /* atomic */
    WaitSet changed;
} Entrant;

static void coroutine_fn co_entrant(void *opaque)
{
    Entrant *e = opaque;

    blk_co_begin_request(e->blk);
    blk_end_request(e->blk);
    __atomic_fetch_add(&e->n_entered, 1, __ATOMIC_SEQ_CST);
    wait_set_wake(&e->changed);
}

static bool all_entered(void *opaque)
{
    Entrant *e = opaque;

    return __atomic_load_n(&e->n_entered, __ATOMIC_SEQ_CST)
           == BLOCK_TEST_THREADS + 1;
}

/* A user who comes while the node is drained waits like the others. */
static void coroutine_fn test_attach_drained(void *opaque)
{
    BlockDriverState *file = block_test_co_open(
        "{'driver': 'null-co', 'node-name': 'file0'}");
    BlockDriverState *raw;
    BlockTestGang *gang = block_test_gang_new();
    Entrant e = { 0 };

    wait_set_init(&e.changed);
    co_drained_begin(file);
    co_drained_begin(file);
    raw = block_test_co_open(
        "{'driver': 'raw', 'node-name': 'raw', 'file': 'file0'}");
    g_assert_cmpint(raw->drain_count, ==, 1);     /* of one drained node */
    e.blk = block_test_co_attach(raw, "b", 0, BLK_PERM_ALL);
    for (int i = 0; i < BLOCK_TEST_THREADS; i++) {
        block_test_gang_start(gang, i, co_entrant, &e);
    }
    coroutine_enter(coroutine_create(co_entrant, &e));
    g_assert_cmpint(__atomic_load_n(&e.n_entered, __ATOMIC_SEQ_CST), ==, 0);
    bdrv_drained_end(file);
    g_assert_cmpint(__atomic_load_n(&e.n_entered, __ATOMIC_SEQ_CST), ==, 0);
    bdrv_drained_end(file);
    wait_set_co_wait(&e.changed, all_entered, &e);
    block_test_gang_co_finish(gang);
    wait_set_deinit(&e.changed);
    g_assert_cmpint(raw->drain_count, ==, 0);
    blk_co_free(e.blk);
    bdrv_co_close_all();
}

/* Requests that would wait for hours go on when their node is drained. */
static void coroutine_fn co_throttled(void *opaque)
{
    BlockBackend *blk = opaque;
    uint8_t buf[512];
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    for (int i = 0; i < 5; i++) {
        blk_co_begin_request(blk);
        g_assert_cmpint(blk_co_preadv(blk, 0, &qiov, 0), ==, 0);
        blk_end_request(blk);
    }
}

static void coroutine_fn test_throttled(void *opaque)
{
    ThrottleLimits limits = {
        .has_bps_total = true, .bps_total = 1,
        .has_iops_read = true, .iops_read = 1,
    };
    ThrottleGroupProperties props = { .limits = &limits };
    BlockTestGang *gang = block_test_gang_new();
    BlockDriverState *file, *filter;
    BlockBackend *blk;

    g_assert_nonnull(throttle_group_new("g", &props, NULL));
    file = block_test_co_open("{'driver': 'null-co', 'node-name': 'file0'}");
    filter = block_test_co_open(FILTER_JSON);
    blk = block_test_co_attach(filter, "b", BLK_PERM_ALL, BLK_PERM_ALL);
    for (int i = 0; i < 6; i++) {
        block_test_gang_start(gang, i, co_throttled, blk);
    }
    for (int i = 0; !block_test_gang_idle(gang); i++) {
        BlockDriverState *node = i % 2 ? filter : file;

        co_drained_begin(node);
        g_assert_cmpint(blk_in_flight(blk), ==, 0);
        bdrv_drained_end(node);
        aio_co_sleep_ns(100000);
    }
    block_test_gang_co_finish(gang);
    blk_co_free(blk);
    bdrv_co_close_all();
    throttle_group_free(throttle_group_by_id("g"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    block_test_add("/drain/load", test_load, NULL);
    block_test_add("/drain/graph-changes", test_graph_changes, NULL);
    block_test_add("/drain/attach", test_attach_drained, NULL);
    block_test_add("/drain/throttled", test_throttled, NULL);
    return g_test_run();
}
