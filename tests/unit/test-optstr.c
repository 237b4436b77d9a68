/* SPDX-License-Identifier: MIT */
/* Option strings in the old syntax. */
#include <glib.h>
#include "storage-daemon/optstr.h"

static const OptStrDesc descs[] = {
    { "backend", OPTSTR_STR },
    { "id", OPTSTR_STR },
    { "port", OPTSTR_NUM },
    { "server", OPTSTR_BOOL },
    { "wait", OPTSTR_BOOL },
    { NULL }
};

static OptStr *parse(const char *text)
{
    OptStr *opts = optstr_parse(text, "backend", descs, NULL, NULL);

    g_assert_nonnull(opts);
    return opts;
}

static void test_values(void)
{
    g_autoptr(OptStr) opts = parse("socket,id=a,,b,port=12,wait=off");
    g_autoptr(OptStr) none = parse("");
    g_autoptr(OptStr) comma = parse("x,,y,id=,,");

    g_assert_cmpstr(optstr_get(opts, "backend"), ==, "socket");
    g_assert_cmpstr(optstr_get(opts, "id"), ==, "a,b");
    g_assert_null(optstr_get(opts, "server"));
    g_assert_true(optstr_get_bool(opts, "server", true));
    g_assert_false(optstr_get_bool(opts, "wait", true));
    g_assert_cmpint(optstr_get_num(opts, "port", 0), ==, 12);
    g_assert_cmpint(optstr_get_num(opts, "none", -7), ==, -7);

    g_assert_null(optstr_get(none, "backend"));
    g_assert_cmpstr(optstr_get(comma, "backend"), ==, "x,y");
    g_assert_cmpstr(optstr_get(comma, "id"), ==, ",");
}

static void test_last_wins(void)
{
    g_autoptr(OptStr) opts = parse("backend=a,port=1,port=2");

    g_assert_cmpstr(optstr_get(opts, "backend"), ==, "a");
    g_assert_cmpint(optstr_get_num(opts, "port", 0), ==, 2);
}

static void test_help(void)
{
    static const char *const texts[] = { "help", "?", "a,help", "a,zz=1,?" };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        bool help = false;
        g_autoptr(OptStr) opts = optstr_parse(texts[i], "backend", descs,
                                              &help, NULL);

        g_assert_nonnull(opts);
        g_assert_true(help);
    }
}

static void test_booleans(void)
{
    static const char *const yes[] = { "on", "yes", "true", "y" };
    static const char *const no[] = { "off", "no", "false", "n" };

    for (size_t i = 0; i < G_N_ELEMENTS(yes); i++) {
        g_autofree char *text = g_strdup_printf("a,server=%s,wait=%s", yes[i],
                                                no[i]);
        g_autoptr(OptStr) opts = parse(text);

        g_assert_true(optstr_get_bool(opts, "server", false));
        g_assert_false(optstr_get_bool(opts, "wait", true));
    }
}

static void test_errors(void)
{
    static const char *const cases[][2] = {
        { "a,bogus=1", "Invalid parameter 'bogus'" },
        { "a,=x", "Invalid parameter ''" },
        { "=a", "Invalid parameter ''" },
        { "a,port=x", "Parameter 'port' expects a number" },
        { "a,port=", "Parameter 'port' expects a number" },
        { "a,port=99999999999999999999", "Parameter 'port' expects a number" },
        { "a,server=maybe", "Parameter 'server' expects 'on' or 'off'" },
        { "a,nothing", "Invalid parameter 'thing'" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;

        g_assert_null(optstr_parse(cases[i][0], "backend", descs, NULL, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i][1]);
        error_free(err);
    }
}

/* "flag" and "noflag" still work, with a warning. */
static void test_short_form(void)
{
    if (g_test_subprocess()) {
        g_autoptr(OptStr) opts = parse("a,server,nowait");

        g_assert_true(optstr_get_bool(opts, "server", false));
        g_assert_false(optstr_get_bool(opts, "wait", true));
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*short-form boolean option 'server' deprecated\n"
                              "Please use server=on instead\n*"
                              "'nowait' deprecated\n"
                              "Please use wait=off instead\n*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/optstr/values", test_values);
    g_test_add_func("/optstr/last-wins", test_last_wins);
    g_test_add_func("/optstr/help", test_help);
    g_test_add_func("/optstr/booleans", test_booleans);
    g_test_add_func("/optstr/errors", test_errors);
    g_test_add_func("/optstr/short-form", test_short_form);
    return g_test_run();
}
