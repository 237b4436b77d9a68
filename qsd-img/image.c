/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: opening images.
 *
 * What names an image (a path, "json:{...}", --image-opts) becomes a dictionary
 * of options for a node, which is completed: format, driver of the file, and
 * what the command itself asks for.
 */
#include "qsd-img/qsd-img.h"

#include <string.h>
#include <sys/stat.h>
#include "block/check.h"
#include "block/image.h"
#include "qapi/json.h"
#include "qapi/visit.h"
#include "util/named-file.h"

static bool has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

const char *img_path(const char *name, Error **errp)
{
    if (g_str_has_prefix(name, "file:")) {
        return name + strlen("file:");
    }
    if (has_protocol(name)) {
        error_setg(errp, "Unknown protocol '%.*s'", (int)strcspn(name, ":"),
                   name);
        return NULL;
    }
    return name;
}

bool img_is_device(const char *name)
{
    const char *path = img_path(name, NULL);
    NamedFile file;

    if (!path || named_file_find(&file, path, NULL) < 0) {
        return false;
    }
    named_file_release(&file);
    return S_ISBLK(file.mode) || S_ISCHR(file.mode);
}

char *img_relative_name(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');

    if (name[0] == '/' || !slash || has_protocol(name)) {
        return g_strdup(name);
    }
    return g_strdup_printf("%.*s/%s", (int)(slash - image), image, name);
}

/* ---- dictionaries ---- */

QDict *img_file_options(const char *path)
{
    QDict *file = qdict_new();

    qdict_put_str(file, "driver", img_is_device(path) ? "host_device" : "file");
    qdict_put_str(file, "filename", path);
    return file;
}

static QDict *options_from_name(const char *name, Error **errp)
{
    const char *path = img_path(name, errp);
    QDict *opts;

    if (!path) {
        return NULL;
    }
    opts = qdict_new();
    qdict_put(opts, "file", img_file_options(path));
    return opts;
}

static QDict *options_from_json(const char *name, Error **errp)
{
    QObject *obj = qobject_from_json(name + strlen("json:"), errp);

    if (obj && !qobject_to_qdict(obj)) {
        error_setg(errp, "Invalid JSON object given");
        qobject_unref(obj);
        return NULL;
    }
    return qobject_to_qdict(obj);
}

/* "filename" alone, without a driver, is that of the file below. */
static void move_filename(QDict *opts)
{
    const char *filename = qdict_get_str(opts, "filename");

    if (filename && !qdict_haskey(opts, "driver")
        && !qdict_haskey(opts, "file")) {
        g_autofree char *path = g_strdup(filename);

        qdict_del(opts, "filename");
        qdict_put(opts, "file", img_file_options(path));
    }
}

/* A file's driver may be left out, at any depth. */
static void add_file_drivers(QDict *opts)
{
    for (size_t i = 0; i < qdict_size(opts); i++) {
        QDict *child = qobject_to_qdict(qdict_value_at(opts, i));
        const char *filename;

        if (!child) {
            continue;
        }
        add_file_drivers(child);
        filename = qdict_get_str(child, "filename");
        if (filename && !qdict_haskey(child, "driver")) {
            qdict_put_str(child, "driver",
                          img_is_device(filename) ? "host_device" : "file");
        }
    }
}

static void add_format(QDict *opts, const char *format)
{
    const QDict *file = qdict_get_qdict(opts, "file");
    const char *filename = file ? qdict_get_str(file, "filename") : NULL;

    if (!format && filename) {
        format = image_probe_file(filename);
    }
    qdict_put_str(opts, "driver", format ? format : "raw");
}

static void put_bool(QDict *opts, const char *name, bool value, bool keyval)
{
    if (keyval) {
        qdict_put_str(opts, name, value ? "on" : "off");
    } else {
        qdict_put_bool(opts, name, value);
    }
}

static void add_cache(QDict *opts, const char *cache, bool keyval)
{
    QDict *dict;

    if (!cache || qdict_haskey(opts, "cache")) {
        return;
    }
    dict = qdict_new();
    put_bool(dict, "direct", !strcmp(cache, "none")
                             || !strcmp(cache, "directsync"), keyval);
    put_bool(dict, "no-flush", !strcmp(cache, "unsafe"), keyval);
    qdict_put(opts, "cache", dict);
}

static void add_generic_options(QDict *opts, const ImgOpen *open, bool keyval)
{
    if (!qdict_haskey(opts, "read-only")) {
        put_bool(opts, "read-only", !open->write, keyval);
    }
    if (open->force_share && !qdict_haskey(opts, "force-share")) {
        put_bool(opts, "force-share", true, keyval);
    }
    if (open->unmap && !qdict_haskey(opts, "discard")) {
        qdict_put_str(opts, "discard", "unmap");
    }
    if (open->no_backing && !qdict_haskey(opts, "backing")
        && !g_strcmp0(qdict_get_str(opts, "driver"), "qcow2")) {
        qdict_put(opts, "backing", qnull_new());
    }
    add_cache(opts, open->cache, keyval);
}

static void add_key(QDict *opts, const char *secret)
{
    const char *driver = qdict_get_str(opts, "driver");
    QDict *encrypt;

    if (!secret || qdict_haskey(opts, "encrypt")
        || qdict_haskey(opts, "key-secret")) {
        return;
    }
    if (!g_strcmp0(driver, "luks")) {
        qdict_put_str(opts, "key-secret", secret);
    } else if (!g_strcmp0(driver, "qcow2")) {
        encrypt = qdict_new();
        qdict_put_str(encrypt, "format", "luks");
        qdict_put_str(encrypt, "key-secret", secret);
        qdict_put(opts, "encrypt", encrypt);
    }
}

/* Which encryption it is may be left out. */
static void add_encryption_format(QDict *opts)
{
    QDict *encrypt = qdict_get_qdict(opts, "encrypt");

    if (encrypt && !qdict_haskey(encrypt, "format")) {
        qdict_put_str(encrypt, "format", "luks");
    }
}

/* The options for @open, *@keyval: which kind of scalars they have. */
static QDict *img_options(const ImgOpen *open, bool *keyval, Error **errp)
{
    const char *name = open->name;
    QDict *opts;

    *keyval = open->image_opts;
    if (open->image_opts) {
        opts = qapi_parse_option(name, NULL, NULL, keyval, errp);
    } else if (g_str_has_prefix(name, "json:")) {
        opts = options_from_json(name, errp);
    } else {
        opts = options_from_name(name, errp);
    }
    if (!opts) {
        return NULL;
    }
    move_filename(opts);
    add_file_drivers(opts);
    if (!qdict_haskey(opts, "driver") || open->format) {
        add_format(opts, open->format);
    }
    add_encryption_format(opts);
    add_key(opts, open->key_secret);
    add_generic_options(opts, open, *keyval);
    return opts;
}

/* ---- opening ---- */

bool img_cache_known(const char *cache)
{
    static const char *const caches[] = {
        "none", "writeback", "writethrough", "directsync", "unsafe", NULL,
    };

    return g_strv_contains(caches, cache);
}

static bool check_open(const ImgOpen *open, Error **errp)
{
    if (open->format && !image_format_known(open->format)) {
        error_setg(errp, "Unknown driver '%s'", open->format);
        return false;
    }
    if (open->cache && !img_cache_known(open->cache)) {
        error_setg(errp, "Invalid cache option: %s", open->cache);
        return false;
    }
    return true;
}

static BlockBackend *coroutine_fn co_attach(const ImgOpen *open,
                                            BlockDriverState *bs,
                                            Error **errp)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ;
    BlockBackend *blk;

    if (open->write) {
        perm |= BLK_PERM_WRITE;
    }
    if (open->resize) {
        perm |= BLK_PERM_RESIZE;
    }
    blk = blk_new(NULL, perm, open->alone
                  ? BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE)
                  : BLK_PERM_ALL);
    if (!blk_co_attach(blk, bs, errp)) {
        blk_co_free(blk);
        return NULL;
    }
    if (open->cache && (!strcmp(open->cache, "writethrough")
                        || !strcmp(open->cache, "directsync"))) {
        blk_set_writethrough(blk, true);
    }
    return blk;
}

BlockBackend *coroutine_fn img_co_try_open(const ImgOpen *open, Error **errp)
{
    g_autoptr(BlockdevOptions) options = NULL;
    g_autoptr(QDict) opts = NULL;
    BlockDriverState *bs;
    bool keyval;

    if (!check_open(open, errp)) {
        return NULL;
    }
    opts = img_options(open, &keyval, errp);
    if (!opts) {
        return NULL;
    }
    options = qapi_from_qobject(&qapi_type_BlockdevOptions, QOBJECT(opts),
                                keyval, errp);
    if (!options) {
        return NULL;
    }
    bdrv_open_for_check = open->inspect;
    bdrv_open_without_data = open->no_data;
    bs = bdrv_co_open(options, false, errp);
    bdrv_open_for_check &= open->write;     /* a repair is not over yet */
    return bs ? co_attach(open, bs, errp) : NULL;
}

BlockBackend *coroutine_fn img_co_open(const ImgOpen *open)
{
    Error *err = NULL;
    BlockBackend *blk = img_co_try_open(open, &err);

    if (!blk) {
        error_prepend(&err, "Could not open '%s': ", open->name);
        error_report_err(err);
    }
    return blk;
}
