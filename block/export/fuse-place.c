/* SPDX-License-Identifier: MIT */
/*
 * Looking up where to mount, once, and who is mounted there.
 *
 * Sources: open(2) (O_PATH), statx(2), symlink(7), path_resolution(7).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <glib.h>

#include "block/export/fuse-place.h"

#ifndef STATX_MNT_ID_UNIQUE                 /* Linux 6.8 */
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif

/* As many symbolic links as the kernel follows (path_resolution(7)). */
#define FUSE_PLACE_MAX_LINKS 40

/* A lookup: the directory that it has come to, and what is left. */
typedef struct Walk {
    int dir_fd;
    char *rest;
    unsigned n_links;
} Walk;

static int fuse_statx(int fd, unsigned mask, struct statx *stx)
{
    /* DONT_SYNC: what the kernel knows, without asking a file system. */
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
                 mask, stx) < 0 ? -errno : 0;
}

int fuse_identify(int fd, FuseIdentity *identity)
{
    struct statx stx;
    int ret = fuse_statx(fd, STATX_TYPE | STATX_MODE | STATX_MNT_ID, &stx);

    if (ret < 0) {
        return ret;
    }
    *identity = (FuseIdentity) {
        .major = stx.stx_dev_major,
        .minor = stx.stx_dev_minor,
        .mount_id = stx.stx_mnt_id,
        .mode = stx.stx_mode,
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

/* Can others than root and this user make names in the directory @fd? */
static bool fuse_place_is_shared(int fd)
{
    struct statx stx;

    return fuse_statx(fd, STATX_MODE | STATX_UID, &stx) < 0
           || (stx.stx_mode & (S_IWGRP | S_IWOTH))
           || (stx.stx_uid != 0 && stx.stx_uid != geteuid());
}

/* May the link in directory @dir_fd whose owner is @uid be followed? */
static bool fuse_place_trusts(int dir_fd, uid_t uid, bool last)
{
    return uid == 0 || uid == geteuid() || (!last && geteuid() != 0)
           || !fuse_place_is_shared(dir_fd);
}

/* The next component of walk->rest, which then begins after it. */
static char *fuse_walk_next(Walk *walk, bool *last)
{
    const char *begin = walk->rest + strspn(walk->rest, "/");
    size_t len = strcspn(begin, "/");
    const char *after = begin + len + strspn(begin + len, "/");
    char *name = len ? g_strndup(begin, len) : g_strdup(".");
    char *rest = g_strdup(after);

    *last = *after == '\0';
    g_free(walk->rest);
    walk->rest = rest;
    return name;
}

static int fuse_walk_enter(Walk *walk, int fd)
{
    if (fd < 0) {
        return -errno;
    }
    close(walk->dir_fd);
    walk->dir_fd = fd;
    return 0;
}

/* Go on with the target of the link @fd in place of the link. */
static int fuse_walk_follow(Walk *walk, int fd, bool last)
{
    char target[PATH_MAX];
    struct statx stx;
    ssize_t len;
    int ret = fuse_statx(fd, STATX_UID, &stx);
    char *rest;

    if (ret < 0) {
        return ret;
    }
    if (++walk->n_links > FUSE_PLACE_MAX_LINKS) {
        return -ELOOP;
    }
    if (!fuse_place_trusts(walk->dir_fd, stx.stx_uid, last)) {
        return -EXDEV;
    }
    len = readlinkat(fd, "", target, sizeof(target) - 1);
    if (len <= 0) {
        return len < 0 ? -errno : -ENOENT;
    }
    target[len] = '\0';
    rest = last ? g_strdup(target) : g_strconcat(target, "/", walk->rest, NULL);
    g_free(walk->rest);
    walk->rest = rest;
    if (strlen(rest) >= PATH_MAX) {
        return -ENAMETOOLONG;
    }
    return target[0] == '/'
           ? fuse_walk_enter(walk, open("/", O_PATH | O_CLOEXEC)) : 0;
}

/*
 * One component.  1: go on, 0: *@file_fd is the last one, called *@name; or
 * -errno.
 */
static int fuse_walk_step(Walk *walk, char **name, int *file_fd)
{
    struct statx stx;
    bool last;
    int fd, ret;

    g_free(*name);
    *name = fuse_walk_next(walk, &last);
    /* O_DIRECTORY lets automounts happen on the way. */
    fd = openat(walk->dir_fd, *name,
                O_PATH | O_NOFOLLOW | O_CLOEXEC | (last ? 0 : O_DIRECTORY));
    if (fd >= 0 && !last) {
        return fuse_walk_enter(walk, fd) < 0 ? -errno : 1;
    }
    if (fd < 0 && errno == ENOTDIR && !last) {
        fd = openat(walk->dir_fd, *name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0) {
        return -errno;
    }
    ret = fuse_statx(fd, STATX_TYPE, &stx);
    if (ret == 0 && S_ISLNK(stx.stx_mode)) {
        ret = fuse_walk_follow(walk, fd, last);
        close(fd);
        return ret < 0 ? ret : 1;
    }
    if (ret == 0 && !last) {
        ret = -ENOTDIR;
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    *file_fd = fd;
    return 0;
}

int fuse_place_open(FusePlace *place, const char *path, int *file_fd)
{
    g_autofree char *name = NULL;
    Walk walk = { .dir_fd = open("/", O_PATH | O_CLOEXEC) };
    int ret;

    *place = (FusePlace) { .dir_fd = -1 };
    if (walk.dir_fd < 0) {
        return -errno;
    }
    walk.rest = g_strdup(path);
    do {
        ret = fuse_walk_step(&walk, &name, file_fd);
    } while (ret > 0);
    g_free(walk.rest);
    if (ret < 0) {
        close(walk.dir_fd);
        return ret;
    }
    *place = (FusePlace) { walk.dir_fd, g_steal_pointer(&name) };
    return 0;
}

int fuse_place_look(const FusePlace *place)
{
    int fd = openat(place->dir_fd, place->name,
                    O_PATH | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

char *fuse_place_key(const FusePlace *place)
{
    struct statx stx = { 0 };

    fuse_statx(place->dir_fd, STATX_INO | STATX_MNT_ID, &stx);
    return g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT "/%s",
                           (guint64)stx.stx_mnt_id, (guint64)stx.stx_ino,
                           place->name);
}

void fuse_place_close(FusePlace *place)
{
    if (place->dir_fd >= 0) {
        close(place->dir_fd);
    }
    place->dir_fd = -1;
    g_clear_pointer(&place->name, g_free);
}
