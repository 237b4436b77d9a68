/* SPDX-License-Identifier: MIT */
/*
 * Secrets: passphrases and keys that users give by the id of an object.
 *
 * Main thread only.
 */
#ifndef BLOCK_SECRET_H
#define BLOCK_SECRET_H

#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct Secret Secret;

/*
 * Make one called @id: reads the file, if that is where the data is, and
 * decrypts the data with the secret props->keyid.
 */
Secret *coroutine_fn secret_co_new(const char *id,
                                   const SecretProperties *props,
                                   Error **errp);
void secret_free(Secret *secret);

/* The properties that it was made with, but for the data. */
const SecretProperties *secret_properties(const Secret *secret);

/*
 * The data of the secret @id as a string, to be freed with secmem_free();
 * "No secret with id 'ID'", "Data from secret ID is not valid UTF-8".
 */
char *secret_lookup_utf8(const char *id, Error **errp);

/*
 * Whoever knows about other objects says whether there is one called @id, for
 * "Object with id 'ID' is not a secret".
 */
void secret_set_object_exists(bool (*object_exists)(const char *id));

#endif /* BLOCK_SECRET_H */
