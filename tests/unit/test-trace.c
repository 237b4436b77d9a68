/* SPDX-License-Identifier: MIT */
/* Trace events: switching, output, lists of them in files. */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>
#include "util/trace.h"

static char *dir;

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static char *contents_of(const char *name)
{
    g_autofree char *path = path_of(name);
    char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

static void test_patterns(void)
{
    g_assert_false(trace_is_on(daemon_up));
    g_assert_true(trace_enable("daemon_up"));
    g_assert_true(trace_is_on(daemon_up));
    g_assert_false(trace_is_on(daemon_shutdown));
    g_assert_true(trace_enable("-daemon_up"));
    g_assert_false(trace_is_on(daemon_up));

    g_assert_true(trace_enable("daemon_*"));
    g_assert_true(trace_is_on(daemon_up));
    g_assert_true(trace_is_on(daemon_shutdown));
    g_assert_false(trace_is_on(monitor_event));
    g_assert_true(trace_enable("-*"));
    g_assert_false(trace_is_on(daemon_shutdown));

    /* A name must exist, a pattern need not match. */
    g_assert_false(trace_enable("no_such_event"));
    g_assert_true(trace_enable("no_such*"));
}

static unsigned evaluated(void)
{
    static unsigned count;

    return ++count;
}

static void test_output(void)
{
    g_autofree char *path = path_of("trace.log");
    g_autofree char *text = NULL;
    g_autofree char *long_text = g_strnfill(5000, 'x');
    g_auto(GStrv) lines = NULL;

    g_assert_true(trace_set_file(path, NULL));
    trace(daemon_up, "not seen %u", evaluated());
    g_assert_true(trace_enable("daemon_up"));
    trace(daemon_up, "pid=%u", evaluated());
    trace(daemon_up, "%s", long_text);
    g_assert_true(trace_enable("-daemon_up"));
    trace(daemon_up, "not seen either %u", evaluated());
    g_assert_cmpuint(evaluated(), ==, 2);

    text = contents_of("trace.log");
    lines = g_strsplit(text, "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, 3);
    g_assert_true(g_regex_match_simple(
        "^[0-9]+@[0-9]+\\.[0-9]{6}:daemon_up pid=1$", lines[0], 0, 0));
    g_assert_cmpuint(strlen(lines[1]), <, 1024);
    g_assert_cmpstr(lines[2], ==, "");
}

static gpointer trace_many(gpointer opaque)
{
    for (int i = 0; i < 1000; i++) {
        trace(monitor_event, "thread=%d line=%d end", GPOINTER_TO_INT(opaque),
              i);
    }
    return NULL;
}

static void test_threads(void)
{
    g_autofree char *path = path_of("threads.log");
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    GThread *threads[4];

    g_assert_true(trace_set_file(path, NULL));
    g_assert_true(trace_enable("monitor_event"));
    for (int i = 0; i < 4; i++) {
        threads[i] = g_thread_new("trace", trace_many, GINT_TO_POINTER(i));
    }
    for (int i = 0; i < 4; i++) {
        g_thread_join(threads[i]);
    }
    g_assert_true(trace_enable("-*"));

    text = contents_of("threads.log");
    lines = g_strsplit(text, "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, 4001);
    for (int i = 0; i < 4000; i++) {
        g_assert_true(g_str_has_suffix(lines[i], " end"));
    }
}

static void test_files(void)
{
    g_autofree char *path = path_of("events");
    g_autofree char *missing = path_of("missing/file");
    Error *err = NULL;

    g_assert_true(g_file_set_contents(path, "# comment\n\ndaemon_up\n"
                                      "  chardev_*  \n", -1, NULL));
    g_assert_true(trace_enable_from_file(path, NULL));
    g_assert_true(trace_is_on(daemon_up));
    g_assert_true(trace_is_on(chardev_open));
    g_assert_false(trace_is_on(daemon_shutdown));
    g_assert_true(trace_enable("-*"));

    g_assert_false(trace_enable_from_file(missing, &err));
    g_assert_nonnull(err);
    error_free(err);
    err = NULL;
    g_assert_false(trace_set_file(missing, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "Error opening logfile "));
    error_free(err);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-trace-XXXXXX", NULL);
    g_test_add_func("/trace/patterns", test_patterns);
    g_test_add_func("/trace/output", test_output);
    g_test_add_func("/trace/threads", test_threads);
    g_test_add_func("/trace/files", test_files);
    ret = g_test_run();
    for (const char *const *name = (const char *const[]) {
             "trace.log", "threads.log", "events", NULL }; *name; name++) {
        g_autofree char *path = path_of(*name);

        g_unlink(path);
    }
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
