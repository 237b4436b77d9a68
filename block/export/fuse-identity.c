/* SPDX-License-Identifier: MIT */
/*
 * Who is mounted where.  Sources: open(2) (O_PATH), statx(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <glib.h>

#include "block/export/fuse-identity.h"

#ifndef STATX_MNT_ID_UNIQUE                 /* Linux 6.8 */
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif

static int fuse_statx(int fd, unsigned mask, struct statx *stx)
{
    /* DONT_SYNC: what the kernel knows, without asking a file system. */
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
                 mask, stx) < 0 ? -errno : 0;
}

int fuse_identify(int fd, FuseIdentity *identity)
{
    struct statx stx;
    int ret = fuse_statx(fd, STATX_TYPE | STATX_MNT_ID, &stx);

    if (ret < 0) {
        return ret;
    }
    *identity = (FuseIdentity) {
        .major = stx.stx_dev_major,
        .minor = stx.stx_dev_minor,
        .mount_id = stx.stx_mnt_id,
    };
    if (fuse_statx(fd, STATX_TYPE | STATX_MNT_ID_UNIQUE, &stx) == 0
        && (stx.stx_mask & STATX_MNT_ID_UNIQUE)) {
        identity->unique_id = stx.stx_mnt_id;
    }
    return 0;
}

bool fuse_identity_equal(const FuseIdentity *a, const FuseIdentity *b)
{
    return a->major == b->major && a->minor == b->minor
           && a->mount_id == b->mount_id && a->unique_id == b->unique_id;
}

int fuse_place_look(const NamedEntry *place)
{
    int fd = place->name ? openat(place->dir, place->name,
                                  O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;

    return fd < 0 ? (place->name ? -errno : -ENOENT) : fd;
}

char *fuse_place_key(const NamedEntry *place)
{
    struct statx stx = { 0 };

    fuse_statx(place->dir, STATX_INO | STATX_MNT_ID, &stx);
    return g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT "/%s",
                           (guint64)stx.stx_mnt_id, (guint64)stx.stx_ino,
                           place->name);
}
