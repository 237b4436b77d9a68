/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: the table of formats and their options.
 */
#include "qsd-img/formats.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "qsd-img/qsd-img.h"

#define STR IMG_OPTION_STR
#define BOOL IMG_OPTION_BOOL
#define NUM IMG_OPTION_NUM
#define SIZE IMG_OPTION_SIZE

#define OPTION_SIZE \
    { "size", SIZE, NULL, NULL, false, "Virtual disk size" }

#define OPTION_NOCOW \
    { "nocow", BOOL, NULL, "nocow", true, \
      "Turn off copy-on-write (valid only on btrfs)" }

#define OPTION_EXTENT_SIZE_HINT \
    { "extent_size_hint", SIZE, NULL, "extent-size-hint", true, \
      "Extent size hint for the image file, 0 to disable" }

static const ImgOption raw_options[] = {
    OPTION_SIZE,
    OPTION_NOCOW,
    { "preallocation", STR, NULL, "preallocation", true,
      "Preallocation mode (allowed values: off, falloc, full)" },
    OPTION_EXTENT_SIZE_HINT,
};

static const ImgOption luks_options[] = {
    OPTION_SIZE,
    { "key-secret", STR, NULL, "key-secret", false,
      "ID of the secret that provides the keyslot key" },
    { "cipher-alg", STR, NULL, "cipher-alg", false,
      "Name of encryption cipher algorithm" },
    { "cipher-mode", STR, NULL, "cipher-mode", false,
      "Name of encryption cipher mode" },
    { "ivgen-alg", STR, NULL, "ivgen-alg", false,
      "Name of IV generator algorithm" },
    { "ivgen-hash-alg", STR, NULL, "ivgen-hash-alg", false,
      "Name of IV generator hash algorithm" },
    { "hash-alg", STR, NULL, "hash-alg", false,
      "Name of encryption hash algorithm" },
    { "iter-time", NUM, NULL, "iter-time", false,
      "Time to spend in PBKDF in milliseconds" },
    { "preallocation", STR, NULL, "preallocation", false,
      "Preallocation mode (allowed values: off, metadata, falloc, full)" },
    OPTION_NOCOW,
    OPTION_EXTENT_SIZE_HINT,
};

static const ImgOption qcow2_options[] = {
    { "encrypt.format", STR, NULL, "encrypt.format", false,
      "Encrypt the image, format choices: 'luks'" },
    { "encrypt.key-secret", STR, NULL, "encrypt.key-secret", false,
      "ID of secret providing the LUKS passphrase" },
    { "encrypt.cipher-alg", STR, NULL, "encrypt.cipher-alg", false,
      "Name of encryption cipher algorithm" },
    { "encrypt.cipher-mode", STR, NULL, "encrypt.cipher-mode", false,
      "Name of encryption cipher mode" },
    { "encrypt.ivgen-alg", STR, NULL, "encrypt.ivgen-alg", false,
      "Name of IV generator algorithm" },
    { "encrypt.ivgen-hash-alg", STR, NULL, "encrypt.ivgen-hash-alg", false,
      "Name of IV generator hash algorithm" },
    { "encrypt.hash-alg", STR, NULL, "encrypt.hash-alg", false,
      "Name of encryption hash algorithm" },
    { "encrypt.iter-time", NUM, NULL, "encrypt.iter-time", false,
      "Time to spend in PBKDF in milliseconds" },
    { "cluster_size", SIZE, "65536", "cluster-size", false,
      "qcow2 cluster size" },
    { "extended_l2", BOOL, "off", "extended-l2", false,
      "Extended L2 tables" },
    { "preallocation", STR, NULL, "preallocation", false,
      "Preallocation mode (allowed values: off, metadata, falloc, full)" },
    { "compression_type", STR, "zlib", "compression-type", false,
      "Compression method used for image cluster compression" },
    OPTION_SIZE,
    { "compat", STR, NULL, "version", false,
      "Compatibility level (v2 [0.10] or v3 [1.1])" },
    { "backing_file", STR, NULL, "backing-file", false,
      "File name of a base image" },
    { "backing_fmt", STR, NULL, "backing-fmt", false,
      "Image format of the base image" },
    { "data_file", STR, NULL, NULL, false,
      "File name of an external data file" },
    { "data_file_raw", BOOL, NULL, "data-file-raw", false,
      "The external data file must stay valid as a raw image" },
    { "lazy_refcounts", BOOL, "off", "lazy-refcounts", false,
      "Postpone refcount updates" },
    { "refcount_bits", NUM, "16", "refcount-bits", false,
      "Width of a reference count entry in bits" },
    OPTION_NOCOW,
    OPTION_EXTENT_SIZE_HINT,
};

static const ImgFormat formats[] = {
    { "raw", false, raw_options, G_N_ELEMENTS(raw_options) },
    { "file", false, raw_options, G_N_ELEMENTS(raw_options) },
    { "luks", false, luks_options, G_N_ELEMENTS(luks_options) },
    { "qcow2", true, qcow2_options, G_N_ELEMENTS(qcow2_options) },
};

const ImgFormat *img_find_format(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (!strcmp(formats[i].name, name)) {
            return &formats[i];
        }
    }
    return NULL;
}

const ImgOption *img_find_option(const ImgFormat *format, const char *name)
{
    for (unsigned i = 0; i < format->n_options; i++) {
        if (!strcmp(format->options[i].name, name)) {
            return &format->options[i];
        }
    }
    return NULL;
}

bool img_help_options(const char *name)
{
    static const char *const kinds[] = {
        [STR] = "<str>",
        [BOOL] = "<bool (on/off)>",
        [NUM] = "<num>",
        [SIZE] = "<size>",
    };
    const ImgFormat *format = img_find_format(name);

    if (!format) {
        error_report("Unknown file format '%s'", name);
        return false;
    }
    printf("Supported %s options:\n", format->name);
    for (unsigned i = 0; i < format->n_options; i++) {
        const ImgOption *option = &format->options[i];
        g_autofree char *left = g_strconcat(option->name, "=",
                                            kinds[option->kind], NULL);

        printf("  %-22s - %s\n", left, option->help);
    }
    return true;
}
