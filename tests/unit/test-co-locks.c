/* SPDX-License-Identifier: MIT */
/* CoMutex, CoQueue, CoRwlock: in one thread, and contended by several. */
#include <glib.h>
#include "co-test.h"
#include "util/iothread.h"

static AioContext *ctx;

/* ---- one thread: order ---- */

typedef struct Step {
    CoMutex *mutex;
    CoRwlock *rwlock;
    GString *log;
    char name;
    bool writer;
    bool downgrade;
    Coroutine *co;
} Step;

static void coroutine_fn co_mutex_step(void *opaque)
{
    Step *s = opaque;

    co_mutex_lock(s->mutex);
    g_string_append_c(s->log, s->name);
    coroutine_yield();
    co_mutex_unlock(s->mutex);
}

static void test_mutex_fifo(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    CoMutex mutex;
    Step s[4];

    co_mutex_init(&mutex);
    for (int i = 0; i < 4; i++) {
        s[i] = (Step) { .mutex = &mutex, .log = log, .name = 'a' + i };
        s[i].co = coroutine_create(co_mutex_step, &s[i]);
        coroutine_enter(s[i].co);
    }
    for (int i = 0; i < 4; i++) {
        g_assert_cmpuint(log->len, ==, i + 1);
        g_assert_false(co_mutex_trylock(&mutex));
        coroutine_enter(s[i].co);       /* unlocks: the next one is holder */
    }
    g_assert_cmpstr(log->str, ==, "abcd");
    g_assert_true(co_mutex_trylock(&mutex));
    co_mutex_unlock(&mutex);
}

static void coroutine_fn co_rwlock_step(void *opaque)
{
    Step *s = opaque;

    if (s->writer) {
        co_rwlock_wrlock(s->rwlock);
    } else {
        co_rwlock_rdlock(s->rwlock);
    }
    g_string_append_c(s->log, s->name);
    coroutine_yield();
    if (s->downgrade) {
        co_rwlock_downgrade(s->rwlock);
        g_string_append_c(s->log, g_ascii_toupper(s->name));
        coroutine_yield();
    }
    co_rwlock_unlock(s->rwlock);
}

static void start_rwlock_step(Step *s)
{
    s->co = coroutine_create(co_rwlock_step, s);
    coroutine_enter(s->co);
}

static void test_rwlock_order(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    CoRwlock lock;
    Step s[6];

    co_rwlock_init(&lock);
    for (int i = 0; i < 6; i++) {
        s[i] = (Step) {
            .rwlock = &lock, .log = log, .name = 'a' + i, .writer = i == 2,
        };
        start_rwlock_step(&s[i]);
    }
    /* Readers a and b are in; d, e, f wait behind writer c. */
    g_assert_cmpstr(log->str, ==, "ab");
    coroutine_enter(s[0].co);
    g_assert_cmpstr(log->str, ==, "ab");
    coroutine_enter(s[1].co);
    g_assert_cmpstr(log->str, ==, "abc");
    coroutine_enter(s[2].co);
    g_assert_cmpstr(log->str, ==, "abcdef");
    for (int i = 3; i < 6; i++) {
        coroutine_enter(s[i].co);
    }
    g_assert_cmpint(lock.owners, ==, 0);
}

static void test_rwlock_downgrade(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    CoRwlock lock;
    Step s[3];

    co_rwlock_init(&lock);
    for (int i = 0; i < 3; i++) {
        s[i] = (Step) {
            .rwlock = &lock, .log = log, .name = 'a' + i,
            .writer = i != 1, .downgrade = i == 0,
        };
        start_rwlock_step(&s[i]);
    }
    g_assert_cmpstr(log->str, ==, "a");
    coroutine_enter(s[0].co);           /* lets reader b in, not writer c */
    g_assert_cmpstr(log->str, ==, "aAb");
    coroutine_enter(s[0].co);
    g_assert_cmpstr(log->str, ==, "aAb");
    coroutine_enter(s[1].co);
    g_assert_cmpstr(log->str, ==, "aAbc");
    coroutine_enter(s[2].co);
    g_assert_cmpint(lock.owners, ==, 0);
}

typedef struct Waiter {
    CoQueue *queue;
    CoMutex *mutex;
    GString *log;
    char name;
} Waiter;

static void coroutine_fn co_queue_step(void *opaque)
{
    Waiter *w = opaque;

    if (w->mutex) {
        co_mutex_lock(w->mutex);
    }
    co_queue_wait(w->queue, w->mutex);
    g_string_append_c(w->log, w->name);
    if (w->mutex) {
        co_mutex_unlock(w->mutex);
    }
}

static void do_test_queue(CoMutex *mutex)
{
    g_autoptr(GString) log = g_string_new(NULL);
    CoQueue queue;
    Waiter w[5];

    co_queue_init(&queue);
    g_assert_true(co_queue_empty(&queue));
    g_assert_false(co_queue_next(&queue));
    for (int i = 0; i < 5; i++) {
        w[i] = (Waiter) { &queue, mutex, log, 'a' + i };
        coroutine_enter(coroutine_create(co_queue_step, &w[i]));
    }
    g_assert_false(co_queue_empty(&queue));
    g_assert_true(co_queue_next(&queue));
    g_assert_true(co_queue_next(&queue));
    g_assert_cmpstr(log->str, ==, "ab");
    co_queue_wake_all(&queue);
    g_assert_cmpstr(log->str, ==, "abcde");
    g_assert_true(co_queue_empty(&queue));
}

static void test_queue(void)
{
    do_test_queue(NULL);
}

static void test_queue_mutex(void)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    do_test_queue(&mutex);
}

/* ---- several threads ---- */

enum { THREADS = 4, COROUTINES = 8 };

typedef struct Shared {
    CoMutex mutex;
    CoRwlock rwlock;
    CoQueue not_empty;
    CoQueue not_full;
    int items;              /* under mutex */
    int consumed;
    uint64_t a, b;          /* equal whenever the lock is free */
    int inside;             /* atomic */
    int left;               /* coroutines still running (atomic) */
    int rounds;
} Shared;

static void finish(Shared *shared)
{
    if (__atomic_sub_fetch(&shared->left, 1, __ATOMIC_ACQ_REL) == 0) {
        aio_notify(ctx);
    }
}

static void coroutine_fn co_mutex_worker(void *opaque)
{
    Shared *shared = opaque;

    for (int i = 0; i < shared->rounds; i++) {
        co_mutex_lock(&shared->mutex);
        g_assert_cmpint(__atomic_fetch_add(&shared->inside, 1,
                                           __ATOMIC_RELAXED), ==, 0);
        g_assert_cmpuint(shared->a, ==, shared->b);
        shared->a++;
        if (i % 64 == 0) {
            aio_co_sleep_ns(1000);      /* keeps it while asleep */
        }
        shared->b++;
        __atomic_fetch_sub(&shared->inside, 1, __ATOMIC_RELAXED);
        co_mutex_unlock(&shared->mutex);
    }
    finish(shared);
}

static void coroutine_fn co_rwlock_worker(void *opaque)
{
    Shared *shared = opaque;

    for (int i = 0; i < shared->rounds; i++) {
        if (i % 5 == 0) {
            co_rwlock_wrlock(&shared->rwlock);
            g_assert_cmpuint(shared->a, ==, shared->b);
            shared->a++;
            if (i % 30 == 0) {
                aio_co_sleep_ns(1000);
            }
            shared->b++;
            if (i % 10 == 0) {
                co_rwlock_downgrade(&shared->rwlock);
                g_assert_cmpuint(shared->a, ==, shared->b);
            }
        } else {
            co_rwlock_rdlock(&shared->rwlock);
            g_assert_cmpuint(shared->a, ==, shared->b);
            if (i % 32 == 1) {
                aio_co_sleep_ns(1000);
            }
            g_assert_cmpuint(shared->a, ==, shared->b);
        }
        co_rwlock_unlock(&shared->rwlock);
    }
    finish(shared);
}

static void coroutine_fn co_producer(void *opaque)
{
    Shared *shared = opaque;

    for (int i = 0; i < shared->rounds; i++) {
        co_mutex_lock(&shared->mutex);
        while (shared->items == 3) {
            co_queue_wait(&shared->not_full, &shared->mutex);
        }
        shared->items++;
        co_queue_next(&shared->not_empty);
        co_mutex_unlock(&shared->mutex);
    }
    finish(shared);
}

static void coroutine_fn co_consumer(void *opaque)
{
    Shared *shared = opaque;

    for (int i = 0; i < shared->rounds; i++) {
        co_mutex_lock(&shared->mutex);
        while (shared->items == 0) {
            co_queue_wait(&shared->not_empty, &shared->mutex);
        }
        shared->items--;
        shared->consumed++;
        if (i % 2) {
            co_queue_next(&shared->not_full);
        } else {
            co_queue_wake_all(&shared->not_full);
        }
        co_mutex_unlock(&shared->mutex);
    }
    finish(shared);
}

/* COROUTINES of @odd and @even, by turns, in each of THREADS IOThreads. */
static void contend(Shared *shared, CoroutineEntry *odd, CoroutineEntry *even)
{
    IOThread *threads[THREADS];

    co_mutex_init(&shared->mutex);
    co_rwlock_init(&shared->rwlock);
    co_queue_init(&shared->not_empty);
    co_queue_init(&shared->not_full);
    shared->rounds = g_test_slow() ? 20000 : 500;
    shared->left = THREADS * COROUTINES;

    for (int i = 0; i < THREADS; i++) {
        g_autofree char *id = g_strdup_printf("t%d", i);

        threads[i] = iothread_new(id, &iothread_default_params, NULL);
        g_assert_nonnull(threads[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < COROUTINES; j++) {
            aio_co_enter(iothread_aio_context(threads[i]),
                         coroutine_create(j % 2 ? odd : even, shared));
        }
    }
    while (__atomic_load_n(&shared->left, __ATOMIC_ACQUIRE)) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_free(threads[i]);
    }
}

static void test_mutex_threads(void)
{
    Shared shared = { 0 };

    contend(&shared, co_mutex_worker, co_mutex_worker);
    g_assert_cmpuint(shared.a, ==, THREADS * COROUTINES * shared.rounds);
    g_assert_cmpuint(shared.b, ==, shared.a);
}

static void test_rwlock_threads(void)
{
    Shared shared = { 0 };

    contend(&shared, co_rwlock_worker, co_rwlock_worker);
    g_assert_cmpuint(shared.a, ==,
                     THREADS * COROUTINES * shared.rounds / 5);
    g_assert_cmpint(shared.rwlock.owners, ==, 0);
}

static void test_queue_threads(void)
{
    Shared shared = { 0 };

    contend(&shared, co_producer, co_consumer);
    g_assert_cmpint(shared.items, ==, 0);
    g_assert_cmpint(shared.consumed, ==,
                    THREADS * COROUTINES / 2 * shared.rounds);
}

/* ---- figures, for -m perf ---- */

static void coroutine_fn co_perf_mutex(void *opaque)
{
    const int n = 20000000;
    CoMutex mutex;

    co_mutex_init(&mutex);
    g_test_timer_start();
    for (int i = 0; i < n; i++) {
        co_mutex_lock(&mutex);
        co_mutex_unlock(&mutex);
    }
    g_test_message("lock and unlock: %.1f ns",
                   g_test_timer_elapsed() / n * 1e9);
}

static void perf_mutex(void)
{
    co_test_run(co_perf_mutex, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    g_assert_nonnull(ctx);
    g_test_add_func("/co-locks/mutex/fifo", test_mutex_fifo);
    g_test_add_func("/co-locks/mutex/threads", test_mutex_threads);
    g_test_add_func("/co-locks/rwlock/order", test_rwlock_order);
    g_test_add_func("/co-locks/rwlock/downgrade", test_rwlock_downgrade);
    g_test_add_func("/co-locks/rwlock/threads", test_rwlock_threads);
    g_test_add_func("/co-locks/queue/plain", test_queue);
    g_test_add_func("/co-locks/queue/mutex", test_queue_mutex);
    g_test_add_func("/co-locks/queue/threads", test_queue_threads);
    if (g_test_perf()) {
        g_test_add_func("/co-locks/perf/mutex", perf_mutex);
    }
    ret = g_test_run();
    aio_context_free(ctx);
    return ret;
}
