/* SPDX-License-Identifier: MIT */
/*
 * The watchdog: see util/watchdog.h.
 *
 * Whether a thread waited for a CPU or for something else is known to the
 * scheduler alone: proc(5), /proc/PID/schedstat.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <glib.h>
#include "util/aio.h"
#include "util/watchdog.h"

/* Sleeping in a turn is bad as well, but a disk may be slow for anybody. */
#define BLOCKED_LIMIT_FACTOR 5

/* For how long a blocked thread looks whether the process was stopped. */
#define CONTINUED_LOOKS 20
#define CONTINUED_LOOK_US 5000

#define NS_PER_MS INT64_C(1000000)

static const char *const part_names[TURN__MAX] = {
    "completions", "timers", "bottom halves", "coroutines",
};

/* What the environment says; the same for all threads. */
static struct {
    pthread_once_t once;
    bool strict;
    bool abort;
    int64_t limit_ns;
    int fd;                     /* the file, unless abort */
} settings = { .once = PTHREAD_ONCE_INIT, .fd = -1 };

/* A process that somebody stopped has not blocked. */
static unsigned continued;      /* atomic */

static void note_continued(int sig)
{
    __atomic_fetch_add(&continued, 1, __ATOMIC_RELAXED);
}

static void read_settings(void)
{
    struct sigaction note = {
        .sa_handler = note_continued, .sa_flags = SA_RESTART,
    };
    const char *path = getenv("QSD_WATCHDOG"), *ms = getenv("QSD_WATCHDOG_MS");

    if (!path || !*path) {
        return;
    }
    settings.limit_ns = ms && atoi(ms) > 0 ? atoi(ms) * NS_PER_MS
                                           : WATCHDOG_LIMIT_NS;
    settings.abort = !strcmp(path, "abort");
    if (!settings.abort) {
        settings.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC
                                 | O_NOFOLLOW | O_NONBLOCK, 0666);
    }
    settings.strict = settings.abort || settings.fd >= 0;
    sigaction(SIGCONT, &note, NULL);
}

void watchdog_init(Watchdog *w)
{
    pthread_once(&settings.once, read_settings);
    *w = (Watchdog) { .strict = settings.strict, .schedstat_fd = -1 };
    if (w->strict) {
        w->schedstat_fd = open("/proc/thread-self/schedstat",
                               O_RDONLY | O_CLOEXEC);
    }
}

void watchdog_deinit(Watchdog *w)
{
    if (w->schedstat_fd >= 0) {
        close(w->schedstat_fd);
    }
}

static ThreadTimes thread_times(const Watchdog *w)
{
    ThreadTimes t = {
        .now = clock_now_ns(),
        .continued = __atomic_load_n(&continued, __ATOMIC_RELAXED),
    };
    struct timespec cpu;
    char text[128];
    ssize_t n = pread(w->schedstat_fd, text, sizeof(text) - 1, 0);

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    t.worked = cpu.tv_sec * INT64_C(1000000000) + cpu.tv_nsec;
    if (n > 0) {
        text[n] = '\0';
        sscanf(text, "%*s %" SCNd64, &t.waited);
    }
    return t;
}

void watchdog_begin_timed(Watchdog *w)
{
    if (w->strict) {
        w->start = thread_times(w);
    } else {
        w->start.now = clock_now_ns();
    }
}

void watchdog_end_part_timed(Watchdog *w, TurnPart part)
{
    w->part_end_ns[part] = clock_now_ns();
}

static const char *longest_part(const Watchdog *w)
{
    int64_t begin = w->start.now, longest = 0;
    const char *name = "nothing";

    for (int i = 0; i < TURN__MAX; i++) {
        if (w->part_end_ns[i] - begin > longest) {
            longest = w->part_end_ns[i] - begin;
            name = part_names[i];
        }
        begin = w->part_end_ns[i];
    }
    return name;
}

static void report(const Watchdog *w, int64_t total, int64_t worked,
                   int64_t blocked)
{
    char thread[16] = "";
    g_autofree char *line = NULL;

    pthread_getname_np(pthread_self(), thread, sizeof(thread));
    line = g_strdup_printf("%s (%d, thread '%s'): a turn of %" PRId64 " ms, "
                           "%" PRId64 " ms at work, %" PRId64 " ms blocked, "
                           "most of it in %s\n", g_get_prgname(),
                           (int)getpid(), thread, total / NS_PER_MS,
                           worked / NS_PER_MS, blocked / NS_PER_MS,
                           longest_part(w));
    if (settings.abort) {
        g_error("%s", line);
    }
    while (write(settings.fd, line, strlen(line)) < 0 && errno == EINTR) {
        /* again */
    }
}

/*
 * Has the process been stopped and continued since the turn began?  The thread
 * that is told so may be later than this one.
 */
static bool was_continued(const Watchdog *w)
{
    for (int i = 0; i < CONTINUED_LOOKS; i++) {
        if (__atomic_load_n(&continued, __ATOMIC_RELAXED)
            != w->start.continued) {
            return true;
        }
        g_usleep(CONTINUED_LOOK_US);
    }
    return false;
}

void watchdog_end_strict(Watchdog *w)
{
    ThreadTimes end;
    int64_t total = clock_now_ns() - w->start.now, worked, blocked = 0;

    if (total <= settings.limit_ns) {
        return;
    }
    end = thread_times(w);
    worked = end.worked - w->start.worked;
    if (w->schedstat_fd >= 0) {
        blocked = total - worked - (end.waited - w->start.waited);
    }
    if (worked > settings.limit_ns
        || (blocked > BLOCKED_LIMIT_FACTOR * settings.limit_ns
            && !was_continued(w))) {
        report(w, total, worked, blocked);
    }
}

void watchdog_long_turn(const Watchdog *w, int64_t ns)
{
    char thread[16] = "";

    if (w->timed) {
        pthread_getname_np(pthread_self(), thread, sizeof(thread));
        trace(loop_long_turn, "thread=%s ms=%" PRId64 " longest=%s", thread,
              ns / NS_PER_MS, longest_part(w));
    }
}
