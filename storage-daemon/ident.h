/* SPDX-License-Identifier: MIT */
/*
 * Identifiers of objects and chardevs.
 */
#ifndef STORAGE_DAEMON_IDENT_H
#define STORAGE_DAEMON_IDENT_H

#include <stdbool.h>
#include <string.h>
#include <glib.h>
#include "util/error.h"

/* A letter, then letters, digits, '-', '.', '_'. */
static inline bool ident_check(const char *id, Error **errp)
{
    bool ok = g_ascii_isalpha(id[0]);

    for (const char *p = id; ok && *p; p++) {
        ok = g_ascii_isalnum(*p) || strchr("-._", *p);
    }
    if (!ok) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        error_append_hint(errp, "Identifiers consist of letters, digits, "
                          "'-', '.', '_', starting with a letter.\n");
    }
    return ok;
}

#endif /* STORAGE_DAEMON_IDENT_H */
