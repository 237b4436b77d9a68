/* SPDX-License-Identifier: MIT */
/*
 * Blocking calls for which a coroutine waits only so long: what they ask (a
 * file system of somebody else) may never answer.
 *
 * A call that has not returned in time is left to its thread, which cannot be
 * stopped; its result is thrown away once there is one.  Everything here
 * belongs to the main thread.
 */
#ifndef UTIL_TIMED_CALL_H
#define UTIL_TIMED_CALL_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "util/thread-pool.h"

/*
 * Run @func(@opaque) in the thread pool, or at once if there is not a single
 * thread to be had.  True if it has returned, with what in *@ret.  False if it
 * has not within @limit_ns (*@ret is -ETIMEDOUT): then @opaque is no longer the
 * caller's, and @free is called with it as soon as nobody uses it.
 */
bool coroutine_fn timed_call_co_run(ThreadPoolFunc *func, void *opaque,
                                    GDestroyNotify free, int64_t limit_ns,
                                    int *ret);

/* Calls that still have not returned: their threads can't be waited for. */
bool timed_call_any_left(void);

#endif /* UTIL_TIMED_CALL_H */
