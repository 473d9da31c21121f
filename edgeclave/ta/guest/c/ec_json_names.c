/*
 * No two members of one object have the same name: of two values each reader would take another (RFC 8259, section 4).
 * Names are sorted in place, so that a payload of nothing but names costs what it costs to read, and little memory.
 */
#include "ec_internal.h"

#define FIRST_CAPACITY 64
#define SHOWN_CHARACTERS 64 /* of a name that came from outside */

bool ec_add_name(ec_names *names, const char *start) {
    if (names->count == names->capacity) {
        size_t wanted = names->capacity == 0 ? FIRST_CAPACITY : 2 * names->capacity, each = sizeof *names->starts;
        const char **grown = ec_resize(names->starts, names->capacity * each, wanted * each, _Alignof(char *));
        if (grown == NULL) {
            names->out_of_memory = true;
            return false;
        }
        names->starts = grown;
        names->capacity = wanted;
    }
    names->starts[names->count++] = start;
    return true;
}

void ec_release_names(ec_names *names) {
    if (names->starts != NULL)
        ec_resize(names->starts, names->capacity * sizeof *names->starts, 0, _Alignof(char *));
}

typedef struct {
    const char *at;
    char bytes[4];
    size_t taken, count;
} reader;

/* The next byte of a name as it reads once decoded; -1 at its closing quote. */
static int next_byte(reader *name, const char *end) {
    if (name->taken == name->count) {
        if (*name->at == '"')
            return -1;
        name->count = ec_decode(&name->at, end, name->bytes);
        name->taken = 0;
    }
    return (uint8_t)name->bytes[name->taken++];
}

static int compare(const char *a, const char *b, const char *end) {
    reader x = {.at = a + 1}, y = {.at = b + 1};
    int left, right;
    do {
        left = next_byte(&x, end);
        right = next_byte(&y, end);
    } while (left == right && left >= 0);
    return left - right;
}

static bool is_before(const char *a, const char *b, const char *end) {
    int order = compare(a, b, end);
    return order != 0 ? order < 0 : a < b;
}

static void exchange(const char **a, const char **b) {
    const char *kept = *a;
    *a = *b;
    *b = kept;
}

/* Heapsort: never slower than it says, whatever names were chosen. */
static void sift(const char **names, size_t root, size_t count, const char *end) {
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && is_before(names[child], names[child + 1], end))
            child++;
        if (!is_before(names[root], names[child], end))
            return;
        exchange(&names[root], &names[child]);
    }
}

static void sort(const char **names, size_t count, const char *end) {
    for (size_t root = count / 2; root-- > 0;)
        sift(names, root, count, end);
    for (size_t left = count; left-- > 1;) {
        exchange(&names[0], &names[left]);
        sift(names, 0, left, end);
    }
}

bool ec_names_differ(ec_names *names, size_t before, const char *end) {
    const char **own = names->starts + before;
    size_t count = names->count - before;
    if (count > 1)
        sort(own, count, end);
    for (size_t index = 1; index < count; index++)
        if (compare(own[index - 1], own[index], end) == 0 && (names->repeated == NULL || own[index] < names->repeated))
            names->repeated = own[index];
    names->count = before;
    return names->repeated == NULL;
}

ec_text ec_say_repeated(ec_json name) {
    ec_text shown = EC_TEXT("");
    ec_read_text(name, &shown);
    size_t size = 0, characters = 0;
    while (size < shown.size && characters++ < SHOWN_CHARACTERS)
        size += ec_utf8_length(shown.data + size, shown.data + shown.size);
    ec_text rest = size < shown.size ? EC_TEXT("...\"") : EC_TEXT("\"");
    return EC_JOIN(EC_TEXT("payload: an object has two members named \""), (ec_text){shown.data, size}, rest);
}
