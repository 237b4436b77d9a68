/* SPDX-License-Identifier: MIT */
/* IOThreads: life, parameters, work. */
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include "co-test.h"
#include "util/iothread.h"
#include "util/thread-pool.h"

static AioContext *ctx;

static void test_registry(void)
{
    Error *err = NULL;
    IOThread *a = iothread_new("a", &iothread_default_params, &err);
    IOThread *b = iothread_new("b", &iothread_default_params, &err);

    g_assert_null(err);
    g_assert_true(iothread_by_id("a") == a);
    g_assert_true(iothread_by_id("b") == b);
    g_assert_null(iothread_by_id("c"));
    g_assert_cmpstr(iothread_id(a), ==, "a");
    g_assert_true(iothread_aio_context(a) != iothread_aio_context(b));
    g_assert_true(aio_context_main() == ctx);

    g_assert_null(iothread_new("a", &iothread_default_params, &err));
    g_assert_nonnull(err);
    error_free(err);

    g_assert_false(iothread_in_use(a));
    iothread_ref(a);
    iothread_ref(a);
    iothread_unref(a);
    g_assert_true(iothread_in_use(a));
    iothread_unref(a);
    g_assert_false(iothread_in_use(a));

    iothread_free(a);
    g_assert_null(iothread_by_id("a"));
    iothread_free(b);
    iothread_free(NULL);
    g_assert_null(iothread_by_id("b"));
}

static void check_thread(void *opaque)
{
    IOThread *iothread = opaque;
    sigset_t blocked;
    char name[16];

    g_assert_true(aio_context_current() == iothread_aio_context(iothread));
    pthread_getname_np(pthread_self(), name, sizeof(name));
    g_assert_cmpstr(name, ==, "IO iothread-wit");
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    g_assert_true(sigismember(&blocked, SIGTERM));
    g_assert_true(sigismember(&blocked, SIGCHLD));
}

static int in_pool(void *opaque)
{
    return *(int *)opaque + 1;
}

static void coroutine_fn co_visit(void *opaque)
{
    IOThread *iothread = opaque;
    int n = 41;

    aio_co_run_in(iothread_aio_context(iothread), check_thread, iothread);
    aio_co_reschedule_self(iothread_aio_context(iothread));
    n = thread_pool_co_submit(in_pool, &n);
    aio_co_sleep_ns(1000);
    g_assert_true(aio_context_current() == iothread_aio_context(iothread));
    aio_co_reschedule_self(ctx);
    g_assert_cmpint(n, ==, 42);
}

static void test_thread(void)
{
    IOThread *iothread = iothread_new("iothread-with-a-long-id",
                                      &iothread_default_params, NULL);

    co_test_run(co_visit, iothread);
    iothread_free(iothread);
}

static void expect_error(IOThreadParams params, const char *text)
{
    g_autoptr(Error) err = NULL;
    g_autoptr(Error) err_set = NULL;
    IOThread *iothread;

    g_assert_null(iothread_new("bad", &params, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);

    iothread = iothread_new("good", &iothread_default_params, NULL);
    g_assert_false(iothread_set_params(iothread, &params, &err_set));
    g_assert_cmpstr(error_get_pretty(err_set), ==, text);
    g_assert_cmpmem(iothread_params(iothread), sizeof(params),
                    &iothread_default_params, sizeof(params));
    iothread_free(iothread);
}

#define RANGE " value must be in range [0, 9223372036854775807]"
#define BAD_POOL "bad thread-pool-min/thread-pool-max values"

static void test_bad_params(void)
{
    IOThreadParams p = iothread_default_params;

    p.poll_max_ns = -1;
    expect_error(p, "poll-max-ns" RANGE);
    p = iothread_default_params;
    p.poll_grow = -1;
    expect_error(p, "poll-grow" RANGE);
    p = iothread_default_params;
    p.poll_shrink = -1;
    expect_error(p, "poll-shrink" RANGE);
    p = iothread_default_params;
    p.poll_weight = -1;
    expect_error(p, "poll-weight" RANGE);
    p = iothread_default_params;
    p.aio_max_batch = -1;
    expect_error(p, "aio-max-batch" RANGE);
    p = iothread_default_params;
    p.thread_pool_min = -1;
    expect_error(p, "thread-pool-min" RANGE);
    p = iothread_default_params;
    p.thread_pool_max = -1;
    expect_error(p, "thread-pool-max" RANGE);
    p.thread_pool_max = 0;
    expect_error(p, BAD_POOL);
    p.thread_pool_max = (int64_t)G_MAXINT + 1;
    expect_error(p, BAD_POOL);
    p.thread_pool_max = 4;
    p.thread_pool_min = 5;
    expect_error(p, BAD_POOL);
}

static void test_set_params(void)
{
    IOThreadParams p = { .thread_pool_min = 2, .thread_pool_max = 3 };
    IOThread *iothread = iothread_new("x", &p, NULL);

    g_assert_cmpint(iothread_params(iothread)->thread_pool_min, ==, 2);
    p.poll_max_ns = G_MAXINT64;
    p.poll_weight = G_MAXINT64;
    p.poll_grow = G_MAXINT64;
    p.thread_pool_min = 5;
    p.thread_pool_max = 6;
    g_assert_true(iothread_set_params(iothread, &p, NULL));
    g_assert_cmpint(iothread_params(iothread)->poll_max_ns, ==, G_MAXINT64);
    p = iothread_default_params;
    g_assert_true(iothread_set_params(iothread, &p, NULL));
    iothread_free(iothread);
}

static void test_many(void)
{
    for (int i = 0; i < 100; i++) {
        IOThread *iothread = iothread_new("x", &iothread_default_params,
                                          NULL);

        g_assert_nonnull(iothread);
        iothread_free(iothread);
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    g_assert_nonnull(ctx);
    g_test_add_func("/iothread/registry", test_registry);
    g_test_add_func("/iothread/thread", test_thread);
    g_test_add_func("/iothread/bad-params", test_bad_params);
    g_test_add_func("/iothread/set-params", test_set_params);
    g_test_add_func("/iothread/many", test_many);
    ret = g_test_run();
    aio_context_free(ctx);
    return ret;
}
