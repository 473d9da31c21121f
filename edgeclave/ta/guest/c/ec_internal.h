/* What the SDK's files share. An application includes edgeclave_ta.h only. */
#ifndef EC_INTERNAL_H
#define EC_INTERNAL_H

#include "edgeclave_ta.h"

#define EC_MAX_DEPTH 64         /* of JSON read and written: nesting is stack */
#define EC_MAX_NUMBER_CHARS 32  /* of a double or an integer as text; 24 is the most */
#define EC_OUT_OF_MEMORY 507

typedef struct {
    bool failed;
    uint16_t status;
    ec_text text; /* the reply, or the message */
} ec_outcome;

/* Runs one method. The backend calls it with the texts of a call, and ec_release when the outcome was read. */
ec_outcome ec_dispatch(ec_text method, ec_text payload);
void ec_release(void);

/* Makes room in the arena, so that what a service returns will fit; fails the call otherwise. */
ec_status ec_reserve(size_t size);
/* A block that may have grown: in place where it is the last one. NULL when there is no more. */
void *ec_resize(void *block, size_t size, size_t wanted, size_t alignment);

/* Backend: at least `wanted` bytes from `*start` on, if there are as many; returns how many there are. */
size_t ec_arena_region(uint8_t **start, size_t wanted);

/* One character of a string at `at`, or one byte of it where none is escaped; moves `at` behind it. Returns its bytes. */
size_t ec_decode(const char **at, const char *end, char to[4]);

/* The names of all objects that are being read, those of the innermost last; at the end of the arena meanwhile. */
typedef struct {
    const char **starts; /* their opening quotes */
    size_t count, capacity;
    const char *repeated; /* the first name that its object has already */
    bool out_of_memory;
} ec_names;

/* Each returns false when the JSON is to be refused. `before`: how many names there were before this object's. */
bool ec_add_name(ec_names *names, const char *start);
bool ec_names_differ(ec_names *names, size_t before, const char *end);
void ec_release_names(ec_names *names);
ec_text ec_say_repeated(ec_json name);

/* Length of the one UTF-8 sequence at `at`, 0 when it is none. */
size_t ec_utf8_length(const char *at, const char *end);

/* A number of JSON's grammar as the nearest double; false when it is too large for one. */
bool ec_to_double(const char *at, const char *end, double *out);
/* As Python's repr; returns the length. `value` is finite. */
size_t ec_from_double(double value, char out[EC_MAX_NUMBER_CHARS]);

ec_text ec_base64url(const uint8_t *bytes, size_t size);
/* Returns the number of bytes; -1 when it is not base64url or has more than `capacity` bytes. */
ptrdiff_t ec_from_base64url(ec_text text, uint8_t *bytes, size_t capacity);

/* The compiler calls these by name; a platform's C library has them, WebAssembly's backend brings its own. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);

#endif
