/* Writing JSON as Python's json.dumps does with separators "," and ":" and without escaping what is not ASCII. */
#include "ec_internal.h"

struct ec_writer {
    char *data;
    size_t size, capacity;
    uint64_t has_items; /* bit n: something was written on level n */
    unsigned depth;
    bool after_key;
    const char *failure; /* why it has failed */
};

#define FIRST_CAPACITY 512

static const char out_of_memory[] = "the trusted application is out of memory";

ec_writer *ec_new_writer(void) {
    ec_writer *writer = ec_allocate(sizeof *writer);
    if (writer != NULL)
        *writer = (ec_writer){0};
    return writer;
}

static void fail(ec_writer *writer, const char *why) {
    if (writer->failure == NULL)
        writer->failure = why;
}

static void put(ec_writer *writer, const char *data, size_t size) {
    if (writer == NULL || writer->failure != NULL || size == 0)
        return;
    if (size > writer->capacity - writer->size) {
        size_t wanted = writer->capacity * 2 + size + FIRST_CAPACITY;
        char *data_ = ec_resize(writer->data, writer->capacity, wanted, 1);
        if (data_ == NULL || wanted < size) {
            fail(writer, out_of_memory);
            return;
        }
        writer->data = data_;
        writer->capacity = wanted;
    }
    memcpy(writer->data + writer->size, data, size);
    writer->size += size;
}

/* What stands before a value or key: a comma, unless it is the first or follows its key. */
static void separate(ec_writer *writer) {
    if (writer == NULL)
        return;
    uint64_t level = (uint64_t)1 << writer->depth;
    if (!writer->after_key && writer->has_items & level)
        put(writer, ",", 1);
    writer->has_items |= level;
    writer->after_key = false;
}

static void begin(ec_writer *writer, const char *bracket) {
    separate(writer);
    put(writer, bracket, 1);
    if (writer == NULL)
        return;
    if (writer->depth + 1 >= EC_MAX_DEPTH)
        fail(writer, "JSON is nested too deep");
    else
        writer->has_items &= ~((uint64_t)1 << ++writer->depth);
}

static void end(ec_writer *writer, const char *bracket) {
    put(writer, bracket, 1);
    if (writer == NULL)
        return;
    if (writer->depth == 0)
        fail(writer, "more was ended than begun in JSON");
    else
        writer->depth--;
}

void ec_begin_object(ec_writer *writer) { begin(writer, "{"); }
void ec_end_object(ec_writer *writer) { end(writer, "}"); }
void ec_begin_array(ec_writer *writer) { begin(writer, "["); }
void ec_end_array(ec_writer *writer) { end(writer, "]"); }

static void put_value(ec_writer *writer, ec_text text) {
    separate(writer);
    put(writer, text.data, text.size);
}

void ec_write_null(ec_writer *writer) { put_value(writer, EC_TEXT("null")); }

void ec_write_bool(ec_writer *writer, bool value) { put_value(writer, value ? EC_TEXT("true") : EC_TEXT("false")); }

void ec_write_json(ec_writer *writer, ec_text json) { put_value(writer, json); }

void ec_write_integer(ec_writer *writer, int64_t value) {
    char digits[EC_MAX_NUMBER_CHARS], *at = digits + sizeof digits;
    uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0)
        *--at = '-';
    put_value(writer, (ec_text){at, (size_t)(digits + sizeof digits - at)});
}

void ec_write_number(ec_writer *writer, double value) {
    char digits[EC_MAX_NUMBER_CHARS];
    if (value - value != 0) { /* infinite or not a number */
        if (writer != NULL)
            fail(writer, "JSON cannot hold a number that is not finite");
        return;
    }
    put_value(writer, (ec_text){digits, ec_from_double(value, digits)});
}

static void put_escape(ec_writer *writer, uint8_t c) {
    static const char characters[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
    for (size_t index = 0; index < sizeof characters - 1; index++)
        if (c == (uint8_t)characters[index]) {
            put(writer, (char[]){'\\', names[index]}, 2);
            return;
        }
    put(writer, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

void ec_write_text(ec_writer *writer, ec_text value) {
    separate(writer);
    put(writer, "\"", 1);
    const char *at = value.data, *written = at, *last = at + value.size;
    while (writer != NULL && at < last) {
        uint8_t c = (uint8_t)*at;
        if (c == '"' || c == '\\' || c < 0x20) {
            put(writer, written, (size_t)(at - written));
            put_escape(writer, c);
            written = ++at;
        } else {
            size_t length = ec_utf8_length(at, last);
            if (length == 0) {
                fail(writer, "text for JSON is not UTF-8");
                return;
            }
            at += length;
        }
    }
    put(writer, written, (size_t)(at - written));
    put(writer, "\"", 1);
}

void ec_key_text(ec_writer *writer, ec_text name) {
    ec_write_text(writer, name);
    put(writer, ":", 1);
    if (writer != NULL)
        writer->after_key = true;
}

void ec_key(ec_writer *writer, const char *name) { ec_key_text(writer, ec_from(name)); }

ec_status ec_finish(ec_writer *writer, ec_text *json) {
    const char *why = writer == NULL ? out_of_memory : writer->failure;
    if (why == NULL && writer->depth != 0)
        why = "JSON was begun and not ended";
    if (why != NULL)
        return ec_fail(why == out_of_memory ? EC_OUT_OF_MEMORY : 500, ec_from(why));
    *json = (ec_text){writer->data, writer->size};
    return EC_OK;
}
