/* SPDX-License-Identifier: MIT */
/*
 * The walker: schema-typed C values from QObject, to QObject, cloned, freed.
 *
 * One table walker (visit.c) does all of it for every type of the schema,
 * guided by the type's descriptor qapi_type_X.  A "value" below is a pointer
 * to the struct, alternate, first list node, or string; an empty list is
 * NULL.  No state; any thread.
 */
#ifndef QAPI_VISIT_H
#define QAPI_VISIT_H

#include "qapi/meta.h"
#include "qapi/qobject.h"
#include "util/coroutine.h"
#include "util/error.h"

/*
 * A new value from @obj, checked against @type: missing, unexpected and
 * mistyped members are errors that name the member with its path.
 * @keyval: scalars are strings, as keyval_parse() makes them.
 * Returns NULL with an error (or, without one, for an empty list).
 */
void *qapi_from_qobject(const QapiType *type, const QObject *obj, bool keyval,
                        Error **errp);

/*
 * As qapi_from_qobject(), for a value that is member @name of something: an
 * error in the value itself names it so.
 */
void *qapi_from_qobject_named(const QapiType *type, const char *name,
                              const QObject *obj, bool keyval, Error **errp);

/*
 * A value held in place (bool, integers, size, number, enum) into @value, of
 * the C type that @type says.  @name: what errors call it.
 */
bool qapi_scalar_from_qobject(const QapiType *type, const char *name,
                              const QObject *obj, bool keyval, void *value,
                              Error **errp);

/* @value as a QObject; members come in the schema's order. */
QObject *qapi_to_qobject(const QapiType *type, const void *value);

/* What @value takes as a QObject, in bytes: about, and rather more. */
size_t qapi_weigh(const QapiType *type, const void *value);

/*
 * Replies have limits: the weight of their values, and the bytes of their text.
 * A command whose reply is larger fails; one that could make more of it than it
 * holds already adds up what it makes, in *@weight, and stops in time.
 */
#define QAPI_REPLY_MAX_WEIGHT (128 << 20)
#define QAPI_REPLY_MAX_TEXT (32 << 20)
bool qapi_reply_add(size_t *weight, const QapiType *type, const void *value,
                    Error **errp);
void qapi_reply_too_large(Error **errp);

/* Free @value with all it holds; NULL is fine. */
void qapi_free(const QapiType *type, void *value);

/* The same for what may be a long list: others have their turns. */
void coroutine_fn qapi_co_free(const QapiType *type, void *value);

/* A deep copy; `any` members are shared. */
void *qapi_clone(const QapiType *type, const void *value);
#define QAPI_CLONE(X, p) ((X *)qapi_clone(&qapi_type_##X, (p)))

/* The struct that a union embeds for its tag's value; NULL if there is none. */
const QapiType *qapi_union_branch(const QapiType *type, const void *value);

/* Append @element to the list whose last `next` is *@tail. */
#define QAPI_LIST_APPEND(tail, element) do {                    \
        *(tail) = g_malloc0(sizeof(**(tail)));                  \
        (*(tail))->value = (element);                           \
        (tail) = &(*(tail))->next;                              \
    } while (0)

/* The name of @value of enum @type; "?" if it has none. */
const char *qapi_enum_name(const QapiType *type, int value);

/*
 * The value of enum @type called @name; -1 with the error
 * "Parameter 'PARAM' does not accept value 'NAME'".
 */
int qapi_enum_parse(const QapiType *type, const char *param, const char *name,
                    Error **errp);

/*
 * key=value or, with a leading '{', JSON text to a value of @type: what a
 * command line option holds.  *@help (may be NULL) is set, and NULL returned
 * without an error, if help is asked for.
 */
void *qapi_from_option(const QapiType *type, const char *text,
                       const char *implied_key, bool *help, Error **errp);

/*
 * The dictionary that command line option argument @text holds, without a
 * type yet; *@keyval tells which kind of scalars it has.
 */
QDict *qapi_parse_option(const char *text, const char *implied_key,
                         bool *help, bool *keyval, Error **errp);

#endif /* QAPI_VISIT_H */
