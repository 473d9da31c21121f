/*
 * Watches a temperature: counts readings, keeps the highest, and tells its readers of every new record.
 *
 * Run it: edgeclave ta run . observe '{"celsius": 21.5}'
 */
#include "edgeclave_ta.h"

/* What was seen so far. */
typedef struct {
    int64_t count;
    double highest;
} summary;

static void write_summary(ec_writer *writer, summary seen) {
    ec_begin_object(writer);
    ec_key(writer, "count");
    ec_write_integer(writer, seen.count);
    ec_key(writer, "highest");
    ec_write_number(writer, seen.highest);
    ec_end_object(writer);
}

/* Reads the summary from trusted storage; a count of 0 if there is none. */
static ec_status read_summary(summary *seen) {
    ec_text text;
    ec_json json;
    seen->count = 0;
    EC_TRY(ec_get(EC_TEXT("summary"), &text));
    if (text.data == NULL)
        return EC_OK;
    if (!ec_parse(text, &json) || !ec_read_integer(ec_member(json, "count"), &seen->count) ||
        !ec_read_number(ec_member(json, "highest"), &seen->highest))
        return ec_fail(500, EC_TEXT("what is stored is no summary"));
    return EC_OK;
}

/* Takes one reading. Storage and results are committed together, when the method returns EC_OK. */
static ec_status observe(ec_json payload, ec_writer *reply) {
    double celsius;
    summary seen;
    ec_text stored;
    if (!ec_read_number(ec_member(payload, "celsius"), &celsius))
        return ec_fail(400, EC_TEXT("celsius: must be a number"));
    if (celsius < -273.15 || celsius > 1000)
        return ec_fail(400, EC_TEXT("celsius: must be at least -273.15 and at most 1000"));

    EC_TRY(read_summary(&seen));
    if (seen.count == 0 || celsius > seen.highest) {
        ec_writer *record = ec_new_writer();
        ec_begin_object(record);
        ec_key(record, "celsius");
        ec_write_number(record, celsius);
        ec_end_object(record);
        EC_TRY(ec_emit(EC_TEXT("records"), record, NULL)); /* sealed: only the readers of `records` can open it */
        ec_log(EC_INFO, EC_TEXT("a new record"));
        seen.highest = celsius;
    }
    seen.count += 1;

    ec_writer *writer = ec_new_writer();
    write_summary(writer, seen);
    EC_TRY(ec_finish(writer, &stored));
    EC_TRY(ec_put(EC_TEXT("summary"), stored));
    write_summary(reply, seen);
    return EC_OK;
}

/* The summary; fails while there is none. */
static ec_status status(ec_json payload, ec_writer *reply) {
    summary seen;
    (void)payload;
    EC_TRY(read_summary(&seen));
    if (seen.count == 0)
        return ec_fail(404, EC_TEXT("nothing was observed yet"));
    write_summary(reply, seen);
    return EC_OK;
}

EC_METHODS({"observe", observe}, {"status", status})
