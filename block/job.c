/* SPDX-License-Identifier: MIT */
/*
 * Jobs and their QMP commands.
 *
 * A job without pause points takes the wish to pause and carries on; one that
 * is cancelled fails in the end, whatever came of its work.  What a command
 * may do in which state, and the texts, are those of the reference daemon.
 */
#include "block/job.h"

#include <string.h>
#include "block/block-int.h"
#include "qapi/event.h"
#include "qapi/qapi-commands.h"
#include "util/co-event.h"
#include "util/ident.h"

/* At exit, what one waits for a job that runs. */
#define JOB_END_TIMEOUT_NS (10 * INT64_C(1000000000))

/* Sets of states in which a command is accepted. */
#define JOB_STATES_ACTIVE (1u << JOB_STATUS_CREATED | 1u << JOB_STATUS_RUNNING \
                           | 1u << JOB_STATUS_PAUSED | 1u << JOB_STATUS_READY \
                           | 1u << JOB_STATUS_STANDBY)
#define JOB_STATES_CANCEL (JOB_STATES_ACTIVE | 1u << JOB_STATUS_WAITING \
                           | 1u << JOB_STATUS_PENDING)
#define JOB_STATES_COMPLETE (1u << JOB_STATUS_READY)
#define JOB_STATES_FINALIZE (1u << JOB_STATUS_PENDING)
#define JOB_STATES_DISMISS (1u << JOB_STATUS_CONCLUDED)

typedef struct Job {
    CoCancel cancel;                /* first: the callback casts */
    const JobDriver *drv;
    void *opaque;                   /* NULL when the work is over */
    char *id;
    JobStatus status;
    int64_t progress, progress_total;
    bool user_paused;
    bool cancelled;
    Error *err;
    TAILQ_ENTRY(Job) next;
} Job;

/* Newest first. */
static TAILQ_HEAD(, Job) jobs = TAILQ_HEAD_INITIALIZER(jobs);
static CoEvent *job_all_ended;      /* who waits for the end of all, or NULL */

static void job_set_status(Job *job, JobStatus status)
{
    job->status = status;
    qapi_event_send(QAPI_EVENT_JOB_STATUS_CHANGE,
                    &(QapiEventJobStatusChange) {
                        .id = job->id, .status = status });
}

static Job *job_find(const char *id)
{
    Job *job;

    TAILQ_FOREACH(job, &jobs, next) {
        if (!strcmp(job->id, id)) {
            return job;
        }
    }
    return NULL;
}

static bool job_any_running(void)
{
    Job *job;

    TAILQ_FOREACH(job, &jobs, next) {
        if (job->status != JOB_STATUS_CONCLUDED) {
            return true;
        }
    }
    return false;
}

static void job_dismiss(Job *job)
{
    TAILQ_REMOVE(&jobs, job, next);
    job_set_status(job, JOB_STATUS_NULL);
    error_free(job->err);
    g_free(job->id);
    g_free(job);
}

static bool job_is_cancelled(const CoCancel *cancel)
{
    return ((const Job *)cancel)->cancelled;
}

static void coroutine_fn job_co_main(void *opaque)
{
    Job *job = opaque;
    Error *err = NULL;

    job->cancel.is_cancelled = job_is_cancelled;
    coroutine_set_cancel(&job->cancel);
    job_set_status(job, JOB_STATUS_RUNNING);
    job->drv->co_run(job->opaque, &err);
    job->drv->free(g_steal_pointer(&job->opaque));
    job->progress = job->progress_total;
    if (job->cancelled && !err) {
        error_setg(&err, "%s", "Operation canceled");
    }
    job->err = err;
    if (err) {
        job_set_status(job, JOB_STATUS_ABORTING);
    } else {
        job_set_status(job, JOB_STATUS_WAITING);
        job_set_status(job, JOB_STATUS_PENDING);
    }
    job_set_status(job, JOB_STATUS_CONCLUDED);
    if (job_all_ended && !job_any_running()) {
        co_event_set(job_all_ended);
    }
}

bool job_start(const JobDriver *drv, const char *id, void *opaque, Error **errp)
{
    Job *job;

    if (!ident_wellformed(id)) {
        error_setg(errp, "Invalid job ID '%s'", id);
        return false;
    }
    if (job_find(id)) {
        error_setg(errp, "Job ID '%s' already in use", id);
        return false;
    }
    job = g_new0(Job, 1);
    job->drv = drv;
    job->opaque = opaque;
    job->id = g_strdup(id);
    job->progress_total = 1;
    TAILQ_INSERT_HEAD(&jobs, job, next);
    job_set_status(job, JOB_STATUS_CREATED);
    coroutine_enter(coroutine_create(job_co_main, job));
    return true;
}

/* Nodes that delay requests on purpose (throttle) let them go from now on. */
static GPtrArray *hurry_begin(void)
{
    GPtrArray *nodes = g_ptr_array_new();
    BlockDriverState *bs;

    TAILQ_FOREACH(bs, &bdrv_all_nodes, next) {
        if (bs->drv->bdrv_drain_begin) {
            bs->drv->bdrv_drain_begin(bs);
            bdrv_ref(bs);
            g_ptr_array_add(nodes, bs);
        }
    }
    return nodes;
}

static void coroutine_fn hurry_co_end(GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = nodes->pdata[i];

        bs->drv->bdrv_drain_end(bs);
        bdrv_co_unref(bs);
    }
    g_ptr_array_unref(nodes);
}

bool coroutine_fn job_co_end_all(void)
{
    CoEvent all_ended = { 0 };
    Job *job;

    TAILQ_FOREACH(job, &jobs, next) {
        job->cancelled = true;
    }
    if (job_any_running()) {
        GPtrArray *nodes = hurry_begin();

        job_all_ended = &all_ended;
        co_event_wait(&all_ended, JOB_END_TIMEOUT_NS);
        job_all_ended = NULL;
        if (job_any_running()) {
            return false;           /* and leave everything as it is */
        }
        hurry_co_end(nodes);
    }
    while ((job = TAILQ_FIRST(&jobs))) {
        job_dismiss(job);
    }
    return true;
}

/* ---- QMP ---- */

static Job *job_lookup(const char *id, Error **errp)
{
    Job *job = job_find(id);

    if (!job) {
        error_setg(errp, "Job not found");
    }
    return job;
}

static bool job_accepts(const Job *job, const char *verb, unsigned states,
                        Error **errp)
{
    if (states & 1u << job->status) {
        return true;
    }
    error_setg(errp, "Job '%s' in state '%s' cannot accept command verb '%s'",
               job->id, JobStatus_str(job->status), verb);
    return false;
}

/* The job @id, if it accepts @verb now. */
static Job *job_for_verb(const char *id, const char *verb, unsigned states,
                         Error **errp)
{
    Job *job = job_lookup(id, errp);

    return job && job_accepts(job, verb, states, errp) ? job : NULL;
}

void qmp_job_pause(const QmpJobPauseArg *arg, Error **errp)
{
    Job *job = job_for_verb(arg->id, "pause", JOB_STATES_ACTIVE, errp);

    if (job && job->user_paused) {
        error_setg(errp, "Job is already paused");
    } else if (job) {
        job->user_paused = true;
    }
}

void qmp_job_resume(const QmpJobResumeArg *arg, Error **errp)
{
    Job *job = job_lookup(arg->id, errp);

    if (job && !job->user_paused) {
        error_setg(errp, "Can't resume a job that was not paused");
    } else if (job && job_accepts(job, "resume", JOB_STATES_ACTIVE, errp)) {
        job->user_paused = false;
    }
}

void qmp_job_cancel(const QmpJobCancelArg *arg, Error **errp)
{
    Job *job = job_for_verb(arg->id, "cancel", JOB_STATES_CANCEL, errp);

    if (job) {
        job->cancelled = true;
        job->user_paused = false;
    }
}

void qmp_job_complete(const QmpJobCompleteArg *arg, Error **errp)
{
    /* No kind of job is ever ready, so none gets past this. */
    job_for_verb(arg->id, "complete", JOB_STATES_COMPLETE, errp);
}

void qmp_job_finalize(const QmpJobFinalizeArg *arg, Error **errp)
{
    /* Jobs finalize themselves: nobody sees one pending. */
    job_for_verb(arg->id, "finalize", JOB_STATES_FINALIZE, errp);
}

void qmp_job_dismiss(const QmpJobDismissArg *arg, Error **errp)
{
    Job *job = job_for_verb(arg->id, "dismiss", JOB_STATES_DISMISS, errp);

    if (job) {
        job_dismiss(job);
    }
}

JobInfoList *qmp_query_jobs(Error **errp)
{
    JobInfoList *list = NULL, **tail = &list;
    Job *job;

    TAILQ_FOREACH(job, &jobs, next) {
        JobInfo *info = g_new0(JobInfo, 1);

        info->id = g_strdup(job->id);
        info->type = job->drv->type;
        info->status = job->status;
        info->current_progress = job->progress;
        info->total_progress = job->progress_total;
        info->error = job->err ? g_strdup(error_get_pretty(job->err)) : NULL;
        *tail = g_new0(JobInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}
