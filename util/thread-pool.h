/* SPDX-License-Identifier: MIT */
/*
 * Thread pool: blocking calls on behalf of coroutines.
 *
 * Each AioContext has a pool; its threads start on demand, up to the bound set
 * with aio_context_set_thread_pool_params(), and leave when idle for 10 s.
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

#endif /* UTIL_THREAD_POOL_H */
