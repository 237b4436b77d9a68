/* SPDX-License-Identifier: MIT */
/*
 * FusePlace: where something is or will be mounted, by descriptor.
 *
 * A path means what whoever owns a directory on it wants it to mean, at each
 * moment anew.  So it is looked up once; from then on the place is a directory
 * that is held open, and a name in it, whatever is done to the path.
 *
 * Nothing here asks a file system for anything that the kernel does not know
 * already, except looking up names in directories.
 */
#ifndef BLOCK_EXPORT_FUSE_PLACE_H
#define BLOCK_EXPORT_FUSE_PLACE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct FusePlace {
    int dir_fd;                 /* O_PATH; -1: none */
    char *name;                 /* of one component, not a symbolic link */
} FusePlace;

/* What is at a place: the topmost mount there, or else the file itself. */
typedef struct FuseIdentity {
    unsigned major, minor;      /* of st_dev */
    uint64_t mount_id;          /* as in /proc/self/mountinfo; reused */
    uint64_t unique_id;         /* never reused; 0: Linux before 6.8 */
    unsigned mode;              /* st_mode */
} FuseIdentity;

/*
 * Look @path (absolute) up; *@file_fd is then what is there, O_PATH.
 * Symbolic links are followed where only their maker or root can have made
 * them mean what they do: links of root's and of the effective user's own, and
 * all in directories into which nobody else writes.  For a user other than
 * root this is so for the last component only, as the others lend him nothing.
 * (proc_sys_fs(5), protected_symlinks, is the same idea for sticky
 * directories.)
 *
 * 0 or -errno; -EXDEV stands for a link that is not followed.
 */
int fuse_place_open(FusePlace *place, const char *path, int *file_fd);

/* O_PATH of what is at @place now, or -errno. */
int fuse_place_look(const FusePlace *place);

/*
 * A text that is the same for two places if one mount there covers the other.
 * Asks no file system, unlike a look.
 */
char *fuse_place_key(const FusePlace *place);

void fuse_place_close(FusePlace *place);

/* Who @fd (O_PATH or any other) is.  0 or -errno. */
int fuse_identify(int fd, FuseIdentity *identity);

/* Is that the same mount? */
bool fuse_identity_equal(const FuseIdentity *a, const FuseIdentity *b);

#endif /* BLOCK_EXPORT_FUSE_PLACE_H */
