/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of the event loop: run a table of tests on io_uring and on
 * epoll, each test with a context of its own.
 */
#ifndef TESTS_UNIT_AIO_TEST_H
#define TESTS_UNIT_AIO_TEST_H

#include "co-test.h"

static AioContext *ctx;

typedef struct AioTest {
    const char *name;
    void (*func)(void);
    bool needs_ring;
    bool threads;           /* more than one takes part */
    bool perf;              /* runs with -m perf */
} AioTest;

/* Turns until nothing happens any more. */
static inline void settle(void)
{
    while (aio_poll(ctx, false)) {
    }
}

/* Turns until *@n, which a callback counts, has become @value. */
static inline void poll_until(const int *n, int value)
{
    while (*n < value) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(*n, ==, value);
}

static inline void run_test(const AioTest *test, AioBackend backend)
{
    ctx = co_test_context_new(backend, test->threads);
    if (!ctx) {
        return;
    }
    g_assert_true(aio_context_current() == ctx);
    g_assert_true(aio_context_main() == ctx);
    g_assert_cmpint(aio_context_has_ring(ctx), ==,
                    backend == AIO_BACKEND_IO_URING);
    test->func();
    aio_context_free(ctx);
    g_assert_null(aio_context_current());
    g_assert_null(aio_context_main());
}

static inline void run_io_uring(const void *test)
{
    run_test(test, AIO_BACKEND_IO_URING);
}

static inline void run_epoll(const void *test)
{
    run_test(test, AIO_BACKEND_EPOLL);
}

/* Add all of @tests as "/@module/io_uring/NAME" and "/@module/epoll/NAME". */
static inline void add_tests(const char *module, const AioTest *tests,
                             size_t n)
{
    for (size_t i = 0; i < 2 * n; i++) {
        const AioTest *test = &tests[i / 2];
        bool ring = i % 2 == 0;
        g_autofree char *path = g_strdup_printf("/%s/%s/%s", module,
                                                ring ? "io_uring" : "epoll",
                                                test->name);

        if ((ring || !test->needs_ring) && (!test->perf || g_test_perf())) {
            g_test_add_data_func(path, test, ring ? run_io_uring : run_epoll);
        }
    }
}

#endif /* TESTS_UNIT_AIO_TEST_H */
