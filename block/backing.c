/* SPDX-License-Identifier: MIT */
/*
 * Children that the image itself asks for: its backing, its data file.
 *
 * Main thread, under the graph lock, while the node above is being opened.
 *
 * What an image says about other files is input from whoever made the image.
 * It may name regular files and block devices by path, and nothing else: no
 * protocols, no options in JSON, no character devices (opening some has side
 * effects).  A name that leads back to an image that is just being opened is
 * refused.  Files are looked at in the thread pool, as one may lie on a slow
 * file system.
 */
#include "block/block-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/named-file.h"
#include "util/thread-pool.h"

/* ---- names ---- */

/* The protocol that @name begins with ("nbd" of "nbd://x"), or NULL. */
static char *protocol_of(const char *name)
{
    size_t n = strcspn(name, ":/");

    return name[n] == ':' ? g_strndup(name, n) : NULL;
}

/* The directory of the image @bs, with its last slash; "" for the cwd. */
static char *image_directory(BlockDriverState *bs, Error **errp)
{
    const char *slash;

    while (bs->file) {
        bs = bs->file->bs;
    }
    if (bs->drv->driver != BLOCKDEV_DRIVER_FILE
        && bs->drv->driver != BLOCKDEV_DRIVER_HOST_DEVICE) {
        error_setg(errp, "Cannot generate a base directory for %s nodes",
                   bs->drv->format_name);
        return NULL;
    }
    slash = strrchr(bs->filename, '/');
    return g_strndup(bs->filename, slash ? slash + 1 - bs->filename : 0);
}

/* A name as it stands in an image to a path, or NULL. */
static char *path_from_image(BlockDriverState *bs, const char *name,
                             const char *what, bool in_directory,
                             Error **errp)
{
    g_autofree char *protocol = NULL;
    g_autofree char *dir = NULL;

    if (g_str_has_prefix(name, "file:")) {
        name += strlen("file:");
    } else {
        protocol = protocol_of(name);
    }
    if (protocol) {
        error_setg(errp, "The image names '%s' as its %s; images must not use "
                   "protocol '%s', only paths of files", name, what, protocol);
        return NULL;
    }
    if (name[0] == '/' || !in_directory) {
        return g_strdup(name);
    }
    dir = image_directory(bs, errp);
    return dir ? g_strconcat(dir, name, NULL) : NULL;
}

/* ---- a look at the file ---- */

typedef struct FileLook {
    const char *path;
    GPtrArray *ancestors;       /* paths of images that are being opened */
    bool want_head;
    NamedFile file;             /* result: mode is 0 if there is none */
    bool is_ancestor;
    uint8_t head[BDRV_PROBE_SIZE];   /* the rest is zero */
} FileLook;

static void read_head(FileLook *look)
{
    int fd = named_file_open_found(&look->file, O_RDONLY | O_NONBLOCK, NULL);
    ssize_t n;

    if (fd < 0) {
        return;
    }
    do {
        n = pread(fd, look->head, BDRV_PROBE_SIZE, 0);
    } while (n < 0 && errno == EINTR);
    close(fd);
}

/* In a thread of the pool. */
static int look_at_file(void *opaque)
{
    FileLook *look = opaque;

    if (named_file_find(&look->file, look->path, NULL) < 0) {
        return 0;               /* opening it will say what is wrong */
    }
    for (guint i = 0; i < look->ancestors->len; i++) {
        NamedFile up;

        if (named_file_find(&up, look->ancestors->pdata[i], NULL) == 0) {
            look->is_ancestor |= named_file_same(&up, &look->file);
            named_file_release(&up);
        }
    }
    if (look->want_head
        && (S_ISREG(look->file.mode) || S_ISBLK(look->file.mode))) {
        read_head(look);
    }
    named_file_release(&look->file);
    return 0;
}

static FileLook *coroutine_fn co_look(BlockDriverState *bs, const char *path,
                                      bool want_head, const char *what,
                                      Error **errp)
{
    g_autofree FileLook *look = g_new0(FileLook, 1);
    g_autoptr(GPtrArray) ancestors = g_ptr_array_new();

    for (BlockDriverState *up = bs; up; up = up->opening_for) {
        BlockDriverState *node = up;

        while (node->file) {
            node = node->file->bs;
        }
        if (node != up && node->filename) {
            g_ptr_array_add(ancestors, node->filename);
        }
    }
    look->path = path;
    look->ancestors = ancestors;
    look->want_head = want_head;
    if (thread_pool_co_submit(look_at_file, look) < 0) {
        error_setg(errp, "Could not start a thread to open '%s'", path);
        return NULL;
    }
    if (look->is_ancestor) {
        error_setg(errp, "The image names '%s' as its %s, which is based on "
                   "that image itself", path, what);
        return NULL;
    }
    if (S_ISCHR(look->file.mode)) {
        error_setg(errp, "The image names '%s' as its %s; images must not use "
                   "character devices", path, what);
        return NULL;
    }
    look->path = NULL;
    look->ancestors = NULL;
    return g_steal_pointer(&look);
}

/* ---- formats ---- */

/* What a file of an unknown format begins with. */
static const struct {
    const char *format;
    unsigned offset, len;
    const char *magic;
} magics[] = {
    { "qcow", 0, 8, "QFI\xfb\0\0\0\1" },
    { "qcow2", 0, 4, "QFI\xfb" },
    { "luks", 0, 6, "LUKS\xba\xbe" },
    { "qed", 0, 4, "QED" },
    { "vmdk", 0, 4, "KDMV" },
    { "vmdk", 0, 4, "COWD" },
    { "vmdk", 0, 21, "# Disk DescriptorFile" },
    { "vhdx", 0, 8, "vhdxfile" },
    { "vpc", 0, 8, "conectix" },
    { "vdi", 64, 4, "\x7f\x10\xda\xbe" },
    { "parallels", 0, 16, "WithoutFreeSpace" },
    { "parallels", 0, 16, "WithouFreSpacExt" },
};

const char *bdrv_probe_format(const uint8_t *head)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(magics); i++) {
        if (!memcmp(head + magics[i].offset, magics[i].magic,
                    magics[i].len)) {
            return magics[i].format;
        }
    }
    return "raw";
}

/* What an image may name as the format of its backing. */
static bool may_be_below(BlockdevDriver driver)
{
    return driver == BLOCKDEV_DRIVER_QCOW2 || driver == BLOCKDEV_DRIVER_LUKS
           || driver == BLOCKDEV_DRIVER_RAW || driver == BLOCKDEV_DRIVER_FILE
           || driver == BLOCKDEV_DRIVER_HOST_DEVICE;
}

/* Where options of one of these formats have the file. */
static BlockdevRef **file_option(BlockdevOptions *o)
{
    switch (o->driver) {
    case BLOCKDEV_DRIVER_QCOW2:
        return &o->u.qcow2.file;
    case BLOCKDEV_DRIVER_LUKS:
        return &o->u.luks.file;
    default:
        return &o->u.raw.file;
    }
}

/* Options for driver @format on top of the file @path. */
static BlockdevOptions *image_options(const char *path, bool is_device,
                                      const char *format, Error **errp)
{
    const BlockDriver *drv = bdrv_find_format(format);
    g_autoptr(BlockdevOptions) o = g_new0(BlockdevOptions, 1);
    BlockdevOptions *file = o;
    BlockdevRef *ref;

    if (!drv || !may_be_below(drv->driver)) {
        error_setg(errp, "Unknown driver '%s'", format);
        return NULL;
    }
    o->driver = drv->driver;
    if (!drv->is_protocol) {
        ref = g_new0(BlockdevRef, 1);
        ref->type = QTYPE_QDICT;
        *file_option(o) = ref;
        file = &ref->u.definition;
        file->driver = is_device ? BLOCKDEV_DRIVER_HOST_DEVICE
                                 : BLOCKDEV_DRIVER_FILE;
    }
    if (file->driver == BLOCKDEV_DRIVER_FILE) {
        file->u.file.filename = g_strdup(path);
    } else {
        file->u.host_device.filename = g_strdup(path);
    }
    return g_steal_pointer(&o);
}

/* ---- backing ---- */

static void note_names(BlockDriverState *bs, const char *name,
                       const char *format)
{
    bs->backing_name = g_strdup(name);
    bs->backing_full_name = path_from_image(bs, name, "backing file", true,
                                            NULL);
    if (!bs->backing_full_name) {
        bs->backing_full_name = g_strdup(name);
    }
    bs->backing_format = format && format[0] ? g_strdup(format) : NULL;
}

/* Does an option say anything else than the image? */
static bool is_overridden(const BlockDriverState *bs)
{
    const char *filename = bs->backing ? bs->backing->bs->filename : NULL;

    return bs->backing ? g_strcmp0(filename, bs->backing_name)
                         && g_strcmp0(filename, bs->backing_full_name)
                       : bs->backing_name != NULL;
}

static bool coroutine_fn co_backing_by_option(BlockDriverState *bs,
                                              const BlockdevRefOrNull *ref,
                                              Error **errp)
{
    g_autofree BlockdevRef *child = NULL;

    if (ref->type == QTYPE_QNULL) {
        return true;
    }
    child = g_new0(BlockdevRef, 1);
    child->type = ref->type;
    if (ref->type == QTYPE_QSTRING) {
        if (!ref->u.reference[0]) {
            warn_report("Use of \"backing\": \"\" is deprecated; "
                        "use \"backing\": null instead");
            return true;
        }
        child->u.reference = ref->u.reference;
    } else {
        child->u.definition = ref->u.definition;
    }
    return bdrv_co_open_child(bs, child, "backing", BDRV_CHILD_COW, errp);
}

/* The options for what the image says, or NULL. */
static BlockdevOptions *coroutine_fn co_options_from_image(
    BlockDriverState *bs, const char *name, const char *format,
    const char *what, bool in_directory, Error **errp)
{
    g_autofree char *path = path_from_image(bs, name, what, in_directory,
                                            errp);
    g_autofree FileLook *look = NULL;

    if (!path) {
        return NULL;
    }
    look = co_look(bs, path, !format, what, errp);
    if (!look) {
        return NULL;
    }
    return image_options(path, S_ISBLK(look->file.mode),
                         format ? format : bdrv_probe_format(look->head), errp);
}

static bool check_safe(const char *name, const char *what, bool safe_image,
                       Error **errp)
{
    if (safe_image) {
        error_setg(errp, "The image names '%s' as its %s, but with "
                   "safe-image=on no such name is followed", name, what);
    }
    return !safe_image;
}

static bool coroutine_fn co_backing_by_image(BlockDriverState *bs,
                                             bool safe_image, Error **errp)
{
    BlockdevOptions *opts;
    BlockdevRef *ref;
    bool ok;

    if (!check_safe(bs->backing_name, "backing file", safe_image, errp)) {
        return false;
    }
    opts = co_options_from_image(bs, bs->backing_name, bs->backing_format,
                                 "backing file", true, errp);
    if (!opts) {
        return false;
    }
    ref = g_new0(BlockdevRef, 1);
    ref->type = QTYPE_QDICT;
    ref->u.definition = *opts;
    g_free(opts);
    ok = bdrv_co_open_child(bs, ref, "backing", BDRV_CHILD_COW, errp);
    qapi_free_BlockdevRef(ref);
    return ok;
}

bool coroutine_fn bdrv_co_open_backing(BlockDriverState *bs,
                                       const BlockdevRefOrNull *ref,
                                       const char *image_backing_file,
                                       const char *image_backing_format,
                                       bool safe_image, Error **errp)
{
    bool ok = true;

    if (image_backing_file && image_backing_file[0]) {
        note_names(bs, image_backing_file, image_backing_format);
    }
    if (ref) {
        ok = co_backing_by_option(bs, ref, errp);
        bs->backing_overridden = is_overridden(bs);
    } else if (bs->backing_name) {
        ok = co_backing_by_image(bs, safe_image, errp);
    }
    if (!ok) {
        error_prepend(errp, "Could not open backing file: ");
    }
    return ok;
}

/* ---- data file ---- */

/* Not opened as an image: whatever is in it belongs to the image above. */
static BlockdevRef *coroutine_fn co_data_file_by_image(BlockDriverState *bs,
                                                       const char *name,
                                                       bool safe_image,
                                                       Error **errp)
{
    g_autofree BlockdevOptions *opts = NULL;
    BlockdevRef *ref;

    if (!check_safe(name, "data file", safe_image, errp)) {
        return NULL;
    }
    /* Unlike a backing file's, this name counts from the cwd. */
    opts = co_options_from_image(bs, name, "raw", "data file", false, errp);
    if (!opts) {
        return NULL;
    }
    ref = opts->u.raw.file;
    return ref;
}

bool coroutine_fn bdrv_co_open_data_file(BlockDriverState *bs,
                                         const BlockdevRef *ref,
                                         const char *image_data_file,
                                         bool safe_image, BdrvChild **child,
                                         Error **errp)
{
    g_autoptr(BlockdevRef) own = NULL;

    if (!ref) {
        if (!image_data_file || !image_data_file[0]) {
            error_setg(errp, "'data-file' is required for this image");
            return false;
        }
        own = co_data_file_by_image(bs, image_data_file, safe_image, errp);
        if (!own) {
            return false;
        }
        ref = own;
    }
    bs->file->role &= ~BDRV_CHILD_DATA;
    *child = bdrv_co_open_child(bs, ref, "data-file", BDRV_CHILD_DATA, errp);
    return *child;
}
