/* SPDX-License-Identifier: MIT */
/*
 * Throttling: the arithmetic by a clock of our own, limits that make no sense,
 * groups and their fairness, requests through the driver.
 */
#include "tests/unit/block-test.h"

#include "block/leaky-bucket.h"
#include "block/throttle-groups.h"
#include "tests/unit/request-test.h"

#define MS INT64_C(1000000)
#define SEC INT64_C(1000000000)

/* ---- arithmetic ---- */

static ThrottleState state_new(ThrottleBucketType type, int64_t avg,
                               int64_t max, int64_t length)
{
    ThrottleState ts;

    throttle_state_init(&ts);
    ts.buckets[type].avg = avg;
    ts.buckets[type].max = max;
    ts.buckets[type].burst_length = length;
    throttle_state_reset(&ts, 0);
    return ts;
}

/* How many requests of @bytes run within @ns when more are always there? */
static int64_t simulate(ThrottleState *ts, bool is_write, int64_t bytes,
                        int64_t ns)
{
    int64_t n = 0, now = 0;

    while (true) {
        now += throttle_state_wait_ns(ts, is_write, now);
        if (now >= ns) {
            return n;
        }
        if (throttle_state_wait_ns(ts, is_write, now) == 0) {
            throttle_state_account(ts, is_write, bytes);
            n++;
        }
    }
}

static void assert_about(int64_t n, int64_t expected)
{
    g_assert_cmpint(n, >=, expected);
    g_assert_cmpint(n, <=, expected + 2);
}

static void test_average(void)
{
    ThrottleState ts = state_new(THROTTLE_IOPS_TOTAL, 100, 0, 1);

    /* A tenth of a second's worth at once, then the rate. */
    assert_about(simulate(&ts, false, 512, 10 * SEC), 1010);
    ts = state_new(THROTTLE_IOPS_WRITE, 100, 0, 1);
    assert_about(simulate(&ts, true, 1 << 20, 10 * SEC), 1010);
    throttle_state_account(&ts, false, 1 << 20);
    g_assert_cmpint(throttle_state_wait_ns(&ts, false, 0), ==, 0);

    ts = state_new(THROTTLE_BPS_TOTAL, 1000000, 0, 1);
    assert_about(simulate(&ts, false, 10000, 10 * SEC), 1010);
    ts = state_new(THROTTLE_BPS_READ, 1000, 0, 1);
    throttle_state_account(&ts, false, 4000);
    g_assert_cmpint(throttle_state_wait_ns(&ts, false, 0), ==, 3900 * MS + 1);
    g_assert_cmpint(throttle_state_wait_ns(&ts, false, 1000 * MS), ==,
                    2900 * MS + 1);
    g_assert_cmpint(throttle_state_wait_ns(&ts, false, 3901 * MS), ==, 0);
    /* Time that stands still or goes back leaks nothing. */
    g_assert_cmpint(throttle_state_wait_ns(&ts, false, 0), ==, 0);
    throttle_state_account(&ts, false, 1000);
    g_assert_cmpint(throttle_state_wait_ns(&ts, false, 3901 * MS), >, 0);
}

static void test_burst(void)
{
    /* 1000 at once, then 100 a second. */
    ThrottleState ts = state_new(THROTTLE_IOPS_TOTAL, 100, 1000, 1);

    assert_about(simulate(&ts, false, 512, 10 * SEC), 2000);
    /* 1000 a second for 10 s (less the leak of 100 a second), then 100. */
    ts = state_new(THROTTLE_IOPS_TOTAL, 100, 1000, 10);
    assert_about(simulate(&ts, false, 512, 5 * SEC), 5100);
    ts = state_new(THROTTLE_IOPS_TOTAL, 100, 1000, 10);
    assert_about(simulate(&ts, false, 512, 60 * SEC), 16000);
}

static void test_op_size(void)
{
    ThrottleState ts = state_new(THROTTLE_IOPS_TOTAL, 100, 0, 1);

    ts.op_size = 4096;
    assert_about(simulate(&ts, false, 8192, 10 * SEC), 505);
    ts = state_new(THROTTLE_IOPS_TOTAL, 100, 0, 1);
    ts.op_size = 4096;
    assert_about(simulate(&ts, false, 512, 10 * SEC), 1010);
}

/* ---- limits ---- */

static void assert_refused(const char *json, const char *text)
{
    g_autoptr(QObject) obj = qobject_from_json(json, NULL);
    g_autoptr(ThrottleGroupProperties) props = NULL;
    Error *err = NULL;

    props = qapi_from_qobject(&qapi_type_ThrottleGroupProperties, obj, false,
                              &err);
    node_test_no_error(err);
    g_assert_null(throttle_group_new("bad", props, &err));
    node_test_assert_error(err, text);
    g_assert_null(throttle_group_by_id("bad"));
}

static void test_limits(void)
{
    static const struct {
        const char *json, *text;
    } cases[] = {
        { "{'limits': {'iops-total': -1}}",
          "bps/iops/max values must be within [0, 1000000000000000]" },
        { "{'limits': {'bps-total': 1000000000000001}}",
          "bps/iops/max values must be within [0, 1000000000000000]" },
        { "{'limits': {'iops-total': 100, 'iops-read': 50}}",
          "bps/iops/max total values and read/write values cannot be used at "
          "the same time" },
        { "{'limits': {'bps-total-max': 100, 'bps-write-max': 50}}",
          "bps/iops/max total values and read/write values cannot be used at "
          "the same time" },
        { "{'x-iops-total': 5, 'limits': {'iops-read': 5}}",
          "bps/iops/max total values and read/write values cannot be used at "
          "the same time" },
        { "{'limits': {'bps-total-max': 100}}",
          "bps_max/iops_max require corresponding bps/iops values" },
        { "{'limits': {'bps-total': 1000, 'bps-total-max': 100}}",
          "bps_max/iops_max cannot be lower than bps/iops" },
        { "{'limits': {'bps-total': 1000, 'bps-total-max': 2000, "
          "'bps-total-max-length': 0}}", "the burst length cannot be 0" },
        { "{'limits': {'bps-total': 1000, 'bps-total-max-length': 10}}",
          "burst length set without burst rate" },
        { "{'limits': {'bps-total': 1000, 'bps-total-max': 1000000000, "
          "'bps-total-max-length': 100000000}}",
          "burst length too high for this burst rate" },
        { "{'limits': {'iops-size': 100}}",
          "iops size requires an iops value to be set" },
        { "{'limits': {'iops-total': 1, 'iops-total-max-length': 4294967296}}",
          "iops-total-max-length value must be in the range [0, 4294967295]" },
        { "{'x-iops-total': -5}", "Property values cannot be negative" },
        { "{'x-iops-size': -5}", "Property values cannot be negative" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_refused(cases[i].json, cases[i].text);
    }
}

/* A change keeps what it does not name, and an error changes nothing. */
static void test_set_limits(void)
{
    ThrottleLimits first = {
        .has_iops_total = true, .iops_total = 5,
        .has_iops_total_max = true, .iops_total_max = 50,
    };
    ThrottleGroupProperties props = { .limits = &first };
    ThrottleLimits second = { .has_bps_read = true, .bps_read = 7 };
    ThrottleLimits wrong = { .has_iops_read = true, .iops_read = 7 };
    ThrottleGroup *group = throttle_group_new("g", &props, NULL);
    g_autoptr(ThrottleLimits) now = NULL;
    Error *err = NULL;

    g_assert_null(throttle_group_new("g", NULL, &err));
    node_test_assert_error(err, "A group with this name already exists");
    g_assert_true(throttle_group_set_limits(group, &second, &err));
    g_assert_false(throttle_group_set_limits(group, &wrong, &err));
    g_clear_pointer(&err, error_free);
    now = throttle_group_get_limits(group);
    g_assert_cmpint(now->iops_total, ==, 5);
    g_assert_cmpint(now->iops_total_max, ==, 50);
    g_assert_cmpint(now->iops_total_max_length, ==, 1);
    g_assert_cmpint(now->bps_read, ==, 7);
    g_assert_cmpint(now->iops_read, ==, 0);
    throttle_group_free(group);
}

/* ---- groups ---- */

typedef struct Turn {
    ThrottleMember *member;
    char name;
    bool is_write;
    GString *log;
    int *left;
    WaitSet *done;
} Turn;

static void coroutine_fn co_turn(void *opaque)
{
    Turn *turn = opaque;

    throttle_group_co_io_limits(turn->member, 512, turn->is_write);
    g_string_append_c(turn->log, turn->name);
    --*turn->left;
    wait_set_wake(turn->done);
    g_free(turn);
}

static bool none_left(void *opaque)
{
    return *(int *)opaque == 0;
}

/* Members are served in turn, however many requests each has. */
static void coroutine_fn test_fairness(void *opaque)
{
    ThrottleLimits slow = { .has_iops_total = true, .iops_total = 1 };
    ThrottleLimits fast = { .has_iops_total = true, .iops_total = 10000 };
    ThrottleGroupProperties props = { .limits = &slow };
    ThrottleGroup *group = throttle_group_new("g", &props, NULL);
    ThrottleMember *members[3];
    g_autoptr(GString) log = g_string_new(NULL);
    static const int n[3] = { 6, 3, 1 };
    int left = 11;
    WaitSet done;

    wait_set_init(&done);
    g_assert_false(throttle_group_in_use(group));
    for (int i = 0; i < 3; i++) {
        members[i] = throttle_member_new("g", NULL);
    }
    g_assert_true(throttle_group_in_use(group));
    /* The first runs at once, all others have to wait. */
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < n[i] + (i == 0); j++) {
            Turn *turn = g_new(Turn, 1);

            *turn = (Turn) { members[i], 'a' + i, false, log, &left, &done };
            aio_co_enter(aio_context_current(),
                         coroutine_create(co_turn, turn));
        }
    }
    aio_co_sleep_ns(0);
    g_assert_cmpint(left, >, 1);
    g_assert_true(throttle_group_set_limits(group, &fast, NULL));
    wait_set_co_wait(&done, none_left, &left);
    g_assert_cmpstr(log->str, ==, "aabcababaaa");

    for (int i = 0; i < 3; i++) {
        throttle_member_free(members[i]);
    }
    g_assert_false(throttle_group_in_use(group));
    throttle_group_free(group);
    wait_set_deinit(&done);
}

typedef struct Stream {
    ThrottleMember *member;
    bool is_write;
} Stream;

static void coroutine_fn co_stream(void *opaque)
{
    Stream *stream = opaque;

    for (int i = 0; i < 40; i++) {
        throttle_group_co_io_limits(stream->member, 512, stream->is_write);
    }
}

/* Limits are set while requests of other threads meet them. */
static void coroutine_fn test_set_meanwhile(void *opaque)
{
    ThrottleLimits limits = { .has_iops_total = true, .iops_total = 100000 };
    ThrottleGroupProperties props = { .limits = &limits };
    ThrottleGroup *group = throttle_group_new("g", &props, NULL);
    BlockTestGang *gang = block_test_gang_new();
    Stream streams[12];

    for (int i = 0; i < 12; i++) {
        streams[i] = (Stream) { throttle_member_new("g", NULL), i % 3 == 0 };
        block_test_gang_start(gang, i, co_stream, &streams[i]);
    }
    for (int i = 0; i < 200; i++) {
        g_assert_true(throttle_group_set_limits(group, &limits, NULL));
        aio_co_sleep_ns(0);
    }
    block_test_gang_co_finish(gang);
    for (int i = 0; i < 12; i++) {
        throttle_member_free(streams[i].member);
    }
    throttle_group_free(group);
}

/* Members in several threads together do not exceed the group's limit. */
static void coroutine_fn test_threads(void *opaque)
{
    ThrottleLimits limits = { .has_iops_total = true, .iops_total = 2000 };
    ThrottleGroupProperties props = { .limits = &limits };
    ThrottleGroup *group = throttle_group_new("g", &props, NULL);
    BlockTestGang *gang = block_test_gang_new();
    Stream streams[12];
    int64_t start = clock_now_ns();

    for (int i = 0; i < 12; i++) {
        streams[i] = (Stream) { throttle_member_new("g", NULL), i % 3 == 0 };
        block_test_gang_start(gang, i, co_stream, &streams[i]);
    }
    block_test_gang_co_finish(gang);
    /* 480 requests: 201 at once, the others at 2000 a second. */
    g_assert_cmpint(clock_now_ns() - start, >=, (480 - 201) * SEC / 2000);
    for (int i = 0; i < 12; i++) {
        throttle_member_free(streams[i].member);
    }
    throttle_group_free(group);
}

static void coroutine_fn test_driver(void *opaque)
{
    ThrottleGroup *group;
    BlockDriverState *bs;

    block_test_co_open_fails(
        "{'driver': 'throttle', 'node-name': 't', 'throttle-group': 'nope', "
        "'file': {'driver': 'null-co'}}",
        "Throttle group 'nope' does not exist");
    group = throttle_group_new("g", NULL, NULL);
    bs = block_test_co_open(
        "{'driver': 'throttle', 'node-name': 't', 'throttle-group': 'g', "
        "'file': {'driver': 'null-co', 'size': 1048576}}");
    g_assert_true(throttle_group_in_use(group));
    g_assert_cmpint(bdrv_getlength(bs), ==, 1048576);
    g_assert_cmpstr(bs->filename, ==, "json:{\"driver\": \"throttle\", "
                    "\"throttle-group\": \"g\", \"file\": {\"driver\": "
                    "\"null-co\", \"size\": 1048576}}");
    block_test_co_close(bs);
    g_assert_false(throttle_group_in_use(group));
    throttle_group_free(group);
}

/* What passes is what the file below does, and each kind is counted. */
static void coroutine_fn test_requests(void *opaque)
{
    g_autofree char *path = node_test_scratch("/dev/shm", 64 * KiB);
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'throttle', 'node-name': 't', 'throttle-group': 'g', "
        "'discard': 'unmap', 'file': {'driver': 'file', 'discard': 'unmap', "
        "'filename': '%s'}}", path);
    ThrottleGroup *group = throttle_group_new("g", NULL, NULL);
    BlockDriverState *bs = block_test_co_open(json);
    BlockBackend *blk = block_test_co_attach(bs, "b", BLK_PERM_ALL,
                                             BLK_PERM_ALL);
    g_autofree uint8_t *buf = g_malloc(16 * KiB);
    int64_t n;

    memset(buf, 'x', 16 * KiB);
    g_assert_cmpint(co_write(blk, 0, buf, 16 * KiB, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 4 * KiB, 4 * KiB, 0), ==, 0);
    g_assert_cmpint(co_discard(blk, 8 * KiB, 4 * KiB), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, 0);
    g_assert_cmpint(co_read(blk, 0, buf, 16 * KiB), ==, 0);
    g_assert_cmpint(buf[4 * KiB - 1], ==, 'x');
    g_assert_true(buffer_is_zero(buf + 4 * KiB, 8 * KiB));
    g_assert_cmpint(buf[12 * KiB], ==, 'x');

    g_assert_cmpint(co_truncate(blk, 32 * KiB, PREALLOC_MODE_OFF, NULL), ==,
                    0);
    g_assert_cmpint(blk_getlength(blk), ==, 32 * KiB);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_block_status(blk, 4 * KiB, 28 * KiB, &n)
                    & BDRV_BLOCK_ZERO, ==, BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 8 * KiB);
    blk_end_request(blk);

    blk_co_free(blk);
    block_test_co_close(bs);
    throttle_group_free(group);
    unlink(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/average", test_average);
    g_test_add_func("/throttle/burst", test_burst);
    g_test_add_func("/throttle/op-size", test_op_size);
    g_test_add_func("/throttle/limits", test_limits);
    g_test_add_func("/throttle/set-limits", test_set_limits);
    block_test_add("/throttle/fairness", test_fairness, NULL);
    block_test_add("/throttle/threads", test_threads, NULL);
    block_test_add("/throttle/set-meanwhile", test_set_meanwhile, NULL);
    block_test_add("/throttle/driver", test_driver, NULL);
    block_test_add("/throttle/requests", test_requests, NULL);
    return g_test_run();
}
