/* SPDX-License-Identifier: MIT */
/*
 * The walker: what does not depend on a representation: names of enum values,
 * free, clone, and command line options.
 */
#include <string.h>
#include "qapi/json.h"
#include "qapi/keyval.h"
#include "qapi/visit.h"
#include "util/secmem.h"

const char *qapi_enum_name(const QapiType *type, int value)
{
    return value >= 0 && value < type->n_values ? type->values[value].name
                                                : "?";
}

int qapi_enum_parse(const QapiType *type, const char *param, const char *name,
                    Error **errp)
{
    for (int i = 0; i < type->n_values; i++) {
        if (g_str_equal(type->values[i].name, name)) {
            return i;
        }
    }
    error_setg(errp, "Parameter '%s' does not accept value '%s'", param, name);
    return -1;
}

const QapiType *qapi_union_branch(const QapiType *type, const void *value)
{
    int tag;

    if (!type->tag) {
        return NULL;
    }
    memcpy(&tag, (const char *)value + type->tag->offset, sizeof(tag));
    for (int i = 0; i < type->n_variants; i++) {
        if (type->variants[i].value == tag) {
            return type->variants[i].type;
        }
    }
    return NULL;
}

/* The branch that an alternate holds; NULL if it holds nothing. */
static const QapiType *alternate_branch(const QapiType *type,
                                        const void *value)
{
    QType qtype = *(const QType *)value;

    for (int i = 0; i < type->n_branches; i++) {
        if (type->branches[i].qtype == qtype) {
            return type->branches[i].type;
        }
    }
    return NULL;
}

/* ---- free ---- */

static void free_content(const QapiType *type, void *value);

/* What the slot of a value of @type holds, which may be a pointer. */
static void free_slot(const QapiType *type, void *slot)
{
    if (qapi_type_is_pointer(type)) {
        qapi_free(type, *(void **)slot);
    }
}

/* A branch: structs are embedded, the rest as in a member. */
static void free_embedded(const QapiType *type, void *value)
{
    if (type->kind == QAPI_KIND_STRUCT || type->kind == QAPI_KIND_ALTERNATE) {
        free_content(type, value);
    } else {
        free_slot(type, value);
    }
}

/* What a struct or alternate holds, without itself. */
static void free_content(const QapiType *type, void *value)
{
    const QapiType *branch = type->kind == QAPI_KIND_ALTERNATE
        ? alternate_branch(type, value) : qapi_union_branch(type, value);

    if (branch) {
        free_embedded(branch, (char *)value + type->u_offset);
    }
    for (int i = 0; i < type->n_members; i++) {
        free_slot(type->members[i].type,
                  (char *)value + type->members[i].offset);
    }
}

void qapi_free(const QapiType *type, void *value)
{
    if (!value) {
        return;
    }
    switch (type->kind) {
    case QAPI_KIND_NULL:
    case QAPI_KIND_ANY:
        qobject_unref((QObject *)value);
        break;
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
        free_content(type, value);
        g_free(value);
        break;
    case QAPI_KIND_LIST:
        while (value) {
            void *next = *(void **)value;

            free_slot(type->element, (char *)value + type->u_offset);
            g_free(value);
            value = next;
        }
        break;
    default:
        secmem_wipe_string(value);      /* it may have been a secret */
    }
}

/* ---- clone ---- */

static void clone_content(const QapiType *type, void *copy);

/* @slot has been copied as bytes: give it its own copy of what it points to. */
static void clone_slot(const QapiType *type, void *slot)
{
    if (qapi_type_is_pointer(type)) {
        *(void **)slot = qapi_clone(type, *(void **)slot);
    }
}

static void clone_embedded(const QapiType *type, void *copy)
{
    if (type->kind == QAPI_KIND_STRUCT || type->kind == QAPI_KIND_ALTERNATE) {
        clone_content(type, copy);
    } else {
        clone_slot(type, copy);
    }
}

static void clone_content(const QapiType *type, void *copy)
{
    const QapiType *branch = type->kind == QAPI_KIND_ALTERNATE
        ? alternate_branch(type, copy) : qapi_union_branch(type, copy);

    if (branch) {
        clone_embedded(branch, (char *)copy + type->u_offset);
    }
    for (int i = 0; i < type->n_members; i++) {
        clone_slot(type->members[i].type,
                   (char *)copy + type->members[i].offset);
    }
}

static void *clone_list(const QapiType *type, const void *list)
{
    void *head = NULL, **tail = &head;

    for (; list; list = *(void *const *)list) {
        void *node = g_memdup2(list, type->size);

        clone_slot(type->element, (char *)node + type->u_offset);
        *tail = node;
        tail = node;
    }
    return head;
}

void *qapi_clone(const QapiType *type, const void *value)
{
    void *copy;

    if (!value) {
        return NULL;
    }
    switch (type->kind) {
    case QAPI_KIND_STR:
        return g_strdup(value);
    case QAPI_KIND_NULL:
    case QAPI_KIND_ANY:
        return qobject_ref((QObject *)value);
    case QAPI_KIND_LIST:
        return clone_list(type, value);
    default:
        copy = g_memdup2(value, type->size);
        clone_content(type, copy);
        return copy;
    }
}

/* ---- command line options ---- */

QDict *qapi_parse_option(const char *text, const char *implied_key,
                         bool *help, bool *keyval, Error **errp)
{
    g_autoptr(QObject) obj = NULL;
    QDict *dict;

    *keyval = text[0] != '{';
    if (*keyval) {
        return keyval_parse(text, implied_key, help, errp);
    }
    if (help) {
        *help = false;
    }
    obj = qobject_from_json(text, errp);
    dict = qobject_to_qdict(obj);
    return dict ? qobject_ref(dict) : NULL;
}

void *qapi_from_option(const QapiType *type, const char *text,
                       const char *implied_key, bool *help, Error **errp)
{
    bool keyval;
    g_autoptr(QDict) dict = qapi_parse_option(text, implied_key, help, &keyval,
                                              errp);

    if (!dict || (help && *help)) {
        return NULL;
    }
    return qapi_from_qobject(type, QOBJECT(dict), keyval, errp);
}
