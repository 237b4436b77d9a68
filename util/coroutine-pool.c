/* SPDX-License-Identifier: MIT */
/*
 * Pools of coroutines: one a thread, without locks, and a global one that
 * takes batches from threads which end more coroutines than they create and
 * hands them to those where it is the other way round.
 *
 * A stack is 1 MiB of address space with a guard page below.  It costs memory
 * only where it was touched; stacks that leave their thread's pool give back
 * all but the pages at the top, which every use touches.
 */
#include <glib.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/coroutine-pool.h"

#define STACK_SIZE          (1024 * 1024)
#define STACK_KEEP_TOUCHED  (16 * 1024)

#define LOCAL_MAX           128         /* stacks in a thread's pool */
#define BATCH               64          /* that many move at once */
#define GLOBAL_MAX          (4 * BATCH)

typedef struct Pool {
    Coroutine *first;
    unsigned size;
} Pool;

static __thread Pool local_pool_storage;

static pthread_mutex_t global_lock = PTHREAD_MUTEX_INITIALIZER;
static Pool global_pool;                /* under global_lock */
static unsigned global_size_hint;       /* its size; atomic, for a peek */

/* Out of line for the reason given in coroutine.c. */
static __attribute__((noinline)) Pool *local_pool(void)
{
    Pool *pool = &local_pool_storage;

    asm volatile("" : "+r"(pool));
    return pool;
}

static void push(Pool *pool, Coroutine *co)
{
    co->schedule_next = pool->first;
    pool->first = co;
    pool->size++;
}

static Coroutine *pop(Pool *pool)
{
    Coroutine *co = pool->first;

    if (co) {
        pool->first = co->schedule_next;
        pool->size--;
    }
    return co;
}

static void stack_alloc(CoroutineStack *stack)
{
    size_t guard = sysconf(_SC_PAGESIZE);
    char *map = mmap(NULL, guard + STACK_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK,
                     -1, 0);

    if (map == MAP_FAILED || mprotect(map, guard, PROT_NONE) < 0) {
        g_error("no memory for a coroutine's stack: %m");
    }
    *stack = (CoroutineStack) {
        .map = map, .base = map + guard, .size = STACK_SIZE,
    };
#ifdef ASAN_ENABLED
    /* The leak checker does not look into mappings by itself. */
    __lsan_register_root_region(stack->base, stack->size);
#endif
#ifdef VALGRIND_ENABLED
    stack->valgrind_id = VALGRIND_STACK_REGISTER(map + guard,
                                                 map + guard + STACK_SIZE);
#endif
}

static void stack_free(CoroutineStack *stack)
{
    size_t guard = (char *)stack->base - (char *)stack->map;

#ifdef VALGRIND_ENABLED
    VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
#endif
#ifdef ASAN_ENABLED
    __lsan_unregister_root_region(stack->base, stack->size);
    /* Frames that were never left are marked; others may get this memory. */
    ASAN_UNPOISON_MEMORY_REGION(stack->base, stack->size);
#endif
    munmap(stack->map, guard + stack->size);
}

static void coroutine_free(Coroutine *co)
{
#ifdef TSAN_ENABLED
    __tsan_destroy_fiber(co->point.tsan_fiber);
#endif
    stack_free(&co->stack);
    g_free(co);
}

/* Move up to BATCH coroutines from @from to @to. */
static void move_batch(Pool *to, Pool *from)
{
    Coroutine *co;

    for (int i = 0; i < BATCH && (co = pop(from)); i++) {
        push(to, co);
    }
}

/* Fill the empty @pool of the calling thread from the global one. */
static void take_from_global(Pool *pool)
{
    if (!__atomic_load_n(&global_size_hint, __ATOMIC_RELAXED)) {
        return;
    }
    pthread_mutex_lock(&global_lock);
    move_batch(pool, &global_pool);
    __atomic_store_n(&global_size_hint, global_pool.size, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&global_lock);
}

/* Returns false if the global pool is full. */
static bool give_to_global(Pool *pool)
{
    Pool batch = { 0 };

    if (__atomic_load_n(&global_size_hint, __ATOMIC_RELAXED) >= GLOBAL_MAX) {
        return false;
    }
    move_batch(&batch, pool);
    for (Coroutine *co = batch.first; co; co = co->schedule_next) {
        madvise(co->stack.base, co->stack.size - STACK_KEEP_TOUCHED,
                MADV_DONTNEED);
    }
    pthread_mutex_lock(&global_lock);
    move_batch(&global_pool, &batch);
    __atomic_store_n(&global_size_hint, global_pool.size, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&global_lock);
    return true;
}

Coroutine *coroutine_pool_get(void)
{
    Pool *pool = local_pool();
    Coroutine *co;

    if (G_UNLIKELY(!pool->first)) {
        take_from_global(pool);
    }
    co = pop(pool);
    if (G_UNLIKELY(!co)) {
        co = g_new0(Coroutine, 1);
        stack_alloc(&co->stack);
#ifdef TSAN_ENABLED
        co->point.tsan_fiber = __tsan_create_fiber(0);
#endif
    }
    return co;
}

void coroutine_pool_put(Coroutine *co)
{
    Pool *pool = local_pool();

    if (G_UNLIKELY(pool->size >= LOCAL_MAX) && !give_to_global(pool)) {
        coroutine_free(co);
        return;
    }
    push(pool, co);
}

void coroutine_pool_drain(void)
{
    Pool *pool = local_pool();

    while (pool->first) {
        coroutine_free(pop(pool));
    }
}
