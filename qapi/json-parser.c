/* SPDX-License-Identifier: MIT */
/*
 * JSON: tokens to values.
 *
 * A push parser with a stack of its own: nesting costs no C stack.  After an
 * error the rest of the value is skipped, up to where its brackets are
 * balanced (or have more closing than opening ones); a stray token ends the
 * value at once, and so does nesting that is too deep.
 */
#include <errno.h>
#include "qapi/json.h"
#include "qapi/json-int.h"

/* What may come next in an object or array. */
typedef enum JSONExpect {
    EXPECT_KEY_OR_END,
    EXPECT_KEY,
    EXPECT_COLON,
    EXPECT_VALUE_OR_END,
    EXPECT_VALUE,
    EXPECT_SEPARATOR_OR_END,
} JSONExpect;

typedef struct JSONFrame {
    QObject *container;
    char *key;                  /* of the value to come */
    JSONExpect expect;
} JSONFrame;

struct JSONParser {
    JSONLexer lexer;            /* first: tokens lead back to the parser */
    JSONEmit *emit;
    void *opaque;
    GArray *stack;              /* of JSONFrame: open objects and arrays */
    int braces, brackets;       /* opened less closed in this value */
    size_t size, tokens;        /* of this value */
    bool skipping;              /* an error has been reported */
};

JSONParser *json_parser_new(JSONEmit *emit, void *opaque)
{
    JSONParser *parser = g_new0(JSONParser, 1);

    json_lexer_init(&parser->lexer);
    parser->emit = emit;
    parser->opaque = opaque;
    parser->stack = g_array_new(FALSE, FALSE, sizeof(JSONFrame));
    return parser;
}

static JSONFrame *parser_top(JSONParser *parser)
{
    return parser->stack->len
        ? &g_array_index(parser->stack, JSONFrame, parser->stack->len - 1)
        : NULL;
}

static void parser_drop_values(JSONParser *parser)
{
    JSONFrame *top;

    while ((top = parser_top(parser))) {
        qobject_unref(top->container);
        g_free(top->key);
        g_array_set_size(parser->stack, parser->stack->len - 1);
    }
}

/* Begin with the next value. */
static void parser_reset(JSONParser *parser)
{
    parser_drop_values(parser);
    parser->braces = parser->brackets = 0;
    parser->size = parser->tokens = 0;
    parser->skipping = false;
}

void json_parser_feed(JSONParser *parser, const char *buf, size_t len)
{
    json_lexer_feed(&parser->lexer, buf, len);
}

void json_parser_flush(JSONParser *parser)
{
    json_lexer_flush(&parser->lexer);
}

void json_parser_free(JSONParser *parser)
{
    if (parser) {
        parser_drop_values(parser);
        g_array_free(parser->stack, TRUE);
        json_lexer_destroy(&parser->lexer);
        g_free(parser);
    }
}

/* Report a fault at the current token, and skip the rest of the value. */
static void G_GNUC_PRINTF(2, 3) parser_error(JSONParser *parser,
                                             const char *fmt, ...)
{
    g_autofree char *what = NULL;
    Error *err = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_setg(&err, "%d:%d: JSON parse error, %s",
               parser->lexer.token_line, parser->lexer.token_column, what);
    parser_drop_values(parser);
    parser->skipping = true;
    parser->emit(parser->opaque, NULL, err);
}

static void parser_limit(JSONParser *parser, const char *what)
{
    Error *err = NULL;

    if (!parser->skipping) {
        error_setg(&err, "JSON %s limit exceeded", what);
        parser_drop_values(parser);
        parser->skipping = true;
        parser->emit(parser->opaque, NULL, err);
    }
}

/* ---- scalars ---- */

static int hex4(const char *p, size_t len)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        if (i >= len || !g_ascii_isxdigit(p[i])) {
            return -1;
        }
        value = value << 4 | g_ascii_xdigit_value(p[i]);
    }
    return value;
}

static void append_codepoint(GString *out, int cp)
{
    if (cp) {
        g_string_append_unichar(out, cp);
    } else {
        g_string_append(out, "\xc0\x80");
    }
}

/*
 * A \u escape; *@p stands behind the 'u'.  Two make a pair of surrogates.
 * Advances *@p.
 */
static bool parse_unicode(JSONParser *parser, const char **p, const char *end,
                          GString *out)
{
    const char *start = *p;
    int cp = hex4(start, end - start);

    if (cp >= 0) {
        *p += 4;
    }
    if (cp >= 0xd800 && cp < 0xdc00 && end - *p >= 6
        && (*p)[0] == '\\' && (*p)[1] == 'u') {
        int low = hex4(*p + 2, end - *p - 2);

        if (low >= 0xdc00 && low < 0xe000) {
            cp = 0x10000 + ((cp & 0x3ff) << 10 | (low & 0x3ff));
            *p += 6;
        }
    }
    if (!json_codepoint_valid(cp)) {
        /* The closing quote included, as far as four bytes reach. */
        parser_error(parser, "\\u%.*s is not a valid Unicode character",
                     (int)MIN(4, end + 1 - start), start);
        return false;
    }
    append_codepoint(out, cp);
    return true;
}

static bool parse_escape(JSONParser *parser, const char **p, const char *end,
                         GString *out)
{
    static const char from[] = "\"'\\/bfnrt", to[] = "\"'\\/\b\f\n\r\t";
    char c = *(*p)++;
    const char *which;

    if (c == 'u') {
        return parse_unicode(parser, p, end, out);
    }
    which = strchr(from, c);
    if (!which) {
        parser_error(parser, "invalid escape sequence in string");
        return false;
    }
    g_string_append_c(out, to[which - from]);
    return true;
}

/* The string token without quotes and escapes; NULL after an error. */
static char *parse_string(JSONParser *parser)
{
    const GString *token = parser->lexer.token;
    const char *p = token->str + 1, *end = token->str + token->len - 1;
    g_autoptr(GString) out = g_string_sized_new(token->len);

    while (p < end) {
        const char *run = p;

        while (p < end && *p != '\\') {
            if ((unsigned char)*p < 0x80) {
                p++;
            } else if (json_utf8_decode(p, end - p, &p) < 0) {
                parser_error(parser, "invalid UTF-8 sequence in string");
                return NULL;
            }
        }
        g_string_append_len(out, run, p - run);
        if (p++ < end && !parse_escape(parser, &p, end, out)) {
            return NULL;
        }
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static QObject *parse_integer(const char *text)
{
    guint64 u64;
    gint64 i64;

    errno = 0;
    i64 = g_ascii_strtoll(text, NULL, 10);
    if (!errno) {
        return QOBJECT(qnum_new_int(i64));
    }
    if (text[0] != '-') {
        errno = 0;
        u64 = g_ascii_strtoull(text, NULL, 10);
        if (!errno) {
            return QOBJECT(qnum_new_uint(u64));
        }
    }
    return QOBJECT(qnum_new_double(g_ascii_strtod(text, NULL)));
}

/* The token as a value; NULL after an error. */
static QObject *parse_scalar(JSONParser *parser, JSONTokenType type)
{
    const char *text = parser->lexer.token->str;
    char *str;

    switch (type) {
    case JSON_INTEGER:
        return parse_integer(text);
    case JSON_FLOAT:
        return QOBJECT(qnum_new_double(g_ascii_strtod(text, NULL)));
    case JSON_STRING:
        str = parse_string(parser);
        return str ? QOBJECT(qstring_new_take(str)) : NULL;
    case JSON_KEYWORD:
        if (g_str_equal(text, "true") || g_str_equal(text, "false")) {
            return QOBJECT(qbool_new(text[0] == 't'));
        }
        if (g_str_equal(text, "null")) {
            return QOBJECT(qnull_new());
        }
        parser_error(parser, "invalid keyword '%s'", text);
        return NULL;
    default:
        parser_error(parser, "expecting value");
        return NULL;
    }
}

/* ---- structure ---- */

/* A value is complete; takes it over. */
static void parser_value(JSONParser *parser, QObject *value)
{
    JSONFrame *top = parser_top(parser);
    QDict *dict = top ? qobject_to_qdict(top->container) : NULL;

    if (!top) {
        parser->emit(parser->opaque, value, NULL);
        return;
    }
    if (!dict) {
        qlist_append_obj(qobject_to_qlist(top->container), value);
    } else if (qdict_haskey(dict, top->key)) {
        qobject_unref(value);
        parser_error(parser, "duplicate key");
        return;
    } else {
        qdict_put_obj(dict, top->key, value);
        g_clear_pointer(&top->key, g_free);
    }
    top->expect = EXPECT_SEPARATOR_OR_END;
}

static void parser_open(JSONParser *parser, JSONTokenType type)
{
    JSONFrame frame = {
        .container = type == JSON_LCURLY ? QOBJECT(qdict_new())
                                         : QOBJECT(qlist_new()),
        .expect = type == JSON_LCURLY ? EXPECT_KEY_OR_END
                                      : EXPECT_VALUE_OR_END,
    };

    g_array_append_val(parser->stack, frame);
}

static void parser_close(JSONParser *parser)
{
    QObject *value = parser_top(parser)->container;

    g_array_set_size(parser->stack, parser->stack->len - 1);
    parser_value(parser, value);
}

static void parser_expect_value(JSONParser *parser, JSONTokenType type)
{
    QObject *value;

    if (type == JSON_LCURLY || type == JSON_LSQUARE) {
        parser_open(parser, type);
        return;
    }
    value = parse_scalar(parser, type);
    if (value) {
        parser_value(parser, value);
    }
}

static void parser_step(JSONParser *parser, JSONTokenType type)
{
    JSONFrame *top = parser_top(parser);
    bool is_dict = top && qobject_type(top->container) == QTYPE_QDICT;
    JSONTokenType end = is_dict ? JSON_RCURLY : JSON_RSQUARE;
    char *key;

    switch (top ? top->expect : EXPECT_VALUE) {
    case EXPECT_KEY_OR_END:
    case EXPECT_KEY:
        if (type == end && top->expect == EXPECT_KEY_OR_END) {
            parser_close(parser);
        } else if (type != JSON_STRING) {
            parser_error(parser, "expecting key");
        } else if ((key = parse_string(parser))) {
            top->key = key;
            top->expect = EXPECT_COLON;
        }
        break;
    case EXPECT_COLON:
        if (type != JSON_COLON) {
            parser_error(parser, "missing : in object pair");
        } else {
            top->expect = EXPECT_VALUE;
        }
        break;
    case EXPECT_VALUE_OR_END:
        if (type == end) {
            parser_close(parser);
            break;
        }
        /* fall through */
    case EXPECT_VALUE:
        parser_expect_value(parser, type);
        break;
    case EXPECT_SEPARATOR_OR_END:
        if (type == end) {
            parser_close(parser);
        } else if (type == JSON_COMMA) {
            top->expect = is_dict ? EXPECT_KEY : EXPECT_VALUE;
        } else {
            parser_error(parser, "expected separator in %s",
                         is_dict ? "dict" : "list");
        }
        break;
    }
}

/*
 * Count the token, and report a limit that it exceeds.  False if the value ends
 * with it: the reference goes on with what follows where nesting is too deep.
 */
static bool parser_account(JSONParser *parser, JSONTokenType type)
{
    parser->braces += (type == JSON_LCURLY) - (type == JSON_RCURLY);
    parser->brackets += (type == JSON_LSQUARE) - (type == JSON_RSQUARE);
    parser->size += parser->lexer.token->len;
    parser->tokens++;
    if (parser->size > JSON_MAX_SIZE) {
        parser_limit(parser, "token size");
    } else if (parser->tokens > JSON_MAX_TOKENS) {
        parser_limit(parser, "token count");
    } else if (parser->braces + parser->brackets > JSON_MAX_NESTING) {
        parser_limit(parser, "nesting depth");
        parser_reset(parser);
        return false;
    }
    return true;
}

void json_parser_token(JSONLexer *lexer, JSONTokenType type)
{
    JSONParser *parser = (JSONParser *)lexer;

    switch (type) {
    case JSON_STRAY:
        parser_error(parser, "stray '%s'", lexer->token->str);
        parser_reset(parser);
        return;
    case JSON_TOO_LARGE:
        parser_limit(parser, "token size");
        return;
    case JSON_END_OF_INPUT:
        if (parser->stack->len) {
            parser_error(parser, "premature end of input");
        }
        parser_reset(parser);
        return;
    default:
        break;
    }
    if (!parser_account(parser, type)) {
        return;
    }
    if (!parser->skipping) {
        parser_step(parser, type);
    }
    if (parser->braces < 0 || parser->brackets < 0
        || (parser->braces == 0 && parser->brackets == 0)) {
        parser_reset(parser);
    }
}

/* ---- one value from a string ---- */

typedef struct JSONOne {
    QObject *value;
    Error *err;
} JSONOne;

static void json_one_emit(void *opaque, QObject *value, Error *err)
{
    JSONOne *one = opaque;

    if (one->err) {
        qobject_unref(value);
        error_free(err);
    } else if (one->value) {
        g_clear_pointer(&one->value, qobject_unref_any);
        qobject_unref(value);
        error_free(err);
        error_setg(&one->err, "Expecting at most one JSON value");
    } else {
        *one = (JSONOne) { value, err };
    }
}

QObject *qobject_from_json(const char *text, Error **errp)
{
    JSONOne one = { NULL, NULL };
    g_autoptr(JSONParser) parser = json_parser_new(json_one_emit, &one);

    json_parser_feed(parser, text, strlen(text));
    json_parser_flush(parser);
    if (one.err) {
        error_propagate(errp, one.err);
    } else if (!one.value) {
        error_setg(errp, "Expecting a JSON value");
    }
    return one.value;
}
