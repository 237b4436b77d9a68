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
#include "util/trace.h"

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
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    GError *err = NULL;

    if (!g_file_get_contents(path, &text, NULL, &err)) {
        error_setg(errp, "%s", err->message);
        g_error_free(err);
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
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
                  0666);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Error opening logfile %s", path);
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
