/* SPDX-License-Identifier: MIT */
/*
 * Files by name: the only place where a name becomes a file.
 *
 * A name is looked up first, which asks nothing of the file itself and waits
 * for none (O_PATH; statx(2) with AT_STATX_DONT_SYNC), and then exactly what
 * was found is opened, through /proc/self/fd.  In between it is known what it
 * is: a file that this process serves is refused, as opening it would wait for
 * ourselves (util/own-mounts.h); a FIFO is opened without waiting for its other
 * end.  So nobody can swap a file for another after it has been looked at.
 *
 * Names are looked up by whoever may wait for a file system, which may be slow
 * or dead: pool threads, and the start of the program before there is a loop.
 * For coroutines of the main loop there are named_file_co_open() and
 * named_file_co_create(), which wait no longer than NAMED_FILE_LIMIT_NS.
 *
 * Errors are -errno, and in @errp (NULL is fine) the reason alone, without the
 * name: callers put their own words before it, as in
 * error_prepend(errp, "Could not open '%s': ", path).
 */
#ifndef UTIL_NAMED_FILE_H
#define UTIL_NAMED_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "util/coroutine.h"
#include "util/error.h"

#define NAMED_FILE_LIMIT_NS (10 * 1000 * 1000 * 1000LL)

/* What a name stood for when it was looked up. */
typedef struct NamedFile {
    int fd;                     /* O_PATH, or -1 */
    const char *path;           /* the caller's */
    mode_t mode;
    uid_t uid;
    uint32_t n_links;
    dev_t dev;
    ino_t ino;
} NamedFile;

/* [any] Look @path up, following links.  0 or -errno; may block. */
int named_file_find(NamedFile *f, const char *path, Error **errp);
void named_file_release(NamedFile *f);

static inline bool named_file_same(const NamedFile *a, const NamedFile *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

/*
 * [any] Open what @f is, with @flags of open(2), but O_CREAT, O_EXCL and
 * O_TRUNC; O_CLOEXEC and O_NOCTTY are added, for a FIFO O_NONBLOCK.  A
 * descriptor or -errno; may block.
 */
int named_file_open_found(const NamedFile *f, int flags, Error **errp);

/* [any] Both of it: open a file that exists. */
int named_file_open(const char *path, int flags, Error **errp);

/*
 * [any] Open once more what @fd has open, which once was at @path (NULL: not
 * known; then there is no way without /proc).
 */
int named_file_reopen(int fd, const char *path, int flags, Error **errp);

/* A name in a directory, which stays the same directory; all zero is none. */
typedef struct NamedEntry {
    char *name;                 /* NULL: none, and nothing below counts */
    int dir;                    /* O_PATH */
    bool exists;
    mode_t mode;                /* all of these: of what was there */
    dev_t dev;
    ino_t ino;
} NamedEntry;

/*
 * [any] Look up what @path itself is, a link or not, and keep its directory
 * open.  It need not exist, its directory must.  0 or -errno; may block.
 */
int named_entry_init(NamedEntry *entry, const char *path, Error **errp);
void named_entry_deinit(NamedEntry *entry);

/* [any] Is the file still the one at this name?  May block. */
bool named_entry_is_current(const NamedEntry *entry);

/*
 * [any, signal handlers] Remove the name, if it still stands for the same file.
 * 0 or -errno; may block.
 */
int named_entry_remove(const NamedEntry *entry);

/*
 * [any] Open @path for writing, and make it if it does not exist, with @mode;
 * @flags may have O_TRUNC, which acts on a regular file that is the right one
 * only, and need not have O_CREAT.  With @regular anything else than a regular
 * file is refused.
 *
 * Nobody else decides which file that is.  In a sticky directory that all may
 * write to, and for root in each where others may put names (it is theirs, or
 * the group or all may write), a link is followed only if the user or root made
 * it, and a file is opened only if it belongs to them or to the directory's
 * owner and has no second name.  That is protected_symlinks and
 * protected_regular of proc_sys_fs(5), but always, and stricter for root.
 *
 * Unless NULL, @entry is where the file was found or made.  A descriptor or
 * -errno; may block.
 */
int named_file_create(const char *path, int flags, mode_t mode, bool regular,
                      NamedEntry *entry, Error **errp);

/*
 * [any] Look @path up in the same way, so that nobody else decides which file
 * it is: what it is, @f, and where, @entry.  It must exist.  0 or -errno; may
 * block.
 */
int named_file_locate(NamedFile *f, const char *path, NamedEntry *entry,
                      Error **errp);

/*
 * [any] Read all of @fd into @buf of @size bytes, and a NUL behind it; a pipe
 * that says nothing is waited for 30 s.  Bytes or -errno, -EFBIG if it is more.
 */
ssize_t named_file_read(int fd, void *buf, size_t size);

/* [main] named_file_open() and named_file_create() for coroutines. */
int coroutine_fn named_file_co_open(const char *path, int flags, Error **errp);
int coroutine_fn named_file_co_create(const char *path, int flags, mode_t mode,
                                      Error **errp);

#endif /* UTIL_NAMED_FILE_H */
