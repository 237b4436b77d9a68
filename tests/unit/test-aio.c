/* SPDX-License-Identifier: MIT */
/* The event loop in one thread: bottom halves, timers, fds, coroutines. */
#include <errno.h>
#include <glib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "aio-test.h"
#include "util/co-event.h"

/* ---- bottom halves ---- */

typedef struct Bh {
    BottomHalf *bh;
    int n;
    int again;              /* schedule itself that often */
    bool delete;            /* delete itself */
    GString *log;
    char name;
} Bh;

static void bh_cb(void *opaque)
{
    Bh *b = opaque;

    b->n++;
    if (b->log) {
        g_string_append_c(b->log, b->name);
    }
    if (b->again) {
        b->again--;
        aio_bh_schedule(b->bh);
    }
    if (b->delete) {
        aio_bh_delete(b->bh);
    }
}

static void test_bh(void)
{
    Bh b = { 0 };

    b.bh = aio_bh_new(ctx, bh_cb, &b);
    g_assert_false(aio_poll(ctx, false));
    aio_bh_schedule(b.bh);
    aio_bh_schedule(b.bh);
    g_assert_cmpint(b.n, ==, 0);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(b.n, ==, 1);            /* once for both */
    g_assert_false(aio_poll(ctx, false));

    b.again = 1;
    aio_bh_schedule(b.bh);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(b.n, ==, 2);            /* the second: next turn */
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(b.n, ==, 3);
    aio_bh_delete(b.bh);
}

static void test_bh_order(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Bh b[5];

    for (int i = 0; i < 5; i++) {
        b[i] = (Bh) { .log = log, .name = 'a' + i };
        b[i].bh = aio_bh_new(ctx, bh_cb, &b[i]);
    }
    for (int i = 0; i < 5; i++) {
        aio_bh_schedule(b[(i * 2) % 5].bh);
    }
    aio_poll(ctx, true);
    g_assert_cmpstr(log->str, ==, "acebd");
    for (int i = 0; i < 5; i++) {
        aio_bh_delete(b[i].bh);
    }
}

static void test_bh_delete(void)
{
    Bh b = { 0 };

    b.bh = aio_bh_new(ctx, bh_cb, &b);
    aio_bh_schedule(b.bh);
    aio_bh_delete(b.bh);
    aio_poll(ctx, false);
    g_assert_cmpint(b.n, ==, 0);

    b = (Bh) { .delete = true, .again = 1 };
    b.bh = aio_bh_new(ctx, bh_cb, &b);
    aio_bh_schedule(b.bh);
    aio_poll(ctx, true);
    aio_poll(ctx, false);
    g_assert_cmpint(b.n, ==, 1);

    aio_bh_delete(aio_bh_new(ctx, bh_cb, &b));
    aio_poll(ctx, false);
    g_assert_cmpint(b.n, ==, 1);
}

static void delete_other(void *opaque)
{
    aio_bh_delete(opaque);
}

static void test_bh_delete_in_turn(void)
{
    Bh b = { 0 };

    b.bh = aio_bh_new(ctx, bh_cb, &b);
    aio_bh_schedule_oneshot(ctx, delete_other, b.bh);
    aio_bh_schedule(b.bh);
    aio_poll(ctx, true);
    g_assert_cmpint(b.n, ==, 0);
}

static void test_bh_oneshot(void)
{
    Bh b = { 0 };

    for (int i = 0; i < 10; i++) {
        aio_bh_schedule_oneshot(ctx, bh_cb, &b);
    }
    aio_poll(ctx, true);
    g_assert_cmpint(b.n, ==, 10);
}

/* ---- timers ---- */

typedef struct Timer {
    AioTimer timer;
    GString *log;
    char name;
    int again;
    int64_t fired_at;
    AioTimer *victim;
} Timer;

static void timer_cb(void *opaque)
{
    Timer *t = opaque;

    t->fired_at = clock_now_ns();
    g_assert_cmpint(t->timer.expire_ns, ==, -1);
    g_string_append_c(t->log, t->name);
    if (t->again) {
        t->again--;
        aio_timer_mod(&t->timer, 0);
    }
    if (t->victim) {
        aio_timer_del(t->victim);
    }
}

static void test_timers(void)
{
    static const int delay[] = { 3, 1, 4, 2, 2 };       /* ms */
    g_autoptr(GString) log = g_string_new(NULL);
    int64_t start = clock_now_ns();
    Timer t[5];

    for (int i = 0; i < 5; i++) {
        t[i] = (Timer) { .log = log, .name = 'a' + i };
        aio_timer_init(&t[i].timer, ctx, timer_cb, &t[i]);
        aio_timer_mod(&t[i].timer, start + delay[i] * 1000000);
    }
    while (log->len < 5) {
        aio_poll(ctx, true);
    }
    g_assert_cmpstr(log->str, ==, "bdeac");
    for (int i = 0; i < 5; i++) {
        g_assert_cmpint(t[i].fired_at, >=, start + delay[i] * 1000000);
    }
}

static void test_timer_change(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Timer a = { .log = log, .name = 'a' }, b = { .log = log, .name = 'b' };
    int64_t now = clock_now_ns();

    aio_timer_init(&a.timer, ctx, timer_cb, &a);
    aio_timer_init(&b.timer, ctx, timer_cb, &b);
    aio_timer_del(&a.timer);                /* harmless */
    aio_timer_mod(&a.timer, now);
    aio_timer_mod(&b.timer, now + 1);
    aio_timer_mod(&a.timer, now + 2);
    aio_poll(ctx, true);
    g_assert_cmpstr(log->str, ==, "ba");

    a.victim = &b.timer;
    aio_timer_mod(&a.timer, now);
    aio_timer_mod(&b.timer, now);
    aio_poll(ctx, true);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpstr(log->str, ==, "baa");   /* b was deleted by a */

    a.victim = NULL;
    a.again = 1;
    aio_timer_mod(&a.timer, now);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpstr(log->str, ==, "baaa");  /* once a turn */
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpstr(log->str, ==, "baaaa");
}

/* ---- fd handlers ---- */

typedef struct Fd {
    int fds[2];             /* handlers are on [0] */
    int reads;
    int writes;
    bool drain;             /* read what is there */
    IOHandler *then_read;   /* in a callback: change to these handlers */
    IOHandler *then_write;
    bool change;
    int *victim;            /* in a callback: remove that fd's handlers */
} Fd;

static void fd_init(Fd *f)
{
    *f = (Fd) { 0 };
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0,
                               f->fds), ==, 0);
}

static void fd_deinit(Fd *f)
{
    close(f->fds[0]);
    close(f->fds[1]);
}

static void fd_after_callback(Fd *f)
{
    if (f->change) {
        f->change = false;
        aio_set_fd_handler(ctx, f->fds[0], f->then_read, f->then_write, f);
    }
    if (f->victim) {
        aio_set_fd_handler(ctx, *f->victim, NULL, NULL, NULL);
    }
}

static void fd_read_cb(void *opaque)
{
    Fd *f = opaque;
    char buf[100];

    f->reads++;
    if (f->drain) {
        g_assert_cmpint(read(f->fds[0], buf, sizeof(buf)), >=, 0);
    }
    fd_after_callback(f);
}

static void fd_write_cb(void *opaque)
{
    Fd *f = opaque;

    f->writes++;
    fd_after_callback(f);
}

static void poke(Fd *f)
{
    g_assert_cmpint(write(f->fds[1], "x", 1), ==, 1);
}

static void test_fd_level_triggered(void)
{
    Fd f;

    fd_init(&f);
    aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, NULL, &f);
    settle();
    g_assert_cmpint(f.reads, ==, 0);
    poke(&f);
    poll_until(&f.reads, 3);                /* still readable */
    f.drain = true;
    poll_until(&f.reads, 4);
    settle();
    g_assert_cmpint(f.reads, ==, 4);
    poke(&f);
    poll_until(&f.reads, 5);

    aio_set_fd_handler(ctx, f.fds[0], NULL, NULL, NULL);
    poke(&f);
    settle();
    g_assert_cmpint(f.reads, ==, 5);
    fd_deinit(&f);
}

static void test_fd_write_and_change(void)
{
    Fd f;

    fd_init(&f);
    aio_set_fd_handler(ctx, f.fds[0], NULL, fd_write_cb, &f);
    poll_until(&f.writes, 3);
    /* From write to read, then to both, without a callback of the old kind */
    aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, NULL, &f);
    settle();
    g_assert_cmpint(f.writes, ==, 3);
    f.drain = true;
    poke(&f);
    poll_until(&f.reads, 1);
    aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, fd_write_cb, &f);
    poll_until(&f.writes, 4);
    poke(&f);
    while (f.reads < 2) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(f.writes, >=, 4);

    /* Changes inside of the callback, both ways, then removal */
    f.change = true;
    f.then_read = fd_read_cb;
    f.then_write = NULL;
    f.writes = 0;
    poll_until(&f.writes, 1);
    settle();
    g_assert_cmpint(f.writes, ==, 1);
    f.change = true;
    f.then_read = NULL;
    f.then_write = fd_write_cb;
    poke(&f);
    poll_until(&f.reads, 3);
    poll_until(&f.writes, 2);
    f.change = true;
    f.then_write = NULL;
    poll_until(&f.writes, 3);
    settle();
    g_assert_cmpint(f.writes, ==, 3);
    fd_deinit(&f);
}

/* One of two ready fds removes the other: exactly one callback comes. */
static void test_fd_remove_other(void)
{
    for (int round = 0; round < 10; round++) {
        Fd a, b;

        fd_init(&a);
        fd_init(&b);
        a.victim = &b.fds[0];
        b.victim = &a.fds[0];
        poke(&a);
        poke(&b);
        aio_set_fd_handler(ctx, a.fds[0], fd_read_cb, NULL, &a);
        aio_set_fd_handler(ctx, b.fds[0], fd_read_cb, NULL, &b);
        a.drain = b.drain = true;
        while (!a.reads && !b.reads) {
            aio_poll(ctx, true);
        }
        settle();
        g_assert_cmpint(a.reads + b.reads, ==, 1);
        aio_set_fd_handler(ctx, a.fds[0], NULL, NULL, NULL);
        aio_set_fd_handler(ctx, b.fds[0], NULL, NULL, NULL);
        fd_deinit(&a);
        fd_deinit(&b);
    }
}

/* The same number, closed and used again at once, is another fd. */
static void test_fd_reuse(void)
{
    for (int i = 0; i < 100; i++) {
        Fd f, g;
        int old;

        fd_init(&f);
        aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, NULL, &f);
        if (i % 2) {
            aio_poll(ctx, false);
        }
        poke(&f);
        if (i % 3 == 0) {
            aio_notify(ctx);
            aio_poll(ctx, true);
        }
        old = f.reads;
        aio_set_fd_handler(ctx, f.fds[0], NULL, NULL, NULL);
        fd_deinit(&f);

        fd_init(&g);
        g.drain = true;
        aio_set_fd_handler(ctx, g.fds[0], fd_read_cb, NULL, &g);
        settle();
        g_assert_cmpint(g.reads, ==, 0);
        poke(&g);
        poll_until(&g.reads, 1);
        aio_set_fd_handler(ctx, g.fds[0], NULL, NULL, NULL);
        settle();
        g_assert_cmpint(f.reads, ==, old);
        fd_deinit(&g);
    }
}

static void test_fd_hangup(void)
{
    Fd f;

    fd_init(&f);
    f.drain = true;
    aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, NULL, &f);
    settle();
    close(f.fds[1]);
    poll_until(&f.reads, 1);
    aio_set_fd_handler(ctx, f.fds[0], NULL, NULL, NULL);
    close(f.fds[0]);
}

/* A regular file is always ready. */
static void test_fd_regular_file(void)
{
    char name[] = "/tmp/test-aio-XXXXXX";
    Fd f = { 0 };

    f.fds[0] = mkstemp(name);
    g_assert_cmpint(f.fds[0], >=, 0);
    unlink(name);
    aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, NULL, &f);
    poll_until(&f.reads, 3);
    aio_set_fd_handler(ctx, f.fds[0], fd_read_cb, fd_write_cb, &f);
    while (f.writes < 3) {
        aio_poll(ctx, true);
    }
    f.change = true;
    f.then_read = f.then_write = NULL;
    aio_poll(ctx, true);
    while (f.change) {
        aio_poll(ctx, true);
    }
    f.reads = f.writes = 0;
    settle();
    g_assert_cmpint(f.reads + f.writes, ==, 0);
    close(f.fds[0]);
}

/* ---- coroutines ---- */

static void coroutine_fn co_sleep(void *opaque)
{
    int64_t start = clock_now_ns();

    aio_co_sleep_ns(2000000);
    g_assert_cmpint(clock_now_ns() - start, >=, 2000000);
    aio_co_sleep_ns(0);
    aio_co_sleep_ns(-5);
}

/* ---- loops that others must not wait for ---- */

typedef struct Fair {
    CoCancel cancel;
    BottomHalf *bh;
    int turns;              /* counted by the bottom half */
    bool given_up;
} Fair;

static void fair_bh(void *opaque)
{
    Fair *fair = opaque;

    fair->turns++;
    aio_bh_schedule(fair->bh);
}

static bool fair_is_cancelled(const CoCancel *cancel)
{
    return ((const Fair *)cancel)->given_up;
}

/* It ends only if others have their turns meanwhile. */
static void coroutine_fn co_fair(void *opaque)
{
    Fair *fair = opaque;

    while (fair->turns < 20) {
        g_assert_cmpint(aio_co_yield_fair(), ==, 0);
    }
}

static void coroutine_fn co_unwanted(void *opaque)
{
    Fair *fair = opaque;

    g_assert_null(coroutine_set_cancel(&fair->cancel));
    g_assert_cmpint(aio_co_yield_fair(), ==, 0);
    fair->given_up = true;
    g_assert_cmpint(aio_co_yield_fair(), ==, -ECANCELED);
    g_assert_true(coroutine_set_cancel(NULL) == &fair->cancel);
    g_assert_cmpint(aio_co_yield_fair(), ==, 0);
}

static void test_yield_fair(void)
{
    Fair fair = { .cancel.is_cancelled = fair_is_cancelled };

    fair.bh = aio_bh_new(ctx, fair_bh, &fair);
    aio_bh_schedule(fair.bh);
    /* Two share a turn, and none of them starves. */
    coroutine_enter(coroutine_create(co_fair, &fair));
    co_test_run(co_fair, &fair);
    co_test_run(co_unwanted, &fair);
    aio_bh_delete(fair.bh);
}

static void test_co_sleep(void)
{
    co_test_run(co_sleep, NULL);
}

/* An event comes before the wait, during it, in time and too late. */
static void set_event(void *opaque)
{
    co_event_set(opaque);
}

static void coroutine_fn co_wait_event(void *opaque)
{
    CoEvent event = { .happened = true };
    AioTimer timer;
    int64_t start;

    g_assert_true(co_event_wait(&event, -1));
    event = (CoEvent) { .happened = false };
    g_assert_false(co_event_wait(&event, 0));
    start = clock_now_ns();
    g_assert_false(co_event_wait(&event, 2000000));
    g_assert_cmpint(clock_now_ns() - start, >=, 2000000);
    g_assert_null(event.waiters);

    aio_bh_schedule_oneshot(ctx, set_event, &event);
    g_assert_true(co_event_wait(&event, -1));
    event = (CoEvent) { .happened = false };
    aio_bh_schedule_oneshot(ctx, set_event, &event);
    g_assert_true(co_event_wait(&event, INT64_MAX / 2));
    co_event_set(&event);

    /* Nobody waits any more when the timer comes: it only leaves a mark. */
    event = (CoEvent) { .happened = false };
    aio_timer_init(&timer, ctx, set_event, &event);
    aio_timer_mod(&timer, clock_now_ns() + 4000000);
    g_assert_false(co_event_wait(&event, 1000000));
    while (!event.happened) {
        aio_co_sleep_ns(1000000);
    }
    aio_timer_del(&timer);
}

static void test_co_event(void)
{
    co_test_run(co_wait_event, NULL);
}

typedef struct EventWaiter {
    CoEvent *event;
    int64_t timeout_ns;
    int result;                 /* -1: it still waits */
} EventWaiter;

static void coroutine_fn co_wait_with_others(void *opaque)
{
    EventWaiter *w = opaque;

    w->result = -1;
    w->result = co_event_wait(w->event, w->timeout_ns);
}

/* Several wait for one event, some of them not long enough. */
static void coroutine_fn co_wait_event_together(void *opaque)
{
    CoEvent *event = g_new0(CoEvent, 1);
    EventWaiter w[] = {
        { event, -1 }, { event, 1000000 }, { event, -1 }, { event, 1000000 },
        { event, INT64_MAX / 2 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(w); i++) {
        coroutine_enter(coroutine_create(co_wait_with_others, &w[i]));
        g_assert_cmpint(w[i].result, ==, -1);
    }
    while (w[1].result < 0 || w[3].result < 0) {
        aio_co_sleep_ns(1000000);
    }
    g_assert_cmpint(w[1].result, ==, 0);
    g_assert_cmpint(w[3].result, ==, 0);
    aio_bh_schedule_oneshot(ctx, set_event, event);
    while (w[0].result < 0 || w[2].result < 0 || w[4].result < 0) {
        aio_co_sleep_ns(1000000);
    }
    g_assert_true(w[0].result && w[2].result && w[4].result);
    g_free(event);
}

static void test_co_event_together(void)
{
    co_test_run(co_wait_event_together, NULL);
}

static void coroutine_fn co_echo(void *opaque)
{
    Fd *f = opaque;
    char buf[10];

    aio_co_wait_readable(f->fds[0]);
    g_assert_cmpint(read(f->fds[0], buf, sizeof(buf)), ==, 1);
    /* Fill the socket's buffer, then wait for room. */
    while (write(f->fds[0], buf, 1) == 1) {
    }
    g_assert_cmpint(errno, ==, EAGAIN);
    f->writes = 1;
    aio_co_wait_writable(f->fds[0]);
    g_assert_cmpint(write(f->fds[0], buf, 1), ==, 1);
    f->writes = 2;
}

static void test_co_wait_fd(void)
{
    char buf[4096];
    Fd f;

    fd_init(&f);
    coroutine_enter(coroutine_create(co_echo, &f));
    settle();
    g_assert_cmpint(f.writes, ==, 0);
    poke(&f);
    poll_until(&f.writes, 1);
    settle();
    g_assert_cmpint(f.writes, ==, 1);
    while (read(f.fds[1], buf, sizeof(buf)) > 0) {
    }
    poll_until(&f.writes, 2);
    fd_deinit(&f);
}

typedef struct WakeTest {
    GString *log;
    Coroutine *a;
    Coroutine *b;
} WakeTest;

static void coroutine_fn co_wake_b(void *opaque)
{
    WakeTest *t = opaque;

    aio_co_wake(t->b);
    g_string_append(t->log, "a1 ");
    coroutine_yield();
    g_string_append(t->log, "a2 ");
}

static void coroutine_fn co_wake_a(void *opaque)
{
    WakeTest *t = opaque;

    coroutine_yield();
    g_string_append(t->log, "b ");
    aio_co_wake(t->a);
}

/* A woken coroutine runs when the waker yields, without another turn. */
static void test_co_wake(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    WakeTest t = { .log = log };

    t.a = coroutine_create(co_wake_b, &t);
    t.b = coroutine_create(co_wake_a, &t);
    coroutine_enter(t.b);
    coroutine_enter(t.a);
    g_assert_cmpstr(log->str, ==, "a1 b a2 ");
}

static void coroutine_fn co_append(void *opaque)
{
    g_string_append_c(opaque, 'x');
}

static void test_co_schedule(void)
{
    g_autoptr(GString) log = g_string_new(NULL);

    aio_co_schedule(ctx, coroutine_create(co_append, log));
    g_assert_cmpuint(log->len, ==, 0);
    aio_poll(ctx, true);
    g_assert_cmpuint(log->len, ==, 1);
    aio_co_enter(ctx, coroutine_create(co_append, log));
    g_assert_cmpuint(log->len, ==, 2);
}

static void test_notify(void)
{
    aio_notify(ctx);
    aio_poll(ctx, true);                    /* does not block */
    g_assert_false(aio_poll(ctx, false));
}

/* ---- which backend ---- */

static void test_environment(void)
{
    Error *err = NULL;

    g_setenv("QSD_AIO", "epoll", true);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    g_assert_false(aio_context_has_ring(ctx));
    aio_context_free(ctx);

    g_setenv("QSD_AIO", "kqueue", true);
    g_assert_null(aio_context_new(AIO_BACKEND_AUTO, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "QSD_AIO must be 'io_uring' or 'epoll', not 'kqueue'");
    error_free(err);
    g_unsetenv("QSD_AIO");
}

/* As in a container whose seccomp filter forbids io_uring, or knows it not. */
static bool forbid_io_uring(int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {
        .len = G_N_ELEMENTS(code), .filter = code,
    };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static void check_fallback(int error)
{
    Error *err = NULL;

    g_unsetenv("QSD_AIO");
    if (!forbid_io_uring(error)) {
        return;
    }
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    g_assert_false(aio_context_has_ring(ctx));
    test_timers();
    aio_context_free(ctx);

    g_assert_null(aio_context_new(AIO_BACKEND_IO_URING, &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "Failed to set up io_uring: "));
    error_free(err);
}

static void test_fallback(const void *opaque)
{
    if (g_test_subprocess()) {
        check_fallback(GPOINTER_TO_INT(opaque));
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

static const AioTest tests[] = {
    { "bh", test_bh },
    { "bh-order", test_bh_order },
    { "bh-delete", test_bh_delete },
    { "bh-delete-in-turn", test_bh_delete_in_turn },
    { "bh-oneshot", test_bh_oneshot },
    { "timers", test_timers },
    { "timer-change", test_timer_change },
    { "fd-level-triggered", test_fd_level_triggered },
    { "fd-write-and-change", test_fd_write_and_change },
    { "fd-remove-other", test_fd_remove_other },
    { "fd-reuse", test_fd_reuse },
    { "fd-hangup", test_fd_hangup },
    { "fd-regular-file", test_fd_regular_file },
    { "yield-fair", test_yield_fair },
    { "co-sleep", test_co_sleep },
    { "co-event", test_co_event },
    { "co-event-together", test_co_event_together },
    { "co-wait-fd", test_co_wait_fd },
    { "co-wake", test_co_wake },
    { "co-schedule", test_co_schedule },
    { "notify", test_notify },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_tests("aio", tests, G_N_ELEMENTS(tests));
    g_test_add_func("/aio/environment", test_environment);
    g_test_add_data_func("/aio/fallback/eperm", GINT_TO_POINTER(EPERM),
                         test_fallback);
    g_test_add_data_func("/aio/fallback/enosys", GINT_TO_POINTER(ENOSYS),
                         test_fallback);
    g_test_add_data_func("/aio/fallback/einval", GINT_TO_POINTER(EINVAL),
                         test_fallback);
    g_test_add_data_func("/aio/fallback/enomem", GINT_TO_POINTER(ENOMEM),
                         test_fallback);
    return g_test_run();
}
