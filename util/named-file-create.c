/* SPDX-License-Identifier: MIT */
/*
 * Files by name: making and removing; see util/named-file.h.
 *
 * For what is made or emptied, the path is walked here, name by name, as each
 * link on it has to be one that may be followed.  Links of /proc are the
 * kernel's to follow: those of /proc/PID/fd are not names of anything.
 *
 * Sources: open(2), symlink(7), proc_sys_fs(5).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "util/named-file-int.h"

#define MAX_TRIES 40            /* links, and files that come and go */
#define ONE_MORE INT_MIN        /* not an errno: take one more step */

/* ---- names in directories ---- */

/* The directory that @path has its last name in. */
static int entry_open(NamedEntry *entry, const char *path)
{
    const char *slash = strrchr(path, '/');
    g_autofree char *dir = slash ? g_strndup(path, slash + 1 - path)
                                 : g_strdup(".");

    *entry = (NamedEntry) { 0 };
    if (slash && !slash[1]) {
        return -EISDIR;
    }
    do {
        entry->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    } while (entry->dir < 0 && errno == EINTR);
    if (entry->dir < 0) {
        return -errno;
    }
    entry->name = g_strdup(slash ? slash + 1 : path);
    return 0;
}

static void entry_set(NamedEntry *entry, mode_t mode, dev_t dev, ino_t ino)
{
    entry->exists = true;
    entry->mode = mode;
    entry->dev = dev;
    entry->ino = ino;
}

int named_entry_init(NamedEntry *entry, const char *path, Error **errp)
{
    struct statx stx;
    int ret = entry_open(entry, path);

    if (ret == 0) {
        ret = named_file_stat(entry->dir, entry->name, AT_SYMLINK_NOFOLLOW,
                              &stx);
    }
    if (ret == 0) {
        entry_set(entry, stx.stx_mode,
                  makedev(stx.stx_dev_major, stx.stx_dev_minor), stx.stx_ino);
    } else if (ret != -ENOENT || !entry->name) {
        named_entry_deinit(entry);
        return named_file_fail(-ret, errp);
    }
    return 0;
}

void named_entry_deinit(NamedEntry *entry)
{
    if (entry->name) {
        close(entry->dir);
        g_free(entry->name);
    }
    *entry = (NamedEntry) { 0 };
}

bool named_entry_is_current(const NamedEntry *entry)
{
    struct statx stx;

    return entry->exists
        && named_file_stat(entry->dir, entry->name, AT_SYMLINK_NOFOLLOW,
                           &stx) == 0
        && makedev(stx.stx_dev_major, stx.stx_dev_minor) == entry->dev
        && stx.stx_ino == entry->ino;
}

int named_entry_remove(const NamedEntry *entry)
{
    if (!named_entry_is_current(entry)) {
        return -ENOENT;
    }
    return unlinkat(entry->dir, entry->name, 0) < 0 ? -errno : 0;
}

/* ---- what may be written to ---- */

/*
 * May @uid decide what we write to: the user, root, or who owns "/", as root
 * looks like from inside of a user namespace without it.
 */
static bool is_trusted(uid_t uid)
{
    struct statx root;

    return uid == 0 || uid == geteuid()
           || (named_file_stat(AT_FDCWD, "/", 0, &root) == 0
               && uid == root.stx_uid);
}

/*
 * Can others than these put names into the directory?  Those with whom a user
 * shares a directory on purpose are not an enemy; root has nobody like that.
 */
static int is_shared(const NamedEntry *entry, uid_t *owner)
{
    struct statx stx;
    int ret = named_file_stat(entry->dir, "", AT_EMPTY_PATH, &stx);

    if (ret < 0) {
        return ret;
    }
    *owner = stx.stx_uid;
    if (geteuid() != 0) {
        return (stx.stx_mode & S_ISVTX) && (stx.stx_mode & S_IWOTH);
    }
    return !is_trusted(stx.stx_uid) || (stx.stx_mode & (S_IWGRP | S_IWOTH));
}

/* May what @f is in the directory @dir be followed, or opened for writing? */
static int check_made(const NamedFile *f, const NamedEntry *entry, Error **errp)
{
    const char *why = NULL;
    uid_t owner;
    int shared = is_shared(entry, &owner);

    if (shared < 0) {
        return named_file_fail(-shared, errp);
    }
    if (!shared || S_ISDIR(f->mode)) {
        return 0;
    }
    if (S_ISLNK(f->mode)) {
        if (!is_trusted(f->uid)) {
            why = "is somebody else's link";
        }
    } else if (!is_trusted(f->uid) && f->uid != owner) {
        why = "belongs to somebody else";
    } else if (S_ISREG(f->mode) && f->n_links > 1) {
        why = "has a second name";
    }
    if (why) {
        error_setg(errp, "'%s' %s, in a directory where others may write",
                   entry->name, why);
        return S_ISLNK(f->mode) ? -ELOOP : -EACCES;
    }
    return 0;
}

/* ---- one step ---- */

typedef struct Creation {
    const char *path;
    int flags;
    mode_t mode;
    bool regular;
    NamedFile *found;           /* what it is; nothing is opened or made then */
    NamedEntry entry;           /* where we are */
    char *rest;                 /* of the path, behind that */
    unsigned tries;
} Creation;

/* Go on with @path, seen from where we are. */
static int set_rest(Creation *c, const char *path)
{
    char *rest;

    if (path[0] == '/') {
        int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (root < 0) {
            return -errno;
        }
        close(c->entry.dir);
        c->entry.dir = root;
    }
    rest = g_strdup(path + strspn(path, "/"));
    g_free(c->rest);
    c->rest = rest;
    return 0;
}

/* True if this is the last one. */
static bool next_name(Creation *c)
{
    size_t len = strcspn(c->rest, "/");
    char *end = c->rest + len;
    bool last = !*end;

    g_free(c->entry.name);
    c->entry.name = g_strndup(c->rest, len);
    end += strspn(end, "/");
    memmove(c->rest, end, strlen(end) + 1);
    return last;
}

static int create_new(Creation *c, Error **errp)
{
    struct statx stx;
    int fd = openat(c->entry.dir, c->entry.name,
                    c->flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
                    | O_NOCTTY, c->mode);

    if (fd < 0 && (errno == EEXIST || errno == EINTR)) {
        c->tries++;             /* somebody was faster: look again */
        set_rest(c, c->entry.name);
        return ONE_MORE;
    }
    if (fd < 0) {
        return named_file_fail(errno, errp);
    }
    if (named_file_stat(fd, "", AT_EMPTY_PATH, &stx) == 0) {
        entry_set(&c->entry, stx.stx_mode,
                  makedev(stx.stx_dev_major, stx.stx_dev_minor), stx.stx_ino);
    }
    return fd;
}

static int open_old(Creation *c, const NamedFile *f, Error **errp)
{
    int fd;

    if (c->regular && !S_ISREG(f->mode) && !S_ISDIR(f->mode)) {
        error_setg(errp, "it is not a regular file");
        return -EINVAL;
    }
    fd = named_file_open_found(f, c->flags & ~O_TRUNC, errp);
    if (fd >= 0 && (c->flags & O_TRUNC) && S_ISREG(f->mode)
        && ftruncate(fd, 0) < 0) {
        int ret = named_file_fail(errno, errp);

        close(fd);
        return ret;
    }
    return fd;
}

/* Replace the name of @link by what it says. */
static int follow(Creation *c, const NamedFile *link, Error **errp)
{
    char target[PATH_MAX];
    ssize_t len = readlinkat(link->fd, "", target, sizeof(target) - 1);
    g_autofree char *path = NULL;
    int ret;

    if (len < 0) {
        return named_file_fail(errno, errp);
    }
    target[len] = '\0';
    path = c->rest[0] ? g_strconcat(target, "/", c->rest, NULL)
                      : g_strdup(target);
    c->tries++;
    ret = set_rest(c, path);
    return ret < 0 ? named_file_fail(-ret, errp) : ONE_MORE;
}

/* What the name is that we are at; a link of /proc the kernel follows. */
static int look(Creation *c, NamedFile *f, Error **errp)
{
    struct statfs fs;
    int ret = named_file_look(f, c->entry.dir, c->entry.name, O_NOFOLLOW, errp);

    if (ret < 0) {
        return ret;
    }
    ret = check_made(f, &c->entry, errp);
    if (ret == 0 && S_ISLNK(f->mode) && fstatfs(f->fd, &fs) == 0
        && fs.f_type == PROC_SUPER_MAGIC) {
        named_file_release(f);
        ret = named_file_look(f, c->entry.dir, c->entry.name, 0, errp);
    }
    return ret;
}

/* A descriptor, ONE_MORE, or -errno. */
static int create_step(Creation *c, Error **errp)
{
    NamedFile f = { .fd = -1, .path = c->path };
    bool last = next_name(c);
    Error *err = NULL;
    int ret = look(c, &f, &err);

    if (ret == -ENOENT && !err && last && c->entry.name[0] && !c->found) {
        return create_new(c, errp);
    }
    if (ret < 0) {
        if (!err) {
            named_file_fail(-ret, &err);
        }
        error_propagate(errp, err);
    } else if (S_ISLNK(f.mode)) {
        ret = follow(c, &f, errp);
    } else if (last) {
        entry_set(&c->entry, f.mode, f.dev, f.ino);
        if (c->found) {
            *c->found = f;
            return 0;
        }
        ret = open_old(c, &f, errp);
    } else {
        close(c->entry.dir);
        c->entry.dir = f.fd;
        return ONE_MORE;
    }
    named_file_release(&f);
    return ret;
}

/* To the end of the path: a descriptor (0 if that is not wanted) or -errno. */
static int create_walk(Creation *c, NamedEntry *entry, Error **errp)
{
    int ret;

    c->entry.dir = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (c->entry.dir < 0) {
        return named_file_fail(errno, errp);
    }
    ret = g_str_has_suffix(c->path, "/") ? -EISDIR : set_rest(c, c->path);
    if (ret < 0) {
        named_file_fail(-ret, errp);
    } else {
        do {
            ret = create_step(c, errp);
        } while (ret == ONE_MORE && c->tries <= MAX_TRIES);
        if (ret == ONE_MORE) {
            ret = named_file_fail(ELOOP, errp);
        }
    }
    g_free(c->rest);
    if (ret >= 0 && entry) {
        *entry = c->entry;
    } else {
        close(c->entry.dir);
        g_free(c->entry.name);
    }
    return ret;
}

int named_file_create(const char *path, int flags, mode_t mode, bool regular,
                      NamedEntry *entry, Error **errp)
{
    Creation c = {
        .path = path,
        .flags = flags & ~O_CREAT,
        .mode = mode,
        .regular = regular,
    };

    return create_walk(&c, entry, errp);
}

int named_file_locate(NamedFile *f, const char *path, NamedEntry *entry,
                      Error **errp)
{
    Creation c = { .path = path, .found = f };

    return create_walk(&c, entry, errp);
}
