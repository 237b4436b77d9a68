/* SPDX-License-Identifier: MIT */
/*
 * QObject: a JSON value.
 *
 * A dictionary keeps its entries in an array, in order; past a few entries a
 * tree finds them, which unlike a hash table no choice of keys makes slow.
 * Freeing is a loop, not a recursion, so that deep nesting costs no stack.
 * Text is overwritten: it may have been a secret.
 */
#include <string.h>
#include "qapi/qobject.h"
#include "util/aio.h"
#include "util/secmem.h"

/* Up to this many entries a search through the array is faster. */
#define QDICT_INDEX_MIN 12

struct QNull {
    QObject base;
};

struct QBool {
    QObject base;
    bool value;
};

struct QString {
    QObject base;
    char *str;
};

struct QNum {
    QObject base;
    QNumKind kind;
    union {
        int64_t i64;
        uint64_t u64;
        double dbl;
    } u;
};

struct QList {
    QObject base;
    GPtrArray *items;
};

typedef struct QDictEntry {
    char *key;
    QObject *value;
} QDictEntry;

struct QDict {
    QObject base;
    GArray *entries;            /* of QDictEntry */
    GTree *index;               /* key -> position; NULL while small */
};

static void *qobject_alloc(size_t size, QType type)
{
    QObject *obj = g_malloc0(size);

    obj->type = type;
    obj->refcnt = 1;
    return obj;
}

#define QOBJECT_CAST(T, name, qtype)                                    \
    T *qobject_to_##name(const QObject *obj)                            \
    {                                                                   \
        return qobject_type(obj) == (qtype) ? (T *)obj : NULL;          \
    }

QOBJECT_CAST(QNull, qnull, QTYPE_QNULL)
QOBJECT_CAST(QNum, qnum, QTYPE_QNUM)
QOBJECT_CAST(QString, qstring, QTYPE_QSTRING)
QOBJECT_CAST(QDict, qdict, QTYPE_QDICT)
QOBJECT_CAST(QList, qlist, QTYPE_QLIST)
QOBJECT_CAST(QBool, qbool, QTYPE_QBOOL)

/* ---- references ---- */

QObject *qobject_ref_any(QObject *obj)
{
    if (obj) {
        obj->refcnt++;
    }
    return obj;
}

/* Drop a reference; what has none left goes on the list at @dead. */
static void qobject_drop(QObject *obj, QObject **dead)
{
    if (obj && --obj->refcnt == 0) {
        obj->next_free = *dead;
        *dead = obj;
    }
}

static void qdict_dispose(QDict *dict, QObject **dead)
{
    for (size_t i = 0; i < dict->entries->len; i++) {
        QDictEntry *e = &g_array_index(dict->entries, QDictEntry, i);

        g_free(e->key);
        qobject_drop(e->value, dead);
    }
    g_array_free(dict->entries, TRUE);
    if (dict->index) {
        g_tree_destroy(dict->index);
    }
}

static void qlist_dispose(QList *list, QObject **dead)
{
    for (size_t i = 0; i < list->items->len; i++) {
        qobject_drop(list->items->pdata[i], dead);
    }
    g_ptr_array_free(list->items, TRUE);
}

/* Free the first on the list at @dead; what it held the last of comes there. */
static void qobject_free_first(QObject **dead)
{
    QObject *obj = *dead;

    *dead = obj->next_free;
    if (obj->type == QTYPE_QDICT) {
        qdict_dispose((QDict *)obj, dead);
    } else if (obj->type == QTYPE_QLIST) {
        qlist_dispose((QList *)obj, dead);
    } else if (obj->type == QTYPE_QSTRING) {
        secmem_wipe_string(((QString *)obj)->str);
    }
    g_free(obj);
}

void qobject_unref_any(QObject *obj)
{
    QObject *dead = NULL;

    qobject_drop(obj, &dead);
    while (dead) {
        qobject_free_first(&dead);
    }
}

/* Values freed between two looks at the clock. */
#define QOBJECT_FREE_STEPS 256

void coroutine_fn qobject_co_unref_any(QObject *obj)
{
    QObject *dead = NULL;

    qobject_drop(obj, &dead);
    for (unsigned n = 1; dead; n++) {
        qobject_free_first(&dead);
        if (n % QOBJECT_FREE_STEPS == 0) {
            aio_co_yield_fair();
        }
    }
}

/* ---- equality ---- */

static bool qnum_is_equal(const QNum *a, const QNum *b)
{
    int64_t ia, ib;
    uint64_t ua, ub;

    if (a->kind == QNUM_DOUBLE || b->kind == QNUM_DOUBLE) {
        return a->kind == b->kind && a->u.dbl == b->u.dbl;
    }
    if (qnum_get_int(a, &ia) && qnum_get_int(b, &ib)) {
        return ia == ib;
    }
    return qnum_get_uint(a, &ua) && qnum_get_uint(b, &ub) && ua == ub;
}

static bool qdict_is_equal(const QDict *a, const QDict *b)
{
    if (qdict_size(a) != qdict_size(b)) {
        return false;
    }
    for (size_t i = 0; i < qdict_size(a); i++) {
        QObject *other = qdict_get(b, qdict_key_at(a, i));

        if (!other || !qobject_is_equal(qdict_value_at(a, i), other)) {
            return false;
        }
    }
    return true;
}

static bool qlist_is_equal(const QList *a, const QList *b)
{
    if (qlist_size(a) != qlist_size(b)) {
        return false;
    }
    for (size_t i = 0; i < qlist_size(a); i++) {
        if (!qobject_is_equal(qlist_at(a, i), qlist_at(b, i))) {
            return false;
        }
    }
    return true;
}

bool qobject_is_equal(const QObject *a, const QObject *b)
{
    if (a == b || qobject_type(a) != qobject_type(b)) {
        return a == b;
    }
    switch (a->type) {
    case QTYPE_QNUM:
        return qnum_is_equal((const QNum *)a, (const QNum *)b);
    case QTYPE_QSTRING:
        return g_str_equal(((const QString *)a)->str,
                           ((const QString *)b)->str);
    case QTYPE_QDICT:
        return qdict_is_equal((const QDict *)a, (const QDict *)b);
    case QTYPE_QLIST:
        return qlist_is_equal((const QList *)a, (const QList *)b);
    case QTYPE_QBOOL:
        return ((const QBool *)a)->value == ((const QBool *)b)->value;
    default:
        return true;
    }
}

/* ---- scalars ---- */

QNull *qnull_new(void)
{
    return qobject_alloc(sizeof(QNull), QTYPE_QNULL);
}

QBool *qbool_new(bool value)
{
    QBool *qbool = qobject_alloc(sizeof(*qbool), QTYPE_QBOOL);

    qbool->value = value;
    return qbool;
}

bool qbool_get(const QBool *qbool)
{
    return qbool->value;
}

QString *qstring_new(const char *str)
{
    return qstring_new_take(g_strdup(str));
}

QString *qstring_new_take(char *str)
{
    QString *qstring = qobject_alloc(sizeof(*qstring), QTYPE_QSTRING);

    qstring->str = str;
    return qstring;
}

const char *qstring_get(const QString *qstring)
{
    return qstring->str;
}

QNum *qnum_new_int(int64_t value)
{
    QNum *num = qobject_alloc(sizeof(*num), QTYPE_QNUM);

    num->kind = QNUM_I64;
    num->u.i64 = value;
    return num;
}

QNum *qnum_new_uint(uint64_t value)
{
    QNum *num = qobject_alloc(sizeof(*num), QTYPE_QNUM);

    num->kind = QNUM_U64;
    num->u.u64 = value;
    return num;
}

QNum *qnum_new_double(double value)
{
    QNum *num = qobject_alloc(sizeof(*num), QTYPE_QNUM);

    num->kind = QNUM_DOUBLE;
    num->u.dbl = value;
    return num;
}

QNumKind qnum_kind(const QNum *num)
{
    return num->kind;
}

bool qnum_get_int(const QNum *num, int64_t *value)
{
    if (num->kind == QNUM_I64) {
        *value = num->u.i64;
        return true;
    }
    if (num->kind == QNUM_U64 && num->u.u64 <= INT64_MAX) {
        *value = num->u.u64;
        return true;
    }
    return false;
}

bool qnum_get_uint(const QNum *num, uint64_t *value)
{
    if (num->kind == QNUM_U64) {
        *value = num->u.u64;
        return true;
    }
    if (num->kind == QNUM_I64 && num->u.i64 >= 0) {
        *value = num->u.i64;
        return true;
    }
    return false;
}

double qnum_get_double(const QNum *num)
{
    switch (num->kind) {
    case QNUM_I64:
        return num->u.i64;
    case QNUM_U64:
        return num->u.u64;
    default:
        return num->u.dbl;
    }
}

/* ---- dictionaries ---- */

QDict *qdict_new(void)
{
    QDict *dict = qobject_alloc(sizeof(*dict), QTYPE_QDICT);

    dict->entries = g_array_new(FALSE, FALSE, sizeof(QDictEntry));
    return dict;
}

size_t qdict_size(const QDict *dict)
{
    return dict->entries->len;
}

static QDictEntry *qdict_entry(const QDict *dict, size_t index)
{
    return &g_array_index(dict->entries, QDictEntry, index);
}

static void qdict_build_index(QDict *dict)
{
    g_clear_pointer(&dict->index, g_tree_destroy);
    if (dict->entries->len < QDICT_INDEX_MIN) {
        return;
    }
    dict->index = g_tree_new((GCompareFunc)strcmp);
    for (size_t i = 0; i < dict->entries->len; i++) {
        g_tree_insert(dict->index, qdict_entry(dict, i)->key,
                      GSIZE_TO_POINTER(i));
    }
}

static QDictEntry *qdict_find(const QDict *dict, const char *key)
{
    gpointer index;

    if (dict->index) {
        if (g_tree_lookup_extended(dict->index, key, NULL, &index)) {
            return qdict_entry(dict, GPOINTER_TO_SIZE(index));
        }
        return NULL;
    }
    for (size_t i = 0; i < dict->entries->len; i++) {
        if (g_str_equal(qdict_entry(dict, i)->key, key)) {
            return qdict_entry(dict, i);
        }
    }
    return NULL;
}

void qdict_put_obj(QDict *dict, const char *key, QObject *value)
{
    QDictEntry *old = qdict_find(dict, key);
    QDictEntry entry;

    if (old) {
        qobject_unref(old->value);
        old->value = value;
        return;
    }
    entry = (QDictEntry) { g_strdup(key), value };
    g_array_append_val(dict->entries, entry);
    if (dict->index) {
        g_tree_insert(dict->index, entry.key,
                      GSIZE_TO_POINTER(dict->entries->len - 1));
    } else {
        qdict_build_index(dict);
    }
}

void qdict_put_str(QDict *dict, const char *key, const char *value)
{
    qdict_put(dict, key, qstring_new(value));
}

void qdict_put_int(QDict *dict, const char *key, int64_t value)
{
    qdict_put(dict, key, qnum_new_int(value));
}

void qdict_put_bool(QDict *dict, const char *key, bool value)
{
    qdict_put(dict, key, qbool_new(value));
}

void qdict_del(QDict *dict, const char *key)
{
    QDictEntry *entry = qdict_find(dict, key);

    if (entry) {
        g_free(entry->key);
        qobject_unref(entry->value);
        g_array_remove_index(dict->entries, entry - qdict_entry(dict, 0));
        qdict_build_index(dict);
    }
}

bool qdict_haskey(const QDict *dict, const char *key)
{
    return qdict_find(dict, key) != NULL;
}

QObject *qdict_get(const QDict *dict, const char *key)
{
    QDictEntry *entry = qdict_find(dict, key);

    return entry ? entry->value : NULL;
}

const char *qdict_get_str(const QDict *dict, const char *key)
{
    QString *str = qobject_to_qstring(qdict_get(dict, key));

    return str ? qstring_get(str) : NULL;
}

QDict *qdict_get_qdict(const QDict *dict, const char *key)
{
    return qobject_to_qdict(qdict_get(dict, key));
}

QList *qdict_get_qlist(const QDict *dict, const char *key)
{
    return qobject_to_qlist(qdict_get(dict, key));
}

bool qdict_get_bool(const QDict *dict, const char *key, bool def)
{
    QBool *qbool = qobject_to_qbool(qdict_get(dict, key));

    return qbool ? qbool->value : def;
}

int64_t qdict_get_int(const QDict *dict, const char *key, int64_t def)
{
    QNum *num = qobject_to_qnum(qdict_get(dict, key));
    int64_t value;

    return num && qnum_get_int(num, &value) ? value : def;
}

const char *qdict_key_at(const QDict *dict, size_t index)
{
    return qdict_entry(dict, index)->key;
}

QObject *qdict_value_at(const QDict *dict, size_t index)
{
    return qdict_entry(dict, index)->value;
}

QDict *qdict_clone_shallow(const QDict *dict)
{
    QDict *clone = qdict_new();

    for (size_t i = 0; i < qdict_size(dict); i++) {
        qdict_put_obj(clone, qdict_key_at(dict, i),
                      qobject_ref(qdict_value_at(dict, i)));
    }
    return clone;
}

/* ---- lists ---- */

QList *qlist_new(void)
{
    QList *list = qobject_alloc(sizeof(*list), QTYPE_QLIST);

    list->items = g_ptr_array_new();
    return list;
}

size_t qlist_size(const QList *list)
{
    return list->items->len;
}

void qlist_append_obj(QList *list, QObject *value)
{
    g_ptr_array_add(list->items, value);
}

void qlist_append_str(QList *list, const char *value)
{
    qlist_append(list, qstring_new(value));
}

void qlist_append_int(QList *list, int64_t value)
{
    qlist_append(list, qnum_new_int(value));
}

QObject *qlist_at(const QList *list, size_t index)
{
    return index < list->items->len ? list->items->pdata[index] : NULL;
}
