/* SPDX-License-Identifier: MIT */
/*
 * The watchdog: turns of a loop that take too long.
 *
 * Every turn is timed by a clock that costs next to nothing and is right to a
 * few ms.  What takes longer than 100 ms is traced (loop_long_turn).
 *
 * For tests, QSD_WATCHDOG names a file to which long turns are appended, or is
 * "abort".  Then the time is told apart, since a busy machine is nobody's
 * fault: a turn is too long if its thread has worked for longer than the limit,
 * or has slept for longer than five times that, in a system call that blocks.
 * QSD_WATCHDOG_MS is another limit than 100.
 *
 * All in the context's thread.
 */
#ifndef UTIL_WATCHDOG_H
#define UTIL_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "util/trace.h"

/* What a turn does after its wait, in this order. */
typedef enum TurnPart {
    TURN_COMPLETIONS,           /* and fd handlers */
    TURN_TIMERS,
    TURN_BOTTOM_HALVES,
    TURN_COROUTINES,
    TURN__MAX,
} TurnPart;

/* Of a thread so far, ns. */
typedef struct ThreadTimes {
    int64_t now;
    int64_t worked;
    int64_t waited;             /* for a CPU */
    unsigned continued;         /* times that the process was, by SIGCONT */
} ThreadTimes;

typedef struct Watchdog {
    bool strict;                /* QSD_WATCHDOG is set */
    bool timed;                 /* this turn: strict, or it may be traced */
    int64_t start_ns;           /* of the turn, coarse */
    ThreadTimes start;          /* if timed: now; if strict: all */
    int64_t part_end_ns[TURN__MAX];         /* if timed */
    int schedstat_fd;           /* if strict; -1: the kernel has none */
} Watchdog;

void watchdog_init(Watchdog *w);
void watchdog_deinit(Watchdog *w);

static inline int64_t watchdog_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

#define WATCHDOG_LIMIT_NS INT64_C(100000000)

void watchdog_begin_timed(Watchdog *w);
void watchdog_end_part_timed(Watchdog *w, TurnPart part);
void watchdog_end_strict(Watchdog *w);
void watchdog_long_turn(const Watchdog *w, int64_t ns);

/* The wait is over. */
static inline void watchdog_begin_turn(Watchdog *w)
{
    w->start_ns = watchdog_now();
    w->timed = w->strict || trace_is_on(loop_long_turn);
    if (__builtin_expect(w->timed, 0)) {
        watchdog_begin_timed(w);
    }
}

static inline void watchdog_end_part(Watchdog *w, TurnPart part)
{
    if (__builtin_expect(w->timed, 0)) {
        watchdog_end_part_timed(w, part);
    }
}

static inline void watchdog_end_turn(Watchdog *w)
{
    int64_t ns = watchdog_now() - w->start_ns;

    if (__builtin_expect(ns > WATCHDOG_LIMIT_NS, 0)) {
        watchdog_long_turn(w, ns);
    }
    if (__builtin_expect(w->strict, 0)) {
        watchdog_end_strict(w);
    }
}

#endif /* UTIL_WATCHDOG_H */
