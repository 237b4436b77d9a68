/* SPDX-License-Identifier: MIT */
/*
 * Placement: on which CPUs the thread of a context runs.
 *
 * A client that waits for each reply is idle while its request is served: on
 * its own CPU the thread starts at once, with warm caches and without waking
 * another CPU, which can be worth a factor of two or three.  A client with
 * many requests in flight is better served beside it.  Requests per wake-up
 * tell the two apart: one each time means that the client waits.
 *
 * But those CPUs may have other work, other clients for one.  So such a place
 * is only a rival to running free: both are tried, the time that a request
 * takes is compared, and the slower one is tried again from time to time.
 *
 * The affinity the thread came with ("home") is never exceeded, and if
 * somebody else changes the affinity, that becomes home.  Where the kernel
 * refuses, placement is off.  All in the context's thread.
 */
#include "util/aio-int.h"

/* Wake-ups per decision: the first comes soon, others are better founded. */
#define FIRST_WINDOW    32
#define WINDOW          256

/* Windows until the place that was slower is tried again. */
#define PROBE_MIN       8
#define PROBE_MAX       256

static void new_window(Placement *p, unsigned window)
{
    p->wakeups = 0;
    p->requests = 0;
    p->cpu.votes = 0;
    p->client.votes = 0;
    p->window = window;
    p->start_ns = clock_now_ns();
}

/* Another load: nothing is known about it. */
static void new_rival(Placement *p, Place rival)
{
    p->rival = rival;
    p->free_ns = p->rival_ns = 0;
    p->probe_in = p->probe_interval = PROBE_MIN;
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

/* Which place may be better than running free, for the window's load? */
static Place choose_rival(const Placement *p)
{
    /* up to 1.06 requests a wake-up */
    bool client_waits = (uint64_t)p->requests * 16 <= (uint64_t)p->wakeups * 17;
    /* at least three of four came from there */
    bool one_cpu = (uint64_t)p->cpu.votes * 2 >= p->requests;
    bool one_client = (uint64_t)p->client.votes * 2 >= p->requests;

    if (!one_cpu || !CPU_ISSET(p->cpu.winner, &p->home) ||
        CPU_COUNT(&p->home) == 1) {
        return PLACE_FREE;
    }
    if (client_waits) {
        return PLACE_SHARED;
    }
    /* Several clients are everywhere already. */
    return one_client ? PLACE_BESIDE : PLACE_FREE;
}

/* Take the window's result into account. */
static void learn(Placement *p)
{
    int64_t *known = p->place == PLACE_FREE ? &p->free_ns : &p->rival_ns;
    int64_t ns = MAX(1, (clock_now_ns() - p->start_ns) / p->requests);

    *known = *known ? (*known + ns) / 2 : ns;
}

/* The place for the next window. */
static Place choose_place(Placement *p)
{
    Place best;

    if (!p->rival_ns) {
        return p->rival;                        /* not tried yet */
    }
    if (!p->free_ns) {
        return PLACE_FREE;
    }
    /* A tie is the rival's: free threads tend to get in their client's way. */
    best = p->rival_ns - p->rival_ns / 8 < p->free_ns ? p->rival : PLACE_FREE;
    if (p->probe_in == 0) {
        /* The other place has been tried; the result is in @best. */
        p->probe_interval = p->place == best
                            ? PROBE_MIN
                            : MIN(p->probe_interval * 2, PROBE_MAX);
        p->probe_in = p->probe_interval;
    } else if (p->place == best && --p->probe_in == 0) {
        return best == PLACE_FREE ? p->rival : PLACE_FREE;
    }
    return best;
}

static void move_to(Placement *p, Place place)
{
    cpu_set_t set = p->home;

    if (place == PLACE_SHARED) {
        CPU_ZERO(&set);
        CPU_SET(p->cpu.winner, &set);
    } else if (place == PLACE_BESIDE) {
        CPU_CLR(p->cpu.winner, &set);
    }
    set_affinity(p, &set);
    p->place = p->enabled ? place : PLACE_FREE;
    p->shares_cpu = p->place == PLACE_SHARED;
}

void placement_decide(AioContext *ctx)
{
    Placement *p = &ctx->placement;
    Place rival;

    follow_outside_change(p);
    rival = choose_rival(p);
    if (rival == PLACE_FREE) {
        new_rival(p, rival);
        move_to(p, PLACE_FREE);
    } else if (rival != p->rival) {
        new_rival(p, rival);
        move_to(p, rival);
    } else {
        learn(p);
        move_to(p, choose_place(p));
    }
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
        p->place = PLACE_FREE;
        new_rival(p, PLACE_FREE);
        new_window(p, FIRST_WINDOW);
    } else {
        follow_outside_change(p);
        set_affinity(p, &p->home);
        p->enabled = false;
        p->place = PLACE_FREE;
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
