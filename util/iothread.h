/* SPDX-License-Identifier: MIT */
/*
 * IOThread: a thread that runs an AioContext, known by its id.
 *
 * Made and deleted in the main thread by the object layer.  Users take a
 * reference; a thread with users cannot be deleted.
 */
#ifndef UTIL_IOTHREAD_H
#define UTIL_IOTHREAD_H

#include "util/aio.h"

typedef struct IOThread IOThread;

typedef struct IOThreadParams {
    int64_t poll_max_ns;        /* 0..INT64_MAX, default 32768 */
    int64_t poll_grow;          /* >= 0, 0 = built-in */
    int64_t poll_shrink;        /* >= 0, 0 = built-in */
    int64_t poll_weight;        /* >= 0, 0 = built-in */
    int64_t aio_max_batch;      /* >= 0, 0 = built-in */
    int64_t thread_pool_min;    /* 0..thread_pool_max, default 0 */
    int64_t thread_pool_max;    /* 1..INT_MAX, default 64 */
} IOThreadParams;

extern const IOThreadParams iothread_default_params;

/* Starts the thread, named "IO @id" (cut to 15 bytes); waits until it runs. */
IOThread *iothread_new(const char *id, const IOThreadParams *params,
                       Error **errp);

/* Stops and joins the thread.  It has no users. */
void iothread_free(IOThread *iothread);

IOThread *iothread_by_id(const char *id);           /* or NULL; no reference */
const char *iothread_id(const IOThread *iothread);
AioContext *iothread_aio_context(IOThread *iothread);

/* One more, one less user (an export). */
void iothread_ref(IOThread *iothread);
void iothread_unref(IOThread *iothread);
bool iothread_in_use(const IOThread *iothread);

const IOThreadParams *iothread_params(const IOThread *iothread);

/* Change parameters of a running thread; an error changes nothing. */
bool iothread_set_params(IOThread *iothread, const IOThreadParams *params,
                         Error **errp);

#endif /* UTIL_IOTHREAD_H */
