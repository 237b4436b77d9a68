/* SPDX-License-Identifier: MIT */
/*
 * The tree of objects; making and deleting them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/secret.h"
#include "qapi/qapi-commands.h"
#include "storage-daemon/ident.h"
#include "storage-daemon/object-int.h"
#include "util/trace.h"

static QomObject *qom_root_object;

static QomObject *qom_new(QomObject *parent, const char *name,
                          const QomType *type)
{
    QomObject *obj = g_new0(QomObject, 1);

    obj->type = type;
    obj->name = g_strdup(name);
    obj->parent = parent;
    if (!strcmp(type->name, "container")) {
        obj->children = g_hash_table_new(g_str_hash, g_str_equal);
    }
    if (parent) {
        g_hash_table_insert(parent->children, obj->name, obj);
    }
    return obj;
}

static void qom_free(QomObject *obj)
{
    if (obj->children) {
        g_hash_table_unref(obj->children);
    }
    g_free(obj->name);
    g_free(obj);
}

static bool qom_object_exists(const char *id)
{
    return qom_child(qom_container("/objects"), id) != NULL;
}

QomObject *qom_root(void)
{
    if (!qom_root_object) {
        const QomType *container = qom_type_by_name("container");

        qom_root_object = qom_new(NULL, NULL, container);
        qom_new(qom_root_object, "chardevs", container);
        qom_new(qom_root_object, "objects", container);
        secret_set_object_exists(qom_object_exists);
    }
    return qom_root_object;
}

QomObject *qom_container(const char *path)
{
    return qom_child(qom_root(), path + 1);
}

QomObject *qom_child(QomObject *container, const char *name)
{
    return container->children
        ? g_hash_table_lookup(container->children, name) : NULL;
}

QomObject *qom_add_child(QomObject *container, const char *name,
                         const char *type, void *opaque, Error **errp)
{
    QomObject *obj;

    if (!strcmp(name, "type") || qom_child(container, name)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object "
                   "(type '%s')", name, container->type->name);
        return NULL;
    }
    obj = qom_new(container, name, qom_type_by_name(type));
    obj->opaque = opaque;
    return obj;
}

void qom_remove_child(QomObject *obj)
{
    g_hash_table_remove(obj->parent->children, obj->name);
    qom_free(obj);
}

void qom_foreach_child(QomObject *container,
                       void (*fn)(QomObject *obj, void *opaque), void *opaque)
{
    g_autoptr(GList) list = container->children
        ? g_hash_table_get_values(container->children) : NULL;

    for (GList *l = list; l; l = l->next) {
        fn(l->data, opaque);
    }
}

void *qom_opaque(const QomObject *obj)
{
    return obj->opaque;
}

void qom_set_opaque(QomObject *obj, void *opaque)
{
    obj->opaque = opaque;
}

const char *qom_name(const QomObject *obj)
{
    return obj->name;
}

void qom_cleanup(void)
{
    if (qom_root_object) {
        qom_remove_child(qom_container("/chardevs"));
        qom_remove_child(qom_container("/objects"));
        qom_free(qom_root_object);
        qom_root_object = NULL;
    }
}

/* ---- paths ---- */

char *qom_path(const QomObject *obj)
{
    g_autofree char *parent = NULL;

    if (!obj->parent) {
        return g_strdup("/");
    }
    parent = qom_path(obj->parent);
    return g_strdup_printf("%s/%s", obj->parent->parent ? parent : "",
                           obj->name);
}

static QomObject *qom_walk(QomObject *obj, char **parts)
{
    for (; obj && *parts; parts++) {
        if (**parts) {
            obj = qom_child(obj, *parts);
        }
    }
    return obj;
}

/* How often @parts fits below @obj; *@found is the last fit. */
static unsigned qom_search(QomObject *obj, char **parts, QomObject **found)
{
    QomObject *fit = qom_walk(obj, parts);
    unsigned n = 0;

    if (fit) {
        *found = fit;
        n++;
    }
    if (obj->children) {
        GHashTableIter iter;
        gpointer child;

        g_hash_table_iter_init(&iter, obj->children);
        while (g_hash_table_iter_next(&iter, NULL, &child)) {
            n += qom_search(child, parts, found);
        }
    }
    return n;
}

QomObject *qom_resolve(const char *path, Error **errp)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    QomObject *obj = NULL;

    if (path[0] == '/') {
        obj = qom_walk(qom_root(), parts);
    } else if (qom_search(qom_root(), parts, &obj) > 1) {
        error_setg(errp, "Path '%s' is ambiguous", path);
        return NULL;
    }
    if (!obj) {
        error_set_class(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                        "Device '%s' not found", path);
    }
    return obj;
}

/* ---- user-creatable objects ---- */

static const QomType *object_type(ObjectType kind)
{
    return qom_type_by_name(ObjectType_str(kind));
}

bool coroutine_fn object_co_add(const ObjectOptions *options, Error **errp)
{
    const QomType *type = object_type(options->qom_type);
    QomObject *obj;

    if (!ident_check(options->id, errp)) {
        return false;
    }
    obj = qom_add_child(qom_container("/objects"), options->id, type->name,
                        NULL, errp);
    if (!obj) {
        return false;
    }
    if (!type->co_add(obj, options, errp)) {
        qom_remove_child(obj);
        return false;
    }
    trace(object_add, "type=%s id=%s", type->name, options->id);
    return true;
}

bool coroutine_fn object_co_del(const char *id, Error **errp)
{
    QomObject *obj = qom_child(qom_container("/objects"), id);

    if (!obj) {
        error_setg(errp, "object '%s' not found", id);
        return false;
    }
    if (obj->type->in_use(obj)) {
        error_setg(errp, "object '%s' is in use, can not be deleted", id);
        return false;
    }
    trace(object_del, "type=%s id=%s", obj->type->name, id);
    obj->type->co_del(obj);
    qom_remove_child(obj);
    return true;
}

static void object_close_one(QomObject *obj, void *opaque)
{
    obj->type->co_del(obj);
    qom_remove_child(obj);
}

void coroutine_fn object_co_close_all(void)
{
    qom_foreach_child(qom_container("/objects"), object_close_one, NULL);
}

void coroutine_fn qmp_object_add(const ObjectOptions *arg, Error **errp)
{
    object_co_add(arg, errp);
}

void coroutine_fn qmp_object_del(const QmpObjectDelArg *arg, Error **errp)
{
    object_co_del(arg->id, errp);
}

/* ---- the option ---- */

static int object_compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* @lines sorted, each indented; they are freed. */
static void object_print_sorted(GPtrArray *lines)
{
    g_ptr_array_sort(lines, object_compare_strings);
    for (unsigned i = 0; i < lines->len; i++) {
        printf("  %s\n", (char *)lines->pdata[i]);
    }
    g_ptr_array_unref(lines);
}

static void object_print_types(void)
{
    GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);

    for (const QomType *type = qom_types; type->name; type++) {
        if (qom_type_is_user_creatable(type)) {
            g_ptr_array_add(lines, g_strdup(type->name));
        }
    }
    printf("List of user creatable objects:\n");
    object_print_sorted(lines);
}

static void object_print_help(const char *name)
{
    const QomType *type = name ? qom_type_by_name(name) : NULL;
    GPtrArray *lines;

    if (!type || !qom_type_is_user_creatable(type)) {
        object_print_types();
        return;
    }
    lines = g_ptr_array_new_with_free_func(g_free);
    for (const QomProperty *prop = type->props; prop->name; prop++) {
        g_ptr_array_add(lines, g_strdup_printf("%s=<%s>", prop->name,
                                               prop->type));
    }
    printf("%s options:\n", type->name);
    object_print_sorted(lines);
}

bool coroutine_fn object_co_add_option(const char *optarg, bool *help,
                                       Error **errp)
{
    g_autoptr(QDict) dict = NULL;
    g_autoptr(ObjectOptions) options = NULL;
    bool keyval;

    dict = qapi_parse_option(optarg, "qom-type", help, &keyval, errp);
    if (*help) {
        object_print_help(dict ? qdict_get_str(dict, "qom-type") : NULL);
        return false;
    }
    if (!dict) {
        return false;
    }
    options = qapi_from_qobject(&qapi_type_ObjectOptions, QOBJECT(dict),
                                keyval, errp);
    return options && object_co_add(options, errp);
}
