/* SPDX-License-Identifier: MIT */
/*
 * Busy polling: before a thread sleeps, it looks for work for a while if that
 * has a chance, because going to sleep and being woken costs some microseconds
 * each.  How long it looks follows the waits it sees: longer (up to a bound)
 * when looking a little longer would have been enough, shorter or not at all
 * when waits are too long to be bridged.
 */
#include "util/aio-int.h"

#define START_NS        4000
#define DEFAULT_GROW    2
#define DEFAULT_WEIGHT  2
#define MAX_WEIGHT      32

#define LOOKS_PER_CLOCK_READ 32

void aio_context_set_poll_params(AioContext *ctx, int64_t max_ns,
                                 int64_t grow, int64_t shrink,
                                 int64_t weight)
{
    BusyPoll *poll = &ctx->busy_poll;

    g_assert(max_ns >= 0 && grow >= 0 && shrink >= 0 && weight >= 0);
    __atomic_store_n(&poll->grow, grow, __ATOMIC_RELAXED);
    __atomic_store_n(&poll->shrink, shrink, __ATOMIC_RELAXED);
    __atomic_store_n(&poll->weight, weight, __ATOMIC_RELAXED);
    __atomic_store_n(&poll->max_ns, max_ns, __ATOMIC_RELAXED);
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#else
    asm volatile("" ::: "memory");
#endif
}

bool busy_poll_run(AioContext *ctx, int64_t start_ns, int64_t timeout_ns)
{
    int64_t max_ns = __atomic_load_n(&ctx->busy_poll.max_ns, __ATOMIC_RELAXED);
    int64_t limit_ns = MIN(ctx->busy_poll.ns, max_ns);

    if (timeout_ns >= 0) {
        limit_ns = MIN(limit_ns, timeout_ns);
    }
    if (limit_ns == 0) {
        return false;
    }
    ctx->fdmon->submit(ctx);
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK_READ; i++) {
            if (ctx->fdmon->peek(ctx) || aio_has_pending(ctx)) {
                return true;
            }
            cpu_relax();
        }
    } while (clock_now_ns() - start_ns < limit_ns);
    return false;
}

void busy_poll_adapt(BusyPoll *poll, int64_t ns)
{
    int64_t max_ns = __atomic_load_n(&poll->max_ns, __ATOMIC_RELAXED);
    int64_t grow = __atomic_load_n(&poll->grow, __ATOMIC_RELAXED);
    int64_t shrink = __atomic_load_n(&poll->shrink, __ATOMIC_RELAXED);
    int64_t weight = __atomic_load_n(&poll->weight, __ATOMIC_RELAXED);

    /* One wait of hours must not outweigh all that follow. */
    if (max_ns < G_MAXINT64 / 4) {
        ns = MIN(ns, 4 * max_ns);
    }
    /* The newest wait counts 1/2^weight. */
    poll->average_ns += (ns - poll->average_ns) /
                        (INT64_C(1) << MIN(weight ? weight : DEFAULT_WEIGHT,
                                           MAX_WEIGHT));

    if (poll->average_ns <= poll->ns) {
        return;
    }
    if (poll->average_ns > max_ns) {
        poll->ns = shrink ? poll->ns / shrink : 0;
    } else if (poll->ns == 0) {
        poll->ns = MIN(START_NS, max_ns);
    } else {
        int64_t more;

        if (__builtin_mul_overflow(poll->ns, grow ? grow : DEFAULT_GROW,
                                   &more)) {
            more = max_ns;
        }
        poll->ns = MIN(more, max_ns);
    }
}
