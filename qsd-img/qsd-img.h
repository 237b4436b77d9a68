/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: what its files share.
 *
 *   main.c      start and end, table of commands, their options
 *   image.c     opening images
 *   util.c      sizes, progress, output
 *   formats.c   the options that images can be made with
 *   new.c       making images; command "create"
 *   check.c, compare.c, convert.c (copy.c), info.c, map.c, snapshot.c
 *               the other commands
 *
 * A command is a coroutine of the main thread; all others that it starts run
 * there as well.
 */
#ifndef QSD_IMG_H
#define QSD_IMG_H

#include "block/block.h"
#include "qapi/qobject.h"

/* Long options without a letter. */
enum {
    IMG_HELP = 128,
    IMG_OBJECT,
    IMG_IMAGE_OPTS,
    IMG_TARGET_IMAGE_OPTS,
    IMG_TARGET_IS_ZERO,
    IMG_BACKING_CHAIN,
    IMG_OUTPUT,
    IMG_SALVAGE,
    IMG_OPT__MAX,
};

/* A command line, taken apart. */
typedef struct ImgArgs {
    const char *command;
    bool given[IMG_OPT__MAX];           /* by letter, or by number above */
    const char *value[IMG_OPT__MAX];    /* of the last one given */
    char *o;                            /* all values of -o, or NULL */
    bool json;                          /* --output=json */
    char **names;                       /* what is left: names of images */
    int n_names;
} ImgArgs;

/* Exit statuses are those of qemu-img. */
typedef int coroutine_fn ImgCommandFunc(const ImgArgs *args);

ImgCommandFunc img_co_check, img_co_compare, img_co_convert, img_co_create,
               img_co_info, img_co_map, img_co_snapshot;

/* Make the object that --object says: a secret. */
bool coroutine_fn img_co_add_object(const char *arg, Error **errp);

/* "Try 'qsd-img --help' for more information": wrong usage. */
int G_GNUC_PRINTF(1, 2) img_usage_error(const char *fmt, ...);

/* ---- image.c ---- */

typedef struct ImgOpen {
    const char *name;           /* a path, "json:{...}", or options */
    bool image_opts;            /* @name is key=value options */
    const char *format;         /* NULL: find out */
    const char *cache;          /* as -t has it, or NULL */
    const char *key_secret;     /* of an encrypted image, or NULL */
    bool write, resize;         /* what the user will do besides reading */
    bool unmap;                 /* pass discards on */
    bool force_share;
    bool alone;                 /* nobody may write meanwhile */
    bool no_backing;            /* what is below it is not opened */
    bool inspect;               /* no data is read: needs no key, and a broken
                                   image will do */
    bool no_data;               /* nor asked for: no data file is opened */
} ImgOpen;

/*
 * Open an image.  Says what is wrong on stderr and returns NULL otherwise.  The
 * node is closed at exit.
 */
BlockBackend *coroutine_fn img_co_open(const ImgOpen *open);

/* As img_co_open(), with the error for the caller. */
BlockBackend *coroutine_fn img_co_try_open(const ImgOpen *open, Error **errp);

/*
 * @name as it stands in the image @image, so that it can be opened from here:
 * relative to the image's directory.
 */
char *img_relative_name(const char *image, const char *name);

/* Without "file:" before it; NULL if @name has another protocol. */
const char *img_path(const char *name, Error **errp);

/* Options for a node on the file @path. */
QDict *img_file_options(const char *path);

/* True for a block device: it cannot be made, or made longer. */
bool img_is_device(const char *name);

/* Is @cache one of those that -t takes? */
bool img_cache_known(const char *cache);

/* ---- formats.c, new.c ---- */

typedef struct ImgNew {
    const char *name, *format;
    const char *options;        /* of -o, or NULL */
    int64_t size;               /* bytes; -1: what options or backing say */
    const char *backing, *backing_format;       /* or NULL */
    bool trust_backing;         /* don't look at the backing file */
    bool quiet;
    bool converting;            /* for errors */
} ImgNew;

/* What @options, or NULL, say of @name last, or NULL; the caller frees. */
char *img_creation_option(const char *options, const char *name);

/* Make an image and say so; what is wrong is said on stderr. */
bool coroutine_fn img_co_new(const ImgNew *new);

/* Print the options that images of @format can be made with. */
bool img_help_options(const char *format);

/* ---- util.c ---- */

/* "1.5 MiB" */
char *img_size_text(uint64_t size);

/* "64k": bytes, or -1. */
int64_t img_parse_size(const char *text);

/* A size given to an option: -1 and a message on stderr if it is none. */
int64_t img_size_arg(const char *name, const char *text);

/* The table of snapshots, nothing if there are none (info.c). */
void img_print_snapshots(const SnapshotInfoList *list);

/* Print JSON text and a newline. */
void img_print_json(const QObject *obj);

/* "    (12.34/100%)" on a line of its own, if @args say -p. */
typedef struct ImgProgress {
    bool on;
    double shown;               /* percent; below 0: nothing yet */
} ImgProgress;
void img_progress_begin(ImgProgress *p, const ImgArgs *args);
void img_progress(ImgProgress *p, double part);        /* from 0 to 1 */
void img_progress_end(ImgProgress *p);

/* Print unless -q. */
void G_GNUC_PRINTF(2, 3) img_say(const ImgArgs *args, const char *fmt, ...);

#endif /* QSD_IMG_H */
