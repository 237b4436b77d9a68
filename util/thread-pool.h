/* SPDX-License-Identifier: MIT */
/*
 * Thread pool: blocking calls on behalf of coroutines.
 *
 * Each AioContext has a pool; its threads start on demand, up to the bound set
 * with aio_context_set_thread_pool_params(), and leave when idle for 10 s.
 *
 * Calls that may all wait for the same thing say so by a common cause, the file
 * for instance.  One cause gets no more threads than it leaves to others, and
 * an eighth is left to calls without: a file that hangs stops neither other
 * files nor what brings exports up and takes them down.  Causes with calls that
 * wait for a thread take turns.
 */
#ifndef UTIL_THREAD_POOL_H
#define UTIL_THREAD_POOL_H

#include "util/aio.h"

typedef int ThreadPoolFunc(void *opaque);

/*
 * Run @func(@opaque) in a thread of the current context's pool and wait for
 * it.  Returns what @func returned, or -EAGAIN if no thread could be started
 * and none is there.
 */
int coroutine_fn thread_pool_co_submit(ThreadPoolFunc *func, void *opaque);

/* The same, for the cause that is known by address @key. */
int coroutine_fn thread_pool_co_submit_for(const void *key,
                                           ThreadPoolFunc *func, void *opaque);

#endif /* UTIL_THREAD_POOL_H */
