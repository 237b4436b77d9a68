/* SPDX-License-Identifier: MIT */
/*
 * key=value text: with and without an implied key, with and without help.
 *
 * Input: flags, then the text.
 */
#include "qapi/json.h"
#include "qapi/keyval.h"
#include "tests/fuzz/fuzz.h"

enum {
    FLAG_IMPLIED = 1,
    FLAG_HELP = 2,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    uint8_t flags = fuzz_take_u8(&in);
    g_autofree char *text = fuzz_take_string(&in);
    bool help = false;
    Error *err = NULL;
    g_autoptr(QDict) dict = keyval_parse(text,
                                         flags & FLAG_IMPLIED ? "key" : NULL,
                                         flags & FLAG_HELP ? &help : NULL,
                                         &err);

    g_assert_true(!dict != !err);
    if (dict) {
        g_autofree char *json = qobject_to_json(QOBJECT(dict));
        g_autoptr(QObject) again = qobject_from_json(json, &err);

        g_assert_null(err);
        g_assert_nonnull(again);
        /* What is no text, or non-characters, is written as U+FFFD. */
        if (g_str_is_ascii(text)) {
            g_assert_true(qobject_is_equal(QOBJECT(dict), again));
        }
    }
    error_free(err);
    return 0;
}
