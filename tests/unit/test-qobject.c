/* SPDX-License-Identifier: MIT */
/* QObject: values, references, containers. */
#include <string.h>
#include "qapi/json.h"
#include "qapi/qobject.h"

static void test_scalars(void)
{
    g_autoptr(QNum) i = qnum_new_int(-1);
    g_autoptr(QNum) small = qnum_new_uint(1);
    g_autoptr(QNum) large = qnum_new_uint(UINT64_MAX);
    g_autoptr(QNum) dbl = qnum_new_double(1.0);
    g_autoptr(QString) str = qstring_new("x");
    g_autoptr(QBool) yes = qbool_new(true);
    g_autoptr(QNull) null = qnull_new();
    int64_t i64;
    uint64_t u64;

    g_assert_true(qnum_get_int(i, &i64) && i64 == -1);
    g_assert_false(qnum_get_uint(i, &u64));
    g_assert_true(qnum_get_int(small, &i64) && i64 == 1);
    g_assert_false(qnum_get_int(large, &i64));
    g_assert_true(qnum_get_uint(large, &u64) && u64 == UINT64_MAX);
    g_assert_false(qnum_get_int(dbl, &i64));
    g_assert_false(qnum_get_uint(dbl, &u64));
    g_assert_cmpfloat(qnum_get_double(i), ==, -1.0);
    g_assert_cmpstr(qstring_get(str), ==, "x");
    g_assert_true(qbool_get(yes));
    g_assert_nonnull(qobject_to_qnull(QOBJECT(null)));
    g_assert_null(qobject_to_qdict(QOBJECT(null)));
    g_assert_null(qobject_to_qdict(NULL));
    g_assert_cmpint(qobject_type(NULL), ==, QTYPE_NONE);
}

static void test_dict(void)
{
    g_autoptr(QDict) dict = qdict_new();
    g_autoptr(QDict) copy = NULL;
    g_autofree char *json = NULL;

    qdict_put_str(dict, "z", "first");
    qdict_put_int(dict, "a", 2);
    qdict_put_bool(dict, "m", true);
    qdict_put_int(dict, "z", 1);
    json = qobject_to_json(QOBJECT(dict));
    g_assert_cmpstr(json, ==, "{\"z\": 1, \"a\": 2, \"m\": true}");

    g_assert_cmpint(qdict_get_int(dict, "a", 7), ==, 2);
    g_assert_cmpint(qdict_get_int(dict, "b", 7), ==, 7);
    g_assert_cmpint(qdict_get_int(dict, "m", 7), ==, 7);
    g_assert_true(qdict_get_bool(dict, "m", false));
    g_assert_true(qdict_get_bool(dict, "a", true));
    g_assert_null(qdict_get_str(dict, "a"));
    g_assert_null(qdict_get_qdict(dict, "a"));
    g_assert_null(qdict_get_qlist(dict, "nope"));

    copy = qdict_clone_shallow(dict);
    qdict_del(dict, "z");
    qdict_del(dict, "z");
    g_assert_false(qdict_haskey(dict, "z"));
    g_assert_true(qdict_haskey(copy, "z"));
    g_assert_cmpuint(qdict_size(dict), ==, 2);
}

/* Beyond the size where a tree takes over, and back. */
static void test_dict_large(void)
{
    g_autoptr(QDict) dict = qdict_new();

    for (int i = 0; i < 1000; i++) {
        g_autofree char *key = g_strdup_printf("k%d", i);

        qdict_put_int(dict, key, i);
    }
    for (int i = 0; i < 1000; i += 2) {
        g_autofree char *key = g_strdup_printf("k%d", i);

        qdict_del(dict, key);
    }
    g_assert_cmpuint(qdict_size(dict), ==, 500);
    for (int i = 0; i < 1000; i++) {
        g_autofree char *key = g_strdup_printf("k%d", i);

        g_assert_cmpint(qdict_get_int(dict, key, -1), ==, i % 2 ? i : -1);
    }
    g_assert_cmpstr(qdict_key_at(dict, 0), ==, "k1");
    g_assert_cmpstr(qdict_key_at(dict, 499), ==, "k999");
    for (int i = 999; i > 1; i -= 2) {
        g_autofree char *key = g_strdup_printf("k%d", i);

        qdict_del(dict, key);
    }
    g_assert_cmpint(qdict_get_int(dict, "k1", -1), ==, 1);
}

/*
 * Keys that most simple hash functions can't tell apart: quadratic time would
 * be minutes.
 */
static void test_dict_collisions(void)
{
    static const char pairs[2][2] = { "Ab", "BA" };
    g_autoptr(QDict) dict = qdict_new();
    char key[17 * 2 + 1] = "";

    for (int i = 0; i < 1 << 17; i++) {
        for (int bit = 0; bit < 17; bit++) {
            memcpy(key + 2 * bit, pairs[i >> bit & 1], 2);
        }
        qdict_put_int(dict, key, i);
    }
    g_assert_cmpuint(qdict_size(dict), ==, 1 << 17);
    g_assert_cmpint(qdict_get_int(dict, key, -1), ==, (1 << 17) - 1);
}

static void test_equal(void)
{
    static const struct {
        const char *a, *b;
        bool equal;
    } cases[] = {
        { "1", "1", true },
        { "1", "1.0", false },
        { "1.5", "1.5", true },
        { "18446744073709551615", "18446744073709551615", true },
        { "18446744073709551615", "-1", false },
        { "null", "null", true },
        { "null", "false", false },
        { "'a'", "'a'", true },
        { "'a'", "'b'", false },
        { "[1,[2]]", "[1,[2]]", true },
        { "[1,2]", "[2,1]", false },
        { "[1]", "[1,1]", false },
        { "{'a':1,'b':{}}", "{'b':{},'a':1}", true },
        { "{'a':1}", "{'a':2}", false },
        { "{'a':1}", "{'b':1}", false },
        { "{'a':1}", "{}", false },
    };

    for (int i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(QObject) a = qobject_from_json(cases[i].a, NULL);
        g_autoptr(QObject) b = qobject_from_json(cases[i].b, NULL);

        g_assert_true(a && b);
        g_assert_true(qobject_is_equal(a, b) == cases[i].equal);
    }
}

/* Freeing needs no stack for each level. */
static void test_deep(void)
{
    QObject *obj = QOBJECT(qnull_new());

    for (int i = 0; i < 1000000; i++) {
        if (i % 2) {
            QList *list = qlist_new();

            qlist_append(list, obj);
            obj = QOBJECT(list);
        } else {
            QDict *dict = qdict_new();

            qdict_put_obj(dict, "x", obj);
            obj = QOBJECT(dict);
        }
    }
    qobject_unref(obj);
}

static void test_refs(void)
{
    g_autoptr(QList) list = qlist_new();
    QString *str = qstring_new("shared");

    qlist_append(list, qobject_ref(str));
    qlist_append(list, str);
    qlist_append_int(list, 1);
    qlist_append_str(list, "x");
    g_assert_true(qlist_at(list, 0) == qlist_at(list, 1));
    g_assert_cmpuint(qlist_size(list), ==, 4);
    g_assert_null(qlist_at(list, 4));
    qobject_unref((QObject *)NULL);
    g_assert_null(qobject_ref((QDict *)NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qobject/scalars", test_scalars);
    g_test_add_func("/qobject/dict", test_dict);
    g_test_add_func("/qobject/dict-large", test_dict_large);
    g_test_add_func("/qobject/dict-collisions", test_dict_collisions);
    g_test_add_func("/qobject/equal", test_equal);
    g_test_add_func("/qobject/deep", test_deep);
    g_test_add_func("/qobject/refs", test_refs);
    return g_test_run();
}
