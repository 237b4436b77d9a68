/* SPDX-License-Identifier: MIT */
/*
 * The schema as const tables.
 *
 * scripts/qapi-gen.py turns the schema into C types and one QapiType for each
 * of them.  The walker (qapi/visit.h), introspection (qapi/introspect.c) and
 * the command dispatcher (qapi/command.h) read nothing else.
 *
 * How a C value stands in memory follows from its type's kind: scalars are
 * held in place; strings, structs, alternates, lists, `any` and `null` are
 * pointers, NULL when absent.  An optional member held in place has a flag
 * (`bool has_x`) beside it.  The branches of a union and of an alternate are
 * embedded in it.
 */
#ifndef QAPI_META_H
#define QAPI_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum QapiKind {
    /* held in place */
    QAPI_KIND_BOOL,
    QAPI_KIND_INT,          /* signed, of @size bytes */
    QAPI_KIND_UINT,         /* unsigned, of @size bytes */
    QAPI_KIND_SIZE,         /* uint64_t, suffixes accepted in key=value */
    QAPI_KIND_NUMBER,       /* double */
    QAPI_KIND_ENUM,         /* int */
    /* pointers */
    QAPI_KIND_STR,          /* char * */
    QAPI_KIND_NULL,         /* QNull * */
    QAPI_KIND_ANY,          /* QObject * */
    QAPI_KIND_STRUCT,       /* with variants: a union */
    QAPI_KIND_ALTERNATE,
    QAPI_KIND_LIST,
} QapiKind;

typedef struct QapiType QapiType;

/* NULL-terminated list of names. */
typedef const char *const *QapiFeatures;

typedef struct QapiMember {
    const char *name;
    const QapiType *type;
    uint32_t offset;            /* in the struct */
    uint32_t has_offset;        /* of has_x: see qapi_member_has_flag() */
    bool optional;
    QapiFeatures features;      /* or NULL */
} QapiMember;

/* One case of a union; values without an entry have no further members. */
typedef struct QapiVariant {
    int value;                  /* of the tag */
    const QapiType *type;       /* a struct, embedded in the union's */
} QapiVariant;

/* One branch of an alternate: what it takes if the JSON value is a @qtype. */
typedef struct QapiBranch {
    int qtype;                  /* QType */
    const QapiType *type;
} QapiBranch;

typedef struct QapiEnumValue {
    const char *name;
    QapiFeatures features;      /* or NULL */
} QapiEnumValue;

struct QapiType {
    const char *name;
    const char *json_type;      /* builtin: its name in introspection */
    QapiKind kind;
    uint32_t size;              /* of the C type; of a list: of one node */

    const QapiEnumValue *values;        /* ENUM; n_values of them */
    uint32_t n_values;

    const QapiMember *members;          /* STRUCT: n_members, base first */
    uint32_t n_members;
    const QapiMember *tag;              /* union: one of members */
    const QapiVariant *variants;        /* union: n_variants */
    uint32_t n_variants;

    const QapiBranch *branches;         /* ALTERNATE: n_branches */
    uint32_t n_branches;

    uint32_t u_offset;          /* of the embedded branch; LIST: of value */
    const QapiType *element;    /* LIST */
    QapiFeatures features;      /* or NULL */
};

typedef struct QapiCommand {
    const char *name;
    const QapiType *arg;        /* a struct; never NULL */
    const QapiType *ret;        /* never NULL: an empty struct for no value */
    bool allow_oob;
    bool allow_preconfig;
    bool coroutine;
    bool no_success_response;
    QapiFeatures features;      /* or NULL */
} QapiCommand;

typedef struct QapiEvent {
    const char *name;
    const QapiType *arg;        /* a struct; never NULL */
    QapiFeatures features;      /* or NULL */
} QapiEvent;

/* In the order of the schema; generated. */
extern const QapiCommand qapi_commands[];
extern const unsigned qapi_n_commands;
extern const QapiEvent qapi_events[];
extern const unsigned qapi_n_events;

static inline bool qapi_type_is_pointer(const QapiType *type)
{
    return type->kind >= QAPI_KIND_STR;
}

static inline bool qapi_member_has_flag(const QapiMember *member)
{
    return member->optional && !qapi_type_is_pointer(member->type);
}

#endif /* QAPI_META_H */
