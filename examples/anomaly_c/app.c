/*
 * Finds anomalies in telemetry, inside the TEE: the sample's trusted application in C. Method, results and numbers are
 * those of modules/sample_analytics/trusted_app, value for value.
 *
 * Each anomaly leaves as one sealed result on output `anomalies` when it has ended, and a summary of each 50 readings on
 * output `summary`. Readings themselves never leave.
 */
#include "shelf.h"

#define MAX_READINGS 2000
#define MAX_NAME_BYTES 512
#define MAX_TIME_BYTES 264
#define MAX_MAGNITUDE 1e300

static bool known_member(ec_json key) {
    ec_text name;
    return ec_read_text(key, &name) &&
           (ec_equals(name, "series") || ec_equals(name, "readings") || ec_equals(name, "final"));
}

static bool is_number(ec_json value, double *number) {
    return ec_read_number(value, number) && __builtin_fabs(*number) <= MAX_MAGNITUDE;
}

/* `[time, value]`; the time goes on as the JSON that it is. */
static ec_status read_reading(ec_json reading, ec_text *time, double *value) {
    ec_items items = ec_items_of(reading);
    double number;
    if (ec_kind_of(reading) != EC_ARRAY || !ec_next(&items))
        return ec_fail(400, EC_TEXT("a reading must be [time, value]"));
    *time = (ec_text){items.value.start, (size_t)(items.value.end - items.value.start)};
    bool text = ec_kind_of(items.value) == EC_STRING && time->size > 2;
    if (time->size > MAX_TIME_BYTES || !(text || is_number(items.value, &number)))
        return ec_fail(400, EC_TEXT("a time must be text of 1 to 64 characters or a finite number"));
    if (!ec_next(&items) || !is_number(items.value, value) || ec_next(&items))
        return ec_fail(400, EC_TEXT("a value must be a finite number up to 1e+300, and the last of its reading"));
    return EC_OK;
}

static ec_status observe(ec_json payload, ec_writer *reply) {
    ec_text name;
    bool final = false;
    int64_t count = 0;
    if (ec_kind_of(payload) != EC_OBJECT)
        return ec_fail(400, EC_TEXT("the payload must be an object with series and readings"));
    for (ec_items item = ec_items_of(payload); ec_next(&item);)
        if (!known_member(item.key))
            return ec_fail(400, EC_TEXT("unknown field; known are final, readings, series"));
    if (!ec_read_text(ec_member(payload, "series"), &name) || name.size == 0 || name.size > MAX_NAME_BYTES)
        return ec_fail(400, EC_TEXT("series must be a name of 1 to 128 printable characters"));
    ec_json flag = ec_member(payload, "final"), readings = ec_member(payload, "readings");
    if (ec_kind_of(flag) != EC_ABSENT && !ec_read_bool(flag, &final))
        return ec_fail(400, EC_TEXT("final must be true or false"));
    if (ec_kind_of(readings) != EC_ARRAY)
        return ec_fail(400, EC_TEXT("readings must be a list of [time, value]"));

    Series *series;
    EC_TRY(shelf_take(name, &series));
    for (ec_items item = ec_items_of(readings); ec_next(&item); count++) {
        ec_text time;
        double value;
        if (count == MAX_READINGS)
            return ec_fail(413, EC_TEXT("there are over 2000 readings in one call"));
        EC_TRY(read_reading(item.value, &time, &value));
        EC_TRY(series_add(series, time, value));
    }
    if (final) {
        EC_TRY(series_finish(series));
        ec_log(EC_INFO, EC_TEXT("a series has ended"));
    }
    if (count > 0 || final)
        EC_TRY(shelf_put(series, final));

    ec_begin_object(reply);
    ec_key(reply, "accepted");
    ec_write_integer(reply, count);
    ec_key(reply, "total");
    ec_write_integer(reply, series->total);
    ec_end_object(reply);
    return EC_OK;
}

static ec_status status(ec_json payload, ec_writer *reply) {
    (void)payload;
    ec_begin_object(reply);
    ec_key(reply, "series");
    EC_TRY(shelf_overview(reply));
    ec_end_object(reply);
    return EC_OK;
}

EC_METHODS({"observe", observe}, {"status", status})
