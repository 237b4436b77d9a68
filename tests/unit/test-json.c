/* SPDX-License-Identifier: MIT */
/*
 * JSON reader and writer.  Expected texts were recorded from the reference
 * daemon.
 */
#include <string.h>
#include "qapi/json.h"

/* What came out of the parser: one line for each value or error. */
static void collect(void *opaque, QObject *value, Error *err)
{
    GString *out = opaque;

    g_assert_true(!value != !err);
    if (value) {
        qobject_append_json(out, value, NULL, SIZE_MAX);
    } else {
        g_string_append_printf(out, "! %s", error_get_pretty(err));
    }
    g_string_append_c(out, '\n');
    qobject_unref(value);
    error_free(err);
}

/* Parse @len bytes in portions of @portion. */
static char *parse(const char *text, size_t len, size_t portion)
{
    GString *out = g_string_new(NULL);
    g_autoptr(JSONParser) parser = json_parser_new(collect, out);

    for (size_t i = 0; i < len; i += portion) {
        json_parser_feed(parser, text + i, MIN(portion, len - i));
    }
    json_parser_flush(parser);
    return g_string_free(out, FALSE);
}

typedef struct Case {
    const char *in, *out;
} Case;

static void check_cases(const Case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t portion = 1; portion < 3; portion++) {
            g_autofree char *out = parse(cases[i].in, strlen(cases[i].in),
                                         portion);
            g_autofree char *want = g_strconcat(cases[i].out, "\n", NULL);

            if (!g_str_equal(out, want)) {
                g_test_message("input: %s", cases[i].in);
            }
            g_assert_cmpstr(out, ==, want);
        }
    }
}

static void test_numbers(void)
{
    static const Case cases[] = {
        { "0", "0" }, { "-0", "0" }, { "1.5", "1.5" }, { "1e3", "1000" },
        { "1E5", "100000" }, { "1e-400", "0" }, { "1.0", "1" },
        { "9223372036854775807", "9223372036854775807" },
        { "9223372036854775808", "9223372036854775808" },
        { "18446744073709551615", "18446744073709551615" },
        { "18446744073709551616", "1.8446744073709552e+19" },
        { "-9223372036854775808", "-9223372036854775808" },
        { "-9223372036854775809", "-9.2233720368547758e+18" },
        { "0.1", "0.10000000000000001" },
        { "123456.789", "123456.789" }, { "-0.0", "-0" },
        { "1e17", "1e+17" }, { "5e-324", "4.9406564584124654e-324" },
        { "1e400", "1e+999" }, { "-1e400", "-1e+999" },
        { "01", "! 1:1: JSON parse error, stray '01'" },
        { "1.]", "! 1:1: JSON parse error, stray '1.]'" },
        { ".5", "! 1:1: JSON parse error, stray '.'" },
        { "1e]", "! 1:1: JSON parse error, stray '1e]'" },
        { "1e+", "! 1:1: JSON parse error, stray '1e+'" },
        { "+1", "! 1:1: JSON parse error, stray '+'" },
        { "-", "! 1:1: JSON parse error, stray '-'" },
        { "-x", "! 1:1: JSON parse error, stray '-x'" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void test_strings(void)
{
    static const Case cases[] = {
        { "\"\\u00e9\\ud83d\\ude00 \xc3\xa9 \xf0\x9f\x98\x80\"",
          "\"\\u00E9\\uD83D\\uDE00 \\u00E9 \\uD83D\\uDE00\"" },
        { "\"/ \\/ \\b\\f\\n\\r\\t \x7f \\u0001 < > & \\\\ \\\" '\"",
          "\"/ / \\b\\f\\n\\r\\t \\u007F \\u0001 < > & \\\\ \\\" '\"" },
        { "'a\"b'", "\"a\\\"b\"" }, { "'\\''", "\"'\"" },
        { "'\\\"'", "\"\\\"\"" }, { "\"\\'\"", "\"'\"" },
        { "\"\\u0000\"", "\"\\u0000\"" },
        { "\"\xc0\x80\"", "\"\\u0000\"" },
        { "\"%d %%\"", "\"%d %%\"" },
        { "\"\\ud83d\"",
          "! 1:1: JSON parse error, \\ud83d is not a valid Unicode "
          "character" },
        { "\"\\ud83d\\u0041\"",
          "! 1:1: JSON parse error, \\ud83d is not a valid Unicode "
          "character" },
        { "\"\\uD800\\uDBFF\"",
          "! 1:1: JSON parse error, \\uD800 is not a valid Unicode "
          "character" },
        { "\"\\ude00\"",
          "! 1:1: JSON parse error, \\ude00 is not a valid Unicode "
          "character" },
        { "\"\\uFFFF\"",
          "! 1:1: JSON parse error, \\uFFFF is not a valid Unicode "
          "character" },
        { "\"\\u12\"",
          "! 1:1: JSON parse error, \\u12\" is not a valid Unicode "
          "character" },
        { "\"\\u12g4\"",
          "! 1:1: JSON parse error, \\u12g4 is not a valid Unicode "
          "character" },
        { "\"\\x\"",
          "! 1:1: JSON parse error, invalid escape sequence in string" },
        { "\"\xed\xa0\x80\"",
          "! 1:1: JSON parse error, invalid UTF-8 sequence in string" },
        { "\"\xef\xbf\xbf\"",
          "! 1:1: JSON parse error, invalid UTF-8 sequence in string" },
        { "\"\xef\xb7\x90\"",
          "! 1:1: JSON parse error, invalid UTF-8 sequence in string" },
        { "\"\xf4\x90\x80\x80\"",
          "! 1:1: JSON parse error, invalid UTF-8 sequence in string" },
        { "\"\xc1\xbf\"",
          "! 1:1: JSON parse error, invalid UTF-8 sequence in string" },
        { "\"\xe2\x82\"",
          "! 1:1: JSON parse error, invalid UTF-8 sequence in string" },
        { "\"a\tb\"", "! 1:1: JSON parse error, stray '\"a\t'" },
        { "\"\xff", "! 1:1: JSON parse error, stray '\"\xff'" },
        { "\"abc", "! 1:1: JSON parse error, stray '\"abc'" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void test_structure(void)
{
    static const Case cases[] = {
        { "{}", "{}" }, { "[ ]", "[]" }, { "\t\r\n true", "true" },
        { "{'a': [1, {'b': null}], 'c': false}",
          "{\"a\": [1, {\"b\": null}], \"c\": false}" },
        { "1 2 3", "1\n2\n3" }, { "\"a\"\"b\"", "\"a\"\n\"b\"" },
        { "[1,]", "! 1:4: JSON parse error, expecting value" },
        { "[,]", "! 1:2: JSON parse error, expecting value" },
        { "[1 2]", "! 1:4: JSON parse error, expected separator in list" },
        { "{\"a\"}", "! 1:5: JSON parse error, missing : in object pair" },
        { "{\"a\":}", "! 1:6: JSON parse error, expecting value" },
        { "{\"a\":1,}", "! 1:8: JSON parse error, expecting key" },
        { "{1:1}", "! 1:2: JSON parse error, expecting key" },
        { "{\"a\" 1}", "! 1:6: JSON parse error, missing : in object pair" },
        { "{\"a\":1 \"b\":2}",
          "! 1:8: JSON parse error, expected separator in dict" },
        { "{\"a\":1,\"a\":2}", "! 1:12: JSON parse error, duplicate key" },
        { "{\"driver\":\"file\"",
          "! 1:17: JSON parse error, premature end of input" },
        { "[\n[", "! 2:2: JSON parse error, premature end of input" },
        { "nul", "! 1:1: JSON parse error, invalid keyword 'nul'" },
        { "True", "! 1:1: JSON parse error, stray 'T'" },
        { "\xff", "! 1:1: JSON parse error, stray '\xff'" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

/* After an error the session goes on where the reference does. */
static void test_recovery(void)
{
    static const Case cases[] = {
        { "[1,,{\"a\":1},2] 7", "! 1:4: JSON parse error, expecting value\n7" },
        { "{\"a\" 1, [}] } 7",
          "! 1:6: JSON parse error, missing : in object pair\n"
          "! 1:13: JSON parse error, expecting value\n7" },
        { "] 7", "! 1:1: JSON parse error, expecting value\n7" },
        { ", : 7", "! 1:1: JSON parse error, expecting value\n"
          "! 1:3: JSON parse error, expecting value\n7" },
        { "[{]}7", "! 1:3: JSON parse error, expecting key\n7" },
        { "{]}7", "! 1:2: JSON parse error, expecting key\n"
          "! 1:3: JSON parse error, expecting value\n7" },
        { "{\"a\":1}}", "{\"a\": 1}\n"
          "! 1:8: JSON parse error, expecting value" },
        { "\"abc\n\"x\"", "! 1:1: JSON parse error, stray '\"abc\n'" },
        { "\"abc\n\n7", "! 1:1: JSON parse error, stray '\"abc\n'\n7" },
        { "\x01 1 \x02 2\n3", "! 1:1: JSON parse error, stray '\x01'\n"
          "! 1:5: JSON parse error, stray '\x02'\n3" },
        { "{\"a\":\xff}{}", "! 1:6: JSON parse error, stray '\xff'\n"
          "! 1:7: JSON parse error, expecting value\n{}" },
        { "\xff{\"a\":1}", "! 1:1: JSON parse error, stray '\xff'\n"
          "{\"a\": 1}" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void test_one_value(void)
{
    static const Case cases[] = {
        { "", "Expecting a JSON value" },
        { " \n", "Expecting a JSON value" },
        { "{} {}", "Expecting at most one JSON value" },
        { "{}x", "Expecting at most one JSON value" },
        { "{", "1:2: JSON parse error, premature end of input" },
        { "x {}", "1:1: JSON parse error, invalid keyword 'x'" },
        { "{}{}{}", "Expecting at most one JSON value" },
    };

    for (int i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_null(qobject_from_json(cases[i].in, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].out);
    }
}

static void test_pretty(void)
{
    g_autoptr(QObject) obj = qobject_from_json(
        "{'a': [], 'b': {}, 'c': [1, {'d': 2}], 'e': 'x'}", NULL);
    g_autofree char *text = qobject_to_json_pretty(obj, true);

    g_assert_cmpstr(text, ==,
                    "{\n"
                    "    \"a\": [\n"
                    "    ],\n"
                    "    \"b\": {\n"
                    "    },\n"
                    "    \"c\": [\n"
                    "        1,\n"
                    "        {\n"
                    "            \"d\": 2\n"
                    "        }\n"
                    "    ],\n"
                    "    \"e\": \"x\"\n"
                    "}");
}

static void test_nesting(void)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *fine = NULL, *deep = NULL;

    for (int i = 0; i < 1024; i++) {
        g_string_append_c(text, '[');
    }
    for (int i = 0; i < 1024; i++) {
        g_string_append_c(text, ']');
    }
    fine = parse(text->str, text->len, 100);
    g_assert_cmpint(fine[0], ==, '[');
    memset(text->str, '[', 1025);
    deep = parse(text->str, 1025, 100);
    g_assert_cmpstr(deep, ==, "! JSON nesting depth limit exceeded\n");
}

static void test_sizes(void)
{
    enum { MAX_SIZE = 4 << 20, MAX_TOKENS = 128 << 10 };
    g_autoptr(GString) text = g_string_new("[[\"");
    g_autofree char *large = NULL, *many = NULL;

    /* One error, and nothing of what is too large taken for a value. */
    while (text->len < 3 * MAX_SIZE) {
        g_string_append(text, "]] {'a': 1} ");
    }
    g_string_append(text, "\"], {'b': 2}] 3 ");
    large = parse(text->str, text->len, 1 << 20);
    g_assert_cmpstr(large, ==, "! JSON token size limit exceeded\n3\n");

    g_string_assign(text, "[0");
    for (size_t i = 0; i < MAX_TOKENS; i++) {
        g_string_append(text, ",1");
    }
    g_string_append(text, ", {'a': 1}] 2 ");
    many = parse(text->str, text->len, 1 << 20);
    g_assert_cmpstr(many, ==, "! JSON token count limit exceeded\n2\n");
}

/* Text is no longer than values times a constant, and ends at a limit. */
static void test_lengths(void)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *pretty = NULL;
    QObject *value;
    g_autoptr(GString) out = g_string_new("x");

    for (int i = 0; i < 1000; i++) {
        g_string_append_c(text, '[');
    }
    for (int i = 0; i < 10000; i++) {
        g_string_append(text, "1,");
    }
    g_string_append_c(text, '1');
    for (int i = 0; i < 1000; i++) {
        g_string_append_c(text, ']');
    }
    value = qobject_from_json(text->str, NULL);
    pretty = qobject_to_json_pretty(value, true);
    g_assert_cmpuint(strlen(pretty), <, 12001 * (4 * 32 + 3));
    g_assert_false(qobject_append_json(out, value, "\n", strlen(pretty)));
    g_assert_cmpstr(out->str, ==, "x");
    g_assert_true(qobject_append_json(out, value, "\n", strlen(pretty) + 1));
    g_assert_cmpstr(out->str + 1, ==, pretty);
    qobject_unref(value);
}

/* Each error that the reference reported in the recorded session. */
static void test_reference_session(void)
{
    g_autofree char *path = g_build_filename(
        g_getenv("QSD_SRCDIR"), "tests/data/reference", NULL);
    g_autofree char *in_path = g_build_filename(path, "qmp-input.jsonl", NULL);
    g_autofree char *out_path = g_build_filename(path, "qmp-output.jsonl",
                                                 NULL);
    g_autofree char *in = NULL, *want = NULL, *out = NULL;
    g_auto(GStrv) lines = NULL;
    gsize len;
    int found = 0;

    g_assert_true(g_file_get_contents(in_path, &in, &len, NULL));
    g_assert_true(g_file_get_contents(out_path, &want, NULL, NULL));
    out = parse(in, len, 7);
    lines = g_strsplit(out, "\n", -1);
    for (int i = 0; lines[i]; i++) {
        if (g_str_has_prefix(lines[i], "! ")) {
            g_autoptr(QString) text = qstring_new(lines[i] + 2);
            g_autofree char *json = qobject_to_json(QOBJECT(text));

            g_assert_nonnull(strstr(want, json));
            found++;
        }
    }
    g_assert_cmpint(found, ==, 4);
}

/*
 * Random changes of valid text: nothing crashes, what is valid round-trips, but
 * for -0.0: its text is -0, which reads as an integer.
 */
static void fuzz_emit(void *opaque, QObject *value, Error *err)
{
    g_assert_true(!value != !err);
    if (value) {
        g_autofree char *text = qobject_to_json(value);
        g_autoptr(QObject) again = qobject_from_json(text, NULL);
        g_autofree char *text2 = again ? qobject_to_json(again) : NULL;

        if (!strstr(text, "-0")) {
            g_assert_cmpstr(text, ==, text2);
        }
    }
    qobject_unref(value);
    error_free(err);
}

static void test_fuzz(void)
{
    static const char seed[] =
        "{\"execute\": 'x', \"id\": [1, -2.5e3, 18446744073709551615, null,"
        " true, \"\\u00e9\\ud83d\\ude00\\n\", \xc3\xa9, {\"a\": {}}, []]}\n";
    static const char bytes[] =
        "{}[]:,\"'\\u0129.eE+- \n\tatrfn\xff\xc3\xa9\x01";

    for (int round = 0; round < 20000; round++) {
        g_autoptr(JSONParser) parser = json_parser_new(fuzz_emit, NULL);
        g_autoptr(GString) text = g_string_new_len(seed, sizeof(seed) - 1);
        int changes = g_test_rand_int_range(1, 8);

        while (changes--) {
            size_t at = g_test_rand_int_range(0, text->len);
            char c = g_test_rand_int_range(0, 4)
                ? bytes[g_test_rand_int_range(0, sizeof(bytes))]
                : g_test_rand_int_range(0, 256);

            switch (g_test_rand_int_range(0, 3)) {
            case 0:
                text->str[at] = c;
                break;
            case 1:
                g_string_insert_c(text, at, c);
                break;
            default:
                g_string_erase(text, at, 1);
            }
        }
        json_parser_feed(parser, text->str, text->len);
        json_parser_feed(parser, text->str, text->len);
        json_parser_flush(parser);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/numbers", test_numbers);
    g_test_add_func("/json/strings", test_strings);
    g_test_add_func("/json/structure", test_structure);
    g_test_add_func("/json/recovery", test_recovery);
    g_test_add_func("/json/one-value", test_one_value);
    g_test_add_func("/json/pretty", test_pretty);
    g_test_add_func("/json/nesting", test_nesting);
    g_test_add_func("/json/sizes", test_sizes);
    g_test_add_func("/json/lengths", test_lengths);
    g_test_add_func("/json/reference-session", test_reference_session);
    g_test_add_func("/json/fuzz", test_fuzz);
    return g_test_run();
}
