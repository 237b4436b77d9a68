/* SPDX-License-Identifier: MIT */
/* The event loop's ring: SQEs and their completions. */
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "aio-test.h"

typedef struct Nop {
    CqeHandler handler;         /* first */
    int *done;
    int again;
    bool in_add;
} Nop;

static void prep_nop(struct io_uring_sqe *sqe, void *opaque)
{
    static const char zero[128];

    g_assert_cmpmem(sqe, 128, zero, 128);
    io_uring_prep_nop(sqe);
}

static void nop_cb(CqeHandler *handler)
{
    Nop *nop = (Nop *)handler;

    g_assert_false(nop->in_add);
    g_assert_cmpint(handler->cqe.res, ==, 0);
    if (nop->again) {
        nop->again--;
        aio_add_sqe(prep_nop, NULL, handler);
    }
    ++*nop->done;
}

/* More than the SQ holds at once, each many times. */
static void test_sqe_many(void)
{
    enum { N = 5000 };
    g_autofree Nop *nops = g_new0(Nop, N);
    int done = 0;

    for (int i = 0; i < N; i++) {
        nops[i] = (Nop) {
            .handler.cb = nop_cb, .done = &done, .again = 5, .in_add = true,
        };
        aio_add_sqe(prep_nop, NULL, &nops[i].handler);
        nops[i].in_add = false;
    }
    while (done < 6 * N) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(done, ==, 6 * N);
    settle();
}

static void test_sqe_max_batch(void)
{
    int done = 0;
    Nop nops[3];

    aio_context_set_max_batch(ctx, 2);
    for (int i = 0; i < 3; i++) {
        nops[i] = (Nop) { .handler.cb = nop_cb, .done = &done };
        aio_add_sqe(prep_nop, NULL, &nops[i].handler);
    }
    poll_until(&done, 3);
    aio_context_set_max_batch(ctx, 0);
}

typedef struct Read {
    int fd;
    char buf[8];
} Read;

static void prep_read(struct io_uring_sqe *sqe, void *opaque)
{
    Read *r = opaque;

    io_uring_prep_read(sqe, r->fd, r->buf, sizeof(r->buf), 3);
}

static void coroutine_fn co_read(void *opaque)
{
    char name[] = "/tmp/test-aio-XXXXXX";
    Read r = { .fd = mkstemp(name) };

    g_assert_cmpint(r.fd, >=, 0);
    unlink(name);
    g_assert_cmpint(write(r.fd, "0123456789", 10), ==, 10);
    g_assert_cmpint(aio_co_sqe(prep_read, &r), ==, 7);
    g_assert_cmpmem(r.buf, 7, "3456789", 7);
    close(r.fd);
    r.fd = -1;
    g_assert_cmpint(aio_co_sqe(prep_read, &r), ==, -EBADF);
}

static void test_co_sqe(void)
{
    co_test_run(co_read, NULL);
}

/* ---- figures, for -m perf ---- */

static void coroutine_fn co_nops(void *opaque)
{
    const int n = 1000000;

    g_test_timer_start();
    for (int i = 0; i < n; i++) {
        aio_co_sqe(prep_nop, NULL);
    }
    g_test_message("aio_co_sqe(NOP), one a turn: %.1f ns",
                   g_test_timer_elapsed() / n * 1e9);
}

static void perf_nop(void)
{
    co_test_run(co_nops, NULL);
}

static void perf_nop_batch(void)
{
    enum { N = 64, ROUNDS = 20000 };
    int done = 0;
    Nop nops[N];

    for (int i = 0; i < N; i++) {
        nops[i] = (Nop) {
            .handler.cb = nop_cb, .done = &done, .again = ROUNDS - 1,
        };
        aio_add_sqe(prep_nop, NULL, &nops[i].handler);
    }
    g_test_timer_start();
    poll_until(&done, N * ROUNDS);
    g_test_message("NOP, 64 a turn: %.1f ns each",
                   g_test_timer_elapsed() / (N * ROUNDS) * 1e9);
}

static const AioTest tests[] = {
    { "sqe-many", test_sqe_many, .needs_ring = true },
    { "sqe-max-batch", test_sqe_max_batch, .needs_ring = true },
    { "co-sqe", test_co_sqe, .needs_ring = true },
    { "perf/nop", perf_nop, .needs_ring = true, .perf = true },
    { "perf/nop-batch", perf_nop_batch, .needs_ring = true, .perf = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_tests("aio-ring", tests, G_N_ELEMENTS(tests));
    return g_test_run();
}
