/* SPDX-License-Identifier: MIT */
/* Error objects and what is printed of them. */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "util/error.h"

static void test_set(void)
{
    g_autoptr(Error) err = NULL;

    error_setg(NULL, "ignored %d", 1);
    error_setg(&err, "Parameter '%s' is missing", "id");
    g_assert_cmpstr(error_get_pretty(err), ==, "Parameter 'id' is missing");
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_GENERIC_ERROR);
    g_assert_null(error_get_hint(err));
}

static void test_errno(void)
{
    g_autoptr(Error) err = NULL;

    errno = EAGAIN;
    error_setg_errno(&err, ENOENT, "Could not open '%s'", "x");
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not open 'x': No such file or directory");
}

static void test_class(void)
{
    g_autoptr(Error) err = NULL;

    error_set_class(&err, ERROR_CLASS_DEVICE_NOT_FOUND, "no %s", "disk");
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_DEVICE_NOT_FOUND);
    g_assert_cmpstr(error_class_name(error_get_class(err)), ==,
                    "DeviceNotFound");
    g_assert_cmpstr(error_class_name(ERROR_CLASS_COMMAND_NOT_FOUND), ==,
                    "CommandNotFound");
}

static void test_propagate(void)
{
    Error *err = NULL, *local = NULL;

    error_propagate(&err, NULL);
    g_assert_null(err);
    error_setg(&local, "first");
    error_propagate(&err, local);
    g_assert_true(err == local);

    local = NULL;
    error_setg(&local, "second");
    error_propagate(&err, local);           /* freed: err is full */
    g_assert_cmpstr(error_get_pretty(err), ==, "first");

    local = NULL;
    error_setg(&local, "third");
    error_propagate(NULL, local);           /* freed */
    error_free(err);
    error_free(NULL);
}

static void test_prepend_hint_copy(void)
{
    g_autoptr(Error) err = NULL;
    g_autoptr(Error) copy = NULL;

    error_prepend(&err, "nothing there yet: ");
    error_append_hint(&err, "nothing there yet\n");
    error_prepend(NULL, "x");
    g_assert_null(err);

    error_set_class(&err, ERROR_CLASS_DEVICE_NOT_ACTIVE, "100%% wrong");
    error_prepend(&err, "node '%s': ", "%s");
    error_append_hint(&err, "Try %d.\n", 1);
    error_append_hint(&err, "Or %d.\n", 2);
    copy = error_copy(err);
    g_assert_cmpstr(error_get_pretty(copy), ==, "node '%s': 100% wrong");
    g_assert_cmpstr(error_get_hint(copy), ==, "Try 1.\nOr 2.\n");
    g_assert_cmpint(error_get_class(copy), ==, ERROR_CLASS_DEVICE_NOT_ACTIVE);
}

static void report_child(void)
{
    Error *err = NULL;

    g_set_prgname("qemu-storage-daemon");
    error_report("stray: %s", "Unexpected argument");
    error_set_location("--object iothread");
    error_setg(&err, "Parameter 'id' is missing");
    error_append_hint(&err, "Give it one.\n");
    error_report_err(err);

    err = NULL;
    error_setg(&err, "odd");
    warn_report_err(err);
    warn_report("%s", "very odd");
    error_set_location(NULL);
    info_report("fine");
}

static void test_report(void)
{
    if (g_test_subprocess()) {
        report_child();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr(
        "qemu-storage-daemon: stray: Unexpected argument\n"
        "qemu-storage-daemon: --object iothread: Parameter 'id' is missing\n"
        "Give it one.\n"
        "qemu-storage-daemon: --object iothread: warning: odd\n"
        "qemu-storage-daemon: --object iothread: warning: very odd\n"
        "qemu-storage-daemon: info: fine\n");
}

static void test_set_twice(void)
{
    if (g_test_subprocess()) {
        Error *err = NULL;

        error_setg(&err, "one");
        error_setg(&err, "two");
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/error/set", test_set);
    g_test_add_func("/error/errno", test_errno);
    g_test_add_func("/error/class", test_class);
    g_test_add_func("/error/propagate", test_propagate);
    g_test_add_func("/error/prepend-hint-copy", test_prepend_hint_copy);
    g_test_add_func("/error/report", test_report);
    g_test_add_func("/error/set-twice", test_set_twice);
    return g_test_run();
}
