/* SPDX-License-Identifier: MIT */
/*
 * Trace events: named points in the code that print a line when switched on.
 *
 * All events stand in util/trace.def.  An event that is off costs one relaxed
 * load and a branch that is predicted not taken; its arguments are not
 * evaluated.  Any thread may trace; switching and choosing the file belong to
 * the main thread, before other threads run.
 */
#ifndef UTIL_TRACE_H
#define UTIL_TRACE_H

#include <stdbool.h>
#include <stdio.h>
#include <glib.h>
#include "util/error.h"

typedef enum TraceEvent {
#define TRACE_EVENT(name) TRACE_##name,
#include "util/trace.def"
#undef TRACE_EVENT
    TRACE__MAX,
} TraceEvent;

extern unsigned char trace_event_state[TRACE__MAX];

/* Print "THREAD-ID@SECONDS.MICROSECONDS:NAME TEXT\n", if @name is on. */
#define trace(name, ...)                                                \
    do {                                                                \
        if (G_UNLIKELY(__atomic_load_n(&trace_event_state[TRACE_##name], \
                                       __ATOMIC_RELAXED))) {            \
            trace_emit(TRACE_##name, __VA_ARGS__);                      \
        }                                                               \
    } while (0)

/* True if @name is on: for points that must prepare what they print. */
#define trace_is_on(name)                                               \
    G_UNLIKELY(__atomic_load_n(&trace_event_state[TRACE_##name],        \
                               __ATOMIC_RELAXED))

void trace_emit(TraceEvent event, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Switch the events that match on; with a leading '-' off.  @pattern is a name
 * or has wildcards ('*', '?').  Returns false if it is a name that does not
 * exist.
 */
bool trace_enable(const char *pattern);

/* trace_enable() for each line of a file; empty lines and '#' lines skipped. */
bool trace_enable_from_file(const char *path, Error **errp);

/* Write to @path (emptied first) instead of stderr. */
bool trace_set_file(const char *path, Error **errp);

/* All names, one a line. */
void trace_list(FILE *out);

#endif /* UTIL_TRACE_H */
