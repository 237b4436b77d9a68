/* SPDX-License-Identifier: MIT */
/*
 * Values to JSON text.
 *
 * The walk keeps its own stack, so that nesting costs no C stack.  The text
 * is ASCII: other characters and control characters are escaped, and what is
 * no valid UTF-8 becomes U+FFFD.  Its length is linear in the values': deep
 * nesting does not indent any further.
 */
#include <math.h>
#include "qapi/json.h"
#include "qapi/json-int.h"
#include "util/aio.h"

#define JSON_MAX_INDENT 32

typedef struct JSONWriter {
    GString *out;
    const char *newline;        /* NULL: all on one line */
    size_t max;
    bool co;                    /* in a coroutine: others have their turns */
    unsigned n_steps;
} JSONWriter;

/* Steps between two looks at the clock. */
#define JSON_STEPS 256

typedef struct JSONLevel {
    const QObject *container;
    size_t index;               /* of the next entry */
} JSONLevel;

static void writer_step(JSONWriter *w)
{
    if (w->co && ++w->n_steps % JSON_STEPS == 0) {
        aio_co_yield_fair();
    }
}

/* A 16-bit unit as an escape; all of a string may be such. */
static void append_escape(GString *out, unsigned unit)
{
    static const char hex[] = "0123456789ABCDEF";
    const char text[] = {
        '\\', 'u', hex[unit >> 12 & 15], hex[unit >> 8 & 15],
        hex[unit >> 4 & 15], hex[unit & 15],
    };

    g_string_append_len(out, text, sizeof(text));
}

static void append_codepoint(GString *out, int cp)
{
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *p;

    if (cp > 0xffff) {
        append_escape(out, 0xd800 + ((cp - 0x10000) >> 10));
        append_escape(out, 0xdc00 + ((cp - 0x10000) & 0x3ff));
    } else if (cp > 0 && cp < 0x80 && (p = strchr(special, cp))) {
        g_string_append_c(out, '\\');
        g_string_append_c(out, letter[p - special]);
    } else if (cp >= 0x20 && cp < 0x7f) {
        g_string_append_c(out, cp);
    } else {
        append_escape(out, cp);
    }
}

/* Longest run of characters that are copied at once. */
#define JSON_RUN 256

/* What is written as it is. */
static bool is_plain(char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* All of it, or as much as fits. */
static void append_string(JSONWriter *w, const char *str)
{
    const char *end = str + strlen(str);

    g_string_append_c(w->out, '"');
    while (str < end && w->out->len <= w->max) {
        const char *run = str, *run_end = run + MIN(end - run, JSON_RUN);
        int cp;

        while (str < run_end && is_plain(*str)) {
            str++;
        }
        if (str > run) {
            g_string_append_len(w->out, run, str - run);
        } else {
            cp = json_utf8_decode(str, end - str, &str);
            append_codepoint(w->out, cp < 0 ? 0xfffd : cp);
        }
        writer_step(w);
    }
    g_string_append_c(w->out, '"');
}

static void append_number(GString *out, const QNum *num)
{
    double value = qnum_get_double(num);
    char buf[G_ASCII_DTOSTR_BUF_SIZE];
    uint64_t u64;
    int64_t i64;

    if (qnum_get_int(num, &i64)) {
        g_string_append_printf(out, "%" G_GINT64_FORMAT, i64);
    } else if (qnum_get_uint(num, &u64)) {
        g_string_append_printf(out, "%" G_GUINT64_FORMAT, u64);
    } else if (isinf(value)) {
        g_string_append(out, value < 0 ? "-1e+999" : "1e+999");
    } else if (isnan(value)) {
        g_string_append(out, "null");
    } else {
        g_string_append(out, g_ascii_formatd(buf, sizeof(buf), "%.17g",
                                             value));
    }
}

/* A scalar, or the opening bracket of a container. */
static void append_begin(JSONWriter *w, const QObject *obj)
{
    GString *out = w->out;

    switch (qobject_type(obj)) {
    case QTYPE_QNUM:
        append_number(out, qobject_to_qnum(obj));
        break;
    case QTYPE_QSTRING:
        append_string(w, qstring_get(qobject_to_qstring(obj)));
        break;
    case QTYPE_QBOOL:
        g_string_append(out, qbool_get(qobject_to_qbool(obj)) ? "true"
                                                              : "false");
        break;
    case QTYPE_QDICT:
        g_string_append_c(out, '{');
        break;
    case QTYPE_QLIST:
        g_string_append_c(out, '[');
        break;
    default:
        g_string_append(out, "null");
    }
}

static void append_newline(JSONWriter *w, unsigned depth)
{
    if (w->newline) {
        g_string_append(w->out, w->newline);
        for (unsigned i = 0; i < MIN(depth, JSON_MAX_INDENT); i++) {
            g_string_append(w->out, "    ");
        }
    }
}

/* What stands before the entry at @index, its key included. */
static void append_entry_begin(JSONWriter *w, const QDict *dict, size_t index,
                               unsigned depth)
{
    if (index) {
        g_string_append(w->out, w->newline ? "," : ", ");
    }
    append_newline(w, depth);
    if (dict) {
        append_string(w, qdict_key_at(dict, index));
        g_string_append(w->out, ": ");
    }
}

static bool append_json(JSONWriter *w, const QObject *obj)
{
    g_autoptr(GArray) stack = g_array_new(FALSE, FALSE, sizeof(JSONLevel));
    JSONLevel level = { obj, 0 };
    size_t start = w->out->len;

    append_begin(w, obj);
    if (qobject_to_qdict(obj) || qobject_to_qlist(obj)) {
        g_array_append_val(stack, level);
    }
    while (stack->len && w->out->len <= w->max) {
        JSONLevel *top = &g_array_index(stack, JSONLevel, stack->len - 1);
        const QDict *dict = qobject_to_qdict(top->container);
        const QList *list = qobject_to_qlist(top->container);
        size_t size = dict ? qdict_size(dict) : qlist_size(list);
        const QObject *value;

        writer_step(w);
        if (top->index == size) {
            g_array_set_size(stack, stack->len - 1);
            append_newline(w, stack->len);
            g_string_append_c(w->out, dict ? '}' : ']');
            continue;
        }
        append_entry_begin(w, dict, top->index, stack->len);
        value = dict ? qdict_value_at(dict, top->index)
                     : qlist_at(list, top->index);
        top->index++;
        append_begin(w, value);
        if (qobject_to_qdict(value) || qobject_to_qlist(value)) {
            level = (JSONLevel) { value, 0 };
            g_array_append_val(stack, level);
        }
    }
    if (w->out->len <= w->max) {
        return true;
    }
    g_string_truncate(w->out, start);
    return false;
}

bool qobject_append_json(GString *out, const QObject *obj, const char *newline,
                         size_t max)
{
    JSONWriter w = { .out = out, .newline = newline, .max = max };

    return append_json(&w, obj);
}

bool coroutine_fn qobject_co_append_json(GString *out, const QObject *obj,
                                         const char *newline, size_t max)
{
    JSONWriter w = {
        .out = out, .newline = newline, .max = max, .co = true,
    };

    return append_json(&w, obj);
}

char *qobject_to_json_pretty(const QObject *obj, bool pretty)
{
    GString *out = g_string_new(NULL);

    qobject_append_json(out, obj, pretty ? "\n" : NULL, SIZE_MAX);
    return g_string_free(out, FALSE);
}

char *qobject_to_json(const QObject *obj)
{
    return qobject_to_json_pretty(obj, false);
}
