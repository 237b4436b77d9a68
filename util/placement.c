/* SPDX-License-Identifier: MIT */
/*
 * Placement: on which CPUs the thread of a context runs.
 *
 * A client that waits for each reply is idle while its request is served: on
 * its own CPU the thread starts at once, with warm caches and without waking
 * another CPU.  A client with many requests in flight is better served from
 * another CPU, in parallel.  Requests per wake-up tell the two apart: one each
 * time means that the client waits.
 *
 * The affinity the thread came with ("home") is never exceeded, and if
 * somebody else changes the affinity, that becomes home.  Where the kernel
 * refuses, placement is off.  All in the context's thread.
 */
#include "util/aio-int.h"

/* Wake-ups per decision: the first comes soon, the others are better founded. */
#define FIRST_WINDOW    32
#define WINDOW          256

static void new_window(Placement *p, unsigned window)
{
    p->wakeups = 0;
    p->requests = 0;
    p->votes = 0;
    p->window = window;
}

void aio_context_note_client_cpu(AioContext *ctx, unsigned cpu)
{
    Placement *p = &ctx->placement;

    if (!p->enabled) {
        return;
    }
    p->turn_requests++;
    if (cpu == p->cpu) {
        p->votes++;
    } else if (p->votes == 0) {
        p->cpu = cpu;
        p->votes = 1;
    } else {
        p->votes--;
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
    bool client_waits = (uint64_t)p->requests * 16 <= (uint64_t)p->wakeups * 17;
    /* at least three of four came from p->cpu */
    bool one_cpu = (uint64_t)p->votes * 2 >= p->requests;
    cpu_set_t set;

    new_window(p, WINDOW);
    follow_outside_change(p);

    set = p->home;
    p->shares_cpu = false;
    if (one_cpu && CPU_ISSET(p->cpu, &p->home)) {
        if (client_waits) {
            CPU_ZERO(&set);
            CPU_SET(p->cpu, &set);
            p->shares_cpu = true;
        } else if (CPU_COUNT(&p->home) > 1) {
            CPU_CLR(p->cpu, &set);
        }
    }
    set_affinity(p, &set);
    p->shares_cpu &= p->enabled;
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
