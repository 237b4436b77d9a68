/* SPDX-License-Identifier: MIT */
/*
 * For unit tests: contexts, and coroutines run to their end.
 */
#ifndef TESTS_UNIT_CO_TEST_H
#define TESTS_UNIT_CO_TEST_H

#include <glib.h>
#include "util/aio.h"
#include "util/sanitizers.h"

/*
 * A context for the calling thread, to be freed by it, or NULL: the test is
 * skipped.  @threads: other threads must run while this one waits.
 */
static inline AioContext *co_test_context_new(AioBackend backend, bool threads)
{
    Error *err = NULL;
    AioContext *ctx;

    if (UNDER_VALGRIND && threads && backend == AIO_BACKEND_IO_URING) {
        g_test_skip("valgrind stops all threads while one waits on its ring");
        return NULL;
    }
    ctx = aio_context_new(backend, &err);
    if (!ctx) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
    }
    return ctx;
}

typedef struct CoTest {
    CoroutineEntry *entry;
    void *opaque;
    bool done;
} CoTest;

static inline void coroutine_fn co_test_entry(void *opaque)
{
    CoTest *test = opaque;

    test->entry(test->opaque);
    test->done = true;
}

/*
 * Run @entry(@opaque) in a coroutine, and the loop of the calling thread's
 * context until it has returned.
 */
static inline void co_test_run(CoroutineEntry *entry, void *opaque)
{
    CoTest test = { .entry = entry, .opaque = opaque };

    coroutine_enter(coroutine_create(co_test_entry, &test));
    while (!test.done) {
        aio_poll(aio_context_current(), true);
    }
}

#endif /* TESTS_UNIT_CO_TEST_H */
