/* SPDX-License-Identifier: MIT */
/*
 * QObject: a JSON value.
 *
 * Values are reference counted; a new one has one reference.  Containers own
 * a reference on what they hold: the put and append functions take over the
 * caller's.  Counting is not atomic: a value belongs to one thread at a time.
 */
#ifndef QAPI_QOBJECT_H
#define QAPI_QOBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include "util/coroutine.h"

typedef enum QType {
    QTYPE_NONE,         /* an alternate that holds nothing */
    QTYPE_QNULL,
    QTYPE_QNUM,
    QTYPE_QSTRING,
    QTYPE_QDICT,
    QTYPE_QLIST,
    QTYPE_QBOOL,
    QTYPE__MAX,
} QType;

typedef struct QObject QObject;
typedef struct QNull QNull;
typedef struct QNum QNum;
typedef struct QString QString;
typedef struct QDict QDict;
typedef struct QList QList;
typedef struct QBool QBool;

/* What every value begins with; private to qobject.c. */
struct QObject {
    QType type;
    unsigned refcnt;
    QObject *next_free;
};

/* Any of the types above (or NULL) as a QObject *. */
#define QOBJECT(x) ((QObject *)_Generic((x),                    \
    QObject *: (x), const QObject *: (x),                       \
    QNull *: (x), const QNull *: (x),                           \
    QNum *: (x), const QNum *: (x),                             \
    QString *: (x), const QString *: (x),                       \
    QDict *: (x), const QDict *: (x),                           \
    QList *: (x), const QList *: (x),                           \
    QBool *: (x), const QBool *: (x)))

/* QTYPE_NONE for NULL. */
static inline QType qobject_type(const QObject *obj)
{
    return obj ? obj->type : QTYPE_NONE;
}

/* @obj as the type named, or NULL if it is another one (or NULL). */
QNull *qobject_to_qnull(const QObject *obj);
QNum *qobject_to_qnum(const QObject *obj);
QString *qobject_to_qstring(const QObject *obj);
QDict *qobject_to_qdict(const QObject *obj);
QList *qobject_to_qlist(const QObject *obj);
QBool *qobject_to_qbool(const QObject *obj);

/* One reference more (returns its argument); one less.  NULL is fine. */
#define qobject_ref(x) ((__typeof__(x))qobject_ref_any(QOBJECT(x)))
#define qobject_unref(x) qobject_unref_any(QOBJECT(x))
QObject *qobject_ref_any(QObject *obj);
void qobject_unref_any(QObject *obj);

/* For what may be large: others have their turns. */
#define qobject_co_unref(x) qobject_co_unref_any(QOBJECT(x))
void coroutine_fn qobject_co_unref_any(QObject *obj);

/*
 * Same type and content.  Numbers compare by value (1 equals 1, and 1.0
 * only equals 1.0), dictionaries regardless of order.
 */
bool qobject_is_equal(const QObject *a, const QObject *b);

/* ---- scalars ---- */

QNull *qnull_new(void);
QBool *qbool_new(bool value);
bool qbool_get(const QBool *qbool);
QString *qstring_new(const char *str);                  /* copies */
QString *qstring_new_take(char *str);                   /* g_free()s it */
const char *qstring_get(const QString *qstring);        /* valid UTF-8 */

typedef enum QNumKind {
    QNUM_I64,
    QNUM_U64,           /* made from an unsigned value */
    QNUM_DOUBLE,
} QNumKind;

QNum *qnum_new_int(int64_t value);
QNum *qnum_new_uint(uint64_t value);
QNum *qnum_new_double(double value);
QNumKind qnum_kind(const QNum *num);

/* False if @num is no such integer: out of range, or a double. */
bool qnum_get_int(const QNum *num, int64_t *value);
bool qnum_get_uint(const QNum *num, uint64_t *value);
double qnum_get_double(const QNum *num);                /* any kind */

/* ---- dictionaries: keys stay in the order in which they came ---- */

QDict *qdict_new(void);
size_t qdict_size(const QDict *dict);

/* Add or replace (in its place). */
#define qdict_put(dict, key, value) \
    qdict_put_obj(dict, key, QOBJECT(value))
void qdict_put_obj(QDict *dict, const char *key, QObject *value);
void qdict_put_str(QDict *dict, const char *key, const char *value);
void qdict_put_int(QDict *dict, const char *key, int64_t value);
void qdict_put_bool(QDict *dict, const char *key, bool value);
void qdict_del(QDict *dict, const char *key);           /* none is fine */

bool qdict_haskey(const QDict *dict, const char *key);
QObject *qdict_get(const QDict *dict, const char *key); /* or NULL */

/* NULL if there is none, or it is of another type. */
const char *qdict_get_str(const QDict *dict, const char *key);
QDict *qdict_get_qdict(const QDict *dict, const char *key);
QList *qdict_get_qlist(const QDict *dict, const char *key);
bool qdict_get_bool(const QDict *dict, const char *key, bool def);
int64_t qdict_get_int(const QDict *dict, const char *key, int64_t def);

/* The entry at @index, 0 <= @index < qdict_size(). */
const char *qdict_key_at(const QDict *dict, size_t index);
QObject *qdict_value_at(const QDict *dict, size_t index);

/* A new dictionary with the same values. */
QDict *qdict_clone_shallow(const QDict *dict);

/* ---- lists ---- */

QList *qlist_new(void);
size_t qlist_size(const QList *list);
#define qlist_append(list, value) qlist_append_obj(list, QOBJECT(value))
void qlist_append_obj(QList *list, QObject *value);
void qlist_append_str(QList *list, const char *value);
void qlist_append_int(QList *list, int64_t value);
QObject *qlist_at(const QList *list, size_t index);     /* NULL past the end */

/* g_autoptr() for each of the types. */
#define QOBJECT_DEFINE_AUTOPTR(T)                               \
    static inline void qobject_autoptr_##T(T *value)            \
    {                                                           \
        qobject_unref_any(QOBJECT(value));                      \
    }                                                           \
    G_DEFINE_AUTOPTR_CLEANUP_FUNC(T, qobject_autoptr_##T)

QOBJECT_DEFINE_AUTOPTR(QObject)
QOBJECT_DEFINE_AUTOPTR(QNull)
QOBJECT_DEFINE_AUTOPTR(QNum)
QOBJECT_DEFINE_AUTOPTR(QString)
QOBJECT_DEFINE_AUTOPTR(QDict)
QOBJECT_DEFINE_AUTOPTR(QList)
QOBJECT_DEFINE_AUTOPTR(QBool)

#endif /* QAPI_QOBJECT_H */
