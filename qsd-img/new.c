/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: making images, for the commands "create" and "convert".
 *
 * Options come as text (-o) and become, member by member, the schema's
 * BlockdevCreateOptions: one for the file and, unless the format is raw, one
 * for the image on it.
 */
#include "qsd-img/qsd-img.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "block/create.h"
#include "block/image.h"
#include "qapi/visit.h"
#include "qsd-img/formats.h"
#include "util/named-file.h"

#define IMG_MAX_SIZE (INT64_MAX & ~INT64_C(511))

typedef struct New {
    const ImgNew *new;
    const ImgFormat *format;
    const char *path, *data_path;   /* of the image, of its data file */
    GHashTable *values;         /* text by option name */
    int64_t size;
} New;

/* ---- option text ---- */

/* The value at *@p, where ",," stands for a comma; *@p is behind it then. */
static char *take_value(const char **p)
{
    GString *value = g_string_new(NULL);

    for (; **p && (**p != ',' || (*p)[1] == ','); (*p)++) {
        *p += **p == ',';
        g_string_append_c(value, **p);
    }
    *p += **p == ',';
    return g_string_free(value, FALSE);
}

/* The name at *@p and its value, "on" if there is none; *@p is behind both. */
static char *take_option(const char **p, char **value)
{
    size_t len = strcspn(*p, "=,");
    char *name = g_strndup(*p, len);

    *p += len;
    if (**p == '=') {
        (*p)++;
        *value = take_value(p);
    } else {
        *p += **p == ',';
        *value = g_strdup("on");
    }
    return name;
}

char *img_creation_option(const char *options, const char *name)
{
    const char *p = options ? options : "";
    char *found = NULL;

    while (*p) {
        char *value;
        g_autofree char *this = take_option(&p, &value);

        if (!strcmp(this, name)) {
            g_free(found);
            found = value;
        } else {
            g_free(value);
        }
    }
    return found;
}

static bool check_value(const ImgOption *option, const char *value,
                        Error **errp)
{
    g_autoptr(QString) str = qstring_new(value);
    guint64 number;
    bool on;

    switch (option->kind) {
    case IMG_OPTION_BOOL:
        return qapi_scalar_from_qobject(&qapi_type_bool, option->name,
                                        QOBJECT(str), true, &on, errp);
    case IMG_OPTION_NUM:
        if (!g_ascii_string_to_unsigned(value, 10, 0, INT64_MAX, &number,
                                        NULL)) {
            error_setg(errp, "Parameter '%s' expects a number", option->name);
            return false;
        }
        return true;
    case IMG_OPTION_SIZE:
        if (img_parse_size(value) < 0) {
            error_setg(errp, "Parameter '%s' expects a non-negative number "
                       "below 2^64", option->name);
            error_append_hint(errp, "Optional suffix k, M, G, T, P or E means "
                              "kilo-, mega-, giga-, tera-, peta-\nand "
                              "exabytes, respectively.\n");
            return false;
        }
        return true;
    default:
        return true;
    }
}

static bool set_value(New *n, const char *name, char *value, Error **errp)
{
    const ImgOption *option = img_find_option(n->format, name);

    if (!option) {
        error_setg(errp, "Invalid parameter '%s'", name);
        g_free(value);
        return false;
    }
    if (!check_value(option, value, errp)) {
        g_free(value);
        return false;
    }
    g_hash_table_insert(n->values, (char *)option->name, value);
    return true;
}

static bool parse_options(New *n, const char *text, Error **errp)
{
    const char *p = text ? text : "";

    while (*p) {
        char *value;
        g_autofree char *name = take_option(&p, &value);

        if (!set_value(n, name, value, errp)) {
            return false;
        }
    }
    return true;
}

static const char *value_of(const New *n, const char *name)
{
    return g_hash_table_lookup(n->values, name);
}

static bool add_backing(New *n, Error **errp)
{
    const ImgNew *new = n->new;

    if ((new->backing || new->backing_format) && !n->format->has_backing) {
        error_setg(errp, "%s not supported for file format '%s'",
                   new->backing ? "Backing file" : "Backing format",
                   n->format->name);
        return false;
    }
    if (new->backing) {
        g_hash_table_insert(n->values, "backing_file",
                            g_strdup(new->backing));
    }
    if (new->backing_format) {
        g_hash_table_insert(n->values, "backing_fmt",
                            g_strdup(new->backing_format));
    }
    return true;
}

/* ---- the backing file ---- */

static bool coroutine_fn co_open_backing(New *n, const char *backing,
                                         Error **errp)
{
    g_autofree char *path = img_relative_name(n->path, backing);
    const ImgOpen open = {
        .name = path,
        .format = value_of(n, "backing_fmt"),
        .force_share = true,        /* it may be somebody's disk until now */
        .no_backing = false,
        .inspect = true,
    };
    BlockBackend *blk;

    if (!open.format) {
        blk = img_co_try_open(&open, NULL);
        error_setg(errp, "Backing file specified without backing format");
        if (blk) {
            error_append_hint(errp, "Detected format of %s.\n",
                              bdrv_get_format_name(blk_bs(blk)));
            blk_co_free(blk);
        }
        return false;
    }
    blk = img_co_try_open(&open, errp);
    if (!blk) {
        error_append_hint(errp, "Could not open backing image.\n");
        return false;
    }
    if (n->size < 0) {
        n->size = blk_getlength(blk);
    }
    blk_co_free(blk);
    return true;
}

/* Is there such a backing file?  The size is its length, if none is given. */
static bool coroutine_fn co_check_backing(New *n, Error **errp)
{
    const char *backing = value_of(n, "backing_file");

    if (!backing) {
        return true;
    }
    if (!backing[0]) {
        error_setg(errp, "Expected backing file name, got empty string");
        return false;
    }
    if (!strcmp(backing, n->path)) {
        error_setg(errp, "Error: Trying to create an image with the same "
                   "filename as the backing file");
        return false;
    }
    if (!n->new->trust_backing) {
        return co_open_backing(n, backing, errp);
    }
    if (!value_of(n, "backing_fmt")) {
        error_setg(errp, "Backing file specified without backing format");
        return false;
    }
    return true;
}

static bool coroutine_fn co_find_size(New *n, Error **errp)
{
    const char *size = value_of(n, "size");

    n->size = n->new->size;
    if (n->size >= 0 && size) {
        error_setg(errp, "The image size must be specified only once");
        return false;
    }
    if (size) {
        n->size = img_parse_size(size);
    }
    if (!co_check_backing(n, errp)) {
        return false;
    }
    if (n->size < 0) {
        error_setg(errp, "Image creation needs a size parameter");
        return false;
    }
    if (n->size > IMG_MAX_SIZE) {
        error_setg(errp, "The image size is too large");
        return false;
    }
    return true;
}

/* ---- to the schema ---- */

/* Set member "a.b" or "a" of @dict. */
static void put_member(QDict *dict, const char *member, const char *value)
{
    const char *dot = strchr(member, '.');
    g_autofree char *outer = dot ? g_strndup(member, dot - member) : NULL;
    QDict *inner;

    if (!dot) {
        qdict_put_str(dict, member, value);
        return;
    }
    if (!qdict_haskey(dict, outer)) {
        qdict_put(dict, outer, qdict_new());
    }
    inner = qdict_get_qdict(dict, outer);
    qdict_put_str(inner, dot + 1, value);
}

static const char *schema_value(const ImgOption *option, const char *value)
{
    if (!strcmp(option->name, "compat")) {
        if (!strcmp(value, "0.10")) {
            return "v2";
        }
        if (!strcmp(value, "1.1")) {
            return "v3";
        }
    }
    return value;
}

static void put_options(const New *n, QDict *dict, bool of_file)
{
    for (unsigned i = 0; i < n->format->n_options; i++) {
        const ImgOption *option = &n->format->options[i];
        const char *value = value_of(n, option->name);

        if (value && option->member && option->of_file == of_file) {
            put_member(dict, option->member, schema_value(option, value));
        }
    }
}

static void put_size(QDict *dict, int64_t size)
{
    g_autofree char *text = g_strdup_printf("%" PRIi64, size);

    qdict_put_str(dict, "size", text);
}

static bool coroutine_fn co_create(const QDict *dict, Error **errp)
{
    g_autoptr(BlockdevCreateOptions) options = qapi_from_qobject(
        &qapi_type_BlockdevCreateOptions, QOBJECT(dict), true, errp);

    return options && bdrv_co_create(options, errp);
}

/* A file for an image, or for its data; devices are there already. */
static bool coroutine_fn co_create_file(const New *n, const char *name,
                                        bool with_options, int64_t size,
                                        Error **errp)
{
    g_autoptr(QDict) dict = NULL;

    if (img_is_device(name)) {
        return true;
    }
    dict = qdict_new();
    qdict_put_str(dict, "driver", "file");
    qdict_put_str(dict, "filename", name);
    put_size(dict, size);
    if (with_options) {
        put_options(n, dict, true);
    }
    return co_create(dict, errp);
}

static bool coroutine_fn co_create_on_file(const New *n, int64_t size,
                                           Error **errp)
{
    g_autoptr(QDict) dict = qdict_new();

    qdict_put_str(dict, "driver", n->format->name);
    qdict_put(dict, "file", img_file_options(n->path));
    put_size(dict, size);
    put_options(n, dict, false);
    if (n->data_path) {
        qdict_put(dict, "data-file", img_file_options(n->data_path));
    }
    return co_create(dict, errp);
}

static bool coroutine_fn co_create_image(const New *n, Error **errp)
{
    /* Sizes that are no multiple of a sector are rounded up. */
    int64_t size = (n->size + 511) & ~INT64_C(511);

    if (!strcmp(n->format->name, "raw") || !strcmp(n->format->name, "file")) {
        return co_create_file(n, n->path, true, size, errp);
    }
    return co_create_file(n, n->path, true, 0, errp)
        && (!n->data_path || co_create_file(n, n->data_path, false, 0, errp))
        && co_create_on_file(n, size, errp);
}

static bool is_there(const char *path)
{
    NamedFile file;
    int ret = named_file_find(&file, path, NULL);

    named_file_release(&file);
    return ret != -ENOENT;
}

static void remove_file(const char *path)
{
    NamedEntry entry;

    if (named_entry_init(&entry, path, NULL) == 0) {
        named_entry_remove(&entry);
        named_entry_deinit(&entry);
    }
}

/* A file that was not there before does not stay if there is no image in it. */
static bool coroutine_fn co_create_or_remove(const New *n, Error **errp)
{
    const char *const paths[] = { n->path, n->data_path };
    bool was_there[G_N_ELEMENTS(paths)];
    bool ok;

    for (int i = 0; i < G_N_ELEMENTS(paths); i++) {
        was_there[i] = !paths[i] || is_there(paths[i]);
    }
    ok = co_create_image(n, errp);
    for (int i = 0; !ok && i < G_N_ELEMENTS(paths); i++) {
        if (!was_there[i]) {
            remove_file(paths[i]);
        }
    }
    return ok;
}

static bool find_paths(New *n, Error **errp)
{
    const char *data_file = value_of(n, "data_file");

    n->path = img_path(n->new->name, errp);
    if (n->path && data_file) {
        n->data_path = img_path(data_file, errp);
    }
    return n->path && (n->data_path || !data_file);
}

/* As in the options: a comma is doubled. */
static void print_value(const char *name, const char *value)
{
    printf(" %s=", name);
    for (; *value; value++) {
        if (*value == ',') {
            putchar(',');
        }
        putchar(*value);
    }
}

static void say_formatting(const New *n)
{
    printf("Formatting '%s', fmt=%s", n->new->name, n->format->name);
    for (unsigned i = 0; i < n->format->n_options; i++) {
        const ImgOption *option = &n->format->options[i];
        const char *value = value_of(n, option->name);

        if (!strcmp(option->name, "size")) {
            printf(" size=%" PRIi64, n->size);
        } else if (value && option->kind == IMG_OPTION_SIZE) {
            printf(" %s=%" PRIi64, option->name, img_parse_size(value));
        } else if (value || option->fallback) {
            print_value(option->name, value ? value : option->fallback);
        }
    }
    putchar('\n');
    fflush(stdout);
}

static const ImgFormat *find_format(const char *name, Error **errp)
{
    const ImgFormat *format = img_find_format(name);

    if (!format) {
        error_setg(errp, image_format_known(name)
                   ? "Format driver '%s' does not support image creation"
                   : "Unknown file format '%s'", name);
    }
    return format;
}

bool coroutine_fn img_co_new(const ImgNew *new)
{
    New n = { .new = new };
    Error *err = NULL;
    bool ok;

    n.format = find_format(new->format, &err);
    n.values = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    ok = n.format && parse_options(&n, new->options, &err)
        && add_backing(&n, &err) && find_paths(&n, &err)
        && co_find_size(&n, &err);
    if (ok && !new->quiet) {
        say_formatting(&n);
    }
    if (ok && !co_create_or_remove(&n, &err)) {
        if (new->converting) {
            error_prepend(&err, "error while converting %s: ", new->format);
        }
        ok = false;
    }
    if (!ok) {
        error_prepend(&err, "%s: ", new->name);
        error_report_err(err);
    }
    g_hash_table_unref(n.values);
    return ok;
}

/* ---- the command ---- */

static bool wants_help(const char *options)
{
    g_auto(GStrv) items = g_strsplit(options ? options : "", ",", -1);

    return g_strv_contains((const char *const *)items, "help")
        || g_strv_contains((const char *const *)items, "?");
}

int coroutine_fn img_co_create(const ImgArgs *args)
{
    ImgNew new = {
        .format = args->given['f'] ? args->value['f'] : "raw",
        .options = args->o,
        .size = -1,
        .backing = args->value['b'],
        .backing_format = args->value['F'],
        .trust_backing = args->given['u'],
        .quiet = args->given['q'],
    };

    if (wants_help(args->o)) {
        return img_help_options(new.format) ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    if (args->n_names < 1) {
        return img_usage_error("Expecting image file name");
    }
    if (args->n_names > 2) {
        return img_usage_error("Unexpected argument: %s", args->names[2]);
    }
    new.name = args->names[0];
    if (args->n_names == 2) {
        new.size = img_size_arg("image size", args->names[1]);
        if (new.size < 0) {
            return EXIT_FAILURE;
        }
    }
    return img_co_new(&new) ? EXIT_SUCCESS : EXIT_FAILURE;
}
