/* SPDX-License-Identifier: MIT */
/*
 * Option strings in the old syntax: see optstr.h.
 */
#include <errno.h>
#include <string.h>
#include "storage-daemon/optstr.h"

typedef struct OptStrItem {
    char *name;
    char *value;
} OptStrItem;

struct OptStr {
    GArray *items;
};

static void optstr_item_clear(void *opaque)
{
    OptStrItem *item = opaque;

    g_free(item->name);
    g_free(item->value);
}

/* Up to a single comma; *@p moves behind it. */
static char *optstr_token(const char **p)
{
    GString *token = g_string_new(NULL);
    const char *s = *p;

    while (*s && (*s != ',' || s[1] == ',')) {
        s += *s == ',';
        g_string_append_c(token, *s++);
    }
    *p = *s ? s + 1 : s;
    return g_string_free(token, FALSE);
}

static const OptStrDesc *optstr_desc(const OptStrDesc *descs, const char *name)
{
    for (; descs->name; descs++) {
        if (!strcmp(descs->name, name)) {
            return descs;
        }
    }
    return NULL;
}

/* What a boolean may be called: 1, 0, or -1 for none of them. */
static int optstr_bool(const char *value)
{
    static const char *const words[][4] = {
        { "off", "no", "false", "n" },
        { "on", "yes", "true", "y" },
    };

    for (int result = 0; result < 2; result++) {
        for (size_t i = 0; i < G_N_ELEMENTS(words[result]); i++) {
            if (!strcmp(value, words[result][i])) {
                return result;
            }
        }
    }
    return -1;
}

/* A name alone: "flag" is flag=on, "noflag" is flag=off. */
static void optstr_short_form(OptStrItem *item, const char *token,
                              const OptStrDesc *descs)
{
    const OptStrDesc *desc = optstr_desc(descs, token);
    bool negated = !desc && g_str_has_prefix(token, "no");

    item->name = g_strdup(negated ? token + 2 : token);
    item->value = g_strdup(negated ? "off" : "on");
    desc = optstr_desc(descs, item->name);
    if (desc && desc->type != OPTSTR_BOOL) {
        g_free(item->value);
        item->value = g_strdup("");
    } else {
        warn_report("short-form boolean option '%s' deprecated\n"
                    "Please use %s=%s instead", token, item->name,
                    item->value);
    }
}

static bool optstr_check(const OptStrItem *item, const OptStrDesc *descs,
                         Error **errp)
{
    const OptStrDesc *desc = optstr_desc(descs, item->name);
    gint64 number;

    if (!desc) {
        error_setg(errp, "Invalid parameter '%s'", item->name);
        return false;
    }
    if (desc->type == OPTSTR_BOOL && optstr_bool(item->value) < 0) {
        error_setg(errp, "Parameter '%s' expects 'on' or 'off'", item->name);
        return false;
    }
    if (desc->type == OPTSTR_NUM &&
        !g_ascii_string_to_signed(item->value, 10, 0, INT64_MAX, &number,
                                  NULL)) {
        error_setg(errp, "Parameter '%s' expects a number", item->name);
        return false;
    }
    return true;
}

OptStr *optstr_parse(const char *text, const char *implied,
                     const OptStrDesc *descs, bool *help, Error **errp)
{
    g_autoptr(OptStr) opts = g_new0(OptStr, 1);
    const char *p = text;

    opts->items = g_array_new(FALSE, TRUE, sizeof(OptStrItem));
    g_array_set_clear_func(opts->items, optstr_item_clear);
    for (bool first = true; *p; first = false) {
        size_t name_len = strcspn(p, "=,");
        OptStrItem item = { NULL };
        g_autofree char *token = NULL;

        if (p[name_len] == '=') {
            item.name = g_strndup(p, name_len);
            p += name_len + 1;
            item.value = optstr_token(&p);
        } else {
            token = optstr_token(&p);
            if (help && (!strcmp(token, "help") || !strcmp(token, "?"))) {
                *help = true;
                continue;
            }
            if (first && implied) {
                item.name = g_strdup(implied);
                item.value = g_steal_pointer(&token);
            } else {
                optstr_short_form(&item, token, descs);
            }
        }
        g_array_append_val(opts->items, item);
    }
    for (unsigned i = 0; i < opts->items->len && !(help && *help); i++) {
        if (!optstr_check(&g_array_index(opts->items, OptStrItem, i), descs,
                          errp)) {
            return NULL;
        }
    }
    return g_steal_pointer(&opts);
}

void optstr_free(OptStr *opts)
{
    g_array_unref(opts->items);
    g_free(opts);
}

const char *optstr_get(const OptStr *opts, const char *name)
{
    for (unsigned i = opts->items->len; i > 0; i--) {
        OptStrItem *item = &g_array_index(opts->items, OptStrItem, i - 1);

        if (!strcmp(item->name, name)) {
            return item->value;
        }
    }
    return NULL;
}

bool optstr_get_bool(const OptStr *opts, const char *name, bool def)
{
    const char *value = optstr_get(opts, name);

    return value ? optstr_bool(value) == 1 : def;
}

int64_t optstr_get_num(const OptStr *opts, const char *name, int64_t def)
{
    const char *value = optstr_get(opts, name);

    return value ? g_ascii_strtoll(value, NULL, 10) : def;
}
