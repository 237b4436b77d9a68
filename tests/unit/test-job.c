/* SPDX-License-Identifier: MIT */
/*
 * block/job.c: life of a job, its events, and what commands it takes when.
 */
#include "block/job.h"

#include "qapi/event.h"
#include "qapi/qapi-commands.h"
#include "tests/unit/block-test.h"
#include "util/co-event.h"

typedef struct Work {
    CoEvent go;                 /* waits for it, if @wait */
    CoEvent done;
    bool wait, fails;
    unsigned freed;
} Work;

static GString *events;         /* "id:status " for each event */

static void note_event(QAPIEvent event, QDict *message)
{
    const QDict *data = qdict_get_qdict(message, "data");

    g_assert_cmpint(event, ==, QAPI_EVENT_JOB_STATUS_CHANGE);
    g_string_append_printf(events, "%s:%s ", qdict_get_str(data, "id"),
                           qdict_get_str(data, "status"));
    qobject_unref(message);
}

#define ASSERT_EVENTS(text) \
    do { \
        g_assert_cmpstr(events->str, ==, (text)); \
        g_string_truncate(events, 0); \
    } while (0)

static bool coroutine_fn work_co_run(void *opaque, Error **errp)
{
    Work *work = opaque;

    if (work->wait) {
        co_event_wait(&work->go, -1);
    }
    if (work->fails) {
        error_setg(errp, "It cannot be done");
    }
    return !work->fails;
}

static void work_free(void *opaque)
{
    Work *work = opaque;

    work->freed++;
    co_event_set(&work->done);
}

static const JobDriver work_driver = {
    .type = JOB_TYPE_CREATE,
    .co_run = work_co_run,
    .free = work_free,
};

static void start(const char *id, Work *work)
{
    Error *err = NULL;

    job_start(&work_driver, id, work, &err);
    node_test_no_error(err);
}

static void start_fails(const char *id, const char *text)
{
    Work work = { 0 };
    Error *err = NULL;

    g_assert_false(job_start(&work_driver, id, &work, &err));
    node_test_assert_error(err, text);
    g_assert_cmpuint(work.freed, ==, 0);
    ASSERT_EVENTS("");
}

/* Each of these commands takes an id and nothing else. */
#define CALL(command, arg_type, id_, text) \
    do { \
        Error *err_ = NULL; \
        qmp_job_##command(&(arg_type) { .id = (char *)(id_) }, &err_); \
        if (text) { \
            node_test_assert_error(err_, (const char *)(text)); \
        } else { \
            node_test_no_error(err_); \
        } \
    } while (0)

#define PAUSE(id, text) CALL(pause, QmpJobPauseArg, id, text)
#define RESUME(id, text) CALL(resume, QmpJobResumeArg, id, text)
#define CANCEL(id, text) CALL(cancel, QmpJobCancelArg, id, text)
#define COMPLETE(id, text) CALL(complete, QmpJobCompleteArg, id, text)
#define FINALIZE(id, text) CALL(finalize, QmpJobFinalizeArg, id, text)
#define DISMISS(id, text) CALL(dismiss, QmpJobDismissArg, id, text)

static void assert_job(const char *id, JobStatus status, int64_t progress,
                       const char *error)
{
    g_autoptr(JobInfoList) list = qmp_query_jobs(NULL);
    JobInfoList *l = list;

    while (l && strcmp(l->value->id, id)) {
        l = l->next;
    }
    g_assert_nonnull(l);
    g_assert_cmpint(l->value->type, ==, JOB_TYPE_CREATE);
    g_assert_cmpint(l->value->status, ==, status);
    g_assert_cmpint(l->value->current_progress, ==, progress);
    g_assert_cmpint(l->value->total_progress, ==, 1);
    g_assert_cmpstr(l->value->error, ==, error);
}

/* The job goes on to its end. */
static void coroutine_fn co_let_go(Work *work)
{
    co_event_set(&work->go);
    co_event_wait(&work->done, -1);
}

static void test_begin(void)
{
    events = g_string_new(NULL);
    qapi_event_set_emitter(note_event);
}

static void test_end(void)
{
    g_assert_null(qmp_query_jobs(NULL));
    qapi_event_set_emitter(NULL);
    g_string_free(events, TRUE);
}

static void coroutine_fn co_test_success(void *opaque)
{
    Work work = { 0 };

    test_begin();
    start("j", &work);
    g_assert_cmpuint(work.freed, ==, 1);
    ASSERT_EVENTS("j:created j:running j:waiting j:pending j:concluded ");
    assert_job("j", JOB_STATUS_CONCLUDED, 1, NULL);
    start_fails("j", "Job ID 'j' already in use");
    PAUSE("j", "Job 'j' in state 'concluded' cannot accept command verb "
          "'pause'");
    RESUME("j", "Can't resume a job that was not paused");
    CANCEL("j", "Job 'j' in state 'concluded' cannot accept command verb "
           "'cancel'");
    DISMISS("j", NULL);
    ASSERT_EVENTS("j:null ");
    DISMISS("j", "Job not found");
    test_end();
}

static void coroutine_fn co_test_failure(void *opaque)
{
    Work work = { .fails = true };

    test_begin();
    start("j", &work);
    ASSERT_EVENTS("j:created j:running j:aborting j:concluded ");
    assert_job("j", JOB_STATUS_CONCLUDED, 1, "It cannot be done");
    DISMISS("j", NULL);
    ASSERT_EVENTS("j:null ");
    test_end();
}

static void coroutine_fn co_test_running(void *opaque)
{
    Work work = { .wait = true };

    test_begin();
    start("j", &work);
    ASSERT_EVENTS("j:created j:running ");
    assert_job("j", JOB_STATUS_RUNNING, 0, NULL);
    COMPLETE("j", "Job 'j' in state 'running' cannot accept command verb "
             "'complete'");
    FINALIZE("j", "Job 'j' in state 'running' cannot accept command verb "
             "'finalize'");
    DISMISS("j", "Job 'j' in state 'running' cannot accept command verb "
            "'dismiss'");
    RESUME("j", "Can't resume a job that was not paused");
    PAUSE("j", NULL);
    PAUSE("j", "Job is already paused");
    RESUME("j", NULL);
    PAUSE("j", NULL);
    g_assert_cmpuint(work.freed, ==, 0);
    co_let_go(&work);
    g_assert_cmpuint(work.freed, ==, 1);
    ASSERT_EVENTS("j:waiting j:pending j:concluded ");
    RESUME("j", "Job 'j' in state 'concluded' cannot accept command verb "
           "'resume'");
    DISMISS("j", NULL);
    ASSERT_EVENTS("j:null ");
    test_end();
}

static void coroutine_fn co_test_cancel(void *opaque)
{
    Work work = { .wait = true };

    test_begin();
    start("j", &work);
    PAUSE("j", NULL);
    CANCEL("j", NULL);
    CANCEL("j", NULL);
    PAUSE("j", NULL);                   /* cancelling ended the first one */
    assert_job("j", JOB_STATUS_RUNNING, 0, NULL);
    co_let_go(&work);
    ASSERT_EVENTS("j:created j:running j:aborting j:concluded ");
    assert_job("j", JOB_STATUS_CONCLUDED, 1, "Operation canceled");
    DISMISS("j", NULL);
    ASSERT_EVENTS("j:null ");
    test_end();
}

/* An error of the work itself says more than that it was cancelled. */
static void coroutine_fn co_test_cancel_failing(void *opaque)
{
    Work work = { .wait = true, .fails = true };

    test_begin();
    start("j", &work);
    CANCEL("j", NULL);
    co_let_go(&work);
    assert_job("j", JOB_STATUS_CONCLUDED, 1, "It cannot be done");
    DISMISS("j", NULL);
    test_end();
}

static void coroutine_fn co_test_names(void *opaque)
{
    test_begin();
    start_fails("", "Invalid job ID ''");
    start_fails("1j", "Invalid job ID '1j'");
    start_fails("a b", "Invalid job ID 'a b'");
    PAUSE("nope", "Job not found");
    RESUME("nope", "Job not found");
    CANCEL("nope", "Job not found");
    COMPLETE("nope", "Job not found");
    FINALIZE("nope", "Job not found");
    DISMISS("nope", "Job not found");
    test_end();
}

static void coroutine_fn co_test_order(void *opaque)
{
    Work a = { 0 }, b = { 0 };
    g_autoptr(JobInfoList) list = NULL;

    test_begin();
    start("a", &a);
    start("b", &b);
    list = qmp_query_jobs(NULL);
    g_assert_cmpstr(list->value->id, ==, "b");          /* newest first */
    g_assert_cmpstr(list->next->value->id, ==, "a");
    g_assert_null(list->next->next);
    DISMISS("a", NULL);
    DISMISS("b", NULL);
    test_end();
}

static void let_go(void *opaque)
{
    Work *work = opaque;

    co_event_set(&work->go);
}

/* At exit jobs are cancelled, waited for and dismissed. */
static void coroutine_fn co_test_end_all(void *opaque)
{
    Work done = { 0 }, running = { .wait = true };

    test_begin();
    start("d", &done);
    start("r", &running);
    g_string_truncate(events, 0);
    aio_bh_schedule_oneshot(aio_context_current(), let_go, &running);
    g_assert_true(job_co_end_all());
    ASSERT_EVENTS("r:aborting r:concluded r:null d:null ");
    g_assert_true(job_co_end_all());
    test_end();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    block_test_add("/job/success", co_test_success, NULL);
    block_test_add("/job/failure", co_test_failure, NULL);
    block_test_add("/job/running", co_test_running, NULL);
    block_test_add("/job/cancel", co_test_cancel, NULL);
    block_test_add("/job/cancel-failing", co_test_cancel_failing, NULL);
    block_test_add("/job/names", co_test_names, NULL);
    block_test_add("/job/order", co_test_order, NULL);
    block_test_add("/job/end-all", co_test_end_all, NULL);
    return g_test_run();
}
