/* SPDX-License-Identifier: MIT */
/*
 * For unit tests: run coroutines to their end.
 */
#ifndef TESTS_UNIT_CO_TEST_H
#define TESTS_UNIT_CO_TEST_H

#include <glib.h>
#include "util/aio.h"

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
