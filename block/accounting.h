/* SPDX-License-Identifier: MIT */
/*
 * I/O accounting: what query-blockstats tells.
 *
 * Each user keeps one BlockAcct per thread slot (block/inflight.h), so that
 * counting does not share cache lines.  Any thread; the values of a sum taken
 * under load need not belong to one instant.
 */
#ifndef BLOCK_ACCOUNTING_H
#define BLOCK_ACCOUNTING_H

#include <stdint.h>

typedef enum {
    BLOCK_ACCT_READ,
    BLOCK_ACCT_WRITE,
    BLOCK_ACCT_FLUSH,
    BLOCK_ACCT_UNMAP,
    BLOCK_ACCT__MAX,
} BlockAcctType;

typedef struct BlockAcct {
    uint64_t bytes[BLOCK_ACCT__MAX];        /* of successful requests */
    uint64_t ops[BLOCK_ACCT__MAX];          /* successful requests */
    uint64_t time_ns[BLOCK_ACCT__MAX];      /* they and failed ones took */
    uint64_t failed[BLOCK_ACCT__MAX];
    uint64_t invalid[BLOCK_ACCT__MAX];      /* refused before any I/O */
    int64_t last_access_ns;                 /* CLOCK_MONOTONIC; 0: never */
} __attribute__((aligned(64))) BlockAcct;

typedef struct BlockBackend BlockBackend;

/* Add all of @from to @to; @from may be counting meanwhile. */
void block_acct_add(BlockAcct *to, const BlockAcct *from);

/* Add what @blk's threads have counted to @to. */
void blk_acct_sum(const BlockBackend *blk, BlockAcct *to);

#endif /* BLOCK_ACCOUNTING_H */
