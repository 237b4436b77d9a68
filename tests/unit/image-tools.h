/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of image formats: qemu-img as the judge, numbers from the
 * environment, scratch folders.
 */
#ifndef TESTS_UNIT_IMAGE_TOOLS_H
#define TESTS_UNIT_IMAGE_TOOLS_H

#include <glib.h>
#include <glib/gstdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The number that environment variable @name holds. */
static inline int64_t image_test_number(const char *name, int64_t otherwise)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoll(text, NULL, 10) : otherwise;
}

/* Run a command; returns its exit status, and what it printed in *@text. */
static inline int image_test_try(char **text, const char *command)
{
    g_autofree char *out = NULL, *err = NULL;
    int status;

    if (!g_spawn_command_line_sync(command, &out, &err, &status, NULL)
        || !WIFEXITED(status)) {
        g_error("%s could not be run", command);
    }
    *text = g_strconcat(out, err, NULL);
    return WEXITSTATUS(status);
}

/* Run a command that must succeed. */
static inline void G_GNUC_PRINTF(1, 2) image_test_run(const char *fmt, ...)
{
    g_autofree char *command = NULL, *text = NULL;
    va_list ap;
    int status;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    status = image_test_try(&text, command);
    if (status != 0) {
        g_error("%s: status %d\n%s", command, status, text);
    }
}

/* A new folder, in memory if there is room: flushes cost nothing there. */
static inline char *image_test_folder(const char *name)
{
    char *path;

    if (g_access("/dev/shm", W_OK) != 0) {
        return g_dir_make_tmp(NULL, NULL);
    }
    path = g_mkdtemp(g_strdup_printf("/dev/shm/%s-XXXXXX", name));
    g_assert_nonnull(path);
    return path;
}

/* qemu-img check on qcow2 file @path finds leaks at most; true: any. */
static inline bool image_test_only_leaks(const char *path)
{
    g_autofree char *command = g_strdup_printf("qemu-img check -f qcow2 %s",
                                               path);
    g_autofree char *text = NULL;
    int status = image_test_try(&text, command);

    if (status != 0 && status != 3) {
        g_error("%s: status %d\n%s", command, status, text);
    }
    return status == 3;
}

#endif /* TESTS_UNIT_IMAGE_TOOLS_H */
