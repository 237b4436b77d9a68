/* SPDX-License-Identifier: MIT */
/*
 * Error: a message on its way to whoever asked.
 *
 * Control-path functions take a final `Error **errp`.  On failure they set
 * *errp (unless errp is NULL) and return false, NULL or a negative errno; on
 * success they leave it alone.  Data-path functions return -errno and never
 * an Error.  Any thread; an Error belongs to one owner at a time.
 */
#ifndef UTIL_ERROR_H
#define UTIL_ERROR_H

#include <glib.h>

typedef struct Error Error;

/* The error classes of QMP (QMP specification, "Error"). */
typedef enum {
    ERROR_CLASS_GENERIC_ERROR,
    ERROR_CLASS_COMMAND_NOT_FOUND,
    ERROR_CLASS_DEVICE_NOT_ACTIVE,
    ERROR_CLASS_DEVICE_NOT_FOUND,
    ERROR_CLASS_KVM_MISSING_CAP,
} ErrorClass;

/* Set *errp to a new error; it is a bug if one is set already. */
void error_setg(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* As error_setg(), with ": strerror(os_errno)" appended (os_errno > 0). */
void error_setg_errno(Error **errp, int os_errno, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* As error_setg(), with an error class other than GenericError. */
void error_set_class(Error **errp, ErrorClass class, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* Hand @local to *errp: sets it, or frees @local if errp is NULL or full. */
void error_propagate(Error **errp, Error *local);

/* Put text before the message of *errp; no-op if errp or *errp is NULL. */
void error_prepend(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Add a hint for a person at the command line: error_report_err() prints it
 * on lines of its own, QMP does not carry it.  @fmt ends with a newline.
 */
void error_append_hint(Error **errp, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);

const char *error_get_pretty(const Error *err);
const char *error_get_hint(const Error *err);           /* or NULL */
ErrorClass error_get_class(const Error *err);
const char *error_class_name(ErrorClass class);         /* "GenericError" */
Error *error_copy(const Error *err);
void error_free(Error *err);                            /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Error, error_free)

/*
 * What precedes each message printed by error_report() and friends, besides
 * the program's name: the command line option being processed, such as
 * "--export type=fuse,id=e", or NULL.  Main thread only.
 */
void error_set_location(const char *location);

/* Print "PROGRAM: [LOCATION: ]MESSAGE\n" (and the hint) on stderr. */
void error_report_err(Error *err);                      /* frees @err */
void warn_report_err(Error *err);                       /* frees @err */
void error_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void warn_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void info_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

#endif /* UTIL_ERROR_H */
