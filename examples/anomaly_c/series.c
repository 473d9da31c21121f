#include "series.h"

#include "numbers.h"

static void write_number(ec_writer *writer, const char *key, double value) {
    ec_key(writer, key);
    ec_write_number(writer, value);
}

static void write_integer(ec_writer *writer, const char *key, int64_t value) {
    ec_key(writer, key);
    ec_write_integer(writer, value);
}

static void write_json(ec_writer *writer, const char *key, ec_text value) {
    ec_key(writer, key);
    ec_write_json(writer, value);
}

static void write_text(ec_writer *writer, const char *key, ec_text value) {
    ec_key(writer, key);
    ec_write_text(writer, value);
}

static ec_status report(Series *series, const Interval *ended) {
    ec_writer *payload = ec_new_writer();
    series->anomalies++;
    ec_begin_object(payload);
    write_text(payload, "series", series->name);
    write_json(payload, "start", ended->start);
    write_json(payload, "end", ended->end);
    write_number(payload, "peak", ended->peak);
    write_number(payload, "score", ended->score);
    write_integer(payload, "count", ended->count);
    write_text(payload, "direction", ended->upward ? EC_TEXT("up") : EC_TEXT("down"));
    write_number(payload, "expected", ended->expected);
    ec_end_object(payload);
    return ec_emit(EC_TEXT("anomalies"), payload, NULL);
}

static ec_status summarize(Series *series) {
    Window *window = &series->window;
    size_t count = window->count, middle = count / 2;
    double sorted[WINDOW_READINGS];
    for (size_t index = 0; index < count; index++)
        insert_sorted(sorted, index, window->values[index]);
    double median = count % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    ec_writer *payload = ec_new_writer();
    ec_begin_object(payload);
    write_text(payload, "series", series->name);
    write_integer(payload, "count", (int64_t)count);
    write_json(payload, "first", window->first);
    write_json(payload, "last", window->last);
    write_number(payload, "min", sorted[0]);
    write_number(payload, "max", sorted[count - 1]);
    write_number(payload, "mean", exact_sum(window->values, count, 1) / (double)count);
    write_number(payload, "median", median);
    write_number(payload, "mad", median_deviation(sorted, count, median));
    write_integer(payload, "anomalies", series->anomalies);
    write_integer(payload, "total", series->total);
    ec_end_object(payload);
    window->count = 0;
    return ec_emit(EC_TEXT("summary"), payload, NULL);
}

ec_status series_add(Series *series, ec_text time, double value) {
    Interval ended;
    Window *window = &series->window;
    series->total++;
    if (detector_add(&series->detector, time, value, &ended))
        EC_TRY(report(series, &ended));
    if (window->count == 0)
        window->first = time;
    window->last = time;
    window->values[window->count++] = value;
    if (window->count == WINDOW_READINGS)
        EC_TRY(summarize(series));
    return EC_OK;
}

ec_status series_finish(Series *series) {
    Interval ended;
    if (detector_close(&series->detector, &ended))
        EC_TRY(report(series, &ended));
    if (series->window.count > 0)
        EC_TRY(summarize(series));
    return EC_OK;
}
