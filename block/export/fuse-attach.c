/* SPDX-License-Identifier: MIT */
/*
 * Mounting a FUSE connection on a file, looking at it, and ending it.
 *
 * Sources: fuse(4), fsopen(2), fsmount(2), move_mount(2), mount(2), umount(2),
 * statx(2), Documentation/filesystems/fuse/fuse.rst (connections, abort).
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/export/fuse-attach.h"
#include "block/export/fuse-ops.h"
#include "block/export/fusermount.h"
#include "util/aio.h"
#include "util/own-mounts.h"

/* FORCE aborts the connection, as writing to its "abort" does. */
#define FUSE_UMOUNT_FLAGS (MNT_FORCE | MNT_DETACH)

#define FUSE_DEVICE "/dev/fuse"
#define FUSECTL "/sys/fs/fuse/connections"

/* How long the end of a dead mount is waited for. */
#define FUSE_DEAD_MOUNT_NS (1 * 1000000000LL)

/* Big enough for "/proc/self/fd/N" and a NUL. */
#define FUSE_FD_PATH_LEN 32

/* The keys of places that are taken, from before the mount to after its end. */
static GHashTable *fuse_places;
static pthread_mutex_t fuse_places_lock = PTHREAD_MUTEX_INITIALIZER;

/* A path that leads to exactly what @fd is, for calls that want a path. */
static const char *fuse_fd_path(char buf[FUSE_FD_PATH_LEN], int fd)
{
    g_snprintf(buf, FUSE_FD_PATH_LEN, "/proc/self/fd/%d", fd);
    return buf;
}

/* ---- before ---- */

/* Look up where to mount; -EISDIR: not on that. */
static int fuse_attach_locate(NamedFile *f, const char *path,
                              NamedEntry *place, Error **errp)
{
    int ret = named_file_locate(f, path, place, errp);

    if (ret == 0 && !S_ISREG(f->mode)) {
        error_setg(errp, "it is not a regular file");
        named_file_release(f);
        named_entry_deinit(place);
        ret = -EISDIR;
    }
    return ret;
}

static int fuse_attach_check_once(const char *path, Error **errp)
{
    NamedEntry place;
    struct statx stx;
    NamedFile f;
    int ret = fuse_attach_locate(&f, path, &place, errp);

    if (ret < 0) {
        return ret;
    }
    /* The kernel remembers what a dead file system once said: ask it. */
    if (statx(f.fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_TYPE, &stx)
        < 0) {
        ret = -errno;
        error_setg(errp, "%s", g_strerror(-ret));
    }
    named_file_release(&f);
    named_entry_deinit(&place);
    return ret;
}

int fuse_attach_check(const char *path, Error **errp)
{
    /* Readable, in a way, when something has been mounted or unmounted. */
    struct pollfd mounts = {
        .fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC),
        .events = POLLPRI,
    };
    int64_t end = clock_now_ns() + FUSE_DEAD_MOUNT_NS, left = 0;
    Error *err = NULL;
    int ret;

    do {
        g_clear_pointer(&err, error_free);
        ret = fuse_attach_check_once(path, &err);
        left = end - clock_now_ns();
        /*
         * A dead file system: that of a daemon which has just been killed is
         * about to be unmounted.
         */
    } while (ret == -ENOTCONN && left > 0 && mounts.fd >= 0
             && poll(&mounts, 1, left / 1000000 + 1) > 0);
    if (mounts.fd >= 0) {
        close(mounts.fd);
    }
    error_propagate(errp, err);
    return ret;
}

static bool fuse_attach_reserve(FuseAttachment *att)
{
    bool taken;

    att->key = fuse_place_key(&att->place);
    pthread_mutex_lock(&fuse_places_lock);
    if (!fuse_places) {
        fuse_places = g_hash_table_new(g_str_hash, g_str_equal);
    }
    taken = g_hash_table_contains(fuse_places, att->key);
    if (!taken) {
        g_hash_table_add(fuse_places, att->key);
    }
    pthread_mutex_unlock(&fuse_places_lock);
    if (taken) {
        g_clear_pointer(&att->key, g_free);
    }
    return !taken;
}

static void fuse_attach_unreserve(FuseAttachment *att)
{
    if (att->key) {
        pthread_mutex_lock(&fuse_places_lock);
        g_hash_table_remove(fuse_places, att->key);
        pthread_mutex_unlock(&fuse_places_lock);
        g_clear_pointer(&att->key, g_free);
    }
}

/* ---- mounting ---- */

/* A mount that is nowhere yet, or -errno. */
static int fuse_mount_new(int dev_fd, FuseAttachFlags flags)
{
    unsigned attr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME
                    | (flags & FUSE_ATTACH_WRITABLE ? 0 : MOUNT_ATTR_RDONLY);
    const struct {
        const char *key;
        unsigned value;
        const char *format;
    } numbers[] = {
        { "fd", dev_fd, "%u" }, { "rootmode", S_IFREG, "%o" },
        { "user_id", getuid(), "%u" }, { "group_id", getgid(), "%u" },
        { "max_read", FUSE_MAX_IO_BYTES, "%u" },
    };
    int fs = fsopen("fuse", FSOPEN_CLOEXEC);
    int fd = -1, ret = 0;

    if (fs < 0) {
        return -errno;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(numbers) && ret == 0; i++) {
        g_autofree char *value = g_strdup_printf(numbers[i].format,
                                                 numbers[i].value);

        ret = fsconfig(fs, FSCONFIG_SET_STRING, numbers[i].key, value, 0);
    }
    if (ret == 0
        && fsconfig(fs, FSCONFIG_SET_STRING, "source", FUSE_DEVICE, 0) == 0
        && fsconfig(fs, FSCONFIG_SET_FLAG, "default_permissions", NULL, 0) == 0
        && (!(flags & FUSE_ATTACH_ALLOW_OTHER)
            || fsconfig(fs, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) == 0)
        && ((flags & FUSE_ATTACH_WRITABLE)
            || fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) == 0)
        && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0) {
        fd = fsmount(fs, FSMOUNT_CLOEXEC, attr);
    }
    ret = fd < 0 ? -errno : fd;
    close(fs);
    return ret;
}

/* As mount(8) has them. */
static char *fuse_mount_options(FuseAttachFlags flags)
{
    return g_strdup_printf("default_permissions,max_read=%d%s",
                           FUSE_MAX_IO_BYTES, flags & FUSE_ATTACH_ALLOW_OTHER
                                              ? ",allow_other" : "");
}

/* On a kernel that has no fsopen(2). */
static int fuse_mount_old(int dev_fd, int file_fd, FuseAttachFlags flags)
{
    unsigned long ms = MS_NOSUID | MS_NODEV | MS_NOATIME
                       | (flags & FUSE_ATTACH_WRITABLE ? 0 : MS_RDONLY);
    g_autofree char *options = fuse_mount_options(flags);
    g_autofree char *all =
        g_strdup_printf("fd=%d,rootmode=%o,user_id=%u,group_id=%u,%s", dev_fd,
                        S_IFREG, getuid(), getgid(), options);
    char path[FUSE_FD_PATH_LEN];

    return mount(FUSE_DEVICE, fuse_fd_path(path, file_fd), "fuse", ms, all) < 0
           ? -errno : 0;
}

/* Read from the place who has been mounted there by somebody else. */
static int fuse_attach_identify_place(FuseAttachment *att)
{
    int fd = fuse_place_look(&att->place);
    int ret = fd < 0 ? fd : fuse_identify(fd, &att->identity);

    if (fd >= 0) {
        close(fd);
    }
    if (ret == 0) {
        own_mounts_add(att->identity.minor);
    }
    return ret;
}

/* Without fusermount3: 0 or -errno. */
static int fuse_attach_directly(FuseAttachment *att, int dev_fd, int file_fd,
                                FuseAttachFlags flags)
{
    int mount_fd = fuse_mount_new(dev_fd, flags);
    int ret;

    if (mount_fd < 0) {
        ret = fuse_mount_old(dev_fd, file_fd, flags);
        return ret < 0 ? ret : fuse_attach_identify_place(att);
    }
    ret = fuse_identify(mount_fd, &att->identity);
    if (ret == 0) {
        own_mounts_add(att->identity.minor);
        ret = move_mount(mount_fd, "", file_fd, "", MOVE_MOUNT_F_EMPTY_PATH
                                                    | MOVE_MOUNT_T_EMPTY_PATH)
              < 0 ? -errno : 0;
    }
    close(mount_fd);
    return ret;
}

/* The connection's fd, or -1 with an error. */
static int fuse_attach_by_program(FuseAttachment *att, int file_fd,
                                  FuseAttachFlags flags, Error **errp)
{
    g_autofree char *options = fuse_mount_options(flags);
    g_autofree char *all =
        g_strdup_printf("%s,nosuid,nodev,noatime,%s",
                        flags & FUSE_ATTACH_WRITABLE ? "rw" : "ro", options);
    char fd_path[FUSE_FD_PATH_LEN];
    /* The program looks names up itself: where the place is by now. */
    g_autofree char *path = g_file_read_link(fuse_fd_path(fd_path, file_fd),
                                             NULL);
    int dev_fd = fusermount_mount(path ? path : att->path, all, errp);
    int ret = dev_fd < 0 ? 0 : fuse_attach_identify_place(att);

    att->by_fusermount = true;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot find what has been mounted");
        close(dev_fd);
        return -1;
    }
    return dev_fd;
}

/*
 * fusectl's root, which stays open: not every system mounts it where it
 * belongs, and it need not be mounted at all.  -1: there is none.
 */
static int fuse_control_dir(void)
{
    static int dir = -1;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int fs, ret;

    pthread_mutex_lock(&lock);
    if (dir < 0) {
        fs = fsopen("fusectl", FSOPEN_CLOEXEC);
        if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0) {
            dir = fsmount(fs, FSMOUNT_CLOEXEC, 0);
        }
        if (fs >= 0) {
            close(fs);
        }
    }
    ret = dir;
    pthread_mutex_unlock(&lock);
    return ret;
}

/*
 * The file that aborts connection number @minor.  A number is another
 * connection's as soon as this one has ended, but an open file stays with the
 * connection that it was opened for.
 */
static int fuse_attach_open_abort(unsigned minor)
{
    g_autofree char *name = g_strdup_printf("%u/abort", minor);
    g_autofree char *path = g_strconcat(FUSECTL "/", name, NULL);
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0) {
        int dir = fuse_control_dir();

        fd = dir < 0 ? -1 : openat(dir, name, O_WRONLY | O_CLOEXEC);
    }
    return fd;
}

/* Mount on @file_fd, somehow.  The connection's fd, or -1 with an error. */
static int fuse_attach_to(FuseAttachment *att, int file_fd,
                          FuseAttachFlags flags, Error **errp)
{
    int dev_fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    int ret = dev_fd < 0 ? -errno
                         : fuse_attach_directly(att, dev_fd, file_fd, flags);

    if (ret == 0) {
        return dev_fd;
    }
    if (dev_fd >= 0) {
        close(dev_fd);
    }
    /* EACCES: /dev/fuse is for root only, fusermount3 opens it for us. */
    if (ret == -EPERM || ret == -EACCES) {
        return fuse_attach_by_program(att, file_fd, flags, errp);
    }
    error_setg(errp, "%s", g_strerror(-ret));
    return -1;
}

int fuse_attach(FuseAttachment *att, const char *path, FuseAttachFlags flags,
                Error **errp)
{
    NamedFile f = { .fd = -1 };
    int dev_fd = -1;

    *att = (FuseAttachment) { .path = g_strdup(path), .abort_fd = -1 };
    if (fuse_attach_locate(&f, path, &att->place, errp) == 0) {
        if (fuse_attach_reserve(att)) {
            dev_fd = fuse_attach_to(att, f.fd, flags, errp);
        } else {
            error_setg(errp, "there already is an export");
        }
        named_file_release(&f);
    }
    if (dev_fd < 0) {
        error_prepend(errp, "Failed to mount FUSE session to export: ");
        fuse_attach_close(att);
        return -1;
    }
    att->abort_fd = fuse_attach_open_abort(att->identity.minor);
    return dev_fd;
}

/* ---- while it is mounted ---- */

/* @fd if it is the mount; else closes it and returns -1. */
static int fuse_attach_take_if_ours(const FuseAttachment *att, int fd)
{
    FuseIdentity identity;

    if (fd >= 0 && (fuse_identify(fd, &identity) < 0
                    || !fuse_identity_equal(&identity, &att->identity))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* O_PATH of the mount if it is where it was mounted; else negative. */
static int fuse_attach_find(const FuseAttachment *att)
{
    return fuse_attach_take_if_ours(att, fuse_place_look(&att->place));
}

int fuse_attach_probe(const FuseAttachment *att)
{
    struct statx stx;
    int fd = fuse_attach_find(att), ret;

    if (fd < 0) {
        return -ENOTCONN;
    }
    ret = statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_TYPE, &stx)
          < 0 ? -errno : 0;
    close(fd);
    return ret;
}

/* ---- the end ---- */

/*
 * Where the mount is by now, or NULL if it is gone, or *@covered by another
 * mount, which is somebody else's (proc(5), mountinfo).  Reads all mounts.
 */
static char *fuse_attach_search(const FuseAttachment *att, bool *covered)
{
    g_autofree char *text = NULL;
    g_autofree char *id = g_strdup_printf("%" PRIu64, att->identity.mount_id);
    g_autofree char *dev = g_strdup_printf("0:%u", att->identity.minor);
    g_autofree char *place = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL)) {
        return NULL;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, " ", 6);

        if (g_strv_length(fields) < 6) {
            continue;
        }
        if (g_str_equal(fields[0], id) && g_str_equal(fields[2], dev)) {
            place = g_strdup(fields[4]);
        } else if (place && g_str_equal(fields[4], place)) {
            *covered = true;
        }
    }
    return place && !*covered ? g_strcompress(place) : NULL;
}

/* O_PATH of the mount if it has been moved to another place; else -1. */
static int fuse_attach_find_moved(const FuseAttachment *att, bool *covered)
{
    g_autofree char *path = fuse_attach_search(att, covered);

    return fuse_attach_take_if_ours(
        att, path ? open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1);
}

bool fuse_attach_detach(const FuseAttachment *att)
{
    char path[FUSE_FD_PATH_LEN];
    bool covered = false;
    int fd = fuse_attach_find(att);

    if (fd < 0) {
        fd = fuse_attach_find_moved(att, &covered);
    }
    if (fd < 0) {
        return !covered;
    }
    fuse_fd_path(path, fd);
    if (att->by_fusermount) {
        g_autofree char *name = g_file_read_link(path, NULL);

        fusermount_unmount(name ? name : att->path);
    } else if (umount2(path, FUSE_UMOUNT_FLAGS) < 0 && errno == ENOENT) {
        /* /proc is not mounted: by the name, as it leads there now. */
        umount2(att->path, FUSE_UMOUNT_FLAGS | UMOUNT_NOFOLLOW);
    }
    close(fd);
    return true;
}

void fuse_attach_abort(const FuseAttachment *att)
{
    if (att->abort_fd >= 0) {
        /* A failure means that it has ended by now. */
        (void)!write(att->abort_fd, "1", 1);
    }
}

void fuse_attach_detach_named(const char *path, unsigned minor,
                              bool by_fusermount)
{
    FuseAttachment att = {
        .path = (char *)path, .abort_fd = -1, .by_fusermount = by_fusermount,
    };
    int fd = open(path, O_PATH | O_CLOEXEC);

    if (fd >= 0) {
        if (fuse_identify(fd, &att.identity) == 0 && att.identity.major == 0
            && att.identity.minor == minor) {
            fuse_attach_detach(&att);
        }
        close(fd);
    }
}

void fuse_attach_close(FuseAttachment *att)
{
    if (att->identity.minor) {
        own_mounts_remove(att->identity.minor);
    }
    if (att->abort_fd >= 0) {
        close(att->abort_fd);
    }
    att->abort_fd = -1;
    fuse_attach_unreserve(att);
    named_entry_deinit(&att->place);
    g_clear_pointer(&att->path, g_free);
}
