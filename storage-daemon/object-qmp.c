/* SPDX-License-Identifier: MIT */
/*
 * The qom-* commands.  Main thread only.
 */
#include <string.h>
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"
#include "storage-daemon/object-int.h"
#include "util/aio.h"

/* Paths of one qom-list-get: each may have to be looked for everywhere. */
#define QOM_LIST_GET_MAX 1024

/* What every object has besides its type's properties. */
static QObject *qom_get_type(const QomObject *obj, const QomProperty *prop,
                             Error **errp)
{
    return QOBJECT(qstring_new(obj->type->name));
}

static const QomProperty qom_type_prop = {
    .name = "type", .type = "string", .get = qom_get_type,
};

static const QomProperty *qom_property(const QomObject *obj, const char *name)
{
    if (!strcmp(name, qom_type_prop.name)) {
        return &qom_type_prop;
    }
    for (const QomProperty *prop = obj->type->props; prop->name; prop++) {
        if (!strcmp(prop->name, name)) {
            return prop;
        }
    }
    return NULL;
}

static void qom_not_found(const QomObject *obj, const char *name,
                          Error **errp)
{
    error_setg(errp, "Property '%s.%s' not found", obj->type->name, name);
}

static ObjectPropertyInfo *qom_info(const char *name, const char *type)
{
    ObjectPropertyInfo *info = g_new0(ObjectPropertyInfo, 1);

    info->name = g_strdup(name);
    info->type = g_strdup(type);
    return info;
}

static ObjectPropertyInfoList **qom_info_props(ObjectPropertyInfoList **tail,
                                               const QomType *type)
{
    QAPI_LIST_APPEND(tail, qom_info(qom_type_prop.name, qom_type_prop.type));
    for (const QomProperty *prop = type->props; prop->name; prop++) {
        QAPI_LIST_APPEND(tail, qom_info(prop->name, prop->type));
    }
    return tail;
}

static char *qom_child_type(const QomObject *child)
{
    return g_strdup_printf("child<%s>", child->type->name);
}

static void qom_info_child(QomObject *child, void *opaque)
{
    ObjectPropertyInfoList ***tail = opaque;
    g_autofree char *type = qom_child_type(child);

    QAPI_LIST_APPEND(*tail, qom_info(child->name, type));
}

ObjectPropertyInfoList *coroutine_fn qmp_qom_list(const QmpQomListArg *arg,
                                                  Error **errp)
{
    ObjectPropertyInfoList *list = NULL, **tail = &list;
    QomObject *obj = qom_resolve(arg->path, errp);

    if (obj) {
        tail = qom_info_props(tail, obj->type);
        qom_foreach_child(obj, qom_info_child, &tail);
    }
    return list;
}

QObject *coroutine_fn qmp_qom_get(const QmpQomGetArg *arg, Error **errp)
{
    QomObject *obj = qom_resolve(arg->path, errp);
    const QomProperty *prop;
    QomObject *child;

    if (!obj) {
        return NULL;
    }
    prop = qom_property(obj, arg->property);
    if (prop) {
        return prop->get(obj, prop, errp);
    }
    child = qom_child(obj, arg->property);
    if (child) {
        return QOBJECT(qstring_new_take(qom_path(child)));
    }
    qom_not_found(obj, arg->property, errp);
    return NULL;
}

void coroutine_fn qmp_qom_set(const QmpQomSetArg *arg, Error **errp)
{
    QomObject *obj = qom_resolve(arg->path, errp);
    const QomProperty *prop;

    if (!obj) {
        return;
    }
    prop = qom_property(obj, arg->property);
    if (!prop && !qom_child(obj, arg->property)) {
        qom_not_found(obj, arg->property, errp);
    } else if (!prop || !prop->set) {
        error_setg(errp, "Property '%s.%s' is not writable", obj->type->name,
                   arg->property);
    } else {
        prop->set(obj, prop, arg->value, errp);
    }
}

static ObjectPropertyValue *qom_value(const char *name, const char *type,
                                      QObject *value)
{
    ObjectPropertyValue *entry = g_new0(ObjectPropertyValue, 1);

    entry->name = g_strdup(name);
    entry->type = g_strdup(type);
    entry->value = value;
    return entry;
}

static void qom_value_child(QomObject *child, void *opaque)
{
    ObjectPropertyValueList ***tail = opaque;
    g_autofree char *type = qom_child_type(child);
    QString *path = qstring_new_take(qom_path(child));

    QAPI_LIST_APPEND(*tail, qom_value(child->name, type, QOBJECT(path)));
}

static ObjectPropertiesValues *qom_values(QomObject *obj)
{
    ObjectPropertiesValues *values = g_new0(ObjectPropertiesValues, 1);
    ObjectPropertyValueList **tail = &values->properties;

    QAPI_LIST_APPEND(tail, qom_value(qom_type_prop.name, qom_type_prop.type,
                                     qom_get_type(obj, NULL, NULL)));
    for (const QomProperty *prop = obj->type->props; prop->name; prop++) {
        QAPI_LIST_APPEND(tail, qom_value(prop->name, prop->type,
                                         prop->get(obj, prop, NULL)));
    }
    qom_foreach_child(obj, qom_value_child, &tail);
    return values;
}

ObjectPropertiesValuesList *coroutine_fn
qmp_qom_list_get(const QmpQomListGetArg *arg, Error **errp)
{
    ObjectPropertiesValuesList *list = NULL, **tail = &list;
    size_t weight = 0;
    unsigned n = 0;

    for (strList *path = arg->paths; path; path = path->next) {
        QomObject *obj = qom_resolve(path->value, errp);
        ObjectPropertiesValues *values;

        if (!obj) {
            break;
        }
        if (++n > QOM_LIST_GET_MAX) {
            error_setg(errp, "More than %d paths", QOM_LIST_GET_MAX);
            break;
        }
        values = qom_values(obj);
        QAPI_LIST_APPEND(tail, values);
        if (!qapi_reply_add(&weight, &qapi_type_ObjectPropertiesValues, values,
                            errp)) {
            break;
        }
        aio_co_yield_fair();
    }
    return list;            /* also with an error: whoever called us frees it */
}

ObjectTypeInfoList *coroutine_fn
qmp_qom_list_types(const QmpQomListTypesArg *arg, Error **errp)
{
    ObjectTypeInfoList *list = NULL, **tail = &list;
    bool abstract = arg->has_abstract && arg->abstract;

    for (const QomType *type = qom_types; type->name; type++) {
        ObjectTypeInfo *info;

        if ((type->abstract && !abstract) ||
            (arg->implements && !qom_type_is_a(type, arg->implements))) {
            continue;
        }
        info = g_new0(ObjectTypeInfo, 1);
        info->name = g_strdup(type->name);
        info->has_abstract = info->abstract = type->abstract;
        info->parent = g_strdup(type->parent);
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

ObjectPropertyInfoList *coroutine_fn
qmp_qom_list_properties(const QmpQomListPropertiesArg *arg, Error **errp)
{
    ObjectPropertyInfoList *list = NULL;
    const QomType *type = qom_type_by_name(arg->typename);

    if (!type) {
        error_set_class(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                        "Class '%s' not found", arg->typename);
        return NULL;
    }
    qom_info_props(&list, type);
    return list;
}
