/* SPDX-License-Identifier: MIT */
/*
 * The interface describes itself: query-qmp-schema and query-commands, from
 * the same tables that the walker uses.
 *
 * Names of types are not part of the interface and come out as numbers, in the
 * order in which the types are first referred to.
 */
#include "qapi/command.h"
#include "qapi/qapi-commands.h"

typedef struct Introspection {
    SchemaInfoList *head, **tail;
    GPtrArray *types;           /* of QapiType: referred to, in order */
    GHashTable *names;          /* name -> itself, of builtins and arrays */
    GHashTable *numbers;        /* QapiType -> its name */
} Introspection;

const QapiCommand *qapi_command_find(const char *name)
{
    for (unsigned i = 0; i < qapi_n_commands; i++) {
        if (g_str_equal(qapi_commands[i].name, name)) {
            return &qapi_commands[i];
        }
    }
    return NULL;
}

/* All integer types look alike to clients. */
static const char *builtin_name(const QapiType *type)
{
    return g_str_equal(type->json_type, "int") ? "int" : type->name;
}

/* The name under which @type is described; it will be, if it is not yet. */
static char *type_name(Introspection *intro, const QapiType *type)
{
    g_autofree char *element = NULL;
    char *name;

    if (!type->json_type && type->kind != QAPI_KIND_LIST) {
        name = g_hash_table_lookup(intro->numbers, type);
        if (!name) {
            name = g_strdup_printf("%u",
                                   g_hash_table_size(intro->numbers));
            g_hash_table_insert(intro->numbers, (gpointer)type, name);
            g_ptr_array_add(intro->types, (gpointer)type);
        }
        return g_strdup(name);
    }
    if (type->json_type) {
        name = g_strdup(builtin_name(type));
    } else {
        element = type_name(intro, type->element);
        name = g_strdup_printf("[%s]", element);
    }
    if (g_hash_table_add(intro->names, g_strdup(name))) {
        g_ptr_array_add(intro->types, (gpointer)type);
    }
    return name;
}

static strList *feature_list(QapiFeatures features)
{
    strList *head = NULL, **tail = &head;

    for (; features && *features; features++) {
        QAPI_LIST_APPEND(tail, g_strdup(*features));
    }
    return head;
}

static SchemaInfo *add_info(Introspection *intro, char *name,
                            SchemaMetaType meta, QapiFeatures features)
{
    SchemaInfo *info = g_new0(SchemaInfo, 1);

    info->name = name;
    info->meta_type = meta;
    info->features = feature_list(features);
    QAPI_LIST_APPEND(intro->tail, info);
    return info;
}

static void describe_builtin(SchemaInfo *info, const QapiType *type)
{
    info->u.builtin.json_type = qapi_enum_parse(&qapi_type_JSONType, "",
                                                type->json_type, NULL);
}

static void describe_enum(SchemaInfo *info, const QapiType *type)
{
    SchemaInfoEnumMemberList **members = &info->u.q_enum.members;
    strList **values = &info->u.q_enum.values;

    for (unsigned i = 0; i < type->n_values; i++) {
        SchemaInfoEnumMember *member = g_new0(SchemaInfoEnumMember, 1);

        member->name = g_strdup(type->values[i].name);
        member->features = feature_list(type->values[i].features);
        QAPI_LIST_APPEND(members, member);
        QAPI_LIST_APPEND(values, g_strdup(type->values[i].name));
    }
}

/* The type that the tag's value @value brings. */
static const QapiType *variant_type(const QapiType *type, int value)
{
    for (unsigned i = 0; i < type->n_variants; i++) {
        if (type->variants[i].value == value) {
            return type->variants[i].type;
        }
    }
    return &qapi_type_QapiEmpty;
}

static void describe_object(Introspection *intro, SchemaInfo *info,
                            const QapiType *type)
{
    SchemaInfoObjectMemberList **members = &info->u.object.members;
    SchemaInfoObjectVariantList **variants = &info->u.object.variants;

    for (unsigned i = 0; i < type->n_members; i++) {
        const QapiMember *m = &type->members[i];
        SchemaInfoObjectMember *member = g_new0(SchemaInfoObjectMember, 1);

        member->name = g_strdup(m->name);
        member->type = type_name(intro, m->type);
        member->q_default = m->optional ? QOBJECT(qnull_new()) : NULL;
        member->features = feature_list(m->features);
        QAPI_LIST_APPEND(members, member);
    }
    if (!type->tag) {
        return;
    }
    info->u.object.tag = g_strdup(type->tag->name);
    for (unsigned i = 0; i < type->tag->type->n_values; i++) {
        SchemaInfoObjectVariant *variant = g_new0(SchemaInfoObjectVariant, 1);

        variant->q_case = g_strdup(type->tag->type->values[i].name);
        variant->type = type_name(intro, variant_type(type, i));
        QAPI_LIST_APPEND(variants, variant);
    }
}

static void describe_alternate(Introspection *intro, SchemaInfo *info,
                               const QapiType *type)
{
    SchemaInfoAlternateMemberList **members = &info->u.alternate.members;

    for (unsigned i = 0; i < type->n_branches; i++) {
        SchemaInfoAlternateMember *m = g_new0(SchemaInfoAlternateMember, 1);

        m->type = type_name(intro, type->branches[i].type);
        QAPI_LIST_APPEND(members, m);
    }
}

static void describe_type(Introspection *intro, const QapiType *type)
{
    static const SchemaMetaType metas[] = {
        [QAPI_KIND_ENUM] = SCHEMA_META_TYPE_ENUM,
        [QAPI_KIND_STRUCT] = SCHEMA_META_TYPE_OBJECT,
        [QAPI_KIND_ALTERNATE] = SCHEMA_META_TYPE_ALTERNATE,
        [QAPI_KIND_LIST] = SCHEMA_META_TYPE_ARRAY,
    };
    SchemaMetaType meta = type->json_type ? SCHEMA_META_TYPE_BUILTIN
                                          : metas[type->kind];
    SchemaInfo *info = add_info(intro, type_name(intro, type), meta,
                                type->features);

    switch (meta) {
    case SCHEMA_META_TYPE_BUILTIN:
        describe_builtin(info, type);
        break;
    case SCHEMA_META_TYPE_ENUM:
        describe_enum(info, type);
        break;
    case SCHEMA_META_TYPE_ARRAY:
        info->u.array.element_type = type_name(intro, type->element);
        break;
    case SCHEMA_META_TYPE_OBJECT:
        describe_object(intro, info, type);
        break;
    default:
        describe_alternate(intro, info, type);
    }
}

static void describe_command(Introspection *intro, const QapiCommand *cmd)
{
    SchemaInfo *info = add_info(intro, g_strdup(cmd->name),
                                SCHEMA_META_TYPE_COMMAND, cmd->features);

    info->u.command.arg_type = type_name(intro, cmd->arg);
    info->u.command.ret_type = type_name(intro, cmd->ret);
    info->u.command.has_allow_oob = cmd->allow_oob;
    info->u.command.allow_oob = cmd->allow_oob;
}

static void describe_event(Introspection *intro, const QapiEvent *event)
{
    SchemaInfo *info = add_info(intro, g_strdup(event->name),
                                SCHEMA_META_TYPE_EVENT, event->features);

    info->u.event.arg_type = type_name(intro, event->arg);
}

SchemaInfoList *coroutine_fn qmp_query_qmp_schema(Error **errp)
{
    Introspection intro = {
        .types = g_ptr_array_new(),
        .names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
        .numbers = g_hash_table_new_full(NULL, NULL, NULL, g_free),
    };

    intro.tail = &intro.head;
    for (unsigned i = 0; i < qapi_n_commands; i++) {
        describe_command(&intro, &qapi_commands[i]);
    }
    for (unsigned i = 0; i < qapi_n_events; i++) {
        describe_event(&intro, &qapi_events[i]);
    }
    /* Describing a type may add others at the end. */
    for (unsigned i = 0; i < intro.types->len; i++) {
        describe_type(&intro, intro.types->pdata[i]);
    }
    g_ptr_array_free(intro.types, TRUE);
    g_hash_table_destroy(intro.names);
    g_hash_table_destroy(intro.numbers);
    return intro.head;
}

CommandInfoList *coroutine_fn qmp_query_commands(Error **errp)
{
    CommandInfoList *head = NULL, **tail = &head;

    for (unsigned i = 0; i < qapi_n_commands; i++) {
        CommandInfo *info = g_new0(CommandInfo, 1);

        info->name = g_strdup(qapi_commands[i].name);
        QAPI_LIST_APPEND(tail, info);
    }
    return head;
}
