/* SPDX-License-Identifier: MIT */
/*
 * Secrets by id.  Main thread only, but for reading a file.
 */
#include "block/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/crypto.h"
#include "qapi/visit.h"
#include "util/named-file.h"
#include "util/queue.h"
#include "util/secmem.h"
#include "util/thread-pool.h"

enum {
    SECRET_MAX_LEN = 1024 * 1024,
    SECRET_KEY_LEN = 32,
    SECRET_IV_LEN = 16,
};

struct Secret {
    char *id;
    SecretProperties *props;
    uint8_t *data;                      /* decoded; of util/secmem.h */
    size_t len;
    LIST_ENTRY(Secret) next;
};

static LIST_HEAD(, Secret) secrets = LIST_HEAD_INITIALIZER(secrets);
static bool (*secret_object_exists)(const char *id);

void secret_set_object_exists(bool (*object_exists)(const char *id))
{
    secret_object_exists = object_exists;
}

static const Secret *secret_lookup(const char *id, Error **errp)
{
    const Secret *secret;

    LIST_FOREACH(secret, &secrets, next) {
        if (strcmp(secret->id, id) == 0) {
            return secret;
        }
    }
    if (secret_object_exists && secret_object_exists(id)) {
        error_setg(errp, "Object with id '%s' is not a secret", id);
    } else {
        error_setg(errp, "No secret with id '%s'", id);
    }
    return NULL;
}

char *secret_lookup_utf8(const char *id, Error **errp)
{
    const Secret *secret = secret_lookup(id, errp);

    if (!secret) {
        return NULL;
    }
    if (!g_utf8_validate((const char *)secret->data, secret->len, NULL)) {
        error_setg(errp, "Data from secret %s is not valid UTF-8", id);
        return NULL;
    }
    return secmem_dup(secret->data, secret->len);
}

/* ---- the data ---- */

typedef struct SecretFile {
    const char *path;
    uint8_t *data;                      /* once it has been read */
    ssize_t len;                        /* or -errno */
    Error **errp;
} SecretFile;

/* Bytes to have for what @fd holds, one more than there should be. */
static size_t secret_file_size(int fd)
{
    struct stat st;

    /* Secret memory may be scarce: a file that says its length takes that. */
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
           && st.st_size < SECRET_MAX_LEN ? st.st_size + 2 : SECRET_MAX_LEN + 1;
}

/* In a pool thread: a file may be a pipe that has nothing to say yet. */
static int secret_read_work(void *opaque)
{
    SecretFile *f = opaque;
    int fd = named_file_open(f->path, O_RDONLY | O_NONBLOCK, f->errp);
    size_t size;

    if (fd < 0) {
        error_prepend(f->errp, "Failed to open file \u201c%s\u201d: ", f->path);
        return fd;
    }
    size = secret_file_size(fd);
    f->data = secmem_alloc(size);
    f->len = named_file_read(fd, f->data, size);
    close(fd);
    if (f->len == -EFBIG) {
        error_setg(f->errp, "more than %zu bytes", size - 1);
    } else if (f->len < 0) {
        error_setg_errno(f->errp, -f->len, "Error reading file "
                         "\u201c%s\u201d", f->path);
    }
    return f->len;
}

static bool coroutine_fn secret_co_read_file(Secret *s, const char *path,
                                             Error **errp)
{
    Error *err = NULL;
    SecretFile f = { .path = path, .errp = &err };
    int ret = thread_pool_co_submit(secret_read_work, &f);

    if (ret < 0) {
        if (!err) {
            error_setg_errno(&err, -ret, "Could not start a thread");
        }
        error_prepend(&err, "Unable to read %s: ", path);
        error_propagate(errp, err);
    } else {
        s->len = f.len;
        s->data = (uint8_t *)secmem_dup(f.data, f.len);
    }
    secmem_free(f.data);
    return ret >= 0;
}

static uint8_t *secret_decode(const char *text, size_t len, size_t *out_len,
                              Error **errp)
{
    static const char valid[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789+/=\n";
    char *copy = secmem_dup(text, len);
    uint8_t *data = NULL;

    if (strlen(copy) != len || strspn(copy, valid) != len) {
        error_setg(errp, "Base64 data contains invalid characters");
    } else {
        data = g_base64_decode(copy, out_len);
    }
    secmem_free(copy);
    return data;
}

static bool secret_decode_data(Secret *s, Error **errp)
{
    size_t len;
    uint8_t *data = secret_decode((const char *)s->data, s->len, &len, errp);

    if (!data) {
        return false;
    }
    secmem_free(s->data);
    s->data = (uint8_t *)secmem_dup(data, len);
    s->len = len;
    explicit_bzero(data, len);
    g_free(data);
    return true;
}

#ifdef CONFIG_NETTLE
static bool secret_decrypt(Secret *s, const uint8_t *key, const uint8_t *iv,
                           Error **errp)
{
    if (!block_crypto_aes256_cbc_decrypt(key, iv, s->data, s->len)) {
        error_setg(errp, "Length %zu must be a multiple of block size 16",
                   s->len);
        return false;
    }
    /* The last byte is the number of bytes that fill the last block. */
    if (s->len > 0) {
        uint8_t padding = s->data[s->len - 1];

        if (padding > 16 || padding > s->len) {
            error_setg(errp, "Incorrect number of padding bytes (%u) found on "
                       "decrypted data", padding);
            return false;
        }
        s->len -= padding;
    }
    return true;
}
#else
static bool secret_decrypt(Secret *s, const uint8_t *key, const uint8_t *iv,
                           Error **errp)
{
    error_setg(errp, "This build cannot decrypt secrets (it needs nettle)");
    return false;
}
#endif

/* Decode and decrypt, as the properties say. */
static bool secret_unwrap(Secret *s, Error **errp)
{
    const SecretProperties *props = s->props;
    bool base64 = props->format == Q_CRYPTO_SECRET_FORMAT_BASE64;
    g_autofree uint8_t *iv = NULL;
    const Secret *key;
    size_t iv_len;

    if (!props->keyid) {
        return !base64 || secret_decode_data(s, errp);
    }
    key = secret_lookup(props->keyid, errp);
    if (!key) {
        return false;
    }
    if (key->len != SECRET_KEY_LEN) {
        error_setg(errp, "Key should be %d bytes in length", SECRET_KEY_LEN);
        return false;
    }
    if (!props->iv) {
        error_setg(errp, "IV is required to decrypt secret");
        return false;
    }
    iv = secret_decode(props->iv, strlen(props->iv), &iv_len, errp);
    if (!iv) {
        return false;
    }
    if (iv_len != SECRET_IV_LEN) {
        error_setg(errp, "IV should be %d bytes in length not %zu",
                   SECRET_IV_LEN, iv_len);
        return false;
    }
    return (!base64 || secret_decode_data(s, errp))
           && secret_decrypt(s, key->data, iv, errp);
}

/* ---- life ---- */

static bool coroutine_fn secret_co_load(Secret *s, Error **errp)
{
    const SecretProperties *props = s->props;

    if (props->data && props->file) {
        error_setg(errp, "'file' and 'data' are mutually exclusive");
        return false;
    }
    if (!props->data && !props->file) {
        error_setg(errp, "Either 'file' or 'data' must be provided");
        return false;
    }
    if (props->file) {
        if (!secret_co_read_file(s, props->file, errp)) {
            return false;
        }
    } else {
        s->len = strlen(props->data);
        s->data = (uint8_t *)secmem_dup(props->data, s->len);
    }
    return secret_unwrap(s, errp);
}

static void secret_destroy(Secret *s)
{
    secmem_free(s->data);
    qapi_free_SecretProperties(s->props);
    g_free(s->id);
    g_free(s);
}

Secret *coroutine_fn secret_co_new(const char *id,
                                   const SecretProperties *props,
                                   Error **errp)
{
    Secret *s = g_new0(Secret, 1);

    s->id = g_strdup(id);
    s->props = QAPI_CLONE(SecretProperties, props);
    if (!secret_co_load(s, errp)) {
        secret_destroy(s);
        return NULL;
    }
    secmem_wipe_string(g_steal_pointer(&s->props->data));
    LIST_INSERT_HEAD(&secrets, s, next);
    return s;
}

void secret_free(Secret *s)
{
    LIST_REMOVE(s, next);
    secret_destroy(s);
}

const SecretProperties *secret_properties(const Secret *s)
{
    return s->props;
}
