#include "shelf.h"

#include "state.h"

#define MAX_SERIES 16
#define MAX_FINISHED 64

static const ec_text INDEX = {"index", 5};

static ec_text key_of(ec_text name) { return EC_JOIN(EC_TEXT("series/"), name); }

static bool flag(ec_json entry, const char *name) {
    bool set = false;
    ec_read_bool(ec_member(entry, name), &set);
    return set;
}

/* The index as JSON: {name: {"total", "anomalies", "inAnomaly", "finished"}}, in the order of their last feeding. */
static ec_status read_index(ec_json *index) {
    ec_text stored;
    EC_TRY(ec_get(INDEX, &stored));
    if (!ec_parse(stored.data == NULL ? EC_TEXT("{}") : stored, index))
        return ec_fail(500, EC_TEXT("the stored index cannot be read"));
    return EC_OK;
}

static bool is_named(const ec_items *item, ec_text name) {
    ec_text key;
    return ec_read_text(item->key, &key) && ec_equal(key, name);
}

ec_status shelf_take(ec_text name, Series **series) {
    ec_json index, entry = {0};
    size_t going_on = 0;
    EC_TRY(read_index(&index));
    for (ec_items item = ec_items_of(index); ec_next(&item);) {
        going_on += !flag(item.value, "finished");
        if (is_named(&item, name))
            entry = item.value;
    }
    bool known = ec_kind_of(entry) == EC_OBJECT && !flag(entry, "finished");
    if (!known && going_on >= MAX_SERIES)
        return ec_fail(409, EC_TEXT("16 series are going on; end one with final before another begins"));
    *series = ec_allocate(sizeof **series);
    if (*series == NULL)
        return ec_fail(507, EC_TEXT("out of memory"));
    __builtin_memset(*series, 0, sizeof **series);
    (*series)->name = name;
    if (!known)
        return EC_OK;
    ec_text stored;
    EC_TRY(ec_get(key_of(name), &stored));
    if (stored.data == NULL)
        return ec_fail(500, EC_JOIN(EC_TEXT("the state of this series is missing: "), name));
    return state_read(stored, *series);
}

static void write_entry(ec_writer *writer, const Series *series, bool finished) {
    ec_key_text(writer, series->name);
    ec_begin_object(writer);
    ec_key(writer, "total");
    ec_write_integer(writer, series->total);
    ec_key(writer, "anomalies");
    ec_write_integer(writer, series->anomalies);
    ec_key(writer, "inAnomaly");
    ec_write_bool(writer, series->detector.is_open);
    ec_key(writer, "finished");
    ec_write_bool(writer, finished);
    ec_end_object(writer);
}

static ec_status write_index(const Series *series, bool finished) {
    ec_json index;
    size_t ended = finished;
    EC_TRY(read_index(&index));
    for (ec_items item = ec_items_of(index); ec_next(&item);)
        ended += !is_named(&item, series->name) && flag(item.value, "finished");
    ec_writer *writer = ec_new_writer();
    ec_begin_object(writer);
    for (ec_items item = ec_items_of(index); ec_next(&item);) {
        ec_text key;
        if (is_named(&item, series->name) || !ec_read_text(item.key, &key))
            continue;
        if (flag(item.value, "finished") && ended > MAX_FINISHED) {
            ended--;
            continue;
        }
        ec_key_text(writer, key);
        ec_write_json(writer, (ec_text){item.value.start, (size_t)(item.value.end - item.value.start)});
    }
    write_entry(writer, series, finished);
    ec_end_object(writer);
    ec_text text;
    EC_TRY(ec_finish(writer, &text));
    return ec_put(INDEX, text);
}

ec_status shelf_put(const Series *series, bool finished) {
    EC_TRY(write_index(series, finished));
    if (finished)
        return ec_delete(key_of(series->name));
    ec_text state;
    EC_TRY(state_write(series, &state));
    return ec_put(key_of(series->name), state);
}

ec_status shelf_overview(ec_writer *reply) {
    ec_json index;
    EC_TRY(read_index(&index));
    ec_write_json(reply, (ec_text){index.start, (size_t)(index.end - index.start)});
    return EC_OK;
}
