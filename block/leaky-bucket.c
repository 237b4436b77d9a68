/* SPDX-License-Identifier: MIT */
#include "block/leaky-bucket.h"

#include <inttypes.h>
#include <string.h>

#define NS_PER_S 1000000000.0

void throttle_state_init(ThrottleState *ts)
{
    memset(ts, 0, sizeof(*ts));
    for (int i = 0; i < THROTTLE__MAX; i++) {
        ts->buckets[i].burst_length = 1;
    }
}

static bool is_set(const LeakyBucket *b)
{
    return b->avg || b->max;
}

/* Total and read or write at the same time, for one kind? */
static bool is_ambiguous(const LeakyBucket *total)
{
    return is_set(&total[0]) && (is_set(&total[1]) || is_set(&total[2]));
}

static bool check_bucket(const LeakyBucket *b, Error **errp)
{
    const char *why = NULL;

    if (b->avg < 0 || b->max < 0 || b->avg > THROTTLE_VALUE_MAX
        || b->max > THROTTLE_VALUE_MAX) {
        error_setg(errp, "bps/iops/max values must be within [0, %" PRIi64
                   "]", THROTTLE_VALUE_MAX);
        return false;
    }
    if (b->burst_length == 0) {
        why = "the burst length cannot be 0";
    } else if (b->burst_length > 1 && !b->max) {
        why = "burst length set without burst rate";
    } else if (b->max && b->burst_length > THROTTLE_VALUE_MAX / b->max) {
        why = "burst length too high for this burst rate";
    } else if (b->max && !b->avg) {
        why = "bps_max/iops_max require corresponding bps/iops values";
    } else if (b->max && b->max < b->avg) {
        why = "bps_max/iops_max cannot be lower than bps/iops";
    }
    if (why) {
        error_setg(errp, "%s", why);
    }
    return !why;
}

bool throttle_state_check(const ThrottleState *ts, Error **errp)
{
    const LeakyBucket *b = ts->buckets;

    if (is_ambiguous(&b[THROTTLE_BPS_TOTAL])
        || is_ambiguous(&b[THROTTLE_IOPS_TOTAL])) {
        error_setg(errp, "bps/iops/max total values and read/write values "
                   "cannot be used at the same time");
        return false;
    }
    if (ts->op_size && !b[THROTTLE_IOPS_TOTAL].avg
        && !b[THROTTLE_IOPS_READ].avg && !b[THROTTLE_IOPS_WRITE].avg) {
        error_setg(errp, "iops size requires an iops value to be set");
        return false;
    }
    for (int i = 0; i < THROTTLE__MAX; i++) {
        if (!check_bucket(&b[i], errp)) {
            return false;
        }
    }
    return true;
}

void throttle_state_reset(ThrottleState *ts, int64_t now_ns)
{
    for (int i = 0; i < THROTTLE__MAX; i++) {
        ts->buckets[i].level = 0;
        ts->buckets[i].burst_level = 0;
    }
    ts->leaked_until_ns = now_ns;
}

static double leak(double level, double rate, double seconds)
{
    double leaked = rate * seconds;

    return level > leaked ? level - leaked : 0;
}

static void leak_all(ThrottleState *ts, int64_t now_ns)
{
    double seconds = (now_ns - ts->leaked_until_ns) / NS_PER_S;

    if (seconds <= 0) {
        return;
    }
    ts->leaked_until_ns = now_ns;
    for (int i = 0; i < THROTTLE__MAX; i++) {
        LeakyBucket *b = &ts->buckets[i];

        b->level = leak(b->level, b->avg, seconds);
        b->burst_level = leak(b->burst_level, b->max, seconds);
    }
}

/* Seconds until a bucket that holds @extra too much has leaked it. */
static double bucket_wait(const LeakyBucket *b)
{
    double extra;

    if (!b->avg) {
        return 0;
    }
    if (!b->max) {
        extra = b->level - b->avg / 10.0;
        return extra > 0 ? extra / b->avg : 0;
    }
    /* The burst is used up: only the long-run rate is left. */
    extra = b->level - (double)b->max * b->burst_length;
    if (extra > 0) {
        return extra / b->avg;
    }
    /* During a burst longer than 1 s its own rate counts. */
    extra = b->burst_level - b->max / 10.0;
    return b->burst_length > 1 && extra > 0 ? extra / b->max : 0;
}

static bool bucket_concerns(int type, bool is_write)
{
    switch (type) {
    case THROTTLE_BPS_READ:
    case THROTTLE_IOPS_READ:
        return !is_write;
    case THROTTLE_BPS_WRITE:
    case THROTTLE_IOPS_WRITE:
        return is_write;
    default:
        return true;
    }
}

int64_t throttle_state_wait_ns(ThrottleState *ts, bool is_write,
                               int64_t now_ns)
{
    double max = 0;

    leak_all(ts, now_ns);
    for (int i = 0; i < THROTTLE__MAX; i++) {
        if (bucket_concerns(i, is_write)) {
            double wait = bucket_wait(&ts->buckets[i]);

            max = wait > max ? wait : max;
        }
    }
    /* Rounded up, or the last fraction of a ns would be waited for again. */
    return max > 0 ? (int64_t)(max * NS_PER_S) + 1 : 0;
}

void throttle_state_account(ThrottleState *ts, bool is_write, int64_t bytes)
{
    double ops = 1;

    if (ts->op_size && bytes > ts->op_size) {
        ops = (double)bytes / ts->op_size;
    }
    for (int i = 0; i < THROTTLE__MAX; i++) {
        if (bucket_concerns(i, is_write)) {
            double units = i < THROTTLE_IOPS_TOTAL ? bytes : ops;

            ts->buckets[i].level += units;
            ts->buckets[i].burst_level += units;
        }
    }
}
