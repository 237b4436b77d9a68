/* SPDX-License-Identifier: MIT */
/*
 * LUKS headers: parsing, what queries show of them, writing them again, and
 * unlocking where that is cheap.
 *
 * Input: flags, then the header area; beyond its end reads fail.
 */
#include <errno.h>

#include "block/crypto-int.h"
#include "block/secret.h"
#include "qapi/visit.h"
#include "tests/fuzz/fuzz.h"

#define CHEAP_ITERATIONS 20

static int coroutine_fn input_co_read(void *opaque, uint64_t offset, void *buf,
                                      size_t len)
{
    const FuzzInput *in = opaque;

    if (offset > in->size || len > in->size - offset) {
        /* Key material is long: make some of what there is. */
        memset(buf, in->size & 0xff, len);
        return offset > 0 ? 0 : -EIO;
    }
    memcpy(buf, in->data + offset, len);
    return 0;
}

static bool is_cheap(const LuksHeader *h)
{
    uint64_t sum = h->digest_iterations;

    for (int i = 0; i < LUKS_SLOTS; i++) {
        sum += h->slots[i].active ? h->slots[i].iterations : 0;
    }
    return sum <= CHEAP_ITERATIONS;
}

/* What was accepted is in bounds, and says the same when written. */
static void check_header(const LuksHeader *h, unsigned flags)
{
    uint8_t buf[LUKS_HEADER_LEN];
    LuksHeader again;
    Error *err = NULL;

    g_assert_cmpuint(h->spec.key_len, <=, LUKS_MAX_KEY_LEN);
    for (int i = 0; i < LUKS_SLOTS; i++) {
        uint64_t end = h->slots[i].offset + luks_material_len(h);

        g_assert_cmpuint(h->slots[i].offset, >=, LUKS_HEADER_LEN);
        g_assert_true((flags & BLOCK_CRYPTO_DETACHED)
                      || end <= h->payload_offset);
    }
    luks_header_format(h, buf);
    g_assert_true(luks_header_parse(&again, buf, flags, &err));
    g_assert_cmpmem(&again.slots, sizeof(again.slots), &h->slots,
                    sizeof(h->slots));
    g_assert_cmpmem(&again.spec, sizeof(again.spec), &h->spec,
                    sizeof(h->spec));
}

static void coroutine_fn fuzz_co_open(FuzzInput *in, unsigned flags)
{
    Error *err = NULL;
    BlockCrypto *c = block_crypto_co_open_luks(input_co_read, in, "s", flags,
                                               &err);

    g_assert_true(!c != !err);
    error_free(err);
    if (c) {
        QCryptoBlockInfoLUKS *info = block_crypto_get_info(c);
        QObject *obj = qapi_to_qobject(&qapi_type_QCryptoBlockInfoLUKS, info);

        qobject_unref(obj);
        qapi_free_QCryptoBlockInfoLUKS(info);
        check_header(&c->luks, flags);
        if (is_cheap(&c->luks) && (flags & BLOCK_CRYPTO_HEADER_ONLY)) {
            fuzz_co_open(in, flags & ~BLOCK_CRYPTO_HEADER_ONLY);
        }
    }
    block_crypto_free(c);
}

static void coroutine_fn fuzz_co_entry(void *opaque)
{
    FuzzInput *in = opaque;
    SecretProperties props = { .data = (char *)"pw" };
    unsigned flags = fuzz_take_u8(in) & BLOCK_CRYPTO_DETACHED;
    Secret *secret = secret_co_new("s", &props, NULL);

    fuzz_co_open(in, flags | BLOCK_CRYPTO_HEADER_ONLY);
    secret_free(secret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };

    fuzz_context();
    co_test_run(fuzz_co_entry, &in);
    return 0;
}
