/* SPDX-License-Identifier: MIT */
/*
 * The walker: QObject to C values.
 *
 * Whatever is reached has its place in the value that is being built before it
 * is filled, so that freeing that value after an error frees everything.
 */
#include <errno.h>
#include <math.h>
#include <string.h>
#include "qapi/visit.h"

/* Deepest nesting; the walk and what follows it are recursive. */
#define QAPI_MAX_DEPTH 100

/* Where the walk is: a chain up to the top, for error messages. */
typedef struct InputPath InputPath;
struct InputPath {
    const InputPath *parent;
    const char *name;           /* of the member; NULL: a list's element */
    size_t index;               /* of the element */
    bool keyval;                /* scalars are strings */
    unsigned depth;
};

static bool input_slot(const InputPath *path, const QapiType *type,
                       const QObject *obj, void *slot, Error **errp);

static void append_path(GString *out, const InputPath *path)
{
    if (path->parent) {
        append_path(out, path->parent);
    }
    if (!path->name) {
        if (path->parent) {
            g_string_append_printf(out, path->keyval ? ".%zu" : "[%zu]",
                                   path->index);
        }
        return;
    }
    if (out->len) {
        g_string_append_c(out, '.');
    }
    g_string_append(out, path->name);
}

/* The full name of what @path leads to; "null" if it has none. */
static char *path_name(const InputPath *path)
{
    GString *out = g_string_new(NULL);

    append_path(out, path);
    if (!path->name && !path->parent) {
        g_string_append(out, "null");
    }
    return g_string_free(out, FALSE);
}

/*
 * The reference names a member without what it is in where its value, rather
 * than its type, is wrong.
 */
static char *path_local_name(const InputPath *path)
{
    return path->name ? g_strdup(path->name) : path_name(path);
}

static bool type_error(const InputPath *path, const char *expected,
                       Error **errp)
{
    g_autofree char *name = path_name(path);

    error_setg(errp, "Invalid parameter type for '%s', expected: %s", name,
               expected);
    return false;
}

static bool value_error(const InputPath *path, const char *expected,
                        Error **errp)
{
    g_autofree char *name = path_name(path);

    error_setg(errp, "Parameter '%s' expects %s", name, expected);
    return false;
}

/* ---- scalars ---- */

/* The text of a key=value scalar; NULL with an error. */
static const char *keyval_text(const InputPath *path, const QObject *obj,
                               Error **errp)
{
    QString *str = qobject_to_qstring(obj);
    g_autofree char *name = NULL;

    if (str) {
        return qstring_get(str);
    }
    name = path_name(path);
    error_setg(errp, "Parameters '%s.*' are unexpected", name);
    return NULL;
}

static bool input_bool(const InputPath *path, const QObject *obj, bool *value,
                       Error **errp)
{
    static const char *const on[] = { "on", "yes", "true", "y", NULL };
    static const char *const off[] = { "off", "no", "false", "n", NULL };
    QBool *qbool = qobject_to_qbool(obj);
    const char *text;

    if (!path->keyval) {
        if (!qbool) {
            return type_error(path, "boolean", errp);
        }
        *value = qbool_get(qbool);
        return true;
    }
    text = keyval_text(path, obj, errp);
    if (!text) {
        return false;
    }
    *value = g_strv_contains(on, text);
    if (!*value && !g_strv_contains(off, text)) {
        return value_error(path, "'on' or 'off'", errp);
    }
    return true;
}

/* @text is a whole number, decimal, octal (0...) or hexadecimal (0x...). */
static bool parse_integer(const char *text, bool is_signed, int64_t *i64,
                          uint64_t *u64)
{
    char *end;

    errno = 0;
    if (is_signed) {
        *i64 = strtoll(text, &end, 0);
    } else {
        *u64 = strtoull(text, &end, 0);
    }
    return !errno && end != text && !*end;
}

static bool range_error(const InputPath *path, const QapiType *type,
                        Error **errp)
{
    g_autofree char *name = path_local_name(path);

    error_setg(errp, "Parameter '%s' expects %s%u_t", name,
               type->kind == QAPI_KIND_INT ? "int" : "uint", type->size * 8);
    return false;
}

static bool input_int(const InputPath *path, const QapiType *type,
                      const QObject *obj, void *slot, Error **errp)
{
    QNum *num = qobject_to_qnum(obj);
    int64_t value, max = INT64_MAX >> (64 - 8 * type->size);
    const char *text;

    if (path->keyval) {
        text = keyval_text(path, obj, errp);
        if (!text) {
            return false;
        }
        if (!parse_integer(text, true, &value, NULL)) {
            return value_error(path, "integer", errp);
        }
    } else if (!num || !qnum_get_int(num, &value)) {
        return type_error(path, "integer", errp);
    }
    if (value > max || value < -max - 1) {
        return range_error(path, type, errp);
    }
    switch (type->size) {
    case 1:
        *(int8_t *)slot = value;
        break;
    case 2:
        *(int16_t *)slot = value;
        break;
    case 4:
        *(int32_t *)slot = value;
        break;
    default:
        *(int64_t *)slot = value;
    }
    return true;
}

static bool input_uint(const InputPath *path, const QapiType *type,
                       const QObject *obj, void *slot, Error **errp)
{
    QNum *num = qobject_to_qnum(obj);
    uint64_t value, max = UINT64_MAX >> (64 - 8 * type->size);
    const char *text;
    int64_t i64;

    if (path->keyval) {
        text = keyval_text(path, obj, errp);
        if (!text) {
            return false;
        }
        if (!parse_integer(text, false, NULL, &value)) {
            return value_error(path, "integer", errp);
        }
    } else if (num && qnum_get_uint(num, &value)) {
        /* as it is */
    } else if (num && qnum_get_int(num, &i64)) {
        /* Negative numbers wrap around, as old clients expect of uint64. */
        value = i64;
    } else {
        return value_error(path, "uint64", errp);
    }
    if (value > max) {
        return range_error(path, type, errp);
    }
    switch (type->size) {
    case 1:
        *(uint8_t *)slot = value;
        break;
    case 2:
        *(uint16_t *)slot = value;
        break;
    case 4:
        *(uint32_t *)slot = value;
        break;
    default:
        *(uint64_t *)slot = value;
    }
    return true;
}

/*
 * A number of bytes, possibly with a fraction and a suffix (B, K, M, G, T, P,
 * E: powers of 1024).
 */
static bool parse_size(const char *text, uint64_t *size)
{
    static const char suffixes[] = "BKMGTPE";
    const char *suffix;
    uint64_t unit = 1;
    double fraction = 0;
    char *end;

    if (!g_ascii_isdigit(text[0])) {
        return false;
    }
    errno = 0;
    *size = strtoull(text, &end, text[0] == '0' && (text[1] | 32) == 'x' ? 16
                                                                         : 10);
    if (errno || end == text) {
        return false;
    }
    if (*end == '.') {
        fraction = g_ascii_strtod(end, &end);
    }
    if (*end) {
        suffix = strchr(suffixes, g_ascii_toupper(*end));
        if (!suffix || end[1]) {
            return false;
        }
        unit <<= 10 * (suffix - suffixes);
    }
    if (*size > UINT64_MAX / unit || (fraction > 0 && unit == 1)) {
        return false;
    }
    *size *= unit;
    return !__builtin_add_overflow(*size, (uint64_t)(fraction * unit), size);
}

static bool input_size(const InputPath *path, const QapiType *type,
                       const QObject *obj, uint64_t *size, Error **errp)
{
    const char *text;

    if (!path->keyval) {
        return input_uint(path, type, obj, size, errp);
    }
    text = keyval_text(path, obj, errp);
    if (!text) {
        return false;
    }
    return parse_size(text, size) || value_error(path, "size", errp);
}

static bool input_number(const InputPath *path, const QObject *obj,
                         double *value, Error **errp)
{
    QNum *num = qobject_to_qnum(obj);
    const char *text;
    char *end;

    if (!path->keyval) {
        if (!num) {
            return type_error(path, "number", errp);
        }
        *value = qnum_get_double(num);
        return true;
    }
    text = keyval_text(path, obj, errp);
    if (!text) {
        return false;
    }
    *value = g_ascii_strtod(text, &end);
    if (end == text || *end || !isfinite(*value)) {
        return value_error(path, "number", errp);
    }
    return true;
}

/* The text of a string or enum; NULL with an error. */
static const char *input_text(const InputPath *path, const QObject *obj,
                              Error **errp)
{
    QString *str = qobject_to_qstring(obj);

    if (path->keyval) {
        return keyval_text(path, obj, errp);
    }
    if (!str) {
        type_error(path, "string", errp);
        return NULL;
    }
    return qstring_get(str);
}

static bool input_enum(const InputPath *path, const QapiType *type,
                       const QObject *obj, int *value, Error **errp)
{
    const char *text = input_text(path, obj, errp);
    g_autofree char *name = NULL;
    int parsed;

    if (!text) {
        return false;
    }
    name = path_local_name(path);
    parsed = qapi_enum_parse(type, name, text, errp);
    if (parsed < 0) {
        return false;
    }
    *value = parsed;
    return true;
}

/* ---- structs ---- */

/* Whether @value's type, with the branches that its tags select, has @name. */
static bool has_member(const QapiType *type, const void *value,
                       const char *name)
{
    const QapiType *branch;

    for (int i = 0; i < type->n_members; i++) {
        if (g_str_equal(type->members[i].name, name)) {
            return true;
        }
    }
    branch = qapi_union_branch(type, value);
    return branch && has_member(branch, (const char *)value + type->u_offset,
                                name);
}

static bool input_members(const InputPath *path, const QapiType *type,
                          const QDict *dict, void *value, Error **errp)
{
    const QapiType *branch;

    for (int i = 0; i < type->n_members; i++) {
        const QapiMember *m = &type->members[i];
        const QObject *obj = qdict_get(dict, m->name);
        InputPath child = { path, m->name, 0, path->keyval, path->depth + 1 };

        if (!obj && m->optional) {
            continue;
        }
        if (!obj) {
            g_autofree char *name = path_name(&child);

            error_setg(errp, "Parameter '%s' is missing", name);
            return false;
        }
        if (!input_slot(&child, m->type, obj, (char *)value + m->offset,
                        errp)) {
            return false;
        }
        if (qapi_member_has_flag(m)) {
            *((bool *)((char *)value + m->has_offset)) = true;
        }
    }
    branch = qapi_union_branch(type, value);
    return !branch || input_members(path, branch, dict,
                                    (char *)value + type->u_offset, errp);
}

/* Fill the struct at @value. */
static bool input_struct(const InputPath *path, const QapiType *type,
                         const QObject *obj, void *value, Error **errp)
{
    const QDict *dict = qobject_to_qdict(obj);

    if (!dict) {
        return type_error(path, "object", errp);
    }
    if (!input_members(path, type, dict, value, errp)) {
        return false;
    }
    for (size_t i = 0; i < qdict_size(dict); i++) {
        const char *key = qdict_key_at(dict, i);

        if (!has_member(type, value, key)) {
            InputPath child = { path, key, 0, path->keyval, path->depth + 1 };
            g_autofree char *name = path_name(&child);

            error_setg(errp, "Parameter '%s' is unexpected", name);
            return false;
        }
    }
    return true;
}

/* ---- alternates and lists ---- */

static const QapiBranch *find_branch(const QapiType *type, QType qtype)
{
    for (int i = 0; i < type->n_branches; i++) {
        if (type->branches[i].qtype == qtype) {
            return &type->branches[i];
        }
    }
    return NULL;
}

static bool input_alternate(const InputPath *path, const QapiType *type,
                            const QObject *obj, void *value, Error **errp)
{
    const QapiBranch *branch = find_branch(type, qobject_type(obj));
    void *u = (char *)value + type->u_offset;

    if (!branch && path->keyval && qobject_type(obj) == QTYPE_QSTRING) {
        branch = find_branch(type, QTYPE_QBOOL);
        branch = branch ? branch : find_branch(type, QTYPE_QNUM);
    }
    if (!branch) {
        return type_error(path, type->name, errp);
    }
    *(QType *)value = branch->qtype;
    if (branch->type->kind == QAPI_KIND_STRUCT) {
        return input_struct(path, branch->type, obj, u, errp);
    }
    return input_slot(path, branch->type, obj, u, errp);
}

static bool input_list(const InputPath *path, const QapiType *type,
                       const QObject *obj, void **slot, Error **errp)
{
    const QList *list = qobject_to_qlist(obj);

    if (!list) {
        return type_error(path, "array", errp);
    }
    for (size_t i = 0; i < qlist_size(list); i++) {
        InputPath child = { path, NULL, i, path->keyval, path->depth + 1 };
        void *node = g_malloc0(type->size);

        *slot = node;
        slot = node;
        if (!input_slot(&child, type->element, qlist_at(list, i),
                        (char *)node + type->u_offset, errp)) {
            return false;
        }
    }
    return true;
}

/* Fill the place of a value, which for pointer types is the pointer. */
static bool input_slot(const InputPath *path, const QapiType *type,
                       const QObject *obj, void *slot, Error **errp)
{
    const char *text;

    switch (type->kind) {
    case QAPI_KIND_BOOL:
        return input_bool(path, obj, slot, errp);
    case QAPI_KIND_INT:
        return input_int(path, type, obj, slot, errp);
    case QAPI_KIND_UINT:
        return input_uint(path, type, obj, slot, errp);
    case QAPI_KIND_SIZE:
        return input_size(path, type, obj, slot, errp);
    case QAPI_KIND_NUMBER:
        return input_number(path, obj, slot, errp);
    case QAPI_KIND_ENUM:
        return input_enum(path, type, obj, slot, errp);
    case QAPI_KIND_STR:
        text = input_text(path, obj, errp);
        *(char **)slot = g_strdup(text);
        return text != NULL;
    case QAPI_KIND_NULL:
        if (qobject_type(obj) != QTYPE_QNULL) {
            return type_error(path, "null", errp);
        }
        /* fall through */
    case QAPI_KIND_ANY:
        *(QObject **)slot = qobject_ref((QObject *)obj);
        return true;
    default:
        break;
    }
    if (path->depth > QAPI_MAX_DEPTH) {
        g_autofree char *name = path_local_name(path);

        error_setg(errp, "Parameter '%s' is nested too deeply", name);
        return false;
    }
    if (type->kind == QAPI_KIND_LIST) {
        return input_list(path, type, obj, slot, errp);
    }
    *(void **)slot = g_malloc0(type->size);
    if (type->kind == QAPI_KIND_ALTERNATE) {
        return input_alternate(path, type, obj, *(void **)slot, errp);
    }
    return input_struct(path, type, obj, *(void **)slot, errp);
}

void *qapi_from_qobject_named(const QapiType *type, const char *name,
                              const QObject *obj, bool keyval, Error **errp)
{
    InputPath path = { NULL, name, 0, keyval, 0 };
    void *value = NULL;

    g_assert(qapi_type_is_pointer(type));
    if (!input_slot(&path, type, obj, &value, errp)) {
        qapi_free(type, value);
        return NULL;
    }
    return value;
}

void *qapi_from_qobject(const QapiType *type, const QObject *obj, bool keyval,
                        Error **errp)
{
    return qapi_from_qobject_named(type, NULL, obj, keyval, errp);
}

bool qapi_scalar_from_qobject(const QapiType *type, const char *name,
                              const QObject *obj, bool keyval, void *value,
                              Error **errp)
{
    InputPath path = { NULL, name, 0, keyval, 0 };

    g_assert(!qapi_type_is_pointer(type));
    return input_slot(&path, type, obj, value, errp);
}
