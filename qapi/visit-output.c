/* SPDX-License-Identifier: MIT */
/*
 * The walker: C values to QObject, and how much that will be.
 */
#include <string.h>
#include "qapi/visit.h"

static QObject *output_slot(const QapiType *type, const void *slot);

static QObject *output_int(const QapiType *type, const void *slot)
{
    switch (type->size) {
    case 1:
        return QOBJECT(qnum_new_int(*(const int8_t *)slot));
    case 2:
        return QOBJECT(qnum_new_int(*(const int16_t *)slot));
    case 4:
        return QOBJECT(qnum_new_int(*(const int32_t *)slot));
    default:
        return QOBJECT(qnum_new_int(*(const int64_t *)slot));
    }
}

static QObject *output_uint(const QapiType *type, const void *slot)
{
    switch (type->size) {
    case 1:
        return QOBJECT(qnum_new_uint(*(const uint8_t *)slot));
    case 2:
        return QOBJECT(qnum_new_uint(*(const uint16_t *)slot));
    case 4:
        return QOBJECT(qnum_new_uint(*(const uint32_t *)slot));
    default:
        return QOBJECT(qnum_new_uint(*(const uint64_t *)slot));
    }
}

static bool is_present(const QapiMember *m, const void *value)
{
    if (!m->optional) {
        return true;
    }
    if (qapi_member_has_flag(m)) {
        return *((const bool *)((const char *)value + m->has_offset));
    }
    return *(void *const *)((const char *)value + m->offset) != NULL;
}

static void output_members(const QapiType *type, const void *value,
                           QDict *dict)
{
    const QapiType *branch = qapi_union_branch(type, value);

    for (int i = 0; i < type->n_members; i++) {
        const QapiMember *m = &type->members[i];

        if (is_present(m, value)) {
            qdict_put_obj(dict, m->name,
                          output_slot(m->type,
                                      (const char *)value + m->offset));
        }
    }
    if (branch) {
        output_members(branch, (const char *)value + type->u_offset, dict);
    }
}

static QObject *output_struct(const QapiType *type, const void *value)
{
    QDict *dict = qdict_new();

    output_members(type, value, dict);
    return QOBJECT(dict);
}

static QObject *output_alternate(const QapiType *type, const void *value)
{
    const void *u = (const char *)value + type->u_offset;

    for (int i = 0; i < type->n_branches; i++) {
        const QapiBranch *b = &type->branches[i];

        if (b->qtype != *(const QType *)value) {
            continue;
        }
        return b->type->kind == QAPI_KIND_STRUCT ? output_struct(b->type, u)
                                                 : output_slot(b->type, u);
    }
    return QOBJECT(qnull_new());
}

static QObject *output_list(const QapiType *type, const void *node)
{
    QList *list = qlist_new();

    for (; node; node = *(void *const *)node) {
        qlist_append_obj(list, output_slot(type->element,
                                           (const char *)node
                                           + type->u_offset));
    }
    return QOBJECT(list);
}

/* What is held in place at @slot, or pointed to from there. */
static QObject *output_slot(const QapiType *type, const void *slot)
{
    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return QOBJECT(qbool_new(*(const bool *)slot));
    case QAPI_KIND_INT:
        return output_int(type, slot);
    case QAPI_KIND_UINT:
    case QAPI_KIND_SIZE:
        return output_uint(type, slot);
    case QAPI_KIND_NUMBER:
        return QOBJECT(qnum_new_double(*(const double *)slot));
    case QAPI_KIND_ENUM:
        return QOBJECT(qstring_new(qapi_enum_name(type,
                                                  *(const int *)slot)));
    default:
        return qapi_to_qobject(type, *(void *const *)slot);
    }
}

/* ---- weight ---- */

/* Of any value, with the entry that holds it; text comes on top. */
#define VALUE_WEIGHT 96

static size_t weigh_qobject(const QObject *obj)
{
    const QDict *dict = qobject_to_qdict(obj);
    const QList *list = qobject_to_qlist(obj);
    const QString *str = qobject_to_qstring(obj);
    size_t weight = VALUE_WEIGHT + (str ? strlen(qstring_get(str)) : 0);

    for (size_t i = 0; dict && i < qdict_size(dict); i++) {
        weight += strlen(qdict_key_at(dict, i))
                  + weigh_qobject(qdict_value_at(dict, i));
    }
    for (size_t i = 0; list && i < qlist_size(list); i++) {
        weight += weigh_qobject(qlist_at(list, i));
    }
    return weight;
}

static size_t weigh_slot(const QapiType *type, const void *slot)
{
    return qapi_type_is_pointer(type)
           ? qapi_weigh(type, *(void *const *)slot) : VALUE_WEIGHT;
}

static size_t weigh_members(const QapiType *type, const void *value)
{
    const QapiType *branch = qapi_union_branch(type, value);
    size_t weight = 0;

    for (int i = 0; i < type->n_members; i++) {
        const QapiMember *m = &type->members[i];

        if (is_present(m, value)) {
            weight += strlen(m->name)
                      + weigh_slot(m->type, (const char *)value + m->offset);
        }
    }
    if (branch) {
        weight += weigh_members(branch, (const char *)value + type->u_offset);
    }
    return weight;
}

static size_t weigh_alternate(const QapiType *type, const void *value)
{
    const void *u = (const char *)value + type->u_offset;

    for (int i = 0; i < type->n_branches; i++) {
        const QapiBranch *b = &type->branches[i];

        if (b->qtype == *(const QType *)value) {
            return b->type->kind == QAPI_KIND_STRUCT
                   ? weigh_members(b->type, u) : weigh_slot(b->type, u);
        }
    }
    return 0;
}

static size_t weigh_list(const QapiType *type, const void *node)
{
    size_t weight = 0;

    for (; node; node = *(void *const *)node) {
        weight += weigh_slot(type->element,
                             (const char *)node + type->u_offset);
    }
    return weight;
}

size_t qapi_weigh(const QapiType *type, const void *value)
{
    if (!value) {
        return VALUE_WEIGHT;
    }
    switch (type->kind) {
    case QAPI_KIND_STR:
        return VALUE_WEIGHT + strlen(value);
    case QAPI_KIND_STRUCT:
        return VALUE_WEIGHT + weigh_members(type, value);
    case QAPI_KIND_ALTERNATE:
        return VALUE_WEIGHT + weigh_alternate(type, value);
    case QAPI_KIND_LIST:
        return VALUE_WEIGHT + weigh_list(type, value);
    default:
        return weigh_qobject(value);
    }
}

bool qapi_reply_add(size_t *weight, const QapiType *type, const void *value,
                    Error **errp)
{
    *weight += qapi_weigh(type, value);
    if (*weight > QAPI_REPLY_MAX_WEIGHT) {
        qapi_reply_too_large(errp);
        return false;
    }
    return true;
}

void qapi_reply_too_large(Error **errp)
{
    error_setg(errp, "The reply is too large");
}

/* ---- values ---- */

QObject *qapi_to_qobject(const QapiType *type, const void *value)
{
    g_assert(qapi_type_is_pointer(type));
    if (type->kind == QAPI_KIND_LIST) {
        return output_list(type, value);
    }
    if (type->kind == QAPI_KIND_STR) {
        return QOBJECT(qstring_new(value ? value : ""));
    }
    if (!value) {
        return QOBJECT(qnull_new());
    }
    switch (type->kind) {
    case QAPI_KIND_STRUCT:
        return output_struct(type, value);
    case QAPI_KIND_ALTERNATE:
        return output_alternate(type, value);
    default:
        return qobject_ref((QObject *)value);
    }
}
