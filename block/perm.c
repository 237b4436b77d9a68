/* SPDX-License-Identifier: MIT */
/*
 * Permissions: who may do what with a node.
 *
 * Main thread, under the graph lock.  Every edge says what its user does
 * (perm) and what it lets others do (shared).  A change at one edge is worked
 * out for all nodes below it in the new_ members, parents before children, and
 * checked there; then every driver concerned is asked, and only when all agree
 * do the new values become the current ones.  Outside of an update the new_
 * members equal the current ones.
 */
#include "block/block-int.h"

static const char *const perm_name[] = {
    "consistent read", "write", "write unchanged", "resize",
};

#define BLK_PERM_BITS G_N_ELEMENTS(perm_name)

char *bdrv_perm_names(uint64_t perm)
{
    GString *names = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(perm_name); i++) {
        if (perm & (1u << i)) {
            g_string_append_printf(names, "%s%s", names->len ? ", " : "",
                                   perm_name[i]);
        }
    }
    return g_string_free(names, FALSE);
}

/* ---- default rules ---- */

static void backing_perms(uint64_t perm, uint64_t shared,
                          uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm & BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    if (shared & BLK_PERM_WRITE) {
        /* Our users bear changing data, so they bear a changing backing. */
        *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
}

static void storage_perms(BlockDriverState *bs, BdrvChildRole role,
                          uint64_t perm, uint64_t shared,
                          uint64_t *nperm, uint64_t *nshared)
{
    if (role & BDRV_CHILD_METADATA) {
        /* The format writes its tables even if nobody writes data. */
        perm |= BLK_PERM_CONSISTENT_READ;
        if (!bs->read_only) {
            perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        shared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
    if (role & BDRV_CHILD_DATA) {
        /* The part in use must stay there. */
        shared &= ~(uint64_t)BLK_PERM_RESIZE;
        if (!(role & BDRV_CHILD_PRIMARY) && (perm & BLK_PERM_WRITE)) {
            perm |= BLK_PERM_RESIZE;    /* a data file grows as it is written */
        }
    }
    if (perm & BLK_PERM_WRITE_UNCHANGED) {
        perm |= BLK_PERM_WRITE;
    }
    *nperm = perm;
    *nshared = shared;
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *c,
                        BdrvChildRole role, uint64_t perm, uint64_t shared,
                        uint64_t *nperm, uint64_t *nshared)
{
    if (role & BDRV_CHILD_FILTERED) {
        *nperm = perm;
        *nshared = shared | BLK_PERM_WRITE_UNCHANGED;
    } else if (role & BDRV_CHILD_COW) {
        backing_perms(perm, shared, nperm, nshared);
    } else {
        storage_perms(bs, role, perm, shared, nperm, nshared);
    }
}

/* ---- one node ---- */

static char *describe_user(const BdrvChild *c)
{
    g_autofree char *who = c->parent
        ? g_strdup_printf("node '%s'", c->parent->node_name)
        : g_strdup(blk_name(c->blk));

    return g_strdup_printf("%s (uses node '%s' as '%s' child)", who,
                           c->bs->node_name, c->name);
}

/* Does anybody need what another one does not share? */
static bool have_conflict(BlockDriverState *bs)
{
    unsigned users[BLK_PERM_BITS] = { 0 };
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        for (unsigned i = 0; i < BLK_PERM_BITS; i++) {
            users[i] += c->new_perm >> i & 1;
        }
    }
    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        for (unsigned i = 0; i < BLK_PERM_BITS; i++) {
            if (!(c->new_shared >> i & 1)
                && users[i] > (c->new_perm >> i & 1)) {
                return true;
            }
        }
    }
    return false;
}

static bool check_conflicts(BlockDriverState *bs, Error **errp)
{
    BdrvChild *keeper, *user;

    if (!have_conflict(bs)) {
        return true;            /* without comparing each with each */
    }
    TAILQ_FOREACH(keeper, &bs->parents, next_parent) {
        TAILQ_FOREACH(user, &bs->parents, next_parent) {
            uint64_t conflict = user->new_perm & ~keeper->new_shared;

            if (user != keeper && conflict) {
                g_autofree char *names = bdrv_perm_names(conflict);
                g_autofree char *a = describe_user(user);
                g_autofree char *b = describe_user(keeper);

                error_setg(errp, "Permission conflict on node '%s': "
                           "permissions '%s' are both required by %s and "
                           "unshared by %s.", bs->node_name, names, a, b);
                return false;
            }
        }
    }
    return true;
}

/* Cumulate over @bs's users, check, and pass on to its children. */
static bool compute_node(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    bs->new_perm = 0;
    bs->new_shared = BLK_PERM_ALL;
    TAILQ_FOREACH(c, &bs->parents, next_parent) {
        bs->new_perm |= c->new_perm;
        bs->new_shared &= c->new_shared;
    }
    if (!check_conflicts(bs, errp)) {
        return false;
    }
    if ((bs->new_perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED))
        && bs->read_only) {
        error_setg(errp, "Block node is read-only");
        return false;
    }

    TAILQ_FOREACH(c, &bs->children, next) {
        if (bs->drv->bdrv_child_perm) {
            bs->drv->bdrv_child_perm(bs, c, c->role, bs->new_perm,
                                     bs->new_shared, &c->new_perm,
                                     &c->new_shared);
        } else {
            bdrv_default_perms(bs, c, c->role, bs->new_perm, bs->new_shared,
                               &c->new_perm, &c->new_shared);
        }
        if (c->bs->force_share) {
            c->new_shared = BLK_PERM_ALL;
        }
    }
    return true;
}

/* ---- the transaction ---- */

/* Append @bs and all below, children before parents. */
static void list_below(BlockDriverState *bs, GPtrArray *nodes)
{
    BdrvChild *c;

    if (!bdrv_walk_visit(bs)) {
        return;
    }
    TAILQ_FOREACH(c, &bs->children, next) {
        list_below(c->bs, nodes);
    }
    g_ptr_array_add(nodes, bs);
}

static bool concerns_driver(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_check_perm
           && (bs->new_perm != bs->perm || bs->new_shared != bs->shared_perm);
}

/* Make the new values current, or forget them. */
static void settle(GPtrArray *nodes, bool commit)
{
    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = nodes->pdata[i];
        BdrvChild *c;

        if (commit) {
            bs->perm = bs->new_perm;
            bs->shared_perm = bs->new_shared;
        }
        bs->new_perm = bs->perm;
        bs->new_shared = bs->shared_perm;
        TAILQ_FOREACH(c, &bs->children, next) {
            if (commit) {
                c->perm = c->new_perm;
                c->shared_perm = c->new_shared;
            }
            c->new_perm = c->perm;
            c->new_shared = c->shared_perm;
        }
    }
}

/*
 * Ask all drivers concerned, then tell them.  With @must_succeed those that
 * refuse keep what they had.
 */
static bool coroutine_fn co_ask_drivers(GPtrArray *concerned,
                                        bool must_succeed, Error **errp)
{
    g_autofree bool *agreed = g_new0(bool, concerned->len);
    bool ok = true;

    for (guint i = 0; i < concerned->len && ok; i++) {
        BlockDriverState *bs = concerned->pdata[i];

        agreed[i] = bs->drv->bdrv_co_check_perm(bs, bs->new_perm,
                                                bs->new_shared, errp);
        ok = agreed[i] || must_succeed;
    }
    for (guint i = 0; i < concerned->len; i++) {
        BlockDriverState *bs = concerned->pdata[i];

        if (agreed[i] && ok && bs->drv->bdrv_co_set_perm) {
            bs->drv->bdrv_co_set_perm(bs, bs->new_perm, bs->new_shared);
        } else if (agreed[i] && !ok && bs->drv->bdrv_co_abort_perm_update) {
            bs->drv->bdrv_co_abort_perm_update(bs);
        }
    }
    return ok;
}

static bool coroutine_fn co_update(BlockDriverState *bs, bool must_succeed,
                                   Error **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    g_autoptr(GPtrArray) concerned = g_ptr_array_new();
    bool ok = true;

    bdrv_walk_begin();
    list_below(bs, nodes);
    for (guint i = nodes->len; i-- > 0 && ok;) {
        ok = compute_node(nodes->pdata[i], errp) || must_succeed;
    }
    for (guint i = 0; i < nodes->len && ok; i++) {
        if (concerns_driver(nodes->pdata[i])) {
            g_ptr_array_add(concerned, nodes->pdata[i]);
            bdrv_co_drained_begin_locked(nodes->pdata[i]);
        }
    }
    ok = ok && co_ask_drivers(concerned, must_succeed, errp);
    settle(nodes, ok);
    for (guint i = 0; i < concerned->len; i++) {
        bdrv_drained_end(concerned->pdata[i]);
    }
    return ok;
}

bool coroutine_fn bdrv_co_refresh_perms(BlockDriverState *bs, Error **errp)
{
    return co_update(bs, false, errp);
}

void coroutine_fn bdrv_co_relax_perms(BlockDriverState *bs)
{
    co_update(bs, true, NULL);
}

bool coroutine_fn bdrv_co_child_set_perm(BdrvChild *child, uint64_t perm,
                                         uint64_t shared, Error **errp)
{
    child->new_perm = perm;
    child->new_shared = child->bs->force_share ? BLK_PERM_ALL : shared;
    if (!co_update(child->bs, false, errp)) {
        child->new_perm = child->perm;
        child->new_shared = child->shared_perm;
        return false;
    }
    child->perm = child->new_perm;
    child->shared_perm = child->new_shared;
    return true;
}
