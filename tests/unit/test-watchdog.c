/* SPDX-License-Identifier: MIT */
/* The watchdog: which turns are reported, and that others are not. */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/co-test.h"

#define LIMIT_MS 20

static char *path;

static void sleep_ms(int ms)
{
    int64_t end = clock_now_ns() + ms * INT64_C(1000000);

    while (clock_now_ns() < end) {
        g_usleep(1000);
    }
}

static void work_bh(void *opaque)
{
    struct timespec ts;
    int64_t end = 0, now;

    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        now = ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
        end = end ? end : now + 2 * LIMIT_MS;
    } while (now < end);
}

static void sleep_bh(void *opaque)
{
    sleep_ms(10 * LIMIT_MS);
}

/* Below five times the limit: it may be the disk's fault. */
static void nap_bh(void *opaque)
{
    sleep_ms(2 * LIMIT_MS);
}

/* What was reported of a turn with @cb, or "". */
static char *report_of(BHFunc *cb)
{
    AioContext *ctx = co_test_context_new(AIO_BACKEND_AUTO, false);
    g_autofree char *all = NULL;
    static size_t seen;
    char *report;

    aio_bh_schedule_oneshot(ctx, cb, NULL);
    aio_poll(ctx, true);
    aio_context_free(ctx);
    g_assert_true(g_file_get_contents(path, &all, NULL, NULL));
    report = g_strdup(all + seen);
    seen = strlen(all);
    return report;
}

static void test_work(void)
{
    g_autofree char *report = report_of(work_bh);

    g_assert_nonnull(strstr(report, "most of it in bottom halves"));
    g_assert_nonnull(strstr(report, "a turn of "));
}

static void test_sleep(void)
{
    g_autofree char *report = NULL;

    if (access("/proc/thread-self/schedstat", R_OK) < 0) {
        g_test_skip("the kernel has no schedstat");
        return;
    }
    report = report_of(sleep_bh);
    g_assert_nonnull(strstr(report, " ms blocked"));
}

static void test_nap(void)
{
    g_autofree char *report = report_of(nap_bh);

    g_assert_cmpstr(report, ==, "");
}

static void test_abort(void)
{
    if (g_test_subprocess()) {
        g_free(report_of(work_bh));
        return;
    }
    g_setenv("QSD_WATCHDOG", "abort", true);
    g_test_trap_subprocess(NULL, 0, 0);
    g_setenv("QSD_WATCHDOG", path, true);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*a turn of *");
}

int main(int argc, char **argv)
{
    int fd, status;

    g_test_init(&argc, &argv, NULL);
    /* The environment is read once, by the first context. */
    if (!g_test_subprocess()) {
        fd = g_file_open_tmp("watchdog-XXXXXX", &path, NULL);
        g_assert_cmpint(fd, >=, 0);
        close(fd);
        g_setenv("QSD_WATCHDOG", path, true);
    }
    g_setenv("QSD_WATCHDOG_MS", G_STRINGIFY(LIMIT_MS), true);
    g_test_add_func("/watchdog/work", test_work);
    g_test_add_func("/watchdog/sleep", test_sleep);
    g_test_add_func("/watchdog/nap", test_nap);
    g_test_add_func("/watchdog/abort", test_abort);
    status = g_test_run();
    g_unlink(path);
    g_free(path);
    return status;
}
