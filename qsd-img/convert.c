/* SPDX-License-Identifier: MIT */
/*
 * qsd-img convert: copy images into a new one, or into one that is there.
 */
#include "qsd-img/qsd-img.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/image.h"
#include "qsd-img/copy.h"
#include "qsd-img/formats.h"

#define CONVERT_COROUTINES 8
#define CONVERT_MAX_COROUTINES 16
#define CONVERT_MIN_SPARSE 4096
#define CONVERT_DEFAULT_CLUSTER 65536

typedef struct Convert {
    const ImgArgs *args;
    const char *target_name, *target_format;
    char *backing;              /* or NULL */
    CopyJob job;
} Convert;

/* ---- options ---- */

static bool parse_sparse(Convert *c)
{
    const char *text = c->args->value['S'];
    int64_t size = CONVERT_MIN_SPARSE;

    if (text) {
        size = img_parse_size(text);
        if (size < 0 || size % 512 || size > INT32_MAX) {
            error_report("Invalid buffer size for sparse output specified. "
                         "Valid sizes are multiples of 512 up to %d. Select "
                         "0 to disable sparse detection (fully allocates "
                         "output).", INT32_MAX & ~511);
            return false;
        }
    }
    c->job.min_sparse = size;
    return true;
}

static bool parse_coroutines(Convert *c)
{
    const char *text = c->args->value['m'];
    guint64 n = CONVERT_COROUTINES;

    if (text && !g_ascii_string_to_unsigned(text, 10, 1,
                                            CONVERT_MAX_COROUTINES, &n,
                                            NULL)) {
        error_report("Invalid number of coroutines. Allowed number of "
                     "coroutines is between 1 and %d", CONVERT_MAX_COROUTINES);
        return false;
    }
    c->job.n_coroutines = n;
    return true;
}

static bool parse_convert(Convert *c)
{
    const ImgArgs *args = c->args;

    if (args->n_names < 2) {
        error_report("Must specify image file name");
        return false;
    }
    if (args->given['n'] && args->o) {
        error_report("-o has no effect when skipping image creation");
    }
    if (args->given[IMG_TARGET_IS_ZERO] && !args->given['n']) {
        error_report("--target-is-zero requires use of -n flag");
        return false;
    }
    if (args->given[IMG_TARGET_IMAGE_OPTS] && !args->given['n']) {
        error_report("--target-image-opts requires use of -n flag");
        return false;
    }
    if (args->given['t'] && !img_cache_known(args->value['t'])) {
        error_report("Invalid cache option: %s", args->value['t']);
        return false;
    }
    c->target_name = args->names[args->n_names - 1];
    c->target_format = args->value['O'];
    if (!c->target_format && !args->given[IMG_TARGET_IMAGE_OPTS]) {
        c->target_format = "raw";
    }
    if (c->target_format && !image_format_known(c->target_format)) {
        error_report("Unknown file format '%s'", c->target_format);
        return false;
    }
    c->backing = args->given['B'] || args->given['b']
        ? g_strdup(args->value[args->given['B'] ? 'B' : 'b'])
        : img_creation_option(args->o, "backing_file");
    c->job.keep_backing = c->backing != NULL;
    c->job.compress = args->given['c'];
    /* Compressing is work for several CPUs. */
    c->job.out_of_order = args->given['W'] || args->given['c'];
    c->job.salvage = args->given[IMG_SALVAGE];
    return parse_sparse(c) && parse_coroutines(c);
}

/* ---- sources ---- */

static bool coroutine_fn co_open_sources(Convert *c)
{
    const ImgArgs *args = c->args;

    c->job.n_sources = args->n_names - 1;
    c->job.sources = g_new0(CopySource, c->job.n_sources);
    for (unsigned i = 0; i < c->job.n_sources; i++) {
        CopySource *s = &c->job.sources[i];
        const ImgOpen open = {
            .name = args->names[i],
            .image_opts = args->given[IMG_IMAGE_OPTS],
            .format = args->value['f'],
            .cache = args->value['T'],
            .force_share = args->given['U'],
            .alone = true,
        };

        s->blk = img_co_open(&open);
        if (!s->blk) {
            return false;
        }
        s->start = c->job.total;
        s->length = blk_getlength(s->blk);
        if (s->length > BDRV_MAX_LENGTH - c->job.total) {
            error_report("The images are too large together");
            return false;
        }
        c->job.total += s->length;
    }
    return true;
}

/* ---- target ---- */

/* Whether a new image of these options reads as zeroes all over. */
static bool new_target_is_zero(const Convert *c)
{
    g_autofree char *prealloc = img_creation_option(
        c->args->o, "preallocation");
    g_autofree char *data_file = img_creation_option(c->args->o, "data_file");
    g_autofree char *encrypt = img_creation_option(
        c->args->o, "encrypt.format");
    bool preallocated = prealloc && strcmp(prealloc, "off");

    if (c->backing) {
        return false;
    }
    if (!strcmp(c->target_format, "qcow2")) {
        return !data_file && !(preallocated
                               && (encrypt || img_is_device(c->target_name)));
    }
    return (!strcmp(c->target_format, "raw")
            || !strcmp(c->target_format, "file"))
        && !img_is_device(c->target_name);
}

static bool coroutine_fn co_create_target(Convert *c)
{
    const ImgNew new = {
        .name = c->target_name,
        .format = c->target_format,
        .options = c->args->o,
        .size = c->job.total,
        .backing = c->backing,
        .backing_format = c->args->value['F'],
        .quiet = true,
        .converting = true,
    };

    if (c->args->given['n']) {
        c->job.target_is_zero = c->args->given[IMG_TARGET_IS_ZERO];
        return true;
    }
    if (c->job.compress && !strcmp(c->target_format, "raw")) {
        error_report("Compression not supported for this file format");
        return false;
    }
    if (!img_co_new(&new)) {
        return false;
    }
    c->job.target_is_zero = new_target_is_zero(c);
    return true;
}

static bool coroutine_fn co_open_target(Convert *c)
{
    const ImgArgs *args = c->args;
    g_autofree char *encrypt_key = img_creation_option(
        c->args->o, "encrypt.key-secret");
    g_autofree char *key = img_creation_option(c->args->o, "key-secret");
    const ImgOpen open = {
        .name = c->target_name,
        .image_opts = args->given[IMG_TARGET_IMAGE_OPTS],
        .format = c->target_format,
        .cache = args->given['t'] ? args->value['t'] : "unsafe",
        .key_secret = encrypt_key ? encrypt_key : key,
        .write = true,
        .unmap = true,
    };

    c->job.target = img_co_open(&open);
    if (!c->job.target) {
        return false;
    }
    if (blk_getlength(c->job.target) < c->job.total) {
        error_report("output file is smaller than input file");
        return false;
    }
    return true;
}

static bool check_compression(Convert *c)
{
    BlockDriverState *bs = blk_bs(c->job.target);

    if (!c->job.compress) {
        return true;
    }
    if (!image_can_compress(bs)) {
        error_report("Compression not supported for this file format");
        return false;
    }
    c->job.cluster_size = image_cluster_size(bs);
    if (!c->job.cluster_size) {
        c->job.cluster_size = CONVERT_DEFAULT_CLUSTER;
    }
    return true;
}

/* ---- the command ---- */

static int coroutine_fn co_copy(Convert *c)
{
    CopyJob *job = &c->job;
    int ret = 0;

    blk_co_begin_request(job->target);
    for (unsigned i = 0; i < job->n_sources; i++) {
        blk_co_begin_request(job->sources[i].blk);
    }
    img_progress_begin(&job->progress, c->args);
    if (job->total) {
        ret = img_co_copy(job);
    }
    if (ret >= 0) {
        ret = blk_co_flush(job->target);
        if (ret < 0) {
            error_report("error while flushing the output: %s",
                         strerror(-ret));
        }
    }
    if (ret >= 0) {
        img_progress_end(&job->progress);
    }
    for (unsigned i = 0; i < job->n_sources; i++) {
        blk_end_request(job->sources[i].blk);
    }
    blk_end_request(job->target);
    return ret;
}

int coroutine_fn img_co_convert(const ImgArgs *args)
{
    Convert c = { .args = args };
    bool ok;

    if (args->o && (!strcmp(args->o, "help") || !strcmp(args->o, "?"))) {
        return img_help_options(args->given['O'] ? args->value['O'] : "raw")
               ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    ok = parse_convert(&c) && co_open_sources(&c) && co_create_target(&c)
        && co_open_target(&c) && check_compression(&c) && co_copy(&c) >= 0;
    for (unsigned i = 0; i < c.job.n_sources; i++) {
        blk_co_free(c.job.sources[i].blk);
    }
    blk_co_free(c.job.target);
    g_free(c.job.sources);
    g_free(c.backing);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
