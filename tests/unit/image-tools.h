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

static inline int G_GNUC_PRINTF(3, 0)
image_test_vrun(char **out, char **err, const char *fmt, va_list ap)
{
    g_autofree char *command = g_strdup_vprintf(fmt, ap);
    int status;

    if (!g_spawn_command_line_sync(command, out, err, &status, NULL)
        || !WIFEXITED(status)) {
        g_error("%s could not be run", command);
    }
    return WEXITSTATUS(status);
}

/* Run a command; returns its exit status, and what it said (or NULL). */
static inline int G_GNUC_PRINTF(3, 4)
image_test_status(char **out, char **err, const char *fmt, ...)
{
    va_list ap;
    int status;

    va_start(ap, fmt);
    status = image_test_vrun(out, err, fmt, ap);
    va_end(ap);
    return status;
}

/* What a command that must succeed prints; the caller frees. */
static inline char *G_GNUC_PRINTF(1, 2) image_test_output(const char *fmt, ...)
{
    g_autofree char *out = NULL, *err = NULL;
    va_list ap;
    int status;

    va_start(ap, fmt);
    status = image_test_vrun(&out, &err, fmt, ap);
    va_end(ap);
    if (status != 0) {
        g_error("%s: status %d\n%s%s", fmt, status, out, err);
    }
    return g_steal_pointer(&out);
}

/* Run a command that must succeed. */
#define image_test_run(...) g_free(image_test_output(__VA_ARGS__))

/* As g_test_init(); false if there is nobody to judge, which is said. */
static inline bool image_test_init(int *argc, char ***argv)
{
    g_autofree char *img = g_find_program_in_path("qemu-img");
    g_autofree char *io = g_find_program_in_path("qemu-io");

    g_test_init(argc, argv, NULL);
    if (!img || !io) {
        g_print("1..0 # SKIP no qemu-utils\n");
    }
    return img && io;
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
    g_autofree char *out = NULL, *err = NULL;
    int status = image_test_status(&out, &err, "qemu-img check -f qcow2 %s",
                                   path);

    if (status != 0 && status != 3) {
        g_error("qemu-img check %s: status %d\n%s%s", path, status, out, err);
    }
    return status == 3;
}

#endif /* TESTS_UNIT_IMAGE_TOOLS_H */
