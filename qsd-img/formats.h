/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: the options that images of each format can be made with.
 *
 * They are called as qemu-img calls them; most are members of the schema's
 * BlockdevCreateOptions.
 */
#ifndef QSD_IMG_FORMATS_H
#define QSD_IMG_FORMATS_H

#include <stdbool.h>

typedef enum ImgOptionKind {
    IMG_OPTION_STR,
    IMG_OPTION_BOOL,
    IMG_OPTION_NUM,
    IMG_OPTION_SIZE,
} ImgOptionKind;

typedef struct ImgOption {
    const char *name;
    ImgOptionKind kind;
    const char *fallback;       /* value if none is given, or NULL */
    const char *member;         /* of the schema, or NULL: see new.c */
    bool of_file;               /* concerns the file that holds the image */
    const char *help;
} ImgOption;

typedef struct ImgFormat {
    const char *name;
    bool has_backing;
    const ImgOption *options;   /* in the order in which they are shown */
    unsigned n_options;
} ImgFormat;

/* NULL: images of this format can't be made. */
const ImgFormat *img_find_format(const char *name);

/* NULL: @format has none of this name. */
const ImgOption *img_find_option(const ImgFormat *format, const char *name);

#endif /* QSD_IMG_FORMATS_H */
