/* SPDX-License-Identifier: MIT */
/*
 * JSON text in portions.  Whatever value comes out must survive being written
 * and read again, compact and pretty.
 *
 * Input: size of the portions (0: all at once), then the text.
 */
#include "qapi/json.h"
#include "tests/fuzz/fuzz.h"

static QObject *rewrite(const QObject *value, bool pretty)
{
    g_autofree char *text = qobject_to_json_pretty(value, pretty);
    Error *err = NULL;
    QObject *again = qobject_from_json(text, &err);

    g_assert_null(err);
    g_assert_nonnull(again);
    return again;
}

/* Once written, 1e3 is the integer 1000, and -0.0 is 0; from then on equal. */
static void check_rewritten(const QObject *value, bool pretty)
{
    g_autoptr(QObject) once = rewrite(value, pretty);
    g_autoptr(QObject) twice = rewrite(once, pretty);

    g_assert_true(qobject_is_equal(once, twice));
}

static void emit(void *opaque, QObject *value, Error *err)
{
    g_assert_true(!value != !err);
    if (value) {
        check_rewritten(value, false);
        check_rewritten(value, true);
    } else {
        g_assert_cmpuint(strlen(error_get_pretty(err)), >, 0);
    }
    qobject_unref(value);
    error_free(err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    JSONParser *parser = json_parser_new(emit, NULL);
    size_t portion = fuzz_take_u8(&in);
    FuzzInput whole = in;
    g_autofree char *text = NULL;
    g_autoptr(QObject) value = NULL;
    Error *err = NULL;

    while (in.size) {
        size_t len = portion ? portion : in.size;
        const uint8_t *part = fuzz_take(&in, &len);

        json_parser_feed(parser, (const char *)part, len);
    }
    json_parser_flush(parser);
    json_parser_free(parser);

    text = fuzz_take_string(&whole);
    value = qobject_from_json(text, &err);
    g_assert_true(!value != !err);
    error_free(err);
    return 0;
}
