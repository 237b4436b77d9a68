/* SPDX-License-Identifier: MIT */
/*
 * Open keys: what the users of block/crypto.h call for each request, and the
 * old AES of qcow2.
 */
#include "block/crypto-int.h"

#include <errno.h>
#include <string.h>
#include "block/secret.h"
#include "util/secmem.h"

BlockCrypto *block_crypto_new(const CryptoSpec *spec, const uint8_t *key,
                              const LuksHeader *h, unsigned flags)
{
    BlockCrypto *c = secmem_alloc(sizeof(*c));

    c->detached = flags & BLOCK_CRYPTO_DETACHED;
    if (h) {
        c->is_luks = true;
        c->luks = *h;
    }
    if (key) {
        c->has_key = true;
        crypto_cipher_init(&c->cipher, spec, key);
    }
    return c;
}

void block_crypto_free(BlockCrypto *c)
{
    secmem_free(c);
}

bool block_crypto_check_secret(const char *secret_id, unsigned flags,
                               Error **errp)
{
    if (!secret_id) {
        error_setg(errp, "Parameter '%skey-secret' is required for cipher",
                   flags & BLOCK_CRYPTO_NESTED ? "encrypt." : "");
    }
    return secret_id != NULL;
}

BlockCrypto *block_crypto_open_aes(const char *secret_id, unsigned flags,
                                   Error **errp)
{
    CryptoSpec spec = {
        .cipher_alg = Q_CRYPTO_CIPHER_ALGO_AES_128,
        .cipher_mode = Q_CRYPTO_CIPHER_MODE_CBC,
        .ivgen_alg = Q_CRYPTO_IV_GEN_ALGO_PLAIN64,
        .key_len = AES128_KEY_SIZE,
    };
    uint8_t key[AES128_KEY_SIZE] = { 0 };
    BlockCrypto *c;
    char *password;

    if (flags & BLOCK_CRYPTO_HEADER_ONLY) {
        return block_crypto_new(&spec, NULL, NULL, flags);
    }
    if (!block_crypto_check_secret(secret_id, flags, errp)) {
        return NULL;
    }
    password = secret_lookup_utf8(secret_id, errp);
    if (!password) {
        return NULL;
    }
    memcpy(key, password, MIN(strlen(password), sizeof(key)));
    secmem_free(password);
    c = block_crypto_new(&spec, key, NULL, flags);
    explicit_bzero(key, sizeof(key));
    return c;
}

static bool crypto_request_ok(const BlockCrypto *c, uint64_t offset,
                              size_t len)
{
    return c->has_key && offset % BLOCK_CRYPTO_SECTOR_SIZE == 0
           && len % BLOCK_CRYPTO_SECTOR_SIZE == 0;
}

int block_crypto_encrypt(const BlockCrypto *c, uint64_t offset, void *buf,
                         size_t len)
{
    if (!crypto_request_ok(c, offset, len)) {
        return -EINVAL;
    }
    crypto_cipher_encrypt(&c->cipher, offset / BLOCK_CRYPTO_SECTOR_SIZE, buf,
                          len);
    return 0;
}

int block_crypto_decrypt(const BlockCrypto *c, uint64_t offset, void *buf,
                         size_t len)
{
    if (!crypto_request_ok(c, offset, len)) {
        return -EINVAL;
    }
    crypto_cipher_decrypt(&c->cipher, offset / BLOCK_CRYPTO_SECTOR_SIZE, buf,
                          len);
    return 0;
}

uint64_t block_crypto_payload_offset(const BlockCrypto *c)
{
    return c->luks.payload_offset;
}

static QCryptoBlockInfoLUKSSlot *slot_info(const LuksSlot *slot)
{
    QCryptoBlockInfoLUKSSlot *info = g_new0(QCryptoBlockInfoLUKSSlot, 1);

    info->active = slot->active;
    info->key_offset = slot->offset;
    if (slot->active) {
        info->has_iters = info->has_stripes = true;
        info->iters = slot->iterations;
        info->stripes = slot->stripes;
    }
    return info;
}

QCryptoBlockInfoLUKS *block_crypto_get_info(const BlockCrypto *c)
{
    const LuksHeader *h = &c->luks;
    QCryptoBlockInfoLUKSSlotList **tail;
    QCryptoBlockInfoLUKS *info;

    if (!c->is_luks) {
        return NULL;
    }
    info = g_new0(QCryptoBlockInfoLUKS, 1);
    info->cipher_alg = h->spec.cipher_alg;
    info->cipher_mode = h->spec.cipher_mode;
    info->ivgen_alg = h->spec.ivgen_alg;
    info->has_ivgen_hash_alg = h->spec.has_ivgen_hash_alg;
    info->ivgen_hash_alg = h->spec.ivgen_hash_alg;
    info->hash_alg = h->hash_alg;
    info->detached_header = c->detached;
    info->payload_offset = h->payload_offset;
    info->master_key_iters = h->digest_iterations;
    info->uuid = g_utf8_make_valid(h->uuid, -1);
    tail = &info->slots;
    for (int i = 0; i < LUKS_SLOTS; i++) {
        QAPI_LIST_APPEND(tail, slot_info(&h->slots[i]));
    }
    return info;
}
