/*
 * The services and the way in, in WebAssembly: the canonical ABI of edgeclave-ta.wit, as docs/abi.md explains it.
 * Another TEE replaces this one file.
 */
#include "ec_internal.h"

#define IMPORT(name) __attribute__((import_module("edgeclave:ta/tee@1.0.0"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name), used))
#define PAGE_BYTES 65536

/* What a service may return at most, in bytes of text; kept free before it is asked. They are limits of the enclave. */
#define MAX_ERROR 4096
#define MAX_CALLER 4096
#define MAX_PROVENANCE 1024
#define MAX_VALUE (256 << 10)
#define MAX_EVIDENCE (256 << 10)
#define MAX_SEALING_OVERHEAD 8192

typedef struct { uint8_t is_error; ec_text text; } result_text;           /* result<string, string> and result<_, string> */
typedef struct { uint8_t is_error; union { uint64_t ok; ec_text error; } u; } result_number; /* result<u64, string> */
typedef struct { uint8_t is_error; union { struct { uint8_t is_some; ec_text some; } ok; ec_text error; } u; } result_option;
typedef struct { uint8_t policy; ec_text signer_id; uint16_t product_id, security_version; ec_text unique_id; } provenance;
typedef struct { uint8_t is_error; union { struct { ec_text plaintext; provenance sealed_by; } ok; ec_text error; } u; } result_unsealed;
typedef struct { uint8_t assurance; ec_text name; } caller_info;
typedef struct { uint8_t is_error; union { ec_text ok; struct { uint16_t status; ec_text message; } error; } u; } result_invoke;

_Static_assert(sizeof(result_text) == 12 && sizeof(result_number) == 16 && sizeof(result_option) == 16, "canonical ABI");
_Static_assert(sizeof(result_unsealed) == 36 && sizeof(caller_info) == 12 && sizeof(result_invoke) == 16, "canonical ABI");

IMPORT("seal") void wit_seal(uint32_t policy, const char *, size_t, const char *, size_t, result_text *);
IMPORT("unseal") void wit_unseal(const char *, size_t, const char *, size_t, result_unsealed *);
IMPORT("get") void wit_get(const char *, size_t, result_option *);
IMPORT("put") void wit_put(const char *, size_t, const char *, size_t, result_text *);
IMPORT("delete") void wit_delete(const char *, size_t, result_text *);
IMPORT("emit") void wit_emit(const char *, size_t, const char *, size_t, result_number *);
IMPORT("evidence") void wit_evidence(const char *, size_t, result_text *);
IMPORT("increment") void wit_increment(const char *, size_t, result_number *);
IMPORT("random") void wit_random(uint32_t, ec_text *);
IMPORT("storage-protection") uint32_t wit_storage_protection(void);
IMPORT("caller") void wit_caller(caller_info *);
IMPORT("emulated") uint32_t wit_emulated(void);
IMPORT("host-time") uint64_t wit_host_time(void);
IMPORT("log") void wit_log(uint32_t, const char *, size_t);

extern uint8_t __heap_base; /* made by the linker: where static data ends */

size_t ec_arena_region(uint8_t **start, size_t wanted) {
    size_t base = ((size_t)&__heap_base + 15) & ~(size_t)15;
    size_t there = __builtin_wasm_memory_size(0) * PAGE_BYTES - base;
    *start = (uint8_t *)base;
    if (wanted > there && __builtin_wasm_memory_grow(0, (wanted - there + PAGE_BYTES - 1) / PAGE_BYTES) != (size_t)-1)
        there = __builtin_wasm_memory_size(0) * PAGE_BYTES - base;
    return there;
}

EXPORT("cabi_realloc") void *cabi_realloc(void *block, size_t size, size_t alignment, size_t wanted) {
    void *resized = ec_resize(size == 0 ? NULL : block, size, wanted, alignment);
    if (resized == NULL)
        __builtin_trap(); /* the ABI knows no other answer; room for what services return was kept before */
    return resized;
}

EXPORT("invoke") result_invoke *invoke(const char *method, size_t method_size, const char *payload, size_t payload_size) {
    static result_invoke result;
    ec_outcome outcome = ec_dispatch((ec_text){method, method_size}, (ec_text){payload, payload_size});
    result.is_error = outcome.failed;
    if (outcome.failed) {
        result.u.error.status = outcome.status;
        result.u.error.message = outcome.text;
    } else {
        result.u.ok = outcome.text;
    }
    return &result;
}

EXPORT("cabi_post_invoke") void post_invoke(result_invoke *result) {
    (void)result;
    ec_release();
}

static ec_status refused(ec_text message) { return ec_fail(500, message); }

ec_status ec_seal(ec_seal_policy policy, ec_text plaintext, ec_text context, ec_text *sealed) {
    result_text result;
    EC_TRY(ec_reserve(plaintext.size / 3 * 4 + MAX_SEALING_OVERHEAD));
    wit_seal(policy, plaintext.data, plaintext.size, context.data, context.size, &result);
    if (result.is_error)
        return refused(result.text);
    *sealed = result.text;
    return EC_OK;
}

ec_status ec_unseal(ec_text sealed, ec_text context, ec_unsealed *unsealed) {
    result_unsealed result;
    EC_TRY(ec_reserve(sealed.size + MAX_PROVENANCE + MAX_ERROR));
    wit_unseal(sealed.data, sealed.size, context.data, context.size, &result);
    if (result.is_error)
        return refused(result.u.error);
    const provenance *by = &result.u.ok.sealed_by;
    *unsealed = (ec_unsealed){
        result.u.ok.plaintext,
        {(ec_seal_policy)by->policy, by->signer_id, by->product_id, by->security_version, by->unique_id},
    };
    return EC_OK;
}

ec_status ec_get(ec_text key, ec_text *value) {
    result_option result;
    EC_TRY(ec_reserve(MAX_VALUE + MAX_ERROR));
    wit_get(key.data, key.size, &result);
    if (result.is_error)
        return refused(result.u.error);
    *value = result.u.ok.is_some ? result.u.ok.some : (ec_text){NULL, 0};
    return EC_OK;
}

ec_status ec_put(ec_text key, ec_text value) {
    result_text result;
    EC_TRY(ec_reserve(MAX_ERROR));
    wit_put(key.data, key.size, value.data, value.size, &result);
    return result.is_error ? refused(result.text) : EC_OK;
}

ec_status ec_delete(ec_text key) {
    result_text result;
    EC_TRY(ec_reserve(MAX_ERROR));
    wit_delete(key.data, key.size, &result);
    return result.is_error ? refused(result.text) : EC_OK;
}

static ec_status number(const result_number *result, uint64_t *value) {
    if (result->is_error)
        return refused(result->u.error);
    if (value != NULL)
        *value = result->u.ok;
    return EC_OK;
}

ec_status ec_emit(ec_text output, ec_writer *payload, uint64_t *sequence) {
    result_number result;
    ec_text json;
    EC_TRY(ec_finish(payload, &json));
    EC_TRY(ec_reserve(MAX_ERROR));
    wit_emit(output.data, output.size, json.data, json.size, &result);
    return number(&result, sequence);
}

ec_status ec_increment(ec_text counter, uint64_t *value) {
    result_number result;
    EC_TRY(ec_reserve(MAX_ERROR));
    wit_increment(counter.data, counter.size, &result);
    return number(&result, value);
}

ec_status ec_evidence(const uint8_t *nonce, size_t nonce_size, const uint8_t **evidence, size_t *size) {
    result_text result;
    ec_text encoded = ec_base64url(nonce, nonce_size);
    EC_TRY(ec_reserve(2 * MAX_EVIDENCE));
    wit_evidence(encoded.data, encoded.size, &result);
    if (result.is_error)
        return refused(result.text);
    uint8_t *bytes = ec_allocate(result.text.size);
    ptrdiff_t decoded = bytes == NULL ? -1 : ec_from_base64url(result.text, bytes, result.text.size);
    if (decoded < 0)
        return ec_fail(EC_OUT_OF_MEMORY, EC_TEXT("the evidence does not fit into memory"));
    *evidence = bytes;
    *size = (size_t)decoded;
    return EC_OK;
}

ec_status ec_random(uint8_t *bytes, size_t count) {
    ec_text encoded;
    if (count > UINT32_MAX / 2)
        return refused(EC_TEXT("too many random bytes at once"));
    EC_TRY(ec_reserve(count / 3 * 4 + MAX_ERROR));
    wit_random((uint32_t)count, &encoded);
    if (ec_from_base64url(encoded, bytes, count) != (ptrdiff_t)count)
        __builtin_trap(); /* the TEE breaks its word: nothing may go on with fewer random bytes */
    return EC_OK;
}

ec_storage_level ec_storage_protection(void) { return (ec_storage_level)wit_storage_protection(); }

ec_caller_info ec_caller(void) {
    caller_info caller = {0};
    if (ec_reserve(MAX_CALLER) == EC_OK)
        wit_caller(&caller);
    return (ec_caller_info){(ec_assurance)caller.assurance, caller.name};
}

bool ec_emulated(void) { return wit_emulated() != 0; }

uint64_t ec_host_time(void) { return wit_host_time(); }

void ec_log(uint8_t level, ec_text message) { wit_log(level, message.data, message.size); }
