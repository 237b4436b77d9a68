/* SPDX-License-Identifier: MIT */
/* The event loop, with io_uring and without: every test runs on both. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "co-test.h"

static AioContext *ctx;

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

/* Turns until nothing happens any more. */
static void settle(void)
{
    while (aio_poll(ctx, false)) {
    }
}

/* Turns until *@n, which a callback counts, has become @value. */
static void poll_until(const int *n, int value)
{
    while (*n < value) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(*n, ==, value);
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

static void test_co_sleep(void)
{
    co_test_run(co_sleep, NULL);
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

/* ---- io_uring ---- */

typedef struct Nop {
    CqeHandler handler;         /* first */
    int *done;
    int again;
    bool in_add;
} Nop;

static void prep_nop(struct io_uring_sqe *sqe, void *opaque)
{
    static const char zero[128];

    g_assert_cmpmem(sqe, 128, zero, 128);
    io_uring_prep_nop(sqe);
}

static void nop_cb(CqeHandler *handler)
{
    Nop *nop = (Nop *)handler;

    g_assert_false(nop->in_add);
    g_assert_cmpint(handler->cqe.res, ==, 0);
    if (nop->again) {
        nop->again--;
        aio_add_sqe(prep_nop, NULL, handler);
    }
    ++*nop->done;
}

/* More than the SQ holds at once, each many times. */
static void test_sqe_many(void)
{
    enum { N = 5000 };
    g_autofree Nop *nops = g_new0(Nop, N);
    int done = 0;

    for (int i = 0; i < N; i++) {
        nops[i] = (Nop) {
            .handler.cb = nop_cb, .done = &done, .again = 5, .in_add = true,
        };
        aio_add_sqe(prep_nop, NULL, &nops[i].handler);
        nops[i].in_add = false;
    }
    while (done < 6 * N) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(done, ==, 6 * N);
    settle();
}

static void test_sqe_max_batch(void)
{
    int done = 0;
    Nop nops[3];

    aio_context_set_max_batch(ctx, 2);
    for (int i = 0; i < 3; i++) {
        nops[i] = (Nop) { .handler.cb = nop_cb, .done = &done };
        aio_add_sqe(prep_nop, NULL, &nops[i].handler);
    }
    poll_until(&done, 3);
    aio_context_set_max_batch(ctx, 0);
}

typedef struct Read {
    int fd;
    char buf[8];
} Read;

static void prep_read(struct io_uring_sqe *sqe, void *opaque)
{
    Read *r = opaque;

    io_uring_prep_read(sqe, r->fd, r->buf, sizeof(r->buf), 3);
}

static void coroutine_fn co_read(void *opaque)
{
    char name[] = "/tmp/test-aio-XXXXXX";
    Read r = { .fd = mkstemp(name) };

    g_assert_cmpint(r.fd, >=, 0);
    unlink(name);
    g_assert_cmpint(write(r.fd, "0123456789", 10), ==, 10);
    g_assert_cmpint(aio_co_sqe(prep_read, &r), ==, 7);
    g_assert_cmpmem(r.buf, 7, "3456789", 7);
    close(r.fd);
    r.fd = -1;
    g_assert_cmpint(aio_co_sqe(prep_read, &r), ==, -EBADF);
}

static void test_co_sqe(void)
{
    co_test_run(co_read, NULL);
}

/* ---- another thread ---- */

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

static void test_busy_poll(void)
{
    Remote remote;
    Travel t = { .trips = 500 };

    aio_context_set_poll_params(ctx, 1000000, 0, 2, 1);
    remote_start(&remote);
    aio_context_set_poll_params(remote.ctx, 1000000, 4, 0, 0);
    t.there = remote.ctx;
    co_test_run(co_travel, &t);
    test_timers();
    if (aio_context_has_ring(ctx)) {
        test_sqe_many();
        test_co_sqe();
    }
    test_fd_level_triggered();
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
    for (int i = 0; i < 300; i++) {         /* one request a turn */
        aio_context_note_client_cpu(ctx, cpu);
        aio_poll(ctx, false);
    }
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &one));

    for (int i = 0; i < 256 * 8; i++) {     /* eight a turn */
        aio_context_note_client_cpu(ctx, cpu);
        if (i % 8 == 7) {
            aio_poll(ctx, false);
        }
    }
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_cmpint(!!CPU_ISSET(cpu, &now), ==, CPU_COUNT(&before) == 1);

    for (int i = 0; i < 300; i++) {         /* a CPU that is not allowed */
        aio_context_note_client_cpu(ctx, 100000);
        aio_poll(ctx, false);
    }
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &before));

    for (int i = 0; i < 300; i++) {
        aio_context_note_client_cpu(ctx, cpu);
        aio_poll(ctx, false);
    }
    aio_context_set_placement(ctx, false);
    sched_getaffinity(0, sizeof(now), &now);
    g_assert_true(CPU_EQUAL(&now, &before));
    aio_context_note_client_cpu(ctx, cpu);  /* ignored */
    aio_poll(ctx, false);
}

/* ---- figures, for -m perf ---- */

static void coroutine_fn co_nops(void *opaque)
{
    const int n = 1000000;

    g_test_timer_start();
    for (int i = 0; i < n; i++) {
        aio_co_sqe(prep_nop, NULL);
    }
    g_test_message("aio_co_sqe(NOP), one a turn: %.1f ns",
                   g_test_timer_elapsed() / n * 1e9);
}

static void perf_nop(void)
{
    co_test_run(co_nops, NULL);
}

static void perf_nop_batch(void)
{
    enum { N = 64, ROUNDS = 20000 };
    int done = 0;
    Nop nops[N];

    for (int i = 0; i < N; i++) {
        nops[i] = (Nop) {
            .handler.cb = nop_cb, .done = &done, .again = ROUNDS - 1,
        };
        aio_add_sqe(prep_nop, NULL, &nops[i].handler);
    }
    g_test_timer_start();
    poll_until(&done, N * ROUNDS);
    g_test_message("NOP, 64 a turn: %.1f ns each",
                   g_test_timer_elapsed() / (N * ROUNDS) * 1e9);
}

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

/* ---- running all this on a backend ---- */

typedef struct Test {
    const char *name;
    void (*func)(void);
    bool needs_ring;
    bool perf;
    AioBackend backend;
} Test;

static const Test tests[] = {
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
    { "co-sleep", test_co_sleep },
    { "co-wait-fd", test_co_wait_fd },
    { "co-wake", test_co_wake },
    { "co-schedule", test_co_schedule },
    { "notify", test_notify },
    { "sqe-many", test_sqe_many, .needs_ring = true },
    { "sqe-max-batch", test_sqe_max_batch, .needs_ring = true },
    { "co-sqe", test_co_sqe, .needs_ring = true },
    { "travel", test_travel },
    { "travel-many", test_travel_many },
    { "flood", test_flood },
    { "notify-thread", test_notify_thread },
    { "busy-poll", test_busy_poll },
    { "placement", test_placement },
    { "perf/nop", perf_nop, .needs_ring = true, .perf = true },
    { "perf/nop-batch", perf_nop_batch, .needs_ring = true, .perf = true },
    { "perf/travel", perf_travel, .perf = true },
};

static void run_test(const void *opaque)
{
    const Test *test = opaque;
    Error *err = NULL;

    ctx = aio_context_new(test->backend, &err);
    if (!ctx) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        return;
    }
    g_assert_true(aio_context_current() == ctx);
    g_assert_true(aio_context_main() == ctx);
    g_assert_cmpint(aio_context_has_ring(ctx), ==,
                    test->backend == AIO_BACKEND_IO_URING);
    test->func();
    aio_context_free(ctx);
    g_assert_null(aio_context_current());
    g_assert_null(aio_context_main());
}

static void add_tests(const char *prefix, AioBackend backend)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/aio/%s/%s", prefix,
                                                tests[i].name);
        Test *test = g_memdup2(&tests[i], sizeof(tests[i]));

        test->backend = backend;
        if ((test->needs_ring && backend != AIO_BACKEND_IO_URING) ||
            (test->perf && !g_test_perf())) {
            g_free(test);
            continue;
        }
        g_test_add_data_func_full(path, test, run_test, g_free);
    }
}

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_tests("io_uring", AIO_BACKEND_IO_URING);
    add_tests("epoll", AIO_BACKEND_EPOLL);
    g_test_add_func("/aio/environment", test_environment);
    return g_test_run();
}
