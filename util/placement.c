/* SPDX-License-Identifier: MIT */
/*
 * Placement: on which CPUs the thread of a context runs.
 *
 * A client that waits for each reply is idle while its request is served: on
 * its own CPU the thread starts at once, with warm caches and without waking
 * another CPU, which is worth a factor of two to four.  One request for each
 * wake-up, all from one client, tells that.  One client that sends several at
 * a time works while it is served, and is left its CPU.  With several clients
 * the scheduler knows best.
 *
 * There is no comparing of speeds: the scheduler moves a client between CPUs,
 * so that the threads serve it in turn, and what one of them does changes what
 * the other measures.
 *
 * The affinity the thread came with ("home") is never exceeded, and if
 * somebody else changes the affinity, that becomes home.  Where the kernel
 * refuses, placement is off.  All in the context's thread.
 */
#include "util/aio-int.h"
#include "util/trace.h"

/* Wake-ups per decision: the first comes soon, others are better founded. */
#define FIRST_WINDOW    32
#define WINDOW          256

static void new_window(Placement *p, unsigned window)
{
    p->wakeups = 0;
    p->requests = 0;
    p->cpu.votes = 0;
    p->client.votes = 0;
    p->window = window;
}

/* Boyer and Moore's majority vote. */
static void vote(PlacementVote *v, unsigned candidate)
{
    if (candidate == v->winner) {
        v->votes++;
    } else if (v->votes == 0) {
        v->winner = candidate;
        v->votes = 1;
    } else {
        v->votes--;
    }
}

void aio_context_note_client(AioContext *ctx, unsigned cpu, unsigned client)
{
    Placement *p = &ctx->placement;

    if (p->enabled) {
        p->turn_requests++;
        vote(&p->cpu, cpu);
        vote(&p->client, client);
    }
}

static void set_affinity(Placement *p, const cpu_set_t *set)
{
    if (CPU_EQUAL(set, &p->current)) {
        return;
    }
    if (sched_setaffinity(0, sizeof(*set), set) == 0) {
        p->current = *set;
    } else {
        p->enabled = false;
        sched_setaffinity(0, sizeof(p->home), &p->home);
    }
}

/* Somebody else's change of the affinity is to be respected. */
static void follow_outside_change(Placement *p)
{
    cpu_set_t now;

    if (sched_getaffinity(0, sizeof(now), &now) == 0 &&
        !CPU_EQUAL(&now, &p->current)) {
        p->home = now;
        p->current = now;
    }
}

void placement_decide(AioContext *ctx)
{
    Placement *p = &ctx->placement;
    /* up to 1.06 requests a wake-up */
    bool waits = (uint64_t)p->requests * 16 <= (uint64_t)p->wakeups * 17;
    /* at least three of four came from there */
    bool one_cpu = (uint64_t)p->cpu.votes * 2 >= p->requests;
    bool one_client = (uint64_t)p->client.votes * 2 >= p->requests;
    cpu_set_t set;

    follow_outside_change(p);
    set = p->home;
    p->shares_cpu = false;
    if (one_client && one_cpu && CPU_ISSET(p->cpu.winner, &p->home)) {
        if (waits) {
            CPU_ZERO(&set);
            CPU_SET(p->cpu.winner, &set);
            p->shares_cpu = true;
        } else if (CPU_COUNT(&p->home) > 1) {
            CPU_CLR(p->cpu.winner, &set);
        }
    }
    set_affinity(p, &set);
    p->shares_cpu &= p->enabled;
    trace(placement_decide, "requests=%u wakeups=%u cpu=%u shared=%d",
          p->requests, p->wakeups, p->cpu.winner, p->shares_cpu);
    new_window(p, WINDOW);
}

void aio_context_set_placement(AioContext *ctx, bool enable)
{
    Placement *p = &ctx->placement;

    g_assert(ctx == aio_context_current());
    if (enable == p->enabled) {
        return;
    }
    if (enable) {
        p->enabled = sched_getaffinity(0, sizeof(p->home), &p->home) == 0;
        p->current = p->home;
        p->turn_requests = 0;
        new_window(p, FIRST_WINDOW);
    } else {
        follow_outside_change(p);
        set_affinity(p, &p->home);
        p->enabled = false;
        p->shares_cpu = false;
    }
}

void placement_init_thread_attr(const AioContext *ctx, pthread_attr_t *attr)
{
    const Placement *p = &ctx->placement;

    if (p->enabled) {
        pthread_attr_setaffinity_np(attr, sizeof(p->home), &p->home);
    }
}
