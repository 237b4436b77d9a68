/* SPDX-License-Identifier: MIT */
/*
 * key=value,... option strings to QDict.
 *
 * Dotted keys make nested dictionaries at first; those whose keys are all
 * numbers become lists in the end.
 */
#include <string.h>
#include "qapi/keyval.h"

/* Longest part of a key between dots, bytes; most parts. */
#define KEYVAL_MAX_FRAGMENT 127
#define KEYVAL_MAX_DEPTH 128

/*
 * Length of the name at @s: a letter, then letters, digits, hyphens and
 * underscores; "__DOMAIN_" may come before it.  0 if there is none.
 */
static size_t name_length(const char *s)
{
    const char *p = s;

    if (g_str_has_prefix(s, "__")) {
        p += 2;
        p += strspn(p, "abcdefghijklmnopqrstuvwxyz"
                    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.");
        if (*p != '_' || p == s + 2) {
            return 0;
        }
        p++;
    }
    if (!g_ascii_isalpha(*p)) {
        return 0;
    }
    while (g_ascii_isalnum(*p) || *p == '-' || *p == '_') {
        p++;
    }
    return p - s;
}

/* As name_length(), or the length of a number where @index_ok. */
static size_t fragment_length(const char *s, bool index_ok)
{
    size_t len = strspn(s, "0123456789");

    if (index_ok && len) {
        return len;
    }
    return len ? 0 : name_length(s);
}

/* A key part as it is stored: numbers without leading zeroes. */
static char *fragment_dup(const char *s, size_t len)
{
    while (len > 1 && s[0] == '0') {
        s++;
        len--;
    }
    return g_strndup(s, len);
}

/* Whether @key[0..@key_len-1] consists of fragments that are well-formed. */
static bool keyval_check_key(const char *key, size_t key_len, Error **errp)
{
    const char *s = key, *end = key + key_len;
    unsigned depth = 0;

    for (;;) {
        size_t len = fragment_length(s, s != key);

        if (!len || len > end - s || (s + len != end && s[len] != '.')) {
            error_setg(errp, "Invalid parameter '%.*s'", (int)key_len, key);
            return false;
        }
        if (len > KEYVAL_MAX_FRAGMENT && len < key_len) {
            error_setg(errp, "Parameter fragment '%.*s' is too long",
                       (int)len, s);
            return false;
        }
        if (len > KEYVAL_MAX_FRAGMENT || ++depth > KEYVAL_MAX_DEPTH) {
            error_setg(errp, "Parameter '%.*s' is too long",
                       (int)key_len, key);
            return false;
        }
        s += len;
        if (s == end) {
            return true;
        }
        s++;
    }
}

/*
 * Put @value (taken over) at the end of the path @key[0..@key_len-1], making
 * the dictionaries on the way.
 */
static bool keyval_put(QDict *root, const char *key, size_t key_len,
                       QString *value, Error **errp)
{
    g_autoptr(QString) owned = value;
    QDict *dict = root;
    const char *s = key, *end = key + key_len;

    for (;;) {
        size_t len = fragment_length(s, s != key);
        g_autofree char *part = fragment_dup(s, len);
        QObject *old = qdict_get(dict, part);

        s += len;
        if (old && (s == end) != (qobject_type(old) == QTYPE_QSTRING)) {
            error_setg(errp, "Parameters '%.*s.*' used inconsistently",
                       (int)(s - key), key);
            return false;
        }
        if (s == end) {
            qdict_put(dict, part, g_steal_pointer(&owned));
            return true;
        }
        if (!old) {
            old = QOBJECT(qdict_new());
            qdict_put_obj(dict, part, old);
        }
        dict = qobject_to_qdict(old);
        s++;
    }
}

/*
 * The value at *@p, up to a single comma; "," is written ",,".  Of its length
 * from the beginning: what grows leaves copies, and it may be a secret.
 */
static QString *keyval_value(const char **p)
{
    const char *s = *p;
    size_t len = 0;
    char *value;

    for (; *s && (*s != ',' || *++s == ','); s++) {
        len++;
    }
    value = g_malloc(len + 1);
    value[len] = '\0';
    for (s = *p, len = 0; *s && (*s != ',' || *++s == ','); s++) {
        value[len++] = *s;
    }
    *p = s;
    return qstring_new_take(value);
}

static bool is_help(const char *s, size_t len)
{
    return (len == 1 && s[0] == '?') || (len == 4 && !memcmp(s, "help", 4));
}

/* One item at *@p, which ends up behind its comma. */
static bool keyval_item(QDict *dict, const char **p, const char *implied_key,
                        bool *help, Error **errp)
{
    const char *key = *p;
    size_t len = strcspn(key, "=,");
    bool has_value = key[len] == '=';

    if (!has_value && is_help(key, len)) {
        *help = true;
        *p = key + len + (key[len] == ',');
        return true;
    }
    if (!has_value && implied_key && len) {
        *p = key + len + (key[len] == ',');
        return keyval_put(dict, implied_key, strlen(implied_key),
                          qstring_new_take(g_strndup(key, len)), errp);
    }
    if (!keyval_check_key(key, len, errp)) {
        return false;
    }
    if (!has_value) {
        error_setg(errp, "Expected '=' after parameter '%.*s'", (int)len, key);
        return false;
    }
    *p = key + len + 1;
    return keyval_put(dict, key, len, keyval_value(p), errp);
}

/*
 * @dict as a list, if its keys are numbers; NULL if they are names.
 * @path: where it is, with a dot at its end.
 */
static QList *keyval_to_list(QDict *dict, const char *path, Error **errp)
{
    size_t numbers = 0, size = qdict_size(dict);
    g_autoptr(QList) list = NULL;

    for (size_t i = 0; i < size; i++) {
        numbers += g_ascii_isdigit(qdict_key_at(dict, i)[0]);
    }
    if (!numbers) {
        return NULL;
    }
    if (numbers < size) {
        error_setg(errp, "Parameters '%s*' used inconsistently", path);
        return NULL;
    }
    list = qlist_new();
    for (size_t i = 0; i < size; i++) {
        g_autofree char *key = g_strdup_printf("%zu", i);
        QObject *value = qdict_get(dict, key);

        if (!value) {
            error_setg(errp, "Parameter '%s%zu' missing", path, i);
            return NULL;
        }
        qlist_append_obj(list, qobject_ref(value));
    }
    return g_steal_pointer(&list);
}

/* Turn dictionaries below @dict into lists where they are. */
static bool keyval_listify(QDict *dict, const char *path, Error **errp)
{
    for (size_t i = 0; i < qdict_size(dict); i++) {
        const char *key = qdict_key_at(dict, i);
        QDict *child = qobject_to_qdict(qdict_value_at(dict, i));
        g_autofree char *child_path = NULL;
        Error *err = NULL;
        QList *list;

        if (!child) {
            continue;
        }
        child_path = g_strdup_printf("%s%s.", path, key);
        if (!keyval_listify(child, child_path, errp)) {
            return false;
        }
        list = keyval_to_list(child, child_path, &err);
        if (err) {
            error_propagate(errp, err);
            return false;
        }
        if (list) {
            qdict_put(dict, key, list);
        }
    }
    return true;
}

QDict *keyval_parse(const char *params, const char *implied_key, bool *help,
                    Error **errp)
{
    g_autoptr(QDict) dict = qdict_new();
    bool help_wanted = false;

    if (help) {
        *help = false;
    }
    for (const char *p = params; *p; implied_key = NULL) {
        if (!keyval_item(dict, &p, implied_key, &help_wanted, errp)) {
            return NULL;
        }
    }
    if (help_wanted && !help) {
        error_setg(errp, "Help is not available for this option");
        return NULL;
    }
    if (!keyval_listify(dict, "", errp)) {
        return NULL;
    }
    if (help) {
        *help = help_wanted;
    }
    return g_steal_pointer(&dict);
}
