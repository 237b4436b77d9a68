/* SPDX-License-Identifier: MIT */
/*
 * Object types as tables.  Main thread only.
 */
#ifndef STORAGE_DAEMON_OBJECT_INT_H
#define STORAGE_DAEMON_OBJECT_INT_H

#include "storage-daemon/object.h"

typedef struct QomProperty QomProperty;
struct QomProperty {
    const char *name;
    const char *type;
    size_t offset;                      /* for accessors that share code */

    /* The value, or NULL with an error. */
    QObject *(*get)(const QomObject *obj, const QomProperty *prop,
                    Error **errp);
    /* NULL: not writable. */
    bool (*set)(QomObject *obj, const QomProperty *prop, const QObject *value,
                Error **errp);
};

typedef struct QomType {
    const char *name;
    const char *parent;                 /* NULL for "object" */
    bool abstract;

    /* Own and inherited ones, without "type"; ends with a NULL name. */
    const QomProperty *props;

    /* User-creatable ones; co_add leaves obj->opaque set. */
    ObjectType kind;
    bool coroutine_fn (*co_add)(QomObject *obj, const ObjectOptions *options,
                                Error **errp);
    bool (*in_use)(const QomObject *obj);
    void coroutine_fn (*co_del)(QomObject *obj);
} QomType;

struct QomObject {
    const QomType *type;
    char *name;                         /* NULL: the root */
    QomObject *parent;
    GHashTable *children;               /* containers: name -> object */
    void *opaque;
};

/* All types; ends with a NULL name. */
extern const QomType qom_types[];
const QomType *qom_type_by_name(const char *name);      /* or NULL */
bool qom_type_is_a(const QomType *type, const char *ancestor);
bool qom_type_is_user_creatable(const QomType *type);

QomObject *qom_root(void);

/*
 * An absolute path, or one that fits at one place in the tree only;
 * "Device 'PATH' not found", "Path 'PATH' is ambiguous".
 */
QomObject *qom_resolve(const char *path, Error **errp);
char *qom_path(const QomObject *obj);

#endif /* STORAGE_DAEMON_OBJECT_INT_H */
