/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: creating, switching.
 *
 * A coroutine may yield in one thread and go on in another, so no function may
 * keep the address of a thread-local variable across a switch.  Compilers
 * assume they may; therefore thread_state() is never inlined.
 */

/* Checked siglongjmp() refuses to jump to another stack. */
#undef _FORTIFY_SOURCE
#define _FORTIFY_SOURCE 0

#include <glib.h>
#include "util/coroutine-int.h"
#include "util/coroutine-pool.h"

/* What a switch tells the side that it arrives at; sigsetjmp() returns it. */
enum {
    SWITCH_ENTER_OR_YIELD = 1,
    SWITCH_TERMINATE = 2,
};

typedef struct ThreadState {
    bool initialized;
    Coroutine *self;            /* the running coroutine, or NULL */
    Coroutine leader;           /* stands for the thread's own stack */
    STAILQ_HEAD(, Coroutine) wake_queue;

    /* coroutine_yield_then()'s, on their way to the one who entered */
    void (*then)(Coroutine *co, void *opaque);
    void *then_opaque;

#ifdef ASAN_ENABLED
    Coroutine *previous;        /* whose stack the switch leaves */
#endif
} ThreadState;

static __thread ThreadState thread_state_storage;

static __attribute__((noinline)) ThreadState *thread_state(void)
{
    ThreadState *ts = &thread_state_storage;

    asm volatile("" : "+r"(ts));
    if (G_UNLIKELY(!ts->initialized)) {
        ts->initialized = true;
        STAILQ_INIT(&ts->wake_queue);
#ifdef TSAN_ENABLED
        ts->leader.point.tsan_fiber = __tsan_get_current_fiber();
#endif
    }
    return ts;
}

/* The sanitizers' part of a switch, before and after it. */
static inline void switch_begin(Coroutine *from, Coroutine *to, int action)
{
#ifdef ASAN_ENABLED
    thread_state()->previous = from;
    __sanitizer_start_switch_fiber(action == SWITCH_TERMINATE ? NULL :
                                   &from->stack.asan_fake_stack,
                                   to->stack.base, to->stack.size);
    if (action == SWITCH_TERMINATE) {
        from->stack.asan_fake_stack = NULL;
    }
#endif
}

static inline void switch_end(Coroutine *self)
{
#ifdef ASAN_ENABLED
    Coroutine *previous = thread_state()->previous;
    const void *base;
    size_t size;

    __sanitizer_finish_switch_fiber(self->stack.asan_fake_stack, &base,
                                    &size);
    if (!previous->stack.map) {         /* a thread's own stack */
        previous->stack.base = (void *)base;
        previous->stack.size = size;
    }
#endif
}

/* Returns, when something switches back to @from, the action of that. */
static inline __attribute__((always_inline))
int co_switch(Coroutine *from, Coroutine *to, int action)
{
    switch_begin(from, to, action);
    action = switch_stacks(&from->point, &to->point, action);
    switch_end(from);
    return action;
}

/* The bottom of each coroutine's stack; runs one entry after the other. */
static void trampoline(SwitchPoint *point)
{
    Coroutine *self = (Coroutine *)((char *)point -
                                    offsetof(Coroutine, point));

    switch_end(self);
    for (;;) {
        Coroutine *caller;

        self->entry(self->opaque);
        caller = self->caller;
        self->caller = NULL;
        co_switch(self, caller, SWITCH_TERMINATE);
    }
}

Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = coroutine_pool_get();

    if (G_UNLIKELY(!co->started)) {
        co->started = true;
        switch_point_init(&co->point, co->stack.base, co->stack.size,
                          trampoline);
    }
    co->entry = entry;
    co->opaque = opaque;
    co->cancel = NULL;
    return co;
}

/* Run @co, whose caller is @from, until it comes back. */
static inline __attribute__((always_inline))
void enter_one(ThreadState *ts, Coroutine *from, Coroutine *co)
{
    Coroutine *self = ts->self;
    int action;

    if (G_UNLIKELY(co->caller)) {
        g_error("coroutine %p entered while it runs", (void *)co);
    }
    if (G_UNLIKELY(__atomic_load_n(&co->scheduled, __ATOMIC_RELAXED))) {
        g_error("coroutine %p entered while it is scheduled", (void *)co);
    }
    co->caller = from;
    __atomic_store_n(&co->ctx, aio_context_current(), __ATOMIC_RELAXED);

    ts->self = co;
    action = co_switch(from, co, SWITCH_ENTER_OR_YIELD);
    ts->self = self;

    if (action == SWITCH_TERMINATE) {
        coroutine_pool_put(co);
    } else if (G_UNLIKELY(ts->then)) {
        void (*then)(Coroutine *, void *) = ts->then;

        ts->then = NULL;
        then(co, ts->then_opaque);
    }
}

void coroutine_enter(Coroutine *co)
{
    /* @from does not yield meanwhile, so the thread stays the same. */
    ThreadState *ts = thread_state();

    Coroutine *from = ts->self ? ts->self : &ts->leader;

    for (;;) {
        enter_one(ts, from, co);
        if (G_LIKELY(STAILQ_EMPTY(&ts->wake_queue)) || ts->self) {
            return;
        }
        co = STAILQ_FIRST(&ts->wake_queue);
        STAILQ_REMOVE_HEAD(&ts->wake_queue, next);
        __atomic_store_n(&co->scheduled, 0, __ATOMIC_RELAXED);
    }
}

void coroutine_fn coroutine_yield(void)
{
    Coroutine *self = coroutine_self();
    Coroutine *caller;

    if (G_UNLIKELY(!self)) {
        g_error("yield outside of a coroutine");
    }
    caller = self->caller;
    self->caller = NULL;
    co_switch(self, caller, SWITCH_ENTER_OR_YIELD);
}

void coroutine_fn coroutine_yield_then(void (*then)(Coroutine *co,
                                                    void *opaque),
                                       void *opaque)
{
    ThreadState *ts = thread_state();

    ts->then = then;
    ts->then_opaque = opaque;
    coroutine_yield();
}

void coroutine_wake_later(Coroutine *co)
{
    ThreadState *ts = thread_state();

    g_assert(ts->self);
    if (__atomic_exchange_n(&co->scheduled, 1, __ATOMIC_RELAXED)) {
        g_error("coroutine %p woken twice", (void *)co);
    }
    STAILQ_INSERT_TAIL(&ts->wake_queue, co, next);
}

Coroutine *coroutine_self(void)
{
    return thread_state()->self;
}

const CoCancel *coroutine_fn coroutine_set_cancel(const CoCancel *cancel)
{
    Coroutine *self = coroutine_self();
    const CoCancel *old = self->cancel;

    self->cancel = cancel;
    return old;
}

bool coroutine_fn coroutine_is_cancelled(void)
{
    const CoCancel *cancel = coroutine_self()->cancel;

    return cancel && cancel->is_cancelled(cancel);
}
