/*
 * Write a trusted application in C. It is called like an IoT Hub direct method: a name, JSON in, JSON out.
 *
 *     #include "edgeclave_ta.h"
 *
 *     static ec_status observe(ec_json payload, ec_writer *reply) {
 *         double temperature;
 *         if (!ec_read_number(ec_member(payload, "temperature"), &temperature))
 *             return ec_fail(400, EC_TEXT("temperature is missing"));
 *         ec_writer *summary = ec_new_writer();
 *         ec_begin_object(summary);
 *         ec_key(summary, "temperature");
 *         ec_write_number(summary, temperature);
 *         ec_end_object(summary);
 *         EC_TRY(ec_emit(EC_TEXT("summary"), summary, NULL));
 *         ec_write_bool(reply, true);
 *         return EC_OK;
 *     }
 *
 *     EC_METHODS({"observe", observe})
 *
 * Each method and each service it uses must also stand in `ta.toml`. `edgeclave ta build` compiles every *.c of the
 * folder together with this SDK; there is no C library, no file, no clock and no thread in a TEE.
 *
 * A call is a transaction: what it puts, deletes, increments and emits is kept when the method returns EC_OK, and
 * discarded when it returns anything else or traps. Static variables stay as they are until a trap, after which the
 * instance starts anew: what must last belongs into trusted storage.
 *
 * Memory: whatever a function here returns lives in one arena and is valid until the method returns; nothing is freed
 * by hand. The arena ends where `limits.memory_mib` of ta.toml ends; then ec_allocate returns NULL, writers and services
 * fail, and the call is answered with status 507. Text is UTF-8 with a length, never terminated by a zero.
 */
#ifndef EDGECLAVE_TA_H
#define EDGECLAVE_TA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Status ---- */

typedef enum { EC_OK = 0, EC_FAILED = 1 } ec_status;

/* Text in UTF-8. `data` is NULL where a function says that there is none. */
typedef struct {
    const char *data;
    size_t size;
} ec_text;

/* A string literal as text. */
#define EC_TEXT(literal) ((ec_text){"" literal, sizeof(literal) - 1})

/* Fails the call: `return ec_fail(400, EC_TEXT("why"));`. The status is as in HTTP, 0 to 65535 but 200 (any other
 * becomes 500); the caller sees both. */
ec_status ec_fail(int64_t status, ec_text message);

/* The message of the last failure, of ec_fail, ec_parse or a service that refused, for a method that goes on after it. */
ec_text ec_failure_message(void);

/* Returns from the method when a service refuses: the caller gets status 500 and the TEE's own words. */
#define EC_TRY(call)                      \
    do {                                  \
        if ((call) != EC_OK)              \
            return EC_FAILED;             \
    } while (0)

/* ---- Text and memory ---- */

bool ec_equal(ec_text a, ec_text b);
bool ec_equals(ec_text a, const char *terminated);
ec_text ec_from(const char *terminated);

/* The texts one after the other: EC_JOIN(EC_TEXT("no sensor "), name). Without memory for it: text without data. */
#define EC_JOIN(...) \
    ec_join((const ec_text[]){__VA_ARGS__}, sizeof((const ec_text[]){__VA_ARGS__}) / sizeof(ec_text))
ec_text ec_join(const ec_text *parts, size_t count);

/* Memory until the method returns, aligned for any type, not cleared; NULL when there is no more. */
void *ec_allocate(size_t size);

/* ---- Reading JSON ---- */

/* A value inside the payload, which was checked as a whole before the method was called: nothing is copied, and no
 * function below can fail on malformed JSON. Deeper than 64 levels, and two members of one name in one object, are
 * refused before the method is called. */
typedef struct {
    const char *start, *end;
} ec_json;

typedef enum { EC_ABSENT, EC_NULL, EC_BOOL, EC_NUMBER, EC_STRING, EC_ARRAY, EC_OBJECT } ec_kind;

ec_kind ec_kind_of(ec_json value);

/* Each returns false, and leaves `out` alone, when the value is absent or of another kind. */
bool ec_read_bool(ec_json value, bool *out);
bool ec_read_number(ec_json value, double *out);   /* the nearest double, as in Python; false if too large */
bool ec_read_integer(ec_json value, int64_t *out); /* written without fraction and exponent, and within 64 bits */
bool ec_read_text(ec_json value, ec_text *out);    /* copied only if it has escapes; false too when out of memory */

/* A member of an object; absent if there is none of that name or it is no object. */
ec_json ec_member(ec_json object, const char *name);

/* Whether the JSON text is valid; then `out` is its value, else ec_failure_message says why. For JSON that comes from
 * elsewhere than the payload. */
bool ec_parse(ec_text text, ec_json *out);

/* All elements of an array, or members of an object, in order:
 *
 *     for (ec_items item = ec_items_of(value); ec_next(&item);)
 *         ... item.value, and item.key in an object
 */
typedef struct {
    ec_json value;
    ec_json key; /* absent in an array; read it with ec_read_text */
    const char *at, *end;
} ec_items;

ec_items ec_items_of(ec_json array_or_object);
bool ec_next(ec_items *items);

/* ---- Writing JSON ---- */

/* Commas come by themselves. A writer that runs out of memory, or is given what JSON cannot hold (NaN, text that is not
 * UTF-8), stays failed, and so does what it is given to: no need to check each step. */
typedef struct ec_writer ec_writer;

ec_writer *ec_new_writer(void);

void ec_begin_object(ec_writer *writer);
void ec_end_object(ec_writer *writer);
void ec_begin_array(ec_writer *writer);
void ec_end_array(ec_writer *writer);
void ec_key(ec_writer *writer, const char *name);
void ec_key_text(ec_writer *writer, ec_text name);
void ec_write_null(ec_writer *writer);
void ec_write_bool(ec_writer *writer, bool value);
void ec_write_integer(ec_writer *writer, int64_t value);
void ec_write_number(ec_writer *writer, double value); /* the shortest that reads back the same, as Python writes it */
void ec_write_text(ec_writer *writer, ec_text value);
void ec_write_json(ec_writer *writer, ec_text json); /* as it is; the enclave checks the reply as a whole */

/* What was written. Fails when the writer has failed. */
ec_status ec_finish(ec_writer *writer, ec_text *json);

/* ---- Services of the TEE ---- */

/* Each must be granted in ta.toml, except ec_storage_protection, ec_caller and ec_emulated. One that returns ec_status
 * fails when it is refused; ec_random, ec_host_time and ec_log end the call when they are not granted. */

typedef enum { EC_UNIQUE = 0, EC_PRODUCT = 1 } ec_seal_policy;
typedef enum { EC_CONSISTENT = 0, EC_ROLLBACK_PROTECTED = 1 } ec_storage_level;
typedef enum { EC_NONE = 0, EC_CONFIDENTIAL = 1, EC_AUTHENTICATED = 2 } ec_assurance;
enum { EC_DEBUG = 10, EC_INFO = 20, EC_WARNING = 30, EC_ERROR = 40 };

/* Who sealed; identifiers are lower-case hex. */
typedef struct {
    ec_seal_policy policy;
    ec_text signer_id;
    uint16_t product_id, security_version;
    ec_text unique_id;
} ec_provenance;

/* What was sealed: under EC_PRODUCT it may come from an older version of this application. */
typedef struct {
    ec_text plaintext;
    ec_provenance sealed_by;
} ec_unsealed;

/* Who calls. With EC_NONE the name is what the host says, and proves nothing. */
typedef struct {
    ec_assurance assurance;
    ec_text name;
} ec_caller_info;

/* Encrypts text so that only this code (EC_UNIQUE) or this product (EC_PRODUCT) on this device reads it again, with the
 * same context. `sealed` is base64url text to keep anywhere. */
ec_status ec_seal(ec_seal_policy policy, ec_text plaintext, ec_text context, ec_text *sealed);
ec_status ec_unseal(ec_text sealed, ec_text context, ec_unsealed *unsealed);

/* Trusted storage. `value->data` is NULL when there is nothing under the key. */
ec_status ec_get(ec_text key, ec_text *value);
ec_status ec_put(ec_text key, ec_text value);
ec_status ec_delete(ec_text key);

/* Seals JSON to the readers of an output of ta.toml; `sequence`, if not NULL, gets its number. */
ec_status ec_emit(ec_text output, ec_writer *payload, uint64_t *sequence);

/* Evidence about this application over a verifier's nonce of 8 to 64 bytes. */
ec_status ec_evidence(const uint8_t *nonce, size_t nonce_size, const uint8_t **evidence, size_t *size);

/* Adds one to a counter that never goes down, as strong as ec_storage_protection says. */
ec_status ec_increment(ec_text counter, uint64_t *value);

ec_status ec_random(uint8_t *bytes, size_t count); /* at most 64 KiB at once */
ec_storage_level ec_storage_protection(void);
ec_caller_info ec_caller(void);
bool ec_emulated(void);    /* root on the device reads everything */
uint64_t ec_host_time(void); /* ms since 1970 as the host says: never for a security decision */
void ec_log(uint8_t level, ec_text message); /* leaves the TEE: no secrets */

/* ---- Methods ---- */

/* Writes one JSON value to `reply` (nothing written: null) and returns EC_OK, or fails. */
typedef ec_status (*ec_function)(ec_json payload, ec_writer *reply);

typedef struct {
    const char *name;
    ec_function function;
} ec_method;

/* The table of methods, once in an application: EC_METHODS({"observe", observe}, {"reset", reset}) */
#define EC_METHODS(...)                            \
    const ec_method ec_methods[] = {__VA_ARGS__};  \
    const size_t ec_method_count = sizeof(ec_methods) / sizeof(*ec_methods);

extern const ec_method ec_methods[];
extern const size_t ec_method_count;

#endif
