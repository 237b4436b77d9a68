/* SPDX-License-Identifier: MIT */
/*
 * Intrusive lists: the C library's <sys/queue.h> (queue(7)), and the loops it
 * lacks, in which the current element may be removed or freed.
 */
#ifndef UTIL_QUEUE_H
#define UTIL_QUEUE_H

#include <sys/queue.h>

#define TAILQ_FOREACH_SAFE(var, head, field, tvar)                  \
    for ((var) = TAILQ_FIRST(head);                                 \
         (var) && ((tvar) = TAILQ_NEXT(var, field), 1);             \
         (var) = (tvar))

#define LIST_FOREACH_SAFE(var, head, field, tvar)                   \
    for ((var) = LIST_FIRST(head);                                  \
         (var) && ((tvar) = LIST_NEXT(var, field), 1);              \
         (var) = (tvar))

#endif /* UTIL_QUEUE_H */
