/* SPDX-License-Identifier: MIT */
/* The thread pool, with io_uring and without. */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "aio-test.h"
#include "util/thread-pool.h"

typedef struct Job {
    int ret;
    int result;
    int *left;              /* jobs that are not back yet */
    GThread *ran_in;
} Job;

static int job_func(void *opaque)
{
    Job *job = opaque;
    sigset_t blocked;

    job->ran_in = g_thread_self();
    g_assert_null(aio_context_current());
    g_assert_cmpint(pthread_sigmask(SIG_BLOCK, NULL, &blocked), ==, 0);
    g_assert_true(sigismember(&blocked, SIGTERM));
    return job->ret;
}

static void coroutine_fn co_job(void *opaque)
{
    Job *job = opaque;

    job->result = thread_pool_co_submit(job_func, job);
    g_assert_true(aio_context_current() == ctx);
    --*job->left;
}

static void test_submit(void)
{
    enum { N = 1000 };
    g_autofree Job *jobs = g_new0(Job, N);
    int left = N;

    for (int i = 0; i < N; i++) {
        jobs[i] = (Job) { .ret = i - 500, .result = 1000, .left = &left };
        coroutine_enter(coroutine_create(co_job, &jobs[i]));
        if (i % 10 == 0) {
            aio_poll(ctx, false);
        }
    }
    while (left) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(jobs[i].result, ==, i - 500);
        g_assert_true(jobs[i].ran_in != g_thread_self());
    }
}

/* Calls that last until they are let go; how many run at once is the point. */
typedef struct Gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int inside;
    int most;
    bool open;
    int left;
} Gate;

static int gate_func(void *opaque)
{
    Gate *gate = opaque;

    pthread_mutex_lock(&gate->lock);
    gate->inside++;
    gate->most = MAX(gate->most, gate->inside);
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    gate->inside--;
    pthread_mutex_unlock(&gate->lock);
    return 0;
}

static int nothing(void *opaque)
{
    return 0;
}

static void coroutine_fn co_gate(void *opaque)
{
    Gate *gate = opaque;

    g_assert_cmpint(thread_pool_co_submit(gate_func, gate), ==, 0);
    gate->left--;
}

static void gate_run(Gate *gate, int n, int expect)
{
    gate->open = false;
    gate->most = 0;
    gate->left = n;
    for (int i = 0; i < n; i++) {
        coroutine_enter(coroutine_create(co_gate, gate));
    }
    pthread_mutex_lock(&gate->lock);
    while (gate->inside < expect) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
    while (gate->left) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(gate->most, ==, expect);
}

static void test_bounds(void)
{
    Gate gate = { 0 };

    pthread_mutex_init(&gate.lock, NULL);
    pthread_cond_init(&gate.changed, NULL);
    aio_context_set_thread_pool_params(ctx, 0, 3);
    gate_run(&gate, 20, 3);
    aio_context_set_thread_pool_params(ctx, 0, 8);
    gate_run(&gate, 20, 8);
    aio_context_set_thread_pool_params(ctx, 0, 1);
    gate_run(&gate, 20, 1);
    aio_context_set_thread_pool_params(ctx, 5, 5);
    gate_run(&gate, 5, 5);
    pthread_mutex_destroy(&gate.lock);
    pthread_cond_destroy(&gate.changed);
}

/* ---- causes ---- */

/* A call for a cause, either one that hangs or one that is over at once. */
typedef struct CauseCall {
    const void *key;
    Gate *gate;             /* NULL: over at once */
    int *done;              /* calls that are back */
    int order;              /* as how many-th it came back */
} CauseCall;

static void coroutine_fn co_cause_call(void *opaque)
{
    CauseCall *c = opaque;

    thread_pool_co_submit_for(c->key, c->gate ? gate_func : nothing, c->gate);
    c->order = ++*c->done;
}

static void start_calls(CauseCall *calls, int n, CauseCall like)
{
    for (int i = 0; i < n; i++) {
        calls[i] = like;
        coroutine_enter(coroutine_create(co_cause_call, &calls[i]));
    }
}

static void wait_until(int *done, int n)
{
    while (*done < n) {
        aio_poll(ctx, true);
    }
}

static void gate_init(Gate *gate)
{
    *gate = (Gate) { 0 };
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
}

static void gate_wait_inside(Gate *gate, int n)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->inside < n) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
}

static void gate_open(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* Everything else goes on while files hang, one of them or many. */
static void test_hung_causes(void)
{
    enum { MAX = 32, EACH = 200, HUNG = 9, SHARE = 14, ALL = MAX - MAX / 8 };
    static char keys[HUNG + 1];
    g_autofree CauseCall *hung = g_new(CauseCall, EACH * HUNG);
    CauseCall others[50];
    int n_hung = 0, n_others = 0;
    Gate gate;

    gate_init(&gate);
    aio_context_set_thread_pool_params(ctx, 0, MAX);
    start_calls(hung, EACH, (CauseCall) { &keys[0], &gate, &n_hung });
    gate_wait_inside(&gate, SHARE);
    start_calls(others, 50, (CauseCall) { &keys[HUNG], NULL, &n_others });
    wait_until(&n_others, 50);

    for (int i = 1; i < HUNG; i++) {
        start_calls(hung + i * EACH, EACH,
                    (CauseCall) { &keys[i], &gate, &n_hung });
    }
    /* The last one may be left, if each file has a thread and more. */
    gate_wait_inside(&gate, ALL - 1);
    n_others = 0;
    start_calls(others, 50, (CauseCall) { NULL, NULL, &n_others });
    wait_until(&n_others, 50);
    g_assert_cmpint(n_hung, ==, 0);
    g_assert_cmpint(gate.most, <=, ALL);

    gate_open(&gate);
    wait_until(&n_hung, EACH * HUNG);
    pthread_mutex_destroy(&gate.lock);
    pthread_cond_destroy(&gate.changed);
}

/* Who has many calls does not keep the others waiting. */
static void test_turns(void)
{
    enum { MANY = 100, FEW = 3 };
    static char keys[2];
    CauseCall many[MANY], few[FEW], first;
    int done = 0;
    Gate gate;

    gate_init(&gate);
    aio_context_set_thread_pool_params(ctx, 0, 1);
    start_calls(&first, 1, (CauseCall) { NULL, &gate, &done });
    gate_wait_inside(&gate, 1);
    start_calls(many, MANY, (CauseCall) { &keys[0], NULL, &done });
    start_calls(few, FEW, (CauseCall) { &keys[1], NULL, &done });
    gate_open(&gate);
    wait_until(&done, 1 + MANY + FEW);
    g_assert_cmpint(few[FEW - 1].order, <=, 1 + 2 * FEW);
    g_assert_cmpint(many[MANY - 1].order, ==, 1 + MANY + FEW);
    pthread_mutex_destroy(&gate.lock);
    pthread_cond_destroy(&gate.changed);
}

/* Freed with idle threads waiting, just after work. */
static void test_min(void)
{
    int left = 1;
    Job job = { .ret = 7, .left = &left };

    aio_context_set_thread_pool_params(ctx, 4, 4);
    coroutine_enter(coroutine_create(co_job, &job));
    while (left) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(job.result, ==, 7);
}

static void test_no_thread(void)
{
    int left = 1;
    Job job = { .ret = 7, .left = &left };
    struct rlimit old, none = { 0, 0 };

    /* Threads count against RLIMIT_NPROC, but not for root. */
    if (geteuid() == 0) {
        g_test_skip("root may always start threads");
        return;
    }
    getrlimit(RLIMIT_NPROC, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NPROC, &none);
    coroutine_enter(coroutine_create(co_job, &job));
    g_assert_cmpint(left, ==, 0);
    g_assert_cmpint(job.result, ==, -EAGAIN);
    setrlimit(RLIMIT_NPROC, &old);
}

/* ---- figures, for -m perf ---- */

static void coroutine_fn co_perf(void *opaque)
{
    const int n = 100000;

    g_test_timer_start();
    for (int i = 0; i < n; i++) {
        thread_pool_co_submit(nothing, NULL);
    }
    g_test_message("thread_pool_co_submit: %.1f ns",
                   g_test_timer_elapsed() / n * 1e9);
}

static void perf_submit(void)
{
    co_test_run(co_perf, NULL);
}

static const AioTest tests[] = {
    { "submit", test_submit, .threads = true },
    { "bounds", test_bounds, .threads = true },
    { "hung-causes", test_hung_causes, .threads = true },
    { "turns", test_turns, .threads = true },
    { "min", test_min, .threads = true },
    { "no-thread", test_no_thread },
    { "perf", perf_submit, .perf = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_tests("thread-pool", tests, G_N_ELEMENTS(tests));
    return g_test_run();
}
