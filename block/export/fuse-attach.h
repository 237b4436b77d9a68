/* SPDX-License-Identifier: MIT */
/*
 * FuseAttachment: a FUSE connection that is mounted on a file.
 *
 * Who it is was read from the mount's own descriptor, before anybody else could
 * reach it; what is ended later is that very mount and that very connection.
 *
 * All of it may block, some on the file system's own requests, so it is for
 * threads of a process that serves none.
 */
#ifndef BLOCK_EXPORT_FUSE_ATTACH_H
#define BLOCK_EXPORT_FUSE_ATTACH_H

#include "block/export/fuse-identity.h"
#include "util/error.h"

typedef struct FuseAttachment {
    char *path;                 /* what was asked for */
    NamedEntry place;           /* where that was found */
    char *key;                  /* of the place, which is taken */
    FuseIdentity identity;
    int abort_fd;               /* fusectl's "abort" of it; -1: none */
    bool by_fusermount;         /* fusermount3 mounted it, and unmounts it */
} FuseAttachment;

typedef enum FuseAttachFlags {
    FUSE_ATTACH_WRITABLE = 1 << 0,
    FUSE_ATTACH_ALLOW_OTHER = 1 << 1,
} FuseAttachFlags;

/*
 * Is @path (absolute) a regular file on which one can mount?  0 or -errno, with
 * the reason alone in @errp; -EISDIR for any other kind of file, and what a
 * dead file system says.
 */
int fuse_attach_check(const char *path, Error **errp);

/*
 * Mount on @path (absolute): with fsopen(2) and its kin, mount(2) on older
 * kernels, fusermount3 where both are not permitted.  The device is among
 * own_mounts before anybody can reach it (but for fusermount3, which tells
 * nobody before).  Returns the connection's fd (/dev/fuse, non-blocking); or -1
 * and @errp set, with nothing mounted.
 */
int fuse_attach(FuseAttachment *att, const char *path, FuseAttachFlags flags,
                Error **errp);

/* Have the file system answer a client.  0 or -errno. */
int fuse_attach_probe(const FuseAttachment *att);

/* End the connection: its clients' requests fail from now on. */
void fuse_attach_abort(const FuseAttachment *att);

/*
 * Take the mount out of the tree, wherever it is by now, if it still is.
 * False if another mount covers it, which is left alone with what is below.
 */
bool fuse_attach_detach(const FuseAttachment *att);

/*
 * By whoever knows no more than that connection @minor, which is alive, has
 * been mounted on @path: detach it.
 */
void fuse_attach_detach_named(const char *path, unsigned minor,
                              bool by_fusermount);

/* Free what @att holds, after both. */
void fuse_attach_close(FuseAttachment *att);

#endif /* BLOCK_EXPORT_FUSE_ATTACH_H */
