/* SPDX-License-Identifier: MIT */
/*
 * Memory for secrets: passphrases and keys.
 *
 * It is locked, so that it never gets to swap space; left out of core dumps,
 * and the process makes none while there is any; not inherited by child
 * processes; and overwritten when it is freed.  Each piece has pages of its
 * own.  Where the limit RLIMIT_MEMLOCK does not allow to lock it, there is a
 * warning, once.  Any thread.
 */
#ifndef UTIL_SECMEM_H
#define UTIL_SECMEM_H

#include <stddef.h>

/* @len bytes of zeroes, aligned to 64; ends the process if there is none. */
void *secmem_alloc(size_t len);

/* A copy of @len bytes with a zero behind them. */
char *secmem_dup(const void *data, size_t len);

/* @mem, of at least @len bytes, as one of at least @new_len; it may move. */
void *secmem_resize(void *mem, size_t len, size_t new_len);

void secmem_free(void *mem);                    /* NULL is fine */

/* Overwrite a string that lies elsewhere, then g_free() it; NULL is fine. */
void secmem_wipe_string(char *str);

#endif /* UTIL_SECMEM_H */
