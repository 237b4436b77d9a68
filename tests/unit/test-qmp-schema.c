/* SPDX-License-Identifier: MIT */
/*
 * query-qmp-schema against the recording of the reference daemon: all that is
 * offered has the same members, types, values, variants and features, but for
 * the differences listed here.
 */
#include <string.h>
#include "qapi/command.h"
#include "qapi/json.h"
#include "qapi/qapi-commands.h"

typedef struct Difference {
    const char *text, *reason;
} Difference;

static const Difference known[] = {
    { "blockdev-add.driver lacks blkreplay blkverify "
      "bochs cloop copy-before-write copy-on-read dmg snapshot-access ftp ftps "
      "host_cdrom http https io_uring iscsi nbd nfs nvme nvme-io_uring "
      "parallels preallocate qcow qed quorum rbd replication ssh vdi vhdx "
      "virtio-blk-vfio-pci virtio-blk-vhost-user virtio-blk-vhost-vdpa vmdk "
      "vpc vvfat",
      "drivers that are not offered" },
    { "blockdev-add[file] lacks pr-manager x-check-cache-dropped",
      "persistent reservations and a debugging aid are not offered" },
    { "block-export-add.type lacks nbd vhost-user-blk vduse-blk",
      "export types that are not offered" },
    { "block-export-add[fuse] adds resizable io-uring queue-depth placement",
      "FUSE over io_uring; clients that one does not trust with the length" },
    { "query-block-exports.<ret>[] adds io-uring",
      "tells what io-uring=auto took" },
    { "blockdev-add[qcow2] adds safe-image",
      "images whose maker one does not trust" },
    { "query-block.<ret>[].inserted.image.format-specific.type lacks vmdk rbd",
      "drivers that are not offered" },
    { "query-jobs.<ret>[].type lacks commit stream mirror backup amend "
      "snapshot-load snapshot-save snapshot-delete",
      "jobs that are not offered" },
    { "chardev-add.backend.type lacks serial parallel udp pty mux hub msmouse "
      "wctablet braille testdev spicevmc spiceport qemu-vdagent dbus vc "
      "ringbuf memory", "character devices that are not offered" },
    { "chardev-add.backend[socket].data lacks tls-creds tls-authz telnet "
      "tn3270 websocket", "protocols over sockets that are not offered" },
    { "chardev-add.backend[socket].data adds allow-remote",
      "TCP with other hosts has to be asked for" },
    { "chardev-add.backend[socket].data.addr.type lacks vsock",
      "an address family that is not offered" },
    { "object-add.qom-type lacks acpi-generic-initiator acpi-generic-port "
      "authz-list authz-listfile authz-pam authz-simple can-bus "
      "can-host-socketcan colo-compare cryptodev-backend "
      "cryptodev-backend-builtin cryptodev-backend-lkcf cryptodev-vhost-user "
      "dbus-vmstate filter-buffer filter-dump filter-mirror "
      "filter-redirector filter-replay filter-rewriter input-barrier "
      "input-linux iommufd memory-backend-epc memory-backend-file "
      "memory-backend-memfd memory-backend-ram memory-backend-shm monitor-hmp "
      "pef-guest pr-manager-helper qtest rng-builtin rng-egd rng-random "
      "secret_keyring sev-guest sev-snp-guest thread-context "
      "s390-pv-guest tdx-guest tls-creds-anon tls-creds-psk tls-creds-x509 "
      "tls-cipher-suites x-remote-object x-vfio-user-server",
      "object types that are not offered" },
    { "transaction.actions[].type lacks blockdev-backup blockdev-snapshot "
      "blockdev-snapshot-sync drive-backup",
      "jobs and external snapshots are not offered" },
};

typedef struct Schema {
    QList *list;
    GHashTable *by_name;        /* name -> QDict */
} Schema;

static Schema ours, theirs;
static GHashTable *compared;    /* "our type/their type" */
static GPtrArray *found;        /* differences */

static void schema_init(Schema *schema, QObject *obj)
{
    schema->list = qobject_to_qlist(obj);
    g_assert_nonnull(schema->list);
    schema->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    for (size_t i = 0; i < qlist_size(schema->list); i++) {
        QDict *entry = qobject_to_qdict(qlist_at(schema->list, i));
        const char *name = qdict_get_str(entry, "name");

        g_assert_nonnull(name);
        /* The reference has a command and types with different names only. */
        g_assert_true(g_hash_table_insert(schema->by_name, (char *)name,
                                          entry));
    }
}

static QDict *schema_get(const Schema *schema, const char *name)
{
    return g_hash_table_lookup(schema->by_name, name);
}

static void difference(const char *path, const char *what, const char *names)
{
    g_ptr_array_add(found, g_strdup_printf("%s %s%s", path, what, names));
}

/* The element of @list whose @key is @value. */
static QDict *list_find(const QList *list, const char *key, const char *value)
{
    for (size_t i = 0; list && i < qlist_size(list); i++) {
        QDict *entry = qobject_to_qdict(qlist_at(list, i));

        if (g_str_equal(qdict_get_str(entry, key), value)) {
            return entry;
        }
    }
    return NULL;
}

/* Report names that @a has and @b does not. */
static void compare_names(const char *path, const char *what, const QList *a,
                          const QList *b)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (size_t i = 0; a && i < qlist_size(a); i++) {
        const char *name = qdict_get_str(
            qobject_to_qdict(qlist_at(a, i)), "name");

        if (!list_find(b, "name", name)) {
            g_string_append_printf(names, " %s", name);
        }
    }
    if (names->len) {
        difference(path, what, names->str);
    }
}

static void compare_features(const char *path, const QDict *a, const QDict *b)
{
    QObject *fa = qdict_get(a, "features"), *fb = qdict_get(b, "features");

    if ((fa || fb) && !qobject_is_equal(fa, fb)) {
        difference(path, "has other features", "");
    }
}

static void compare_type(const char *path, const char *a, const char *b);

static void compare_enum(const char *path, const QDict *a, const QDict *b)
{
    const QList *ma = qdict_get_qlist(a, "members");
    const QList *mb = qdict_get_qlist(b, "members");

    compare_names(path, "lacks", mb, ma);
    compare_names(path, "adds", ma, mb);
    g_assert_cmpuint(qlist_size(ma), ==,
                     qlist_size(qdict_get_qlist(a, "values")));
    for (size_t i = 0; i < qlist_size(ma); i++) {
        const QDict *value = qobject_to_qdict(qlist_at(ma, i));
        const char *name = qdict_get_str(value, "name");
        const QDict *other = list_find(mb, "name", name);
        g_autofree char *sub = g_strdup_printf("%s=%s", path, name);

        if (other) {
            compare_features(sub, value, other);
        }
    }
}

static void compare_members(const char *path, const QList *a, const QList *b)
{
    compare_names(path, "lacks", b, a);
    compare_names(path, "adds", a, b);
    for (size_t i = 0; i < qlist_size(a); i++) {
        const QDict *member = qobject_to_qdict(qlist_at(a, i));
        const char *name = qdict_get_str(member, "name");
        const QDict *other = list_find(b, "name", name);
        g_autofree char *sub = g_strdup_printf("%s.%s", path, name);

        if (!other) {
            continue;
        }
        if (qdict_haskey(member, "default")
            != qdict_haskey(other, "default")) {
            difference(sub, "is not optional in both", "");
        }
        compare_features(sub, member, other);
        compare_type(sub, qdict_get_str(member, "type"),
                     qdict_get_str(other, "type"));
    }
}

static void compare_object(const char *path, const QDict *a, const QDict *b)
{
    const QList *va = qdict_get_qlist(a, "variants");
    const QList *vb = qdict_get_qlist(b, "variants");

    compare_members(path, qdict_get_qlist(a, "members"),
                    qdict_get_qlist(b, "members"));
    if (g_strcmp0(qdict_get_str(a, "tag"), qdict_get_str(b, "tag"))) {
        difference(path, "has another tag", "");
    }
    for (size_t i = 0; va && i < qlist_size(va); i++) {
        const QDict *variant = qobject_to_qdict(qlist_at(va, i));
        const char *name = qdict_get_str(variant, "case");
        const QDict *other = list_find(vb, "case", name);
        g_autofree char *sub = g_strdup_printf("%s[%s]", path, name);

        if (other) {
            compare_type(sub, qdict_get_str(variant, "type"),
                         qdict_get_str(other, "type"));
        }
    }
}

static void compare_alternate(const char *path, const QDict *a, const QDict *b)
{
    const QList *ma = qdict_get_qlist(a, "members");
    const QList *mb = qdict_get_qlist(b, "members");

    if (qlist_size(ma) != qlist_size(mb)) {
        difference(path, "has other alternatives", "");
        return;
    }
    for (size_t i = 0; i < qlist_size(ma); i++) {
        compare_type(path,
                     qdict_get_str(qobject_to_qdict(qlist_at(ma, i)), "type"),
                     qdict_get_str(qobject_to_qdict(qlist_at(mb, i)), "type"));
    }
}

static void compare_type(const char *path, const char *a, const char *b)
{
    QDict *ta = schema_get(&ours, a), *tb = schema_get(&theirs, b);
    g_autofree char *pair = g_strdup_printf("%s/%s", a, b);
    g_autofree char *sub = g_strdup_printf("%s[]", path);
    const char *meta;

    g_assert_true(ta && tb);
    meta = qdict_get_str(ta, "meta-type");
    if (!g_hash_table_add(compared, g_strdup(pair))) {
        return;
    }
    if (!g_str_equal(meta, qdict_get_str(tb, "meta-type"))) {
        difference(path, "is another kind of type", "");
        return;
    }
    compare_features(path, ta, tb);
    if (g_str_equal(meta, "builtin")) {
        if (!g_str_equal(a, b)) {
            difference(path, "has another type", "");
        }
        g_assert_cmpstr(qdict_get_str(ta, "json-type"), ==,
                        qdict_get_str(schema_get(&theirs, a), "json-type"));
    } else if (g_str_equal(meta, "array")) {
        compare_type(sub, qdict_get_str(ta, "element-type"),
                     qdict_get_str(tb, "element-type"));
    } else if (g_str_equal(meta, "enum")) {
        compare_enum(path, ta, tb);
    } else if (g_str_equal(meta, "alternate")) {
        compare_alternate(path, ta, tb);
    } else {
        g_assert_cmpstr(meta, ==, "object");
        compare_object(path, ta, tb);
    }
}

static void compare_entry(const QDict *entry)
{
    const char *name = qdict_get_str(entry, "name");
    const char *meta = qdict_get_str(entry, "meta-type");
    const QDict *other = schema_get(&theirs, name);
    g_autofree char *ret = g_strdup_printf("%s.<ret>", name);
    bool is_command = g_str_equal(meta, "command");

    if (!is_command && !g_str_equal(meta, "event")) {
        return;
    }
    if (!other || !g_str_equal(qdict_get_str(other, "meta-type"), meta)) {
        difference(name, "is not in the reference", "");
        return;
    }
    compare_features(name, entry, other);
    compare_type(name, qdict_get_str(entry, "arg-type"),
                 qdict_get_str(other, "arg-type"));
    if (is_command) {
        if (qdict_get_bool(entry, "allow-oob", false)
            != qdict_get_bool(other, "allow-oob", false)) {
            difference(name, "has another allow-oob", "");
        }
        compare_type(ret, qdict_get_str(entry, "ret-type"),
                     qdict_get_str(other, "ret-type"));
    }
}

static QObject *our_schema(void)
{
    g_autoptr(SchemaInfoList) list = qmp_query_qmp_schema(NULL);

    return qapi_to_qobject(&qapi_type_SchemaInfoList, list);
}

static void test_reference(void)
{
    g_autofree char *path = g_build_filename(
        g_getenv("QSD_SRCDIR"), "tests/data/reference/qmp-schema.json", NULL);
    g_autofree char *text = NULL;
    g_autoptr(QObject) a = our_schema(), b = NULL;
    bool seen[G_N_ELEMENTS(known)] = { false };

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    b = qobject_from_json(text, NULL);
    schema_init(&ours, a);
    schema_init(&theirs, b);
    compared = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    found = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < qlist_size(ours.list); i++) {
        compare_entry(qobject_to_qdict(qlist_at(ours.list, i)));
    }
    for (int i = 0; i < found->len; i++) {
        bool is_known = false;

        for (int j = 0; j < G_N_ELEMENTS(known); j++) {
            if (g_str_equal(known[j].text, found->pdata[i])) {
                is_known = seen[j] = true;
            }
        }
        if (!is_known) {
            g_test_message("unknown: %s", (char *)found->pdata[i]);
            g_test_fail();
        }
    }
    for (int j = 0; j < G_N_ELEMENTS(known); j++) {
        if (!seen[j]) {
            g_test_message("listed, but not found: %s (%s)", known[j].text,
                           known[j].reason);
            g_test_fail();
        }
    }
    g_ptr_array_free(found, TRUE);
    g_hash_table_destroy(compared);
    g_hash_table_destroy(ours.by_name);
    g_hash_table_destroy(theirs.by_name);
}

/* Our own reader takes what we say; it is the same each time. */
static void test_self(void)
{
    g_autoptr(QObject) once = our_schema(), again = our_schema();
    g_autoptr(Error) err = NULL;
    g_autoptr(SchemaInfoList) list = qapi_from_qobject(
        &qapi_type_SchemaInfoList, once, false, &err);
    g_autoptr(QObject) back = qapi_to_qobject(&qapi_type_SchemaInfoList, list);
    g_autofree char *a = qobject_to_json(once), *b = qobject_to_json(again);

    g_assert_null(err);
    g_assert_cmpstr(a, ==, b);
    g_assert_true(qobject_is_equal(once, back));
}

/* The commands that the project promises, and no other. */
static void test_commands(void)
{
    static const char *const names[] = {
        "block-dirty-bitmap-add", "block-dirty-bitmap-clear",
        "block-dirty-bitmap-disable", "block-dirty-bitmap-enable",
        "block-dirty-bitmap-merge", "block-dirty-bitmap-remove",
        "block-export-add", "block-export-del", "block_resize", "blockdev-add",
        "blockdev-create", "blockdev-del",
        "blockdev-snapshot-delete-internal-sync",
        "blockdev-snapshot-internal-sync", "chardev-add", "chardev-remove",
        "job-cancel", "job-complete", "job-dismiss", "job-finalize",
        "job-pause", "job-resume", "object-add", "object-del",
        "qmp_capabilities", "qom-get", "qom-list", "qom-list-get",
        "qom-list-properties", "qom-list-types", "qom-set", "query-block",
        "query-block-exports", "query-blockstats", "query-chardev",
        "query-chardev-backends", "query-commands", "query-jobs",
        "query-named-block-nodes", "query-qmp-schema", "query-version", "quit",
        "transaction", "x-debug-block-dirty-bitmap-sha256",
    };
    g_autoptr(CommandInfoList) list = qmp_query_commands(NULL);
    unsigned n = 0;

    for (CommandInfoList *l = list; l; l = l->next) {
        g_assert_nonnull(qapi_command_find(l->value->name));
        n++;
    }
    g_assert_cmpuint(n, ==, G_N_ELEMENTS(names));
    for (int i = 0; i < G_N_ELEMENTS(names); i++) {
        g_assert_nonnull(qapi_command_find(names[i]));
    }
    g_assert_null(qapi_command_find("bogus"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp-schema/reference", test_reference);
    g_test_add_func("/qmp-schema/self", test_self);
    g_test_add_func("/qmp-schema/commands", test_commands);
    return g_test_run();
}
