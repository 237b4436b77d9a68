/* SPDX-License-Identifier: MIT */
/*
 * Files that take chardevs' output: see storage-daemon/chardev-int.h.
 *
 * Their storage may hang.  One call of the thread pool at a time writes what
 * has come up meanwhile, and closing, which may have to write as well, is the
 * last; only at the end of the daemon somebody waits for it, and not for long.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "storage-daemon/chardev-int.h"
#include "util/co-event.h"
#include "util/timed-call.h"
#include "util/trace.h"

struct ChardevLog {
    char *label;
    int fd;
    bool timestamp, line_begun;
    bool closed;                /* nothing more comes up */
    bool has_lost;              /* and somebody has been told */

    GString *pending;
    GString *writing;           /* the pool's while a call is under way */
    bool busy;
    bool last;                  /* that call closes the file */
    int error;                  /* of that call, an errno */
};

static unsigned n_logs;
static CoEvent none_left;

ChardevLog *chardev_log_new(const char *label, int fd, bool timestamp)
{
    ChardevLog *log = g_new0(ChardevLog, 1);

    log->label = g_strdup(label);
    log->fd = fd;
    log->timestamp = timestamp;
    log->pending = g_string_new(NULL);
    log->writing = g_string_new(NULL);
    n_logs++;
    return log;
}

static void log_free(ChardevLog *log)
{
    g_string_free(log->pending, TRUE);
    g_string_free(log->writing, TRUE);
    g_free(log->label);
    g_free(log);
    if (--n_logs == 0) {
        co_event_set(&none_left);
    }
}

/* In a thread. */
static int log_write(void *opaque)
{
    ChardevLog *log = opaque;
    size_t pos = 0;

    log->error = 0;
    while (pos < log->writing->len) {
        ssize_t n = write(log->fd, log->writing->str + pos,
                          log->writing->len - pos);

        if (n < 0 && errno != EINTR) {
            log->error = errno;
            break;
        }
        pos += MAX(n, 0);
    }
    if (log->last) {
        close(log->fd);
    }
    return 0;
}

static void log_start(ChardevLog *log);

static void log_written(void *opaque)
{
    ChardevLog *log = opaque;

    if (log->error) {
        trace(chardev_write_error, "id=%s log errno=%d", log->label,
              log->error);
    }
    g_string_free(log->writing, TRUE);
    log->writing = g_string_new(NULL);
    log->busy = false;
    if (log->last) {
        log_free(log);
    } else if (log->pending->len || log->closed) {
        log_start(log);
    }
}

static void coroutine_fn log_co_write(void *opaque)
{
    ChardevLog *log = opaque;
    int ret;

    if (timed_call_co_run(log_write, log, log_written, 0, &ret)) {
        log_written(log);
    }
}

static void log_start(ChardevLog *log)
{
    GString *text = log->writing;

    log->busy = true;
    log->last = log->closed;
    log->writing = log->pending;
    log->pending = text;
    coroutine_enter(coroutine_create(log_co_write, log));
}

/* "2026-01-02T03:04:05.678Z ", the same for all lines of a message. */
static char *log_stamp(void)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *seconds = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S");

    return g_strdup_printf("%s.%03dZ ", seconds,
                           g_date_time_get_microsecond(now) / 1000);
}

void chardev_log_write(ChardevLog *log, const GString *text)
{
    const char *p = text->str, *end = p + text->len;
    g_autofree char *stamp = log->timestamp ? log_stamp() : NULL;

    if (log->pending->len > CHARDEV_OUT_MAX) {
        if (!log->has_lost) {
            warn_report("chardev '%s': its file is too slow, output is "
                        "missing there", log->label);
        }
        log->has_lost = true;
        return;
    }
    while (p < end) {
        const char *newline = memchr(p, '\n', end - p);
        const char *line_end = newline ? newline + 1 : end;

        if (stamp && !log->line_begun) {
            g_string_append(log->pending, stamp);
        }
        g_string_append_len(log->pending, p, line_end - p);
        log->line_begun = !newline;
        p = line_end;
    }
    if (!log->busy) {
        log_start(log);
    }
}

bool chardev_log_busy(const ChardevLog *log)
{
    return log && log->busy;
}

void chardev_log_close(ChardevLog *log)
{
    if (!log) {
        return;
    }
    log->closed = true;
    if (!log->busy) {
        log_start(log);
    }
}

void coroutine_fn chardev_log_co_wait_closed(int64_t limit_ns)
{
    none_left = (CoEvent) { 0 };
    if (n_logs) {
        co_event_wait(&none_left, limit_ns);
    }
}
