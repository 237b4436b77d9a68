/* SPDX-License-Identifier: MIT */
/*
 * Memory for secrets: see util/secmem.h.
 *
 * A core dump holds what lies outside of this memory too, such as registers;
 * hence there is none while a secret is held.  A limit of 1 byte does that:
 * too little for a file, and the value at which the kernel does not start a
 * program that takes dumps either, which it does at 0 (core(5)).
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include "util/secmem.h"

/* In front of the memory that is handed out. */
typedef struct SecmemHead {
    size_t map_len;
} SecmemHead;

#define SECMEM_HEAD_LEN 64

static pthread_mutex_t secmem_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned secmem_pieces;                  /* under the lock, as below */
static struct rlimit secmem_core_limit;         /* what it was */
static bool secmem_warned;

static SecmemHead *secmem_head(void *mem)
{
    return (SecmemHead *)((char *)mem - SECMEM_HEAD_LEN);
}

static void secmem_count(int n)
{
    struct rlimit none;

    pthread_mutex_lock(&secmem_lock);
    if (n > 0 && secmem_pieces == 0) {
        getrlimit(RLIMIT_CORE, &secmem_core_limit);
        none = secmem_core_limit;
        none.rlim_cur = MIN(none.rlim_max, 1);
        setrlimit(RLIMIT_CORE, &none);
    }
    secmem_pieces += n;
    if (secmem_pieces == 0) {
        setrlimit(RLIMIT_CORE, &secmem_core_limit);
    }
    pthread_mutex_unlock(&secmem_lock);
}

static void secmem_warn(int err)
{
    bool warned;

    pthread_mutex_lock(&secmem_lock);
    warned = secmem_warned;
    secmem_warned = true;
    pthread_mutex_unlock(&secmem_lock);
    if (!warned) {
        /* Not by warn_report(): that option may be the secret itself. */
        fprintf(stderr, "%s: warning: Secrets are not locked in memory, and "
                "may get to swap space: %s (see RLIMIT_MEMLOCK)\n",
                g_get_prgname(), g_strerror(err));
    }
}

void *secmem_alloc(size_t len)
{
    size_t page = sysconf(_SC_PAGESIZE);
    size_t map_len = (SECMEM_HEAD_LEN + len + page - 1) / page * page;
    char *map = mmap(NULL, map_len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED) {
        g_error("failed to map %zu bytes", map_len);
    }
    secmem_count(1);
    madvise(map, map_len, MADV_DONTDUMP);
    madvise(map, map_len, MADV_DONTFORK);
    if (mlock(map, map_len) < 0) {
        secmem_warn(errno);
    }
    *(SecmemHead *)map = (SecmemHead) { map_len };
    return map + SECMEM_HEAD_LEN;
}

char *secmem_dup(const void *data, size_t len)
{
    char *copy = secmem_alloc(len + 1);

    memcpy(copy, data, len);
    return copy;
}

void *secmem_resize(void *mem, size_t len, size_t new_len)
{
    void *larger;

    if (SECMEM_HEAD_LEN + new_len <= secmem_head(mem)->map_len) {
        return mem;
    }
    larger = secmem_alloc(new_len);
    memcpy(larger, mem, len);
    secmem_free(mem);
    return larger;
}

void secmem_free(void *mem)
{
    SecmemHead *head;
    size_t map_len;

    if (!mem) {
        return;
    }
    head = secmem_head(mem);
    map_len = head->map_len;
    explicit_bzero(head, map_len);
    munmap(head, map_len);
    secmem_count(-1);
}

void secmem_wipe_string(char *str)
{
    if (str) {
        explicit_bzero(str, strlen(str));
        g_free(str);
    }
}
