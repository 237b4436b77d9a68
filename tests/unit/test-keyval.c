/* SPDX-License-Identifier: MIT */
/*
 * key=value lists.  Expected texts were recorded from the reference daemon.
 */
#include "qapi/json.h"
#include "qapi/keyval.h"

typedef struct Case {
    const char *in, *out;       /* JSON, or "! " and an error */
} Case;

static void check_cases(const Case *cases, size_t n, const char *implied)
{
    for (size_t i = 0; i < n; i++) {
        g_autoptr(Error) err = NULL;
        g_autoptr(QDict) dict = keyval_parse(cases[i].in, implied, NULL, &err);
        g_autofree char *out = dict ? qobject_to_json(QOBJECT(dict))
            : g_strconcat("! ", error_get_pretty(err), NULL);

        if (!g_str_equal(out, cases[i].out)) {
            g_test_message("input: %s", cases[i].in);
        }
        g_assert_cmpstr(out, ==, cases[i].out);
    }
}

static void test_simple(void)
{
    static const Case cases[] = {
        { "", "{}" },
        { "a=1", "{\"a\": \"1\"}" },
        { "a=1,b=2,", "{\"a\": \"1\", \"b\": \"2\"}" },
        { "a=1,b=2,a=3", "{\"a\": \"3\", \"b\": \"2\"}" },
        { "a=", "{\"a\": \"\"}" },
        { "a=,b==", "{\"a\": \"\", \"b\": \"=\"}" },
        { "a=x,,y,z=,,", "{\"a\": \"x,y\", \"z\": \",\"}" },
        { "a=,,,z=2", "{\"a\": \",\", \"z\": \"2\"}" },
        { "help=1", "{\"help\": \"1\"}" },
        { "__org.x_y=1", "{\"__org.x_y\": \"1\"}" },
        { "a-b_c9=1", "{\"a-b_c9\": \"1\"}" },
        { ",", "! Invalid parameter ''" },
        { "=x", "! Invalid parameter ''" },
        { "a=1,=x", "! Invalid parameter ''" },
        { "a b=1", "! Invalid parameter 'a b'" },
        { "_a=1", "! Invalid parameter '_a'" },
        { "__a=1", "! Invalid parameter '__a'" },
        { "a?b=1", "! Invalid parameter 'a?b'" },
        { "1=1", "! Invalid parameter '1'" },
        { "\xc3\xa9=1", "! Invalid parameter '\xc3\xa9'" },
        { "a=1,bogus", "! Expected '=' after parameter 'bogus'" },
        { "a=1,b c", "! Invalid parameter 'b c'" },
        { "a=1,1", "! Invalid parameter '1'" },
        { "help", "! Help is not available for this option" },
        { "a=1,?", "! Help is not available for this option" },
        { "help,bad", "! Expected '=' after parameter 'bad'" },
    };

    check_cases(cases, G_N_ELEMENTS(cases), NULL);
}

static void test_implied(void)
{
    static const Case cases[] = {
        { "", "{}" },
        { "x", "{\"k\": \"x\"}" },
        { "x,", "{\"k\": \"x\"}" },
        { "x,a=1", "{\"k\": \"x\", \"a\": \"1\"}" },
        { "a=1", "{\"a\": \"1\"}" },
        { "x y", "{\"k\": \"x y\"}" },
        { "x,bogus", "! Expected '=' after parameter 'bogus'" },
        { "a=1,x", "! Expected '=' after parameter 'x'" },
        { "x,,", "! Invalid parameter ''" },
        { "x,,y", "! Invalid parameter ''" },
        { ",", "! Invalid parameter ''" },
    };

    check_cases(cases, G_N_ELEMENTS(cases), "k");
}

static void test_nested(void)
{
    static const Case cases[] = {
        { "a.b=1,a.c.d=2", "{\"a\": {\"b\": \"1\", \"c\": {\"d\": \"2\"}}}" },
        { "a.0=x,a.1=y", "{\"a\": [\"x\", \"y\"]}" },
        { "a.1=y,a.0=x", "{\"a\": [\"x\", \"y\"]}" },
        { "a.0.b=1,a.1.0=2", "{\"a\": [{\"b\": \"1\"}, [\"2\"]]}" },
        { "a.0=a,a.00=b", "{\"a\": [\"b\"]}" },
        { "a..b=1", "! Invalid parameter 'a..b'" },
        { ".a=1", "! Invalid parameter '.a'" },
        { "a.=1", "! Invalid parameter 'a.'" },
        { "a.1x=1", "! Invalid parameter 'a.1x'" },
        { "a=1,a.b=2", "! Parameters 'a.*' used inconsistently" },
        { "a.b=1,a=2", "! Parameters 'a.*' used inconsistently" },
        { "a.b.c=1,a.b=2", "! Parameters 'a.b.*' used inconsistently" },
        { "a.0=1,a.b=2", "! Parameters 'a.*' used inconsistently" },
        { "a.0.b=1,a.0.0=3", "! Parameters 'a.0.*' used inconsistently" },
        { "a.1=1", "! Parameter 'a.0' missing" },
        { "a.01=1", "! Parameter 'a.0' missing" },
        { "a.0=1,a.2=1", "! Parameter 'a.1' missing" },
        { "a.0=1,a.99999999999999999999=1", "! Parameter 'a.1' missing" },
    };

    check_cases(cases, G_N_ELEMENTS(cases), NULL);
}

static void check_error(const char *in, const char *want)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(keyval_parse(in, NULL, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, want);
}

static void test_limits(void)
{
    g_autofree char *name = g_strnfill(127, 'a');
    g_autofree char *fine = g_strdup_printf("%s=1,b.%s=2", name, name);
    g_autofree char *name2 = g_strnfill(128, 'a');
    g_autofree char *whole = g_strdup_printf("%s=1", name2);
    g_autofree char *whole_msg = g_strdup_printf(
        "Parameter '%s' is too long", name2);
    g_autofree char *part = g_strdup_printf("b.%s=1", name2);
    g_autofree char *part_msg = g_strdup_printf(
        "Parameter fragment '%s' is too long", name2);
    g_autoptr(GString) deep = g_string_new("a");
    g_autoptr(QDict) dict = keyval_parse(fine, NULL, NULL, NULL);

    g_assert_nonnull(dict);
    check_error(whole, whole_msg);
    check_error(part, part_msg);

    for (int i = 0; i < 100000; i++) {
        g_string_append(deep, ".a");
    }
    g_string_append(deep, "=1");
    g_assert_null(keyval_parse(deep->str, NULL, NULL, NULL));
}

static void test_help(void)
{
    static const struct {
        const char *in, *out;
        bool help;
    } cases[] = {
        { "help", "{}", true },
        { "?", "{}", true },
        { "x,help", "{\"k\": \"x\"}", true },
        { "x,?,a=1", "{\"k\": \"x\", \"a\": \"1\"}", true },
        { "k=help", "{\"k\": \"help\"}", false },
        { "x", "{\"k\": \"x\"}", false },
    };

    for (int i = 0; i < G_N_ELEMENTS(cases); i++) {
        bool help = !cases[i].help;
        g_autoptr(QDict) dict = keyval_parse(cases[i].in, "k", &help, NULL);
        g_autofree char *out = qobject_to_json(QOBJECT(dict));

        g_assert_cmpstr(out, ==, cases[i].out);
        g_assert_true(help == cases[i].help);
    }
}

/* Either help or an error. */
static void test_help_and_error(void)
{
    static const char *const texts[] = { "help,a.1=x", "help,=x" };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        bool help = true;
        g_autoptr(Error) err = NULL;

        g_assert_null(keyval_parse(texts[i], NULL, &help, &err));
        g_assert_nonnull(err);
        g_assert_false(help);
    }
}

static void test_fuzz(void)
{
    static const char bytes[] = "ab01.,,==-_?help\xc3 ";

    for (int round = 0; round < 50000; round++) {
        char text[24] = "";
        int len = g_test_rand_int_range(0, sizeof(text));
        g_autoptr(Error) err = NULL;
        g_autoptr(QDict) dict = NULL;
        bool help;

        for (int i = 0; i < len; i++) {
            text[i] = bytes[g_test_rand_int_range(0, sizeof(bytes) - 1)];
        }
        text[len ? len - 1 : 0] = 0;
        dict = keyval_parse(text, "k", &help, &err);
        g_assert_true(!dict == (err != NULL));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/keyval/simple", test_simple);
    g_test_add_func("/keyval/implied", test_implied);
    g_test_add_func("/keyval/nested", test_nested);
    g_test_add_func("/keyval/limits", test_limits);
    g_test_add_func("/keyval/help", test_help);
    g_test_add_func("/keyval/help-and-error", test_help_and_error);
    g_test_add_func("/keyval/fuzz", test_fuzz);
    return g_test_run();
}
