/* SPDX-License-Identifier: MIT */
/*
 * The JSON reader's inside: bytes to tokens (json-lexer.c), tokens to values
 * (json-parser.c).
 */
#ifndef QAPI_JSON_INT_H
#define QAPI_JSON_INT_H

#include <stdbool.h>
#include <string.h>
#include <glib.h>

/*
 * Limits of one value: bytes and number of its tokens, depth of nesting.  A
 * token becomes up to 100 bytes of values: some 16 MiB at most.
 */
#define JSON_MAX_SIZE (4 << 20)
#define JSON_MAX_TOKENS (128 << 10)
#define JSON_MAX_NESTING 1024

/* What a buffer may keep when it is not in use. */
#define JSON_KEEP_SIZE (64 << 10)

typedef enum JSONTokenType {
    JSON_LCURLY,
    JSON_RCURLY,
    JSON_LSQUARE,
    JSON_RSQUARE,
    JSON_COLON,
    JSON_COMMA,
    JSON_INTEGER,
    JSON_FLOAT,
    JSON_KEYWORD,
    JSON_STRING,            /* with its quotes and escapes */
    JSON_STRAY,             /* no token begins like this */
    JSON_TOO_LARGE,
    JSON_END_OF_INPUT,
} JSONTokenType;

typedef enum JSONLexerState {
    LEX_START,
    LEX_RECOVERY,           /* after a stray token */
    LEX_STRING,
    LEX_ESCAPE,             /* after the backslash */
    LEX_KEYWORD,
    LEX_MINUS,
    LEX_ZERO,
    LEX_DIGITS,
    LEX_POINT,              /* needs a digit */
    LEX_FRACTION,
    LEX_EXP,                /* needs a digit or sign */
    LEX_EXP_SIGN,           /* needs a digit */
    LEX_EXP_DIGITS,
} JSONLexerState;

typedef struct JSONLexer {
    JSONLexerState state;
    char quote;             /* of the string that is being read */
    GString *token;
    int line, column;       /* of the next byte; from 1 */
    int token_line, token_column;
} JSONLexer;

/* The parser's: @lexer holds the token's text and position. */
void json_parser_token(JSONLexer *lexer, JSONTokenType type);

void json_lexer_init(JSONLexer *lexer);
void json_lexer_destroy(JSONLexer *lexer);
void json_lexer_feed(JSONLexer *lexer, const char *buf, size_t len);
void json_lexer_flush(JSONLexer *lexer);

/*
 * Decode one character of (modified) UTF-8: "\xC0\x80" is U+0000.  Returns its
 * code point and sets *@end behind it; -1 if it is invalid, with *@end behind
 * what to skip (at least one byte).  @len > 0.
 */
int json_utf8_decode(const char *s, size_t len, const char **end);

/* False for surrogates, non-characters and what is past U+10FFFF. */
gboolean json_codepoint_valid(int codepoint);

#endif /* QAPI_JSON_INT_H */
