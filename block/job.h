/* SPDX-License-Identifier: MIT */
/*
 * Jobs: work that goes on after the QMP command that started it.
 *
 * Main thread.  A job runs in a coroutine of its own.  When that has ended, the
 * job stays with its result until job-dismiss:
 *
 *     created -> running -> waiting -> pending -> concluded -> null
 *                   |
 *                   +----> aborting -> concluded -> null
 *
 * Each change is an event JOB_STATUS_CHANGE.
 */
#ifndef BLOCK_JOB_H
#define BLOCK_JOB_H

#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct JobDriver {
    JobType type;

    /* Do the work; false with an error. */
    bool coroutine_fn (*co_run)(void *opaque, Error **errp);

    /* The work is over: free @opaque. */
    void (*free)(void *opaque);
} JobDriver;

/*
 * Start a job named @id; it may have come to its end already when this returns.
 * @opaque belongs to the job from then on.  False with an error if @id is taken
 * or no name for a job; then @opaque stays the caller's.
 */
bool job_start(const JobDriver *drv, const char *id, void *opaque,
               Error **errp);

/*
 * Cancel every job and wait for those that run (at exit).  Jobs that have
 * ended are dismissed.  False if one is still running after 10 s.
 */
bool coroutine_fn job_co_end_all(void);

#endif /* BLOCK_JOB_H */
