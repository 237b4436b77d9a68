/* SPDX-License-Identifier: MIT */
/*
 * Log files of chardevs: see storage-daemon/chardev-int.h.
 *
 * Their storage may hang.  One call of the thread pool at a time writes what
 * has come up meanwhile; nobody waits for it, at the end of the daemon neither.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "storage-daemon/chardev-int.h"
#include "util/timed-call.h"
#include "util/trace.h"

struct ChardevLog {
    char *label;
    int fd;
    bool timestamp, line_begun;
    bool closed;                /* freed once nothing is being written */
    bool has_lost;              /* and somebody has been told */

    GString *pending;
    GString *writing;           /* the pool's while a call is under way */
    bool busy;
    int error;                  /* of that call, an errno */
};

ChardevLog *chardev_log_new(const char *label, int fd, bool timestamp)
{
    ChardevLog *log = g_new0(ChardevLog, 1);

    log->label = g_strdup(label);
    log->fd = fd;
    log->timestamp = timestamp;
    log->pending = g_string_new(NULL);
    log->writing = g_string_new(NULL);
    return log;
}

static void log_free(ChardevLog *log)
{
    close(log->fd);
    g_string_free(log->pending, TRUE);
    g_string_free(log->writing, TRUE);
    g_free(log->label);
    g_free(log);
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
    if (log->pending->len) {
        log_start(log);
    } else if (log->closed) {
        log_free(log);
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
            warn_report("chardev '%s': its log file is too slow, output is "
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
    return log->busy;
}

void chardev_log_close(ChardevLog *log)
{
    log->closed = true;
    if (!log->busy) {
        log_free(log);
    }
}
