/* SPDX-License-Identifier: MIT */
/*
 * qsd-img convert: copying the data.
 */
#ifndef QSD_IMG_COPY_H
#define QSD_IMG_COPY_H

#include "qsd-img/qsd-img.h"

typedef struct CopySource {
    BlockBackend *blk;
    int64_t start, length;      /* in the target, bytes */
} CopySource;

typedef struct CopyJob {
    CopySource *sources;        /* one after the other */
    unsigned n_sources;
    BlockBackend *target;
    int64_t total;              /* of all sources, bytes */

    bool target_is_zero;        /* zeroes need not be written */
    bool keep_backing;          /* what only backing files have is not copied */
    bool compress;
    bool out_of_order;          /* write whatever has been read */
    bool salvage;               /* what cannot be read becomes zeroes */
    int64_t cluster_size;       /* with compress: of the target, bytes */
    int64_t min_sparse;         /* shortest hole that is looked for; 0: none */
    unsigned n_coroutines;      /* each with one request in flight */
    ImgProgress progress;
} CopyJob;

/*
 * Copy all; 0, or -errno and a message on stderr.  Inside of requests on all
 * users.
 */
int coroutine_fn img_co_copy(CopyJob *job);

#endif /* QSD_IMG_COPY_H */
