/* SPDX-License-Identifier: MIT */
/*
 * What named-file.c and named-file-create.c share.
 */
#ifndef UTIL_NAMED_FILE_INT_H
#define UTIL_NAMED_FILE_INT_H

#include <sys/stat.h>
#include "util/named-file.h"

/* Put the reason @errnum into @errp; returns -@errnum. */
int named_file_fail(int errnum, Error **errp);

/*
 * Fill @f, all but its path, with what @name in @dir is; @flags: O_NOFOLLOW or
 * 0.  Without an error in @errp if the name cannot be opened.
 */
int named_file_look(NamedFile *f, int dir, const char *name, int flags,
                    Error **errp);

/* statx(2) that asks no file system; 0 or -errno. */
int named_file_stat(int dir, const char *name, int flags, struct statx *stx);

#endif /* UTIL_NAMED_FILE_INT_H */
