/* SPDX-License-Identifier: MIT */
/*
 * Identifiers of objects and chardevs.
 */
#ifndef STORAGE_DAEMON_IDENT_H
#define STORAGE_DAEMON_IDENT_H

#include "util/error.h"
#include "util/ident.h"

static inline bool ident_check(const char *id, Error **errp)
{
    bool ok = ident_wellformed(id);

    if (!ok) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        error_append_hint(errp, "Identifiers consist of letters, digits, "
                          "'-', '.', '_', starting with a letter.\n");
    }
    return ok;
}

#endif /* STORAGE_DAEMON_IDENT_H */
