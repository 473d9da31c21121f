/* A call from its texts to its outcome, and the arena it works in. */
#include "ec_internal.h"

#define SUCCESS 200

static size_t used; /* bytes of the arena */
static ec_text failure_message;
static uint16_t failure_status;

void ec_release(void) { used = 0; }

static uint8_t *arena_at(size_t from, size_t size) {
    uint8_t *start;
    if (size > SIZE_MAX - from || ec_arena_region(&start, from + size) < from + size)
        return NULL;
    return start + from;
}

void *ec_allocate(size_t size) {
    return ec_resize(NULL, 0, size, 16);
}

void *ec_resize(void *block, size_t size, size_t wanted, size_t alignment) {
    uint8_t *start;
    ec_arena_region(&start, 0);
    bool is_last = block != NULL && (uint8_t *)block + size == start + used;
    size_t from = is_last ? (size_t)((uint8_t *)block - start) : (used + alignment - 1) & ~(alignment - 1);
    uint8_t *resized = from < used && !is_last ? NULL : arena_at(from, wanted);
    if (resized == NULL)
        return NULL;
    if (!is_last && size > 0)
        memcpy(resized, block, size < wanted ? size : wanted);
    used = from + wanted;
    return resized;
}

ec_status ec_reserve(size_t size) {
    if (arena_at(used, size) == NULL)
        return ec_fail(EC_OUT_OF_MEMORY, EC_TEXT("the trusted application is out of memory"));
    return EC_OK;
}

ec_status ec_fail(int64_t status, ec_text message) {
    bool is_status = status >= 0 && status <= UINT16_MAX && status != SUCCESS;
    failure_status = is_status ? (uint16_t)status : 500;
    failure_message = is_status ? message : EC_TEXT("the method failed with a status that no failure can have");
    return EC_FAILED;
}

ec_text ec_failure_message(void) { return failure_message; }

bool ec_equal(ec_text a, ec_text b) { return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0); }

ec_text ec_from(const char *terminated) { return (ec_text){terminated, strlen(terminated)}; }

bool ec_equals(ec_text a, const char *terminated) { return ec_equal(a, ec_from(terminated)); }

ec_text ec_join(const ec_text *parts, size_t count) {
    size_t size = 0;
    for (size_t part = 0; part < count; part++)
        size += parts[part].size;
    char *joined = ec_allocate(size);
    if (joined == NULL)
        return (ec_text){NULL, 0};
    char *at = joined;
    for (size_t part = 0; part < count; part++) {
        if (parts[part].size > 0)
            memcpy(at, parts[part].data, parts[part].size);
        at += parts[part].size;
    }
    return (ec_text){joined, size};
}

static ec_outcome failed(uint16_t status, ec_text message) {
    return (ec_outcome){.failed = true, .status = status, .text = message};
}

static ec_function function_of(ec_text method) {
    for (size_t index = 0; index < ec_method_count; index++)
        if (ec_equals(method, ec_methods[index].name))
            return ec_methods[index].function;
    return NULL;
}

ec_outcome ec_dispatch(ec_text method, ec_text payload) {
    ec_function function = function_of(method);
    if (function == NULL)
        return failed(404, EC_JOIN(EC_TEXT("there is no method "), method));
    ec_json value;
    if (!ec_parse(payload, &value))
        return failed(failure_status, failure_message);
    ec_fail(500, EC_TEXT("the method failed and gave no reason"));
    ec_writer *reply = ec_new_writer();
    ec_text text;
    if (reply == NULL)
        return failed(EC_OUT_OF_MEMORY, EC_TEXT("the trusted application is out of memory"));
    if (function(value, reply) != EC_OK || ec_finish(reply, &text) != EC_OK)
        return failed(failure_status, failure_message);
    return (ec_outcome){.text = text.size == 0 ? EC_TEXT("null") : text};
}

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

ec_text ec_base64url(const uint8_t *bytes, size_t size) {
    char *text = ec_allocate(size / 3 * 4 + 4);
    size_t length = 0;
    uint32_t bits = 0;
    if (text == NULL)
        return (ec_text){NULL, 0};
    for (size_t index = 0; index < size; index++) {
        bits = bits << 8 | bytes[index];
        unsigned kept = 2 * (index % 3 + 1); /* bits that do not fill a character yet */
        text[length++] = base64url[bits >> kept & 63];
        if (kept == 6)
            text[length++] = base64url[bits & 63];
    }
    if (size % 3 != 0)
        text[length++] = base64url[bits << (6 - 2 * (size % 3)) & 63];
    return (ec_text){text, length};
}

static int base64url_value(char character) {
    for (int value = 0; value < 64; value++)
        if (base64url[value] == character)
            return value;
    return -1;
}

ptrdiff_t ec_from_base64url(ec_text text, uint8_t *bytes, size_t capacity) {
    size_t size = 0;
    uint32_t bits = 0;
    unsigned kept = 0;
    for (size_t index = 0; index < text.size; index++) {
        int value = base64url_value(text.data[index]);
        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        kept += 6;
        if (kept >= 8) {
            kept -= 8;
            if (size == capacity)
                return -1;
            bytes[size++] = (uint8_t)(bits >> kept);
        }
    }
    return (ptrdiff_t)size;
}
