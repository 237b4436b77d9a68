/* SPDX-License-Identifier: MIT */
/*
 * Of those who have to wait in a group, one per direction is the leader: it
 * knows how long, and sleeps on a timer of its own AioContext.  When its
 * request may run it makes the next one leader: the first of the next member in
 * turn that has any.  The others sleep without a timer.
 *
 * Lock order: the group's lock alone; coroutines are woken after it is dropped.
 */
#include "block/throttle-groups.h"

#include <inttypes.h>
#include <string.h>
#include "block/leaky-bucket.h"
#include "util/aio.h"

/* Every limit: its name's parts, as in the schema, and its bucket. */
#define FOR_EACH_BUCKET(F)                          \
    F(bps_total, "bps-total", THROTTLE_BPS_TOTAL)   \
    F(bps_read, "bps-read", THROTTLE_BPS_READ)      \
    F(bps_write, "bps-write", THROTTLE_BPS_WRITE)   \
    F(iops_total, "iops-total", THROTTLE_IOPS_TOTAL) \
    F(iops_read, "iops-read", THROTTLE_IOPS_READ)   \
    F(iops_write, "iops-write", THROTTLE_IOPS_WRITE)

typedef struct ThrottleWaiter {
    ThrottleGroup *group;
    Coroutine *co;
    AioTimer timer;
    bool sleeping;          /* whoever clears it wakes the coroutine */
    bool lifted;            /* run, whatever the limits are */
    TAILQ_ENTRY(ThrottleWaiter) next;
} ThrottleWaiter;

typedef TAILQ_HEAD(, ThrottleWaiter) ThrottleQueue;

struct ThrottleMember {
    ThrottleGroup *group;
    unsigned lift_count;
    ThrottleQueue waiting[2];           /* reads, writes */
    TAILQ_ENTRY(ThrottleMember) next;
};

struct ThrottleGroup {
    char *id;
    unsigned refcnt;                    /* main thread */
    TAILQ_ENTRY(ThrottleGroup) next;

    pthread_mutex_t lock;               /* over the rest, members included */
    ThrottleState state;
    ThrottleWaiter *leader[2];
    ThrottleMember *last_served[2];
    TAILQ_HEAD(ThrottleMembers, ThrottleMember) members;
};

static TAILQ_HEAD(, ThrottleGroup) all_groups =
    TAILQ_HEAD_INITIALIZER(all_groups);

/* ---- limits ---- */

/* Burst lengths end at 32 bits; @name is what the user wrote. */
static bool check_length(int64_t value, const char *name, Error **errp)
{
    if (value < 0 || value > UINT32_MAX) {
        error_setg(errp, "%s value must be in the range [0, %" PRIu32 "]",
                   name, UINT32_MAX);
        return false;
    }
    return true;
}

static bool apply_limits(ThrottleState *ts, const ThrottleLimits *l,
                         Error **errp)
{
#define APPLY(member, name, type)                                           \
    if (l->has_##member) {                                                  \
        ts->buckets[type].avg = l->member;                                  \
    }                                                                       \
    if (l->has_##member##_max) {                                            \
        ts->buckets[type].max = l->member##_max;                            \
    }                                                                       \
    if (l->has_##member##_max_length) {                                     \
        if (!check_length(l->member##_max_length, name "-max-length",       \
                          errp)) {                                          \
            return false;                                                   \
        }                                                                   \
        ts->buckets[type].burst_length = l->member##_max_length;            \
    }
    FOR_EACH_BUCKET(APPLY)
#undef APPLY

    if (l->has_iops_size) {
        if (l->iops_size < 0) {
            error_setg(errp, "iops-size value must be in the range [0, %"
                       PRIi64 "]", INT64_MAX);
            return false;
        }
        ts->op_size = l->iops_size;
    }
    return true;
}

/* The older way to give limits: one property each. */
static bool apply_properties(ThrottleState *ts,
                             const ThrottleGroupProperties *p, Error **errp)
{
    bool negative = false;

#define APPLY(member, name, type)                                           \
    if (p->has_x_##member) {                                                \
        negative |= p->x_##member < 0;                                      \
        ts->buckets[type].avg = p->x_##member;                              \
    }                                                                       \
    if (p->has_x_##member##_max) {                                          \
        negative |= p->x_##member##_max < 0;                                \
        ts->buckets[type].max = p->x_##member##_max;                        \
    }                                                                       \
    if (p->has_x_##member##_max_length) {                                   \
        negative |= p->x_##member##_max_length < 0;                         \
        if (p->x_##member##_max_length > UINT32_MAX) {                      \
            return check_length(p->x_##member##_max_length,                 \
                                "x-" name "-max-length", errp);             \
        }                                                                   \
        ts->buckets[type].burst_length = p->x_##member##_max_length;        \
    }
    FOR_EACH_BUCKET(APPLY)
#undef APPLY

    if (p->has_x_iops_size) {
        negative |= p->x_iops_size < 0;
        ts->op_size = p->x_iops_size;
    }
    if (negative) {
        error_setg(errp, "Property values cannot be negative");
    }
    return !negative;
}

ThrottleLimits *throttle_group_get_limits(const ThrottleGroup *group)
{
    ThrottleLimits *l = g_new0(ThrottleLimits, 1);
    const LeakyBucket *b = group->state.buckets;

    /* Limits change in the main thread only: no lock to read them there. */
#define GET(member, name, type)                                             \
    l->has_##member = l->has_##member##_max = true;                         \
    l->has_##member##_max_length = true;                                    \
    l->member = b[type].avg;                                                \
    l->member##_max = b[type].max;                                          \
    l->member##_max_length = b[type].burst_length;
    FOR_EACH_BUCKET(GET)
#undef GET
    l->has_iops_size = true;
    l->iops_size = group->state.op_size;
    return l;
}

/* ---- groups ---- */

ThrottleGroup *throttle_group_by_id(const char *id)
{
    ThrottleGroup *group;

    TAILQ_FOREACH(group, &all_groups, next) {
        if (!strcmp(group->id, id)) {
            return group;
        }
    }
    return NULL;
}

ThrottleGroup *throttle_group_new(const char *id,
                                  const ThrottleGroupProperties *props,
                                  Error **errp)
{
    ThrottleGroup *group;
    ThrottleState state;

    throttle_state_init(&state);
    if (props && (!apply_properties(&state, props, errp)
                  || (props->limits
                      && !apply_limits(&state, props->limits, errp)))) {
        return NULL;
    }
    if (!throttle_state_check(&state, errp)) {
        return NULL;
    }
    if (throttle_group_by_id(id)) {
        error_setg(errp, "A group with this name already exists");
        return NULL;
    }

    group = g_new0(ThrottleGroup, 1);
    group->id = g_strdup(id);
    group->state = state;
    throttle_state_reset(&group->state, clock_now_ns());
    pthread_mutex_init(&group->lock, NULL);
    TAILQ_INIT(&group->members);
    TAILQ_INSERT_TAIL(&all_groups, group, next);
    return group;
}

void throttle_group_free(ThrottleGroup *group)
{
    if (!group) {
        return;
    }
    g_assert(!throttle_group_in_use(group));
    TAILQ_REMOVE(&all_groups, group, next);
    pthread_mutex_destroy(&group->lock);
    g_free(group->id);
    g_free(group);
}

const char *throttle_group_id(const ThrottleGroup *group)
{
    return group->id;
}

bool throttle_group_in_use(const ThrottleGroup *group)
{
    return group->refcnt > 0;
}

void throttle_group_ref(ThrottleGroup *group)
{
    group->refcnt++;
}

void throttle_group_unref(ThrottleGroup *group)
{
    g_assert(group->refcnt > 0);
    group->refcnt--;
}

/* Claim a sleeping waiter; the caller wakes what is returned, if anything. */
static Coroutine *claim(ThrottleWaiter *w)
{
    if (!w || !w->sleeping) {
        return NULL;
    }
    w->sleeping = false;
    return w->co;
}

bool throttle_group_set_limits(ThrottleGroup *group,
                               const ThrottleLimits *limits, Error **errp)
{
    ThrottleState state;
    Coroutine *leaders[2];

    pthread_mutex_lock(&group->lock);
    state = group->state;       /* requests change how full it is */
    pthread_mutex_unlock(&group->lock);
    if (!apply_limits(&state, limits, errp)
        || !throttle_state_check(&state, errp)) {
        return false;
    }
    throttle_state_reset(&state, clock_now_ns());

    pthread_mutex_lock(&group->lock);
    group->state = state;
    for (int dir = 0; dir < 2; dir++) {
        leaders[dir] = claim(group->leader[dir]);
    }
    pthread_mutex_unlock(&group->lock);
    for (int dir = 0; dir < 2; dir++) {
        if (leaders[dir]) {
            aio_co_wake(leaders[dir]);
        }
    }
    return true;
}

/* ---- members ---- */

ThrottleMember *throttle_member_new(const char *id, Error **errp)
{
    ThrottleGroup *group = throttle_group_by_id(id);
    ThrottleMember *member;

    if (!group) {
        error_setg(errp, "Throttle group '%s' does not exist", id);
        return NULL;
    }
    member = g_new0(ThrottleMember, 1);
    member->group = group;
    TAILQ_INIT(&member->waiting[0]);
    TAILQ_INIT(&member->waiting[1]);
    throttle_group_ref(group);
    pthread_mutex_lock(&group->lock);
    TAILQ_INSERT_TAIL(&group->members, member, next);
    pthread_mutex_unlock(&group->lock);
    return member;
}

void throttle_member_free(ThrottleMember *member)
{
    ThrottleGroup *group;

    if (!member) {
        return;
    }
    group = member->group;
    pthread_mutex_lock(&group->lock);
    for (int dir = 0; dir < 2; dir++) {
        g_assert(TAILQ_EMPTY(&member->waiting[dir]));
        if (group->last_served[dir] == member) {
            group->last_served[dir] = TAILQ_PREV(member, ThrottleMembers, next);
        }
    }
    TAILQ_REMOVE(&group->members, member, next);
    pthread_mutex_unlock(&group->lock);
    throttle_group_unref(group);
    g_free(member);
}

ThrottleGroup *throttle_member_group(const ThrottleMember *member)
{
    return member->group;
}

/* The first waiter of the next member in turn that has any, or NULL. */
static ThrottleWaiter *next_in_turn(ThrottleGroup *group, int dir)
{
    ThrottleMember *last = group->last_served[dir];
    ThrottleMember *m = last ? TAILQ_NEXT(last, next) : NULL;

    for (ThrottleMember *first = NULL;; m = TAILQ_NEXT(m, next)) {
        m = m ? m : TAILQ_FIRST(&group->members);
        if (!m || m == first) {
            return NULL;
        }
        first = first ? first : m;
        if (!TAILQ_EMPTY(&m->waiting[dir])) {
            return TAILQ_FIRST(&m->waiting[dir]);
        }
    }
}

static void timer_cb(void *opaque)
{
    ThrottleWaiter *w = opaque;
    Coroutine *co;

    pthread_mutex_lock(&w->group->lock);
    co = claim(w);
    pthread_mutex_unlock(&w->group->lock);
    if (co) {
        aio_co_wake(co);
    }
}

/* Sleep until woken, or, if @ns is not 0, for at most @ns.  Drops the lock. */
static void coroutine_fn co_sleep_unlocked(ThrottleWaiter *w, int64_t ns)
{
    w->sleeping = true;
    pthread_mutex_unlock(&w->group->lock);
    if (ns) {
        aio_timer_init(&w->timer, aio_context_current(), timer_cb, w);
        aio_timer_mod(&w->timer, clock_now_ns() + ns);
    }
    coroutine_yield();
    if (ns) {
        aio_timer_del(&w->timer);
    }
    pthread_mutex_lock(&w->group->lock);
}

/* Queue up and wait for our turn.  The group's lock is held. */
static void coroutine_fn co_wait_turn(ThrottleMember *member, int dir)
{
    ThrottleGroup *group = member->group;
    ThrottleWaiter self = { .group = group, .co = coroutine_self() };

    TAILQ_INSERT_TAIL(&member->waiting[dir], &self, next);
    if (!group->leader[dir]) {
        group->leader[dir] = &self;
    }
    while (!self.lifted) {
        int64_t ns = 0;

        if (group->leader[dir] == &self) {
            ns = throttle_state_wait_ns(&group->state, dir, clock_now_ns());
            if (ns == 0) {
                break;
            }
        }
        co_sleep_unlocked(&self, ns);
    }
    TAILQ_REMOVE(&member->waiting[dir], &self, next);
    if (group->leader[dir] == &self) {
        group->leader[dir] = NULL;
    }
}

void coroutine_fn throttle_group_co_io_limits(ThrottleMember *member,
                                              int64_t bytes, bool is_write)
{
    ThrottleGroup *group = member->group;
    ThrottleState *ts = &group->state;
    Coroutine *next = NULL;
    int dir = is_write;

    pthread_mutex_lock(&group->lock);
    if (!member->lift_count
        && (group->leader[dir]
            || throttle_state_wait_ns(ts, is_write, clock_now_ns()) > 0)) {
        co_wait_turn(member, dir);
    }
    throttle_state_account(ts, is_write, bytes);
    group->last_served[dir] = member;
    if (!group->leader[dir]) {
        group->leader[dir] = next_in_turn(group, dir);
        next = claim(group->leader[dir]);
    }
    pthread_mutex_unlock(&group->lock);
    if (next) {
        aio_co_wake(next);
    }
}

void throttle_member_lift_begin(ThrottleMember *member)
{
    g_autoptr(GPtrArray) woken = g_ptr_array_new();
    ThrottleWaiter *w;

    pthread_mutex_lock(&member->group->lock);
    member->lift_count++;
    for (int dir = 0; dir < 2; dir++) {
        TAILQ_FOREACH(w, &member->waiting[dir], next) {
            Coroutine *co = claim(w);

            w->lifted = true;
            if (co) {
                g_ptr_array_add(woken, co);
            }
        }
    }
    pthread_mutex_unlock(&member->group->lock);
    for (guint i = 0; i < woken->len; i++) {
        aio_co_wake(woken->pdata[i]);
    }
}

void throttle_member_lift_end(ThrottleMember *member)
{
    pthread_mutex_lock(&member->group->lock);
    g_assert(member->lift_count > 0);
    member->lift_count--;
    pthread_mutex_unlock(&member->group->lock);
}
