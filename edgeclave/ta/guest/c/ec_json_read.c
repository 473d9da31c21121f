/* Reading JSON (RFC 8259) in place. Stricter than most: text must be Unicode, so no unpaired surrogate is accepted. */
#include "ec_internal.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static const char *skip_space(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static const char *skip_word(const char *at, const char *end, const char *word) {
    size_t size = strlen(word);
    return (size_t)(end - at) >= size && memcmp(at, word, size) == 0 ? at + size : NULL;
}

static const char *skip_digits(const char *at, const char *end) {
    if (at == end || !is_digit(*at))
        return NULL;
    while (at < end && is_digit(*at))
        at++;
    return at;
}

static const char *skip_number(const char *at, const char *end) {
    if (at < end && *at == '-')
        at++;
    at = at < end && *at == '0' ? at + 1 : skip_digits(at, end);
    if (at != NULL && at < end && *at == '.')
        at = skip_digits(at + 1, end);
    if (at != NULL && at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = skip_digits(at, end);
    }
    return at;
}

size_t ec_utf8_length(const char *at, const char *end) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* of a sequence of that many bytes */
    uint8_t first = (uint8_t)*at;
    size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (length <= 1 || (size_t)(end - at) < length)
        return length == 1 ? 1 : 0;
    uint32_t code = first & (0xFFu >> (length + 1));
    for (size_t index = 1; index < length; index++) {
        if (((uint8_t)at[index] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | ((uint8_t)at[index] & 0x3F);
    }
    return code < least[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : length;
}

/* Four hexadecimal digits; -1 when they are none. */
static int32_t hexadecimal(const char *at, const char *end) {
    int32_t value = 0;
    if (end - at < 4)
        return -1;
    for (int index = 0; index < 4; index++) {
        char c = at[index];
        int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The character of an escape at `at`, after the backslash; moves `at` behind it. -1 when it is none. */
static int32_t escaped(const char **at, const char *end) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char kind = *at < end ? *(*at)++ : 0;
    for (size_t index = 0; index < sizeof names - 1; index++)
        if (kind == names[index])
            return values[index];
    int32_t code = kind == 'u' ? hexadecimal(*at, end) : -1;
    if (code < 0)
        return -1;
    *at += 4;
    if (code < 0xD800 || code >= 0xE000)
        return code;
    if (code >= 0xDC00 || end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return -1;
    int32_t low = hexadecimal(*at + 2, end);
    if (low < 0xDC00 || low >= 0xE000)
        return -1;
    *at += 6;
    return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

static const char *skip_string(const char *at, const char *end) {
    if (at == end || *at++ != '"')
        return NULL;
    while (at < end && *at != '"') {
        if ((uint8_t)*at < 0x20)
            return NULL;
        if (*at == '\\') {
            at++;
            if (escaped(&at, end) < 0)
                return NULL;
        } else {
            size_t length = ec_utf8_length(at, end);
            if (length == 0)
                return NULL;
            at += length;
        }
    }
    return at < end ? at + 1 : NULL;
}

static const char *skip_value(const char *at, const char *end, int depth, ec_names *names);

static const char *skip_members(const char *at, const char *end, int depth, char closing, ec_names *names) {
    size_t before = names == NULL ? 0 : names->count;
    at = skip_space(at + 1, end);
    if (at < end && *at == closing)
        return at + 1;
    while (at != NULL && at < end) {
        if (closing == '}') {
            const char *name = skip_space(at, end);
            at = skip_string(name, end);
            at = at == NULL ? NULL : skip_space(at, end);
            if (at == NULL || at == end || *at++ != ':' || (names != NULL && !ec_add_name(names, name)))
                return NULL;
        }
        at = skip_value(at, end, depth + 1, names);
        at = at == NULL ? NULL : skip_space(at, end);
        if (at == NULL || at == end || (*at != ',' && *at != closing))
            return NULL;
        if (*at++ == closing)
            return names == NULL || ec_names_differ(names, before, end) ? at : NULL;
    }
    return NULL;
}

/* The end of one valid value at `at`, after white space; NULL when there is none. `names`, if not NULL, finds members
 * of one name. */
static const char *skip_value(const char *at, const char *end, int depth, ec_names *names) {
    at = skip_space(at, end);
    if (at == end || depth > EC_MAX_DEPTH)
        return NULL;
    switch (*at) {
    case '{': return skip_members(at, end, depth, '}', names);
    case '[': return skip_members(at, end, depth, ']', names);
    case '"': return skip_string(at, end);
    case 't': return skip_word(at, end, "true");
    case 'f': return skip_word(at, end, "false");
    case 'n': return skip_word(at, end, "null");
    default: return skip_number(at, end);
    }
}

bool ec_parse(ec_text text, ec_json *out) {
    ec_names names = {.starts = NULL};
    const char *end = text.data + text.size;
    const char *after = text.data == NULL ? NULL : skip_value(text.data, end, 1, &names);
    ec_release_names(&names);
    if (after != NULL && skip_space(after, end) == end) {
        *out = (ec_json){skip_space(text.data, end), after};
        return true;
    }
    if (names.out_of_memory)
        ec_fail(EC_OUT_OF_MEMORY, EC_TEXT("the trusted application is out of memory"));
    else if (names.repeated != NULL)
        ec_fail(400, ec_say_repeated((ec_json){names.repeated, skip_string(names.repeated, end)}));
    else
        ec_fail(400, EC_TEXT("the payload is not JSON"));
    return false;
}

ec_kind ec_kind_of(ec_json value) {
    if (value.start == NULL)
        return EC_ABSENT;
    switch (*value.start) {
    case '{': return EC_OBJECT;
    case '[': return EC_ARRAY;
    case '"': return EC_STRING;
    case 't': case 'f': return EC_BOOL;
    case 'n': return EC_NULL;
    default: return EC_NUMBER;
    }
}

bool ec_read_bool(ec_json value, bool *out) {
    if (ec_kind_of(value) != EC_BOOL)
        return false;
    *out = *value.start == 't';
    return true;
}

bool ec_read_number(ec_json value, double *out) {
    return ec_kind_of(value) == EC_NUMBER && ec_to_double(value.start, value.end, out);
}

bool ec_read_integer(ec_json value, int64_t *out) {
    if (ec_kind_of(value) != EC_NUMBER)
        return false;
    bool negative = *value.start == '-';
    uint64_t most = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX, number = 0;
    for (const char *at = value.start + negative; at < value.end; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (!is_digit(*at) || number > (most - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *out = (int64_t)(negative ? -number : number);
    return true;
}

static char *put_utf8(char *to, uint32_t code) {
    size_t more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t marks[] = {0, 0xC0, 0xE0, 0xF0};
    *to++ = (char)(marks[more] | code >> 6 * more);
    while (more-- > 0)
        *to++ = (char)(0x80 | (code >> 6 * more & 0x3F));
    return to;
}

size_t ec_decode(const char **at, const char *end, char to[4]) {
    if (**at != '\\') {
        *to = *(*at)++;
        return 1;
    }
    ++*at;
    return (size_t)(put_utf8(to, (uint32_t)escaped(at, end)) - to);
}

bool ec_read_text(ec_json value, ec_text *out) {
    if (ec_kind_of(value) != EC_STRING)
        return false;
    const char *start = value.start + 1, *end = value.end - 1, *at = start;
    while (at < end && *at != '\\')
        at++;
    char *copy = NULL;
    if (at < end && (copy = ec_allocate((size_t)(end - start))) == NULL)
        return false;
    *out = copy == NULL ? (ec_text){start, (size_t)(end - start)} : (ec_text){copy, 0};
    for (at = start; copy != NULL && at < end;)
        out->size += ec_decode(&at, end, copy + out->size);
    return true;
}

ec_items ec_items_of(ec_json value) {
    ec_kind kind = ec_kind_of(value);
    ec_items items = {.at = NULL};
    if (kind == EC_ARRAY || kind == EC_OBJECT) {
        items.at = value.start;
        items.end = value.end - 1; /* the closing bracket */
    }
    return items;
}

bool ec_next(ec_items *items) {
    if (items->at == NULL)
        return false;
    bool first = items->value.start == NULL;
    bool keyed = first ? *items->at == '{' : items->key.start != NULL;
    const char *at = skip_space(items->at + first, items->end); /* behind the opening bracket */
    if (!first && at < items->end)
        at = skip_space(at + 1, items->end); /* behind the comma */
    if (at == items->end) {
        items->at = NULL;
        return false;
    }
    if (keyed) {
        items->key = (ec_json){at, skip_string(at, items->end)};
        at = skip_space(skip_space(items->key.end, items->end) + 1, items->end);
    }
    items->value = (ec_json){at, skip_value(at, items->end, 1, NULL)};
    items->at = items->value.end;
    return true;
}

/* Whether a string, with its quotes, is `name` once decoded. */
static bool is_named(ec_json key, const char *name) {
    const char *at = key.start + 1, *end = key.end - 1;
    while (at < end) {
        char bytes[4], *after = bytes + ec_decode(&at, end, bytes);
        for (char *byte = bytes; byte < after; byte++)
            if (*name == 0 || *byte != *name++)
                return false;
    }
    return *name == 0;
}

ec_json ec_member(ec_json object, const char *name) {
    if (ec_kind_of(object) == EC_OBJECT)
        for (ec_items item = ec_items_of(object); ec_next(&item);)
            if (is_named(item.key, name))
                return item.value;
    return (ec_json){NULL, NULL};
}
