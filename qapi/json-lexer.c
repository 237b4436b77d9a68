/* SPDX-License-Identifier: MIT */
/*
 * JSON: bytes to tokens.
 *
 * A token that can't go on with the next byte ends before it, if it may end
 * there; else it is stray, that byte included.  After a stray token all is
 * skipped until a byte that separates tokens, so that one fault makes one
 * error.  Tokens may be secrets: they leave nothing behind.
 */
#include "qapi/json-int.h"

void json_lexer_init(JSONLexer *lexer)
{
    *lexer = (JSONLexer) {
        .token = g_string_new(NULL), .line = 1, .column = 1,
    };
}

static void lexer_wipe(JSONLexer *lexer)
{
    explicit_bzero(lexer->token->str, lexer->token->len);
}

/* GString would leave a copy where it grows. */
static void lexer_append(JSONLexer *lexer, char c)
{
    GString *token = lexer->token;

    if (token->len + 1 >= token->allocated_len) {
        lexer->token = g_string_sized_new(token->len * 2);
        g_string_append_len(lexer->token, token->str, token->len);
        explicit_bzero(token->str, token->len);
        g_string_free(token, TRUE);
    }
    g_string_append_c(lexer->token, c);
}

void json_lexer_destroy(JSONLexer *lexer)
{
    lexer_wipe(lexer);
    g_string_free(lexer->token, TRUE);
}

/*
 * What ends the skipping after a stray token: structure, the end of a line, and
 * bytes that JSON text never has.
 */
static bool lexer_separates(unsigned char c)
{
    if (c < 0x20 || c > 0xfd) {
        return c != '\t';
    }
    return strchr("{}[]:,", c) != NULL;
}

/* Hand out the token, its last byte included. */
static void lexer_emit(JSONLexer *lexer, JSONTokenType type)
{
    /* A token that is too large goes on: what is in a string is no JSON. */
    if (type != JSON_TOO_LARGE) {
        lexer->state = type == JSON_STRAY ? LEX_RECOVERY : LEX_START;
    }
    json_parser_token(lexer, type);
    lexer_wipe(lexer);
    if (lexer->token->allocated_len > JSON_KEEP_SIZE) {
        g_string_free(lexer->token, TRUE);
        lexer->token = g_string_new(NULL);
    }
    g_string_truncate(lexer->token, 0);
}

static void lexer_begin(JSONLexer *lexer, char c)
{
    lexer->token_line = lexer->line;
    lexer->token_column = lexer->column;
    lexer_append(lexer, c);
}

static void lexer_start(JSONLexer *lexer, char c)
{
    static const char structure[] = "{}[]:,";
    const char *p;

    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        return;
    }
    lexer_begin(lexer, c);
    if (c && (p = strchr(structure, c))) {
        lexer_emit(lexer, JSON_LCURLY + (p - structure));
    } else if (c == '"' || c == '\'') {
        lexer->quote = c;
        lexer->state = LEX_STRING;
    } else if (g_ascii_islower(c)) {
        lexer->state = LEX_KEYWORD;
    } else if (c == '-') {
        lexer->state = LEX_MINUS;
    } else if (c == '0') {
        lexer->state = LEX_ZERO;
    } else if (g_ascii_isdigit(c)) {
        lexer->state = LEX_DIGITS;
    } else {
        lexer_emit(lexer, JSON_STRAY);
    }
}

static void lexer_string(JSONLexer *lexer, char c)
{
    unsigned char byte = c;

    lexer_append(lexer, c);
    if (byte < 0x20 || byte > 0xfd) {
        lexer_emit(lexer, JSON_STRAY);
    } else if (lexer->state == LEX_ESCAPE) {
        lexer->state = LEX_STRING;
    } else if (c == '\\') {
        lexer->state = LEX_ESCAPE;
    } else if (c == lexer->quote) {
        lexer_emit(lexer, JSON_STRING);
    }
}

/*
 * A number goes on with @c?  Returns the new state, or LEX_START if the number
 * ends before @c, or LEX_RECOVERY if it may not end there.
 */
static JSONLexerState lexer_number(JSONLexerState state, char c)
{
    bool digit = g_ascii_isdigit(c);
    bool exp = c == 'e' || c == 'E';

    switch (state) {
    case LEX_MINUS:
        return c == '0' ? LEX_ZERO : digit ? LEX_DIGITS : LEX_RECOVERY;
    case LEX_ZERO:
        if (digit) {
            return LEX_RECOVERY;
        }
        return c == '.' ? LEX_POINT : exp ? LEX_EXP : LEX_START;
    case LEX_DIGITS:
        if (digit) {
            return LEX_DIGITS;
        }
        return c == '.' ? LEX_POINT : exp ? LEX_EXP : LEX_START;
    case LEX_POINT:
        return digit ? LEX_FRACTION : LEX_RECOVERY;
    case LEX_FRACTION:
        return digit ? LEX_FRACTION : exp ? LEX_EXP : LEX_START;
    case LEX_EXP:
        if (c == '+' || c == '-') {
            return LEX_EXP_SIGN;
        }
        return digit ? LEX_EXP_DIGITS : LEX_RECOVERY;
    case LEX_EXP_SIGN:
        return digit ? LEX_EXP_DIGITS : LEX_RECOVERY;
    default:
        return digit ? LEX_EXP_DIGITS : LEX_START;
    }
}

static void lexer_byte(JSONLexer *lexer, char c)
{
    JSONLexerState next;

    switch (lexer->state) {
    case LEX_RECOVERY:
        if (lexer_separates(c)) {
            lexer->state = LEX_START;
            lexer_start(lexer, c);
        }
        return;
    case LEX_START:
        lexer_start(lexer, c);
        return;
    case LEX_STRING:
    case LEX_ESCAPE:
        lexer_string(lexer, c);
        return;
    case LEX_KEYWORD:
        if (g_ascii_islower(c)) {
            lexer_append(lexer, c);
            return;
        }
        lexer_emit(lexer, JSON_KEYWORD);
        lexer_start(lexer, c);
        return;
    default:
        next = lexer_number(lexer->state, c);
        if (next == LEX_START) {
            lexer_emit(lexer, lexer->state <= LEX_DIGITS ? JSON_INTEGER
                                                         : JSON_FLOAT);
            lexer_start(lexer, c);
            return;
        }
        lexer_append(lexer, c);
        if (next == LEX_RECOVERY) {
            lexer_emit(lexer, JSON_STRAY);
        } else {
            lexer->state = next;
        }
    }
}

void json_lexer_feed(JSONLexer *lexer, const char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        lexer_byte(lexer, buf[i]);
        if (buf[i] == '\n') {
            lexer->line++;
            lexer->column = 1;
        } else {
            lexer->column++;
        }
        if (lexer->token->len > JSON_MAX_SIZE) {
            lexer_emit(lexer, JSON_TOO_LARGE);
        }
    }
}

void json_lexer_flush(JSONLexer *lexer)
{
    switch (lexer->state) {
    case LEX_START:
    case LEX_RECOVERY:
        break;
    case LEX_KEYWORD:
        lexer_emit(lexer, JSON_KEYWORD);
        break;
    case LEX_ZERO:
    case LEX_DIGITS:
        lexer_emit(lexer, JSON_INTEGER);
        break;
    case LEX_FRACTION:
    case LEX_EXP_DIGITS:
        lexer_emit(lexer, JSON_FLOAT);
        break;
    default:
        lexer_emit(lexer, JSON_STRAY);
    }
    lexer->token_line = lexer->line;
    lexer->token_column = lexer->column;
    lexer_emit(lexer, JSON_END_OF_INPUT);
}

gboolean json_codepoint_valid(int codepoint)
{
    return codepoint >= 0 && codepoint <= 0x10ffff
        && !(codepoint >= 0xd800 && codepoint <= 0xdfff)
        && !(codepoint >= 0xfdd0 && codepoint <= 0xfdef)
        && (codepoint & 0xfffe) != 0xfffe;
}

int json_utf8_decode(const char *s, size_t len, const char **end)
{
    static const int least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2
             : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    size_t i;
    int cp;

    if (n <= 1) {
        *end = s + 1;
        return n == 1 ? p[0] : -1;
    }
    cp = p[0] & (0xff >> (n + 1));
    for (i = 1; i < n; i++) {
        if (i >= len || (p[i] & 0xc0) != 0x80) {
            *end = s + i;
            return -1;
        }
        cp = cp << 6 | (p[i] & 0x3f);
    }
    *end = s + n;
    if (cp == 0 && n == 2) {
        return 0;
    }
    return cp >= least[n] && json_codepoint_valid(cp) ? cp : -1;
}
