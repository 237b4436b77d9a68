/* SPDX-License-Identifier: MIT */
/* Blocking calls with a limit: see util/timed-call.h. */
#include <errno.h>
#include "util/co-event.h"
#include "util/timed-call.h"

typedef struct TimedCall {
    ThreadPoolFunc *func;
    void *opaque;
    GDestroyNotify free;
    int ret;
    bool started;
    bool abandoned;
    CoEvent done;
} TimedCall;

static unsigned n_left;         /* abandoned calls */

static int timed_call_func(void *opaque)
{
    TimedCall *call = opaque;

    call->started = true;
    return call->func(call->opaque);
}

static void coroutine_fn timed_call_co_entry(void *opaque)
{
    TimedCall *call = opaque;

    call->ret = thread_pool_co_submit(timed_call_func, call);
    if (!call->started) {
        call->ret = call->func(call->opaque);
    }
    if (!call->abandoned) {
        co_event_set(&call->done);
        return;
    }
    n_left--;
    call->free(call->opaque);
    g_free(call);
}

bool coroutine_fn timed_call_co_run(ThreadPoolFunc *func, void *opaque,
                                    GDestroyNotify free, int64_t limit_ns,
                                    int *ret)
{
    TimedCall *call = g_new0(TimedCall, 1);

    *call = (TimedCall) { .func = func, .opaque = opaque, .free = free };
    coroutine_enter(coroutine_create(timed_call_co_entry, call));
    if (!co_event_wait(&call->done, limit_ns)) {
        call->abandoned = true;
        n_left++;
        *ret = -ETIMEDOUT;
        return false;
    }
    *ret = call->ret;
    g_free(call);
    return true;
}

bool timed_call_any_left(void)
{
    return n_left > 0;
}
