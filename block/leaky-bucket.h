/* SPDX-License-Identifier: MIT */
/*
 * Leaky buckets: the arithmetic of I/O limits.
 *
 * A request fills buckets, which leak at a constant rate; while one is too full
 * requests have to wait.  Pure functions of their arguments: the time comes
 * from the caller, who also does the locking.
 */
#ifndef BLOCK_LEAKY_BUCKET_H
#define BLOCK_LEAKY_BUCKET_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

#define THROTTLE_VALUE_MAX INT64_C(1000000000000000)

typedef enum {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL,
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE__MAX,
} ThrottleBucketType;

/*
 * @avg units per second in the long run (0: no limit).  Without @max up to a
 * tenth of a second's worth may come at once; with it, @max units per second
 * for @burst_length seconds.
 */
typedef struct LeakyBucket {
    int64_t avg, max;
    int64_t burst_length;               /* seconds, 1..UINT32_MAX */
    double level;                       /* leaks at avg */
    double burst_level;                 /* leaks at max */
} LeakyBucket;

typedef struct ThrottleState {
    LeakyBucket buckets[THROTTLE__MAX];
    int64_t op_size;                    /* bytes that count as one; 0: any */
    int64_t leaked_until_ns;
} ThrottleState;

/* No limits. */
void throttle_state_init(ThrottleState *ts);

/* Whether the limits make sense together; texts as in the reference daemon. */
bool throttle_state_check(const ThrottleState *ts, Error **errp);

/* Empty all buckets, as of @now_ns. */
void throttle_state_reset(ThrottleState *ts, int64_t now_ns);

/*
 * Let the buckets leak up to @now_ns.  Returns for how many ns a request in
 * this direction has to wait; 0: it may run.
 */
int64_t throttle_state_wait_ns(ThrottleState *ts, bool is_write,
                               int64_t now_ns);

/* A request of @bytes runs. */
void throttle_state_account(ThrottleState *ts, bool is_write, int64_t bytes);

#endif /* BLOCK_LEAKY_BUCKET_H */
