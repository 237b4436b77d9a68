/* SPDX-License-Identifier: MIT */
/*
 * Objects and their tree, as QMP and --object show them.
 *
 * The tree is two levels deep: containers under the root, objects in the
 * containers.  What an object is made of belongs to its module (a chardev, an
 * IOThread); the tree knows its type and properties from tables.
 * Main thread only.
 */
#ifndef STORAGE_DAEMON_OBJECT_H
#define STORAGE_DAEMON_OBJECT_H

#include "qapi/qapi-types.h"
#include "qapi/qobject.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct QomObject QomObject;

/* ---- the tree ---- */

/* The container "/objects" or "/chardevs". */
QomObject *qom_container(const char *path);

/*
 * A new object called @name in @container; "attempt to add duplicate property
 * ..." if there is one already.
 */
QomObject *qom_add_child(QomObject *container, const char *name,
                         const char *type, void *opaque, Error **errp);
void qom_remove_child(QomObject *obj);

QomObject *qom_child(QomObject *container, const char *name);   /* or NULL */

/* For all children, if any; @fn may remove the object it is called with. */
void qom_foreach_child(QomObject *container,
                       void (*fn)(QomObject *obj, void *opaque), void *opaque);

void *qom_opaque(const QomObject *obj);
void qom_set_opaque(QomObject *obj, void *opaque);
const char *qom_name(const QomObject *obj);

/* Free the tree; the containers are empty. */
void qom_cleanup(void);

/* ---- user-creatable objects ---- */

bool coroutine_fn object_co_add(const ObjectOptions *options, Error **errp);
bool coroutine_fn object_co_del(const char *id, Error **errp);

/*
 * Make one as the option --object says.  False with an error, or with *@help
 * set if help was asked for (and has been printed).
 */
bool coroutine_fn object_co_add_option(const char *optarg, bool *help,
                                       Error **errp);

/* Delete all (at exit); nobody uses them any more. */
void coroutine_fn object_co_close_all(void);

#endif /* STORAGE_DAEMON_OBJECT_H */
