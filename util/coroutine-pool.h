/* SPDX-License-Identifier: MIT */
/*
 * Where coroutines and their stacks come from, for coroutine.c alone.
 */
#ifndef UTIL_COROUTINE_POOL_H
#define UTIL_COROUTINE_POOL_H

#include "util/coroutine-int.h"

/* A coroutine with a stack; the caller sets entry and opaque. */
Coroutine *coroutine_pool_get(void);

/* Take back a coroutine that has ended. */
void coroutine_pool_put(Coroutine *co);

#endif /* UTIL_COROUTINE_POOL_H */
