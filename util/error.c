/* SPDX-License-Identifier: MIT */
/*
 * Error objects and messages on stderr.
 *
 * Any thread.  The location is kept per thread: messages of IOThreads never
 * name the command line option that the main thread is working on.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "util/error.h"
#include "util/secmem.h"

struct Error {
    char *msg;
    char *hint;         /* NULL or whole lines */
    ErrorClass class;
};

static __thread char *location;

static void G_GNUC_PRINTF(4, 0)
error_setv(Error **errp, ErrorClass class, int os_errno, const char *fmt,
           va_list ap)
{
    int saved_errno = errno;
    Error *err;

    if (!errp) {
        return;
    }
    g_assert(!*errp);

    err = g_new0(Error, 1);
    err->class = class;
    err->msg = g_strdup_vprintf(fmt, ap);
    if (os_errno) {
        char *full = g_strdup_printf("%s: %s", err->msg, g_strerror(os_errno));

        g_free(err->msg);
        err->msg = full;
    }
    *errp = err;
    errno = saved_errno;
}

void error_setg(Error **errp, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_setv(errp, ERROR_CLASS_GENERIC_ERROR, 0, fmt, ap);
    va_end(ap);
}

void error_setg_errno(Error **errp, int os_errno, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_setv(errp, ERROR_CLASS_GENERIC_ERROR, os_errno, fmt, ap);
    va_end(ap);
}

void error_set_class(Error **errp, ErrorClass class, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_setv(errp, class, 0, fmt, ap);
    va_end(ap);
}

void error_propagate(Error **errp, Error *local)
{
    if (!local) {
        return;
    }
    if (errp && !*errp) {
        *errp = local;
    } else {
        error_free(local);
    }
}

void error_prepend(Error **errp, const char *fmt, ...)
{
    g_autofree char *prefix = NULL;
    char *full;
    va_list ap;

    if (!errp || !*errp) {
        return;
    }
    va_start(ap, fmt);
    prefix = g_strdup_vprintf(fmt, ap);
    va_end(ap);

    full = g_strconcat(prefix, (*errp)->msg, NULL);
    g_free((*errp)->msg);
    (*errp)->msg = full;
}

void error_append_hint(Error **errp, const char *fmt, ...)
{
    g_autofree char *more = NULL;
    char *full;
    va_list ap;

    if (!errp || !*errp) {
        return;
    }
    va_start(ap, fmt);
    more = g_strdup_vprintf(fmt, ap);
    va_end(ap);

    full = g_strconcat((*errp)->hint ? (*errp)->hint : "", more, NULL);
    g_free((*errp)->hint);
    (*errp)->hint = full;
}

const char *error_get_pretty(const Error *err)
{
    return err->msg;
}

const char *error_get_hint(const Error *err)
{
    return err->hint;
}

ErrorClass error_get_class(const Error *err)
{
    return err->class;
}

const char *error_class_name(ErrorClass class)
{
    static const char *const names[] = {
        [ERROR_CLASS_GENERIC_ERROR] = "GenericError",
        [ERROR_CLASS_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_CLASS_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [ERROR_CLASS_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [ERROR_CLASS_KVM_MISSING_CAP] = "KVMMissingCap",
    };

    g_assert(class < G_N_ELEMENTS(names));
    return names[class];
}

Error *error_copy(const Error *err)
{
    Error *copy = g_new0(Error, 1);

    copy->msg = g_strdup(err->msg);
    copy->hint = g_strdup(err->hint);
    copy->class = err->class;
    return copy;
}

void error_free(Error *err)
{
    if (err) {
        g_free(err->msg);
        g_free(err->hint);
        g_free(err);
    }
}

void error_set_location(const char *text)
{
    secmem_wipe_string(location);       /* there may have been a secret */
    location = g_strdup(text);
}

/* One call of stdio for the whole text, so that threads do not mix lines. */
static void print_report(const char *level, const char *msg, const char *hint)
{
    const char *name = g_get_prgname();
    g_autoptr(GString) text = g_string_new(NULL);

    g_string_append_printf(text, "%s: ",
                           name ? name : program_invocation_short_name);
    if (location) {
        g_string_append_printf(text, "%s: ", location);
    }
    g_string_append_printf(text, "%s%s\n%s", level, msg, hint ? hint : "");
    fputs(text->str, stderr);
    fflush(stderr);
}

static void G_GNUC_PRINTF(2, 0)
vreport(const char *level, const char *fmt, va_list ap)
{
    g_autofree char *msg = g_strdup_vprintf(fmt, ap);

    print_report(level, msg, NULL);
}

void error_report_err(Error *err)
{
    print_report("", err->msg, err->hint);
    error_free(err);
}

void warn_report_err(Error *err)
{
    print_report("warning: ", err->msg, err->hint);
    error_free(err);
}

void error_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport("", fmt, ap);
    va_end(ap);
}

void warn_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport("warning: ", fmt, ap);
    va_end(ap);
}

void info_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport("info: ", fmt, ap);
    va_end(ap);
}
