/* SPDX-License-Identifier: MIT */
/*
 * FuseIdentity: which mount something is.
 *
 * A path means what whoever owns a directory on it wants it to mean, at each
 * moment anew.  So it is looked up once (named_file_locate()); from then on a
 * place is a directory that is held open, and a name in it, and what is there
 * is compared with what was mounted.
 *
 * Nothing here asks a file system for anything that the kernel does not know
 * already, except looking up names in directories.
 */
#ifndef BLOCK_EXPORT_FUSE_IDENTITY_H
#define BLOCK_EXPORT_FUSE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "util/named-file.h"

typedef struct FuseIdentity {
    unsigned major, minor;      /* of st_dev */
    uint64_t mount_id;          /* as in /proc/self/mountinfo; reused */
    uint64_t unique_id;         /* never reused; 0: Linux before 6.8 */
} FuseIdentity;

/* Who @fd (O_PATH or any other) is.  0 or -errno. */
int fuse_identify(int fd, FuseIdentity *identity);

/* Is that the same mount? */
bool fuse_identity_equal(const FuseIdentity *a, const FuseIdentity *b);

/* O_PATH of the topmost mount at @place now, or of the file; or -errno. */
int fuse_place_look(const NamedEntry *place);

/*
 * A text that is the same for two places if one mount there covers the other.
 * Asks no file system, unlike a look.
 */
char *fuse_place_key(const NamedEntry *place);

#endif /* BLOCK_EXPORT_FUSE_IDENTITY_H */
