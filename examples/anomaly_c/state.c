#include "state.h"

#define DIGITS 16 /* hex digits of a double */

/* ---- Writing ---- */

static void write_doubles(ec_writer *writer, const double *values, size_t count) {
    char *hex = ec_allocate(count * DIGITS + 1);
    if (hex == NULL)
        return; /* the writer fails for the same reason */
    for (size_t index = 0; index < count; index++) {
        uint64_t bits;
        __builtin_memcpy(&bits, &values[index], sizeof bits);
        for (size_t digit = 0; digit < DIGITS; digit++)
            hex[index * DIGITS + digit] = "0123456789abcdef"[bits >> (60 - 4 * digit) & 15];
    }
    ec_write_text(writer, (ec_text){hex, count * DIGITS});
}

static void write_baselines(ec_writer *writer, const Baseline *baselines) {
    double values[SPAN_COUNT * 5];
    for (size_t index = 0; index < SPAN_COUNT; index++) {
        const Baseline *one = &baselines[index];
        const double fields[] = {one->known, one->centre, one->above, one->below, one->limit};
        __builtin_memcpy(&values[index * 5], fields, sizeof fields);
    }
    write_doubles(writer, values, SPAN_COUNT * 5);
}

static void write_open(ec_writer *writer, const Open *open) {
    const double numbers[] = {open->low, open->high, open->expected, open->score};
    ec_begin_array(writer);
    ec_write_json(writer, open->start);
    ec_write_json(writer, open->end);
    ec_write_integer(writer, open->first);
    ec_write_integer(writer, open->last);
    ec_write_integer(writer, open->calm);
    ec_write_bool(writer, open->upward);
    ec_write_bool(writer, open->frozen);
    write_doubles(writer, numbers, 4);
    write_baselines(writer, open->baselines);
    ec_end_array(writer);
}

static void write_window(ec_writer *writer, const Window *window) {
    ec_begin_array(writer);
    if (window->count > 0) {
        ec_write_json(writer, window->first);
        ec_write_json(writer, window->last);
        write_doubles(writer, window->values, window->count);
    }
    ec_end_array(writer);
}

static void write_recent(ec_writer *writer, const Detector *detector) {
    ec_begin_array(writer);
    for (size_t index = 0; index < detector->recent_count; index++) {
        const Recent *reading = &detector->recent[index];
        ec_begin_array(writer);
        ec_write_json(writer, reading->time);
        write_doubles(writer, (const double[]){reading->value, reading->clamped}, 2);
        ec_end_array(writer);
    }
    ec_end_array(writer);
}

ec_status state_write(const Series *series, ec_text *text) {
    const Detector *detector = &series->detector;
    ec_writer *writer = ec_new_writer();
    ec_begin_array(writer);
    ec_write_integer(writer, series->total);
    ec_write_integer(writer, series->anomalies);
    ec_write_integer(writer, detector->position);
    ec_write_integer(writer, detector->free_from);
    write_doubles(writer, &detector->resolution, 1);
    write_doubles(writer, detector->ratios, SPAN_COUNT);
    write_baselines(writer, detector->views);
    for (size_t index = 0; index < SPAN_COUNT; index++)
        write_doubles(writer, detector->references[index].arrival, detector->references[index].count);
    write_recent(writer, detector);
    write_window(writer, &series->window);
    if (detector->is_open)
        write_open(writer, &detector->open);
    ec_end_array(writer);
    return ec_finish(writer, text);
}

/* ---- Reading: the first thing that is not as written makes `ok` false, and it stays so ---- */

typedef struct {
    ec_items items;
    bool ok;
} Reader;

static Reader reader_of(ec_json array) { return (Reader){ec_items_of(array), ec_kind_of(array) == EC_ARRAY}; }

static ec_json next(Reader *reader) {
    reader->ok = reader->ok && ec_next(&reader->items);
    return reader->ok ? reader->items.value : (ec_json){0};
}

static ec_text read_json(Reader *reader) {
    ec_json value = next(reader);
    return (ec_text){value.start, (size_t)(value.end - value.start)};
}

static int64_t read_integer(Reader *reader) {
    int64_t value = 0;
    reader->ok = ec_read_integer(next(reader), &value) && reader->ok;
    return value;
}

static bool read_bool(Reader *reader) {
    bool value = false;
    reader->ok = ec_read_bool(next(reader), &value) && reader->ok;
    return value;
}

static size_t read_doubles(Reader *reader, double *values, size_t most) {
    ec_text hex;
    if (!ec_read_text(next(reader), &hex) || hex.size % DIGITS != 0 || hex.size / DIGITS > most) {
        reader->ok = false;
        return 0;
    }
    for (size_t index = 0; index < hex.size / DIGITS; index++) {
        uint64_t bits = 0;
        for (size_t digit = 0; digit < DIGITS; digit++) {
            char c = hex.data[index * DIGITS + digit];
            bits = bits << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        __builtin_memcpy(&values[index], &bits, sizeof bits);
    }
    return hex.size / DIGITS;
}

static void read_exactly(Reader *reader, double *values, size_t count) {
    reader->ok = read_doubles(reader, values, count) == count && reader->ok;
}

static void read_baselines(Reader *reader, Baseline *baselines) {
    double values[SPAN_COUNT * 5] = {0};
    read_exactly(reader, values, SPAN_COUNT * 5);
    for (size_t index = 0; index < SPAN_COUNT; index++) {
        const double *fields = &values[index * 5];
        baselines[index] = (Baseline){fields[0] != 0, fields[1], fields[2], fields[3], fields[4]};
    }
}

static bool read_open(ec_json value, Open *open) {
    Reader reader = reader_of(value);
    double numbers[4] = {0};
    open->start = read_json(&reader);
    open->end = read_json(&reader);
    open->first = read_integer(&reader);
    open->last = read_integer(&reader);
    open->calm = read_integer(&reader);
    open->upward = read_bool(&reader);
    open->frozen = read_bool(&reader);
    read_exactly(&reader, numbers, 4);
    open->low = numbers[0], open->high = numbers[1], open->expected = numbers[2], open->score = numbers[3];
    read_baselines(&reader, open->baselines);
    return reader.ok;
}

static bool read_window(ec_json value, Window *window) {
    Reader reader = reader_of(value);
    Reader probe = reader;
    if (reader.ok && !ec_next(&probe.items))
        return true; /* empty */
    window->first = read_json(&reader);
    window->last = read_json(&reader);
    window->count = read_doubles(&reader, window->values, WINDOW_READINGS - 1);
    return reader.ok;
}

static bool read_recent(ec_json value, Detector *detector) {
    for (ec_items item = ec_items_of(value); ec_next(&item);) {
        if (detector->recent_count == LONGEST_SPAN)
            return false;
        Reader reader = reader_of(item.value);
        ec_text time = read_json(&reader);
        double values[2] = {0};
        read_exactly(&reader, values, 2);
        detector->recent[detector->recent_count++] = (Recent){time, values[0], values[1]};
        if (!reader.ok)
            return false;
    }
    return ec_kind_of(value) == EC_ARRAY;
}

ec_status state_read(ec_text text, Series *series) {
    Detector *detector = &series->detector;
    ec_json document = {0};
    ec_parse(text, &document);
    Reader reader = reader_of(document);
    series->total = read_integer(&reader);
    series->anomalies = read_integer(&reader);
    detector->position = read_integer(&reader);
    detector->free_from = read_integer(&reader);
    read_exactly(&reader, &detector->resolution, 1);
    read_exactly(&reader, detector->ratios, SPAN_COUNT);
    read_baselines(&reader, detector->views);
    for (size_t index = 0; index < SPAN_COUNT; index++) {
        double arrival[CAPACITY];
        size_t count = read_doubles(&reader, arrival, CAPACITY);
        for (size_t at = 0; at < count; at++)
            reference_add(&detector->references[index], arrival[at]);
    }
    reader.ok = read_recent(next(&reader), detector) && reader.ok;
    reader.ok = read_window(next(&reader), &series->window) && reader.ok;
    if (reader.ok && ec_next(&reader.items)) {
        detector->is_open = true;
        reader.ok = read_open(reader.items.value, &detector->open);
    }
    return reader.ok ? EC_OK : ec_fail(500, EC_TEXT("the stored state of the series cannot be read"));
}
