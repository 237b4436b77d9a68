/* SPDX-License-Identifier: MIT */
/*
 * LUKS version 1: the header, and getting the key out of it.
 *
 * A header is hostile until luks_header_parse() has accepted it: from there on
 * all that lies in it is in bounds, and trying all slots takes no more than
 * LUKS_MAX_ITERATIONS.  Source: "LUKS On-Disk Format Specification" 1.2.3.
 */
#include "block/crypto-int.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include "block/secret.h"
#include "util/secmem.h"
#include "util/thread-pool.h"

#define SECTOR BLOCK_CRYPTO_SECTOR_SIZE

static const uint8_t luks_magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

/* As on disk; numbers are big-endian. */
typedef struct LuksDiskSlot {
    uint32_t state;
    uint32_t iterations;
    uint8_t salt[LUKS_SALT_LEN];
    uint32_t offset;                    /* sectors */
    uint32_t stripes;
} LuksDiskSlot;

typedef struct LuksDiskHeader {
    uint8_t magic[6];
    uint16_t version;
    char cipher_name[32];
    char cipher_mode[32];
    char hash_spec[32];
    uint32_t payload_offset;            /* sectors */
    uint32_t key_len;                   /* bytes */
    uint8_t digest[LUKS_DIGEST_LEN];
    uint8_t digest_salt[LUKS_SALT_LEN];
    uint32_t digest_iterations;
    char uuid[40];
    LuksDiskSlot slots[LUKS_SLOTS];
} LuksDiskHeader;

G_STATIC_ASSERT(sizeof(LuksDiskHeader) == LUKS_HEADER_LEN);
G_STATIC_ASSERT(offsetof(LuksDiskHeader, slots) == 208);

static uint64_t material_sectors(uint64_t key_len)
{
    return (key_len * LUKS_STRIPES + SECTOR - 1) / SECTOR;
}

size_t luks_material_len(const LuksHeader *h)
{
    return material_sectors(h->spec.key_len) * SECTOR;
}

uint64_t luks_slot_area(const CryptoSpec *spec)
{
    uint64_t len = material_sectors(spec->key_len) * SECTOR;

    return (len + LUKS_ALIGN - 1) / LUKS_ALIGN * LUKS_ALIGN;
}

/* ---- reading a header ---- */

static bool check_string(const char *field, size_t size, const char *what,
                         Error **errp)
{
    if (!memchr(field, '\0', size)) {
        error_setg(errp, "LUKS header %s is not NUL terminated", what);
        return false;
    }
    return true;
}

static bool check_iterations(uint32_t iterations, const char *what,
                             Error **errp)
{
    if (iterations == 0) {
        error_setg(errp, "%s iteration count is zero", what);
        return false;
    }
    if (iterations > LUKS_MAX_ITERATIONS) {
        error_setg(errp, "%s iteration count %" PRIu32 " is above the limit "
                   "of %d", what, iterations, LUKS_MAX_ITERATIONS);
        return false;
    }
    return true;
}

static bool slot_parse(LuksHeader *h, int i, const LuksDiskSlot *disk,
                       Error **errp)
{
    LuksSlot *slot = &h->slots[i];
    uint32_t state = GUINT32_FROM_BE(disk->state);
    g_autofree char *what = g_strdup_printf("Keyslot %d", i);

    slot->active = state == LUKS_SLOT_ACTIVE;
    slot->iterations = GUINT32_FROM_BE(disk->iterations);
    slot->offset = (uint64_t)GUINT32_FROM_BE(disk->offset) * SECTOR;
    slot->stripes = GUINT32_FROM_BE(disk->stripes);
    memcpy(slot->salt, disk->salt, sizeof(slot->salt));

    if (slot->stripes != LUKS_STRIPES) {
        error_setg(errp, "%s is corrupted (stripes %" PRIu32 " != %d)", what,
                   slot->stripes, LUKS_STRIPES);
        return false;
    }
    if (slot->offset < LUKS_ALIGN) {
        error_setg(errp, "%s is overlapping with the LUKS header", what);
        return false;
    }
    if (!slot->active && state != LUKS_SLOT_DEAD) {
        error_setg(errp, "%s state (active/disable) is corrupted", what);
        return false;
    }
    return !slot->active || check_iterations(slot->iterations, what, errp);
}

/* Each slot takes its own iterations and the key's. */
static bool check_all_iterations(const LuksHeader *h, Error **errp)
{
    uint64_t sum = 0;

    for (int i = 0; i < LUKS_SLOTS; i++) {
        if (h->slots[i].active) {
            sum += (uint64_t)h->slots[i].iterations + h->digest_iterations;
        }
    }
    if (sum > LUKS_MAX_ITERATIONS) {
        error_setg(errp, "All keyslots together take more iterations than the "
                   "limit of %d", LUKS_MAX_ITERATIONS);
    }
    return sum <= LUKS_MAX_ITERATIONS;
}

static bool check_layout(const LuksHeader *h, uint64_t key_len,
                         unsigned flags, Error **errp)
{
    uint64_t len = material_sectors(key_len) * SECTOR;

    for (int i = 0; i < LUKS_SLOTS; i++) {
        uint64_t start = h->slots[i].offset;

        if (!(flags & BLOCK_CRYPTO_DETACHED)
            && start + len > h->payload_offset) {
            error_setg(errp, "Keyslot %d is overlapping with the encrypted "
                       "payload", i);
            return false;
        }
        for (int j = i + 1; j < LUKS_SLOTS; j++) {
            uint64_t other = h->slots[j].offset;

            if (start < other + len && other < start + len) {
                error_setg(errp, "Keyslots %d and %d are overlapping in the "
                           "header", i, j);
                return false;
            }
        }
    }
    return true;
}

bool luks_header_parse(LuksHeader *h, const uint8_t *buf, unsigned flags,
                       Error **errp)
{
    LuksDiskHeader disk;
    uint64_t key_len;

    memcpy(&disk, buf, sizeof(disk));
    memset(h, 0, sizeof(*h));
    if (memcmp(disk.magic, luks_magic, sizeof(luks_magic)) != 0) {
        error_setg(errp, "Volume is not in LUKS format");
        return false;
    }
    if (GUINT16_FROM_BE(disk.version) != 1) {
        error_setg(errp, "LUKS version %u is not supported",
                   GUINT16_FROM_BE(disk.version));
        return false;
    }
    if (!check_string(disk.cipher_name, sizeof(disk.cipher_name),
                      "cipher name", errp)
        || !check_string(disk.cipher_mode, sizeof(disk.cipher_mode),
                         "cipher mode", errp)
        || !check_string(disk.hash_spec, sizeof(disk.hash_spec),
                         "hash spec", errp)) {
        return false;
    }

    h->payload_offset = (uint64_t)GUINT32_FROM_BE(disk.payload_offset)
                        * SECTOR;
    if (!(flags & BLOCK_CRYPTO_DETACHED)
        && h->payload_offset < LUKS_ALIGN) {
        error_setg(errp, "LUKS payload is overlapping with the header");
        return false;
    }
    h->digest_iterations = GUINT32_FROM_BE(disk.digest_iterations);
    if (!check_iterations(h->digest_iterations, "LUKS key", errp)) {
        return false;
    }
    memcpy(h->digest, disk.digest, sizeof(h->digest));
    memcpy(h->digest_salt, disk.digest_salt, sizeof(h->digest_salt));
    memcpy(h->uuid, disk.uuid, sizeof(disk.uuid));
    for (int i = 0; i < LUKS_SLOTS; i++) {
        if (!slot_parse(h, i, &disk.slots[i], errp)) {
            return false;
        }
    }

    key_len = GUINT32_FROM_BE(disk.key_len);
    return check_all_iterations(h, errp)
           && check_layout(h, key_len, flags, errp)
           && crypto_spec_parse(&h->spec, disk.cipher_name, disk.cipher_mode,
                                key_len, errp)
           && crypto_hash_by_name(disk.hash_spec, &h->hash_alg, errp);
}

/* ---- writing one ---- */

void luks_header_format(const LuksHeader *h, uint8_t *buf)
{
    g_autofree char *mode = crypto_spec_mode_string(&h->spec);
    LuksDiskHeader disk = {
        .version = GUINT16_TO_BE(1),
        .cipher_name = "aes",
        .payload_offset = GUINT32_TO_BE(h->payload_offset / SECTOR),
        .key_len = GUINT32_TO_BE(h->spec.key_len),
        .digest_iterations = GUINT32_TO_BE(h->digest_iterations),
    };

    memcpy(disk.magic, luks_magic, sizeof(disk.magic));
    g_strlcpy(disk.cipher_mode, mode, sizeof(disk.cipher_mode));
    g_strlcpy(disk.hash_spec, QCryptoHashAlgo_str(h->hash_alg),
              sizeof(disk.hash_spec));
    memcpy(disk.digest, h->digest, sizeof(disk.digest));
    memcpy(disk.digest_salt, h->digest_salt, sizeof(disk.digest_salt));
    memcpy(disk.uuid, h->uuid, sizeof(disk.uuid));
    for (int i = 0; i < LUKS_SLOTS; i++) {
        const LuksSlot *slot = &h->slots[i];
        LuksDiskSlot *out = &disk.slots[i];

        out->state = GUINT32_TO_BE(slot->active ? LUKS_SLOT_ACTIVE
                                                : LUKS_SLOT_DEAD);
        out->iterations = GUINT32_TO_BE(slot->iterations);
        out->offset = GUINT32_TO_BE(slot->offset / SECTOR);
        out->stripes = GUINT32_TO_BE(slot->stripes);
        memcpy(out->salt, slot->salt, sizeof(out->salt));
    }
    memcpy(buf, &disk, sizeof(disk));
}

void luks_key_digest(const LuksHeader *h, const uint8_t *key, uint8_t *digest)
{
    crypto_pbkdf2(crypto_hash(h->hash_alg), key, h->spec.key_len,
                  h->digest_iterations, h->digest_salt,
                  sizeof(h->digest_salt), digest, LUKS_DIGEST_LEN);
}

/* ---- unlocking ---- */

/* In memory for secrets. */
typedef struct LuksUnlock {
    const LuksHeader *header;
    const LuksSlot *slot;
    const char *password;
    uint8_t *material;
    uint8_t key[LUKS_MAX_KEY_LEN];
    bool found;
} LuksUnlock;

/* In a pool thread. */
static int luks_unlock_work(void *opaque)
{
    LuksUnlock *u = opaque;
    const LuksHeader *h = u->header;
    const struct nettle_hash *hash = crypto_hash(h->hash_alg);
    size_t len = h->spec.key_len;
    uint8_t digest[LUKS_DIGEST_LEN];
    CryptoCipher cipher;

    crypto_pbkdf2(hash, u->password, strlen(u->password),
                  u->slot->iterations, u->slot->salt, sizeof(u->slot->salt),
                  u->key, len);
    crypto_cipher_init(&cipher, &h->spec, u->key);
    crypto_cipher_decrypt(&cipher, 0, u->material, luks_material_len(h));
    crypto_af_merge(hash, u->material, len, LUKS_STRIPES, u->key);
    luks_key_digest(h, u->key, digest);
    u->found = memcmp(digest, h->digest, sizeof(digest)) == 0;
    explicit_bzero(&cipher, sizeof(cipher));
    return 0;
}

static bool coroutine_fn luks_co_try_slot(LuksUnlock *u, int i,
                                          BlockCryptoReadFn *read,
                                          void *opaque, Error **errp)
{
    size_t len = luks_material_len(u->header);
    int ret;

    u->slot = &u->header->slots[i];
    ret = read(opaque, u->slot->offset, u->material, len);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read key material of keyslot "
                         "%d (%zu bytes at offset %" PRIu64 ")", i, len,
                         u->slot->offset);
        return false;
    }
    ret = thread_pool_co_submit(luks_unlock_work, u);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to unlock keyslot %d", i);
        return false;
    }
    return true;
}

static BlockCrypto *coroutine_fn luks_co_unlock(const LuksHeader *h,
                                                BlockCryptoReadFn *read,
                                                void *opaque,
                                                const char *password,
                                                unsigned flags, Error **errp)
{
    LuksUnlock *u = secmem_alloc(sizeof(*u));
    BlockCrypto *c = NULL;
    bool ok = true;

    u->header = h;
    u->password = password;
    u->material = secmem_alloc(luks_material_len(h));
    for (int i = 0; i < LUKS_SLOTS && ok && !u->found; i++) {
        if (h->slots[i].active) {
            ok = luks_co_try_slot(u, i, read, opaque, errp);
        }
    }
    if (u->found) {
        c = block_crypto_new(&h->spec, u->key, h, flags);
    } else if (ok) {
        error_setg(errp, "Invalid password, cannot unlock any keyslot");
    }
    secmem_free(u->material);
    secmem_free(u);
    return c;
}

BlockCrypto *coroutine_fn block_crypto_co_open_luks(BlockCryptoReadFn *read,
                                                    void *opaque,
                                                    const char *secret_id,
                                                    unsigned flags,
                                                    Error **errp)
{
    uint8_t buf[LUKS_HEADER_LEN];
    LuksHeader h;
    BlockCrypto *c = NULL;
    char *password = NULL;
    int ret;

    if (!(flags & BLOCK_CRYPTO_HEADER_ONLY)) {
        if (!block_crypto_check_secret(secret_id, flags, errp)) {
            return NULL;
        }
        password = secret_lookup_utf8(secret_id, errp);
        if (!password) {
            return NULL;
        }
    }
    ret = read(opaque, 0, buf, sizeof(buf));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to read LUKS header");
    } else if (luks_header_parse(&h, buf, flags, errp)) {
        c = password
            ? luks_co_unlock(&h, read, opaque, password, flags, errp)
            : block_crypto_new(&h.spec, NULL, &h, flags);
    }
    secmem_free(password);
    return c;
}
