/* SPDX-License-Identifier: MIT */
/* The event loop and other threads; where and how busily it runs. */
#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include "aio-test.h"

/* ---- a thread with a loop of its own ---- */

typedef struct Remote {
    GThread *thread;
    AioContext *ctx;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool stop;
    AioBackend backend;
} Remote;

static void *remote_run(void *opaque)
{
    Remote *remote = opaque;
    AioContext *own = aio_context_new(remote->backend, NULL);

    g_assert_nonnull(own);
    pthread_mutex_lock(&remote->lock);
    remote->ctx = own;
    pthread_cond_signal(&remote->cond);
    pthread_mutex_unlock(&remote->lock);
    while (!remote->stop) {
        aio_poll(own, true);
    }
    aio_context_free(own);
    coroutine_pool_drain();
    return NULL;
}

static void remote_start(Remote *remote)
{
    *remote = (Remote) {
        .backend = aio_context_has_ring(ctx) ? AIO_BACKEND_IO_URING :
                   AIO_BACKEND_EPOLL,
    };
    pthread_mutex_init(&remote->lock, NULL);
    pthread_cond_init(&remote->cond, NULL);
    remote->thread = g_thread_new("remote", remote_run, remote);
    pthread_mutex_lock(&remote->lock);
    while (!remote->ctx) {
        pthread_cond_wait(&remote->cond, &remote->lock);
    }
    pthread_mutex_unlock(&remote->lock);
}

static void remote_stop_bh(void *opaque)
{
    ((Remote *)opaque)->stop = true;
}

static void remote_stop(Remote *remote)
{
    aio_bh_schedule_oneshot(remote->ctx, remote_stop_bh, remote);
    g_thread_join(remote->thread);
    pthread_mutex_destroy(&remote->lock);
    pthread_cond_destroy(&remote->cond);
}

typedef struct Travel {
    AioContext *there;
    int trips;
    int ran_there;
} Travel;

static void count_there(void *opaque)
{
    Travel *t = opaque;

    g_assert_true(aio_context_current() == t->there);
    g_assert_false(in_coroutine());
    t->ran_there++;
}

static void coroutine_fn co_travel(void *opaque)
{
    Travel *t = opaque;
    AioContext *home = aio_context_current();

    for (int i = 0; i < t->trips; i++) {
        aio_co_reschedule_self(t->there);
        g_assert_true(aio_context_current() == t->there);
        if (i % 50 == 0) {
            aio_co_sleep_ns(1000);
            g_assert_true(aio_context_current() == t->there);
        }
        aio_co_reschedule_self(home);
        g_assert_true(aio_context_current() == home);
        aio_co_reschedule_self(home);
    }
    for (int i = 0; i < t->trips; i++) {
        aio_co_run_in(t->there, count_there, t);
        g_assert_cmpint(t->ran_there, ==, i + 1);
    }
    t->there = home;
    t->ran_there = 0;
    aio_co_run_in(home, count_there, t);
    g_assert_cmpint(t->ran_there, ==, 1);
}

static void test_travel(void)
{
    Remote remote;
    Travel t = { .trips = g_test_slow() ? 100000 : 2000 };

    remote_start(&remote);
    t.there = remote.ctx;
    co_test_run(co_travel, &t);
    remote_stop(&remote);
}

/* Many travellers at once, each waking up at its own pace. */
static void coroutine_fn co_travel_many(void *opaque)
{
    Travel *t = opaque;
    AioContext *home = aio_context_current();

    for (int i = 0; i < t->trips; i++) {
        aio_co_reschedule_self(t->there);
        aio_co_reschedule_self(home);
    }
    t->ran_there = 1;
}

static void test_travel_many(void)
{
    enum { N = 50 };
    Travel t[N];
    Remote remote;

    remote_start(&remote);
    for (int i = 0; i < N; i++) {
        t[i] = (Travel) { .there = remote.ctx, .trips = 200 };
        coroutine_enter(coroutine_create(co_travel_many, &t[i]));
    }
    for (int i = 0; i < N; i++) {
        poll_until(&t[i].ran_there, 1);
    }
    remote_stop(&remote);
}

/* Bottom halves scheduled by a thread that has no loop: none is lost. */
typedef struct Flood {
    BottomHalf *bh;
    int scheduled;          /* atomic */
    int seen;
    int oneshots;
} Flood;

static void flood_cb(void *opaque)
{
    Flood *flood = opaque;

    flood->seen = __atomic_load_n(&flood->scheduled, __ATOMIC_ACQUIRE);
}

static void flood_oneshot(void *opaque)
{
    ((Flood *)opaque)->oneshots++;
}

static void *flood_run(void *opaque)
{
    Flood *flood = opaque;

    for (int i = 1; i <= 20000; i++) {
        __atomic_store_n(&flood->scheduled, i, __ATOMIC_RELEASE);
        aio_bh_schedule(flood->bh);
        if (i % 10 == 0) {
            aio_bh_schedule_oneshot(ctx, flood_oneshot, flood);
        }
    }
    return NULL;
}

static void test_flood(void)
{
    Flood floods[3] = { 0 };
    GThread *threads[3];

    for (int i = 0; i < 3; i++) {
        floods[i].bh = aio_bh_new(ctx, flood_cb, &floods[i]);
        threads[i] = g_thread_new("flood", flood_run, &floods[i]);
    }
    for (int i = 0; i < 3; i++) {
        poll_until(&floods[i].oneshots, 2000);
        while (floods[i].seen < 20000) {
            aio_poll(ctx, true);
        }
        g_thread_join(threads[i]);
        aio_bh_delete(floods[i].bh);
    }
}

/* A thread wakes a loop that sleeps without a timeout, again and again. */
static void *notify_run(void *opaque)
{
    Flood *flood = opaque;

    while (!__atomic_load_n(&flood->scheduled, __ATOMIC_ACQUIRE)) {
        aio_notify(ctx);
        g_thread_yield();
    }
    return NULL;
}

static void test_notify_thread(void)
{
    Flood flood = { 0 };
    GThread *thread = g_thread_new("notify", notify_run, &flood);

    for (int i = 0; i < 1000; i++) {
        aio_poll(ctx, true);
    }
    __atomic_store_n(&flood.scheduled, 1, __ATOMIC_RELEASE);
    g_thread_join(thread);
}

/* ---- busy polling ---- */

static void coroutine_fn co_sleep_often(void *opaque)
{
    for (int64_t ns = 100; ns < 10000000; ns *= 3) {
        int64_t start = clock_now_ns();

        aio_co_sleep_ns(ns);
        g_assert_cmpint(clock_now_ns() - start, >=, ns);
    }
}

static void test_busy_poll(void)
{
    Remote remote;
    Travel t = { .trips = 500 };

    aio_context_set_poll_params(ctx, 1000000, 0, 2, 1);
    remote_start(&remote);
    aio_context_set_poll_params(remote.ctx, 1000000, 4, 0, 0);
    t.there = remote.ctx;
    co_test_run(co_travel, &t);
    co_test_run(co_sleep_often, NULL);
    remote_stop(&remote);
    aio_context_set_poll_params(ctx, 0, 0, 0, 0);
}

/* ---- placement ---- */

static void test_placement(void)
{
    cpu_set_t before, now, one;
    int cpu;

    g_assert_cmpint(sched_getaffinity(0, sizeof(before), &before), ==, 0);
    for (cpu = 0; !CPU_ISSET(cpu, &before); cpu++) {
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);

    aio_context_set_placement(ctx, true);
    for (int i = 0; i < 40; i++) {          /* one request a turn: tried */
        aio_context_note_client(ctx, cpu, 1);
        aio_poll(ctx, false);
    }
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &one));

    for (int i = 0; i < 300 * 8; i++) {     /* eight a turn: let go */
        aio_context_note_client(ctx, cpu, 1);
        if (i % 8 == 7) {
            aio_poll(ctx, false);
        }
    }
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &before) || !CPU_ISSET(cpu, &now));

    for (int i = 0; i < 300; i++) {         /* a CPU that is not allowed */
        aio_context_note_client(ctx, 100000, 1);
        aio_poll(ctx, false);
    }
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &before));

    for (int i = 0; i < 300; i++) {
        aio_context_note_client(ctx, cpu, 1);
        aio_poll(ctx, false);
    }
    aio_context_set_placement(ctx, false);
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &before));
    aio_context_note_client(ctx, cpu, 1);  /* ignored */
    aio_poll(ctx, false);
}

/* ---- figures, for -m perf ---- */

static void perf_travel(void)
{
    Remote remote;
    Travel t = { .trips = 100000 };

    remote_start(&remote);
    t.there = remote.ctx;
    g_test_timer_start();
    co_test_run(co_travel, &t);
    g_test_message("to another thread and back: %.1f ns",
                   g_test_timer_elapsed() / (2 * t.trips) * 1e9);
    remote_stop(&remote);
}
static const AioTest tests[] = {
    { "travel", test_travel, .threads = true },
    { "travel-many", test_travel_many, .threads = true },
    { "flood", test_flood, .threads = true },
    { "notify-thread", test_notify_thread, .threads = true },
    { "busy-poll", test_busy_poll, .threads = true },
    { "placement", test_placement, .threads = true },
    { "perf/travel", perf_travel, .perf = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_tests("aio-threads", tests, G_N_ELEMENTS(tests));
    return g_test_run();
}
