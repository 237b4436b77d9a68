/* SPDX-License-Identifier: MIT */
/*
 * JSON text to QObject and back.
 *
 * The reader is incremental: it takes whatever bytes have arrived and hands
 * out each complete value, or an error, as soon as it is known.  It accepts
 * single-quoted strings (as QMP does), keeps integers of 64 bits exactly, and
 * limits nesting and size.  After an error it goes on with what follows, so
 * that a session survives garbage.  A parser belongs to one thread at a time.
 */
#ifndef QAPI_JSON_H
#define QAPI_JSON_H

#include "qapi/qobject.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct JSONParser JSONParser;

/*
 * Called for each value (@err is NULL) or error (@value is NULL); takes over
 * either.  Must not free the parser or feed it.
 */
typedef void JSONEmit(void *opaque, QObject *value, Error *err);

JSONParser *json_parser_new(JSONEmit *emit, void *opaque);

/* The next @len bytes of input, in any portions. */
void json_parser_feed(JSONParser *parser, const char *buf, size_t len);

/* The input ends here: an incomplete value is an error. */
void json_parser_flush(JSONParser *parser);
void json_parser_free(JSONParser *parser);              /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JSONParser, json_parser_free)

/* The one value that @text holds; NULL with an error otherwise. */
QObject *qobject_from_json(const char *text, Error **errp);

/*
 * @obj as JSON: `{"a": 1, "b": [1, 2]}`, or spread over lines and indented
 * by four spaces a level (32 levels at most) if @pretty.  Pure ASCII, no
 * newline at the end.
 */
char *qobject_to_json(const QObject *obj);
char *qobject_to_json_pretty(const QObject *obj, bool pretty);

/*
 * Append @obj to @out in the same way; @newline: what ends lines, NULL for a
 * single one.  False, and @out as before, if @out would get longer than @max
 * bytes.
 */
bool qobject_append_json(GString *out, const QObject *obj, const char *newline,
                         size_t max);

/* The same, letting others have their turns: nobody changes @obj meanwhile. */
bool coroutine_fn qobject_co_append_json(GString *out, const QObject *obj,
                                         const char *newline, size_t max);

#endif /* QAPI_JSON_H */
