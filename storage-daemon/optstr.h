/* SPDX-License-Identifier: MIT */
/*
 * Option strings in the old syntax, "VALUE,key=value,flag,noflag": what
 * --chardev and --trace take.  (All other options are key=value by the schema,
 * qapi/keyval.h.)  ",," stands for a comma.
 */
#ifndef STORAGE_DAEMON_OPTSTR_H
#define STORAGE_DAEMON_OPTSTR_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "util/error.h"

typedef enum OptStrType {
    OPTSTR_STR,
    OPTSTR_BOOL,
    OPTSTR_NUM,
} OptStrType;

typedef struct OptStrDesc {
    const char *name;           /* NULL ends a table */
    OptStrType type;
} OptStrDesc;

typedef struct OptStr OptStr;

/*
 * Parse @text; its first item is the value of @implied unless it has a '='.
 * Names not in @descs and values of the wrong type are errors.  *@help (NULL:
 * no help) is set if "help" or "?" is among the items; nothing is checked then.
 */
OptStr *optstr_parse(const char *text, const char *implied,
                     const OptStrDesc *descs, bool *help, Error **errp);
void optstr_free(OptStr *opts);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(OptStr, optstr_free)

/* The last value given, or NULL, @def. */
const char *optstr_get(const OptStr *opts, const char *name);
bool optstr_get_bool(const OptStr *opts, const char *name, bool def);
int64_t optstr_get_num(const OptStr *opts, const char *name, int64_t def);

#endif /* STORAGE_DAEMON_OPTSTR_H */
