/* SPDX-License-Identifier: MIT */
/*
 * Trace events: see util/trace.h.
 *
 * A line leaves with one write(2) to a descriptor opened for appending, so that
 * lines of several threads stay whole without a lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "util/named-file.h"
#include "util/trace.h"

#define TRACE_EVENTS_MAX (1024 * 1024)

static const char *const trace_names[TRACE__MAX] = {
#define TRACE_EVENT(name) [TRACE_##name] = #name,
#include "util/trace.def"
#undef TRACE_EVENT
};

unsigned char trace_event_state[TRACE__MAX];

static int trace_fd = STDERR_FILENO;

void trace_emit(TraceEvent event, const char *fmt, ...)
{
    char line[1024];
    struct timespec now;
    va_list ap;
    size_t len;
    int n;

    clock_gettime(CLOCK_REALTIME, &now);
    n = snprintf(line, sizeof(line), "%ld@%lld.%06ld:%s ",
                 (long)syscall(SYS_gettid), (long long)now.tv_sec,
                 now.tv_nsec / 1000, trace_names[event]);
    len = n;
    va_start(ap, fmt);
    n = vsnprintf(line + len, sizeof(line) - len, fmt, ap);
    va_end(ap);
    len += n > 0 ? n : 0;
    if (len > sizeof(line) - 2) {
        len = sizeof(line) - 2;         /* cut: room for the newline */
    }
    line[len++] = '\n';
    while (write(trace_fd, line, len) < 0 && errno == EINTR) {
        /* again */
    }
}

bool trace_enable(const char *pattern)
{
    unsigned char on = 1;
    bool found = false;

    if (pattern[0] == '-') {
        on = 0;
        pattern++;
    }
    for (int i = 0; i < TRACE__MAX; i++) {
        if (g_pattern_match_simple(pattern, trace_names[i])) {
            __atomic_store_n(&trace_event_state[i], on, __ATOMIC_RELAXED);
            found = true;
        }
    }
    return found || strpbrk(pattern, "*?");
}

bool trace_enable_from_file(const char *path, Error **errp)
{
    g_autofree char *text = g_malloc(TRACE_EVENTS_MAX);
    g_auto(GStrv) lines = NULL;
    int fd = named_file_open(path, O_RDONLY, errp);
    ssize_t len;

    if (fd < 0) {
        error_prepend(errp, "Failed to open file \u201c%s\u201d: ", path);
        return false;
    }
    len = named_file_read(fd, text, TRACE_EVENTS_MAX);
    close(fd);
    if (len < 0) {
        error_setg_errno(errp, -len, "Failed to read from file "
                         "\u201c%s\u201d", path);
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_strstrip(*line);
        if (**line && **line != '#' && !trace_enable(*line)) {
            warn_report("trace event '%s' does not exist", *line);
        }
    }
    return true;
}

bool trace_set_file(const char *path, Error **errp)
{
    int fd = named_file_create(path, O_WRONLY | O_TRUNC | O_APPEND, 0666, false,
                               NULL, errp);

    if (fd < 0) {
        error_prepend(errp, "Error opening logfile %s: ", path);
        return false;
    }
    if (trace_fd != STDERR_FILENO) {
        close(trace_fd);
    }
    trace_fd = fd;
    return true;
}

void trace_list(FILE *out)
{
    for (int i = 0; i < TRACE__MAX; i++) {
        fprintf(out, "%s\n", trace_names[i]);
    }
}
