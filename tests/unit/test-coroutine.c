/* SPDX-License-Identifier: MIT */
/* Coroutines: creating, switching, stacks. */
#include <glib.h>
#include <string.h>
#include "util/coroutine.h"

/* ---- entering and yielding ---- */

static void coroutine_fn co_count(void *opaque)
{
    int *n = opaque;

    for (;;) {
        if (++*n == 5) {
            return;
        }
        coroutine_yield();
    }
}

static void test_yield(void)
{
    int n = 0;
    Coroutine *co = coroutine_create(co_count, &n);

    g_assert_cmpint(n, ==, 0);
    for (int i = 1; i <= 5; i++) {
        coroutine_enter(co);
        g_assert_cmpint(n, ==, i);
        g_assert_false(in_coroutine());
    }
}

static void coroutine_fn co_check_self(void *opaque)
{
    Coroutine **self = opaque;

    g_assert_true(in_coroutine());
    g_assert_true(coroutine_self() == *self);
    coroutine_yield();
    g_assert_true(coroutine_self() == *self);
}

static void test_self(void)
{
    Coroutine *co;

    g_assert_null(coroutine_self());
    co = coroutine_create(co_check_self, &co);
    coroutine_enter(co);
    g_assert_null(coroutine_self());
    coroutine_enter(co);
}

typedef struct Nest {
    int depth;
    int max;
    int ended;
} Nest;

static void coroutine_fn co_nest(void *opaque)
{
    Nest *nest = opaque;
    Coroutine *self = coroutine_self();

    if (++nest->depth < nest->max) {
        Coroutine *child = coroutine_create(co_nest, nest);

        coroutine_enter(child);         /* yields at the bottom of its child */
        g_assert_true(coroutine_self() == self);
        coroutine_enter(child);
        g_assert_true(coroutine_self() == self);
    }
    coroutine_yield();
    nest->ended++;
}

static void test_nesting(void)
{
    Nest nest = { .max = 50 };
    Coroutine *co = coroutine_create(co_nest, &nest);

    coroutine_enter(co);
    g_assert_cmpint(nest.depth, ==, 50);
    g_assert_cmpint(nest.ended, ==, 49);
    coroutine_enter(co);
    g_assert_cmpint(nest.ended, ==, 50);
}

/* ---- state that a switch must keep ---- */

typedef struct Mix {
    uint64_t seed;
    uint64_t result;
    double real;
} Mix;

static void coroutine_fn co_mix(void *opaque)
{
    Mix *mix = opaque;
    uint64_t a = mix->seed, b = a * 3, c = b * 5, d = c * 7, e = d * 11;
    double x = mix->real, y = x * 1.5;

    for (int i = 0; i < 100; i++) {
        coroutine_yield();
        a += b ^ i;
        b += c;
        c += d;
        d += e;
        e += a;
        y += x;
    }
    mix->result = a ^ b ^ c ^ d ^ e;
    mix->real = y;
}

static void test_registers(void)
{
    Mix mixes[8], alone = { .seed = 42, .real = 0.25 };
    Coroutine *cos[8], *co = coroutine_create(co_mix, &alone);

    for (int i = 0; i <= 100; i++) {
        coroutine_enter(co);
    }
    for (int i = 0; i < 8; i++) {
        mixes[i] = (Mix) { .seed = 42, .real = 0.25 };
        cos[i] = coroutine_create(co_mix, &mixes[i]);
    }
    for (int i = 0; i <= 100; i++) {
        for (int j = 0; j < 8; j++) {
            coroutine_enter(cos[j]);
        }
    }
    for (int i = 0; i < 8; i++) {
        g_assert_cmpuint(mixes[i].result, ==, alone.result);
        g_assert_cmpfloat(mixes[i].real, ==, alone.real);
    }
}

static int deep(int n)
{
    volatile char frame[1024];

    memset((char *)frame, n, sizeof(frame));
    return n == 0 ? 0 : deep(n - 1) + (frame[n % 1024] == (char)n);
}

static void coroutine_fn co_deep(void *opaque)
{
    *(int *)opaque = deep(200);             /* 200 KiB and more */
}

static void test_deep_stack(void)
{
    int depth = 0;

    coroutine_enter(coroutine_create(co_deep, &depth));
    g_assert_cmpint(depth, ==, 200);
}

/* ---- life cycle ---- */

static void coroutine_fn co_increment(void *opaque)
{
    ++*(int *)opaque;
}

static void test_many(void)
{
    int n = 0;

    for (int i = 0; i < 100000; i++) {
        coroutine_enter(coroutine_create(co_increment, &n));
    }
    g_assert_cmpint(n, ==, 100000);
}

static void coroutine_fn co_yield_once(void *opaque)
{
    ++*(int *)opaque;
    coroutine_yield();
    ++*(int *)opaque;
}

/* More at once than any pool holds, twice. */
static void test_many_at_once(void)
{
    enum { N = 1000 };
    Coroutine *cos[N];
    int n = 0;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            cos[i] = coroutine_create(co_yield_once, &n);
            coroutine_enter(cos[i]);
        }
        for (int i = 0; i < N; i++) {
            coroutine_enter(cos[i]);
        }
    }
    g_assert_cmpint(n, ==, 4 * N);
}

static void test_reuse(void)
{
    int n = 0;
    Coroutine *first = coroutine_create(co_increment, &n), *second;

    coroutine_enter(first);
    second = coroutine_create(co_increment, &n);
    g_assert_true(first == second);         /* from the pool */
    coroutine_enter(second);
    g_assert_cmpint(n, ==, 2);
}

/* Stacks made in one thread and ended in another do not pile up. */
static void *end_all(void *opaque)
{
    Coroutine **cos = opaque;

    for (int i = 0; i < 500; i++) {
        coroutine_enter(cos[i]);
    }
    coroutine_pool_drain();
    return NULL;
}

static void test_end_elsewhere(void)
{
    Coroutine *cos[500];
    int n = 0;

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 500; i++) {
            cos[i] = coroutine_create(co_yield_once, &n);
            coroutine_enter(cos[i]);
        }
        g_thread_join(g_thread_new("end", end_all, cos));
    }
    g_assert_cmpint(n, ==, 5 * 2 * 500);
}

/* ---- misuse ---- */

static void coroutine_fn co_enter_itself(void *opaque)
{
    coroutine_enter(coroutine_self());
}

static void test_reentry(void)
{
    if (g_test_subprocess()) {
        coroutine_enter(coroutine_create(co_enter_itself, NULL));
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*entered while it runs*");
}

static void test_yield_outside(void)
{
    if (g_test_subprocess()) {
        coroutine_yield();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

/* ---- figures, for -m perf ---- */

static void coroutine_fn co_forever(void *opaque)
{
    for (;;) {
        coroutine_yield();
    }
}

static void perf_switch(void)
{
    Coroutine *co = coroutine_create(co_forever, NULL);
    const int n = 10000000;

    g_test_timer_start();
    for (int i = 0; i < n; i++) {
        coroutine_enter(co);
    }
    g_test_message("enter and yield: %.1f ns",
                   g_test_timer_elapsed() / n * 1e9);
}

static void perf_life(void)
{
    const int n = 5000000;
    int sum = 0;

    g_test_timer_start();
    for (int i = 0; i < n; i++) {
        Coroutine *co = coroutine_create(co_yield_once, &sum);

        coroutine_enter(co);
        coroutine_enter(co);
    }
    g_test_message("create, enter, yield, enter, end: %.1f ns",
                   g_test_timer_elapsed() / n * 1e9);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/yield", test_yield);
    g_test_add_func("/coroutine/self", test_self);
    g_test_add_func("/coroutine/nesting", test_nesting);
    g_test_add_func("/coroutine/registers", test_registers);
    g_test_add_func("/coroutine/deep-stack", test_deep_stack);
    g_test_add_func("/coroutine/many", test_many);
    g_test_add_func("/coroutine/many-at-once", test_many_at_once);
    g_test_add_func("/coroutine/reuse", test_reuse);
    g_test_add_func("/coroutine/end-elsewhere", test_end_elsewhere);
    g_test_add_func("/coroutine/misuse/reentry", test_reentry);
    g_test_add_func("/coroutine/misuse/yield-outside", test_yield_outside);
    if (g_test_perf()) {
        g_test_add_func("/coroutine/perf/switch", perf_switch);
        g_test_add_func("/coroutine/perf/life", perf_life);
    }
    return g_test_run();
}
