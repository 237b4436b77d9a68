/* SPDX-License-Identifier: MIT */
/*
 * key=value,... option strings to QDict.
 *
 * "a.b=x,a.c=y" nests dictionaries, "a.0=x,a.1=y" makes a list, ",," stands
 * for a comma in a value.  All scalars come out as strings; the walker
 * (qapi/visit.h) turns them into the type that the schema says.
 */
#ifndef QAPI_KEYVAL_H
#define QAPI_KEYVAL_H

#include "qapi/qobject.h"
#include "util/error.h"

/*
 * Parse @params.  If its first item has no '=', it is the value of
 * @implied_key (unless NULL).  An item "help" or "?" without value sets *@help
 * and is left out; it is an error if @help is NULL.
 * Returns NULL with an error, and *@help false.
 */
QDict *keyval_parse(const char *params, const char *implied_key, bool *help,
                    Error **errp);

#endif /* QAPI_KEYVAL_H */
