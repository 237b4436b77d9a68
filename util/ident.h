/* SPDX-License-Identifier: MIT */
/*
 * The rule for names that users give to things.
 */
#ifndef UTIL_IDENT_H
#define UTIL_IDENT_H

#include <stdbool.h>
#include <string.h>
#include <glib.h>

/* A letter, then letters, digits, '-', '.', '_'. */
static inline bool ident_wellformed(const char *id)
{
    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    for (const char *p = id + 1; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p)) {
            return false;
        }
    }
    return true;
}

#endif /* UTIL_IDENT_H */
