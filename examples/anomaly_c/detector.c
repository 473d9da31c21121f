#include "detector.h"

#include "numbers.h"

#define OPEN_RATIO 1.0
#define STAY_RATIO 0.5
#define CALM_READINGS 16
#define LONGEST_INTERVAL 1024
#define REMEMBER_EACH 4
#define HIGHEST_SCORE 1e6

/* What stands out most now. */
typedef struct {
    bool found;
    size_t span;
    double score;
    bool upward;
    double centre;
} Outlier;

/* The average of each span whose turn it is. */
typedef struct {
    bool due[SPAN_COUNT];
    double value[SPAN_COUNT];
} Averages;

static double mean_of_clamped(const Detector *detector, size_t count) {
    double clamped[LONGEST_SPAN];
    for (size_t index = 0; index < count; index++)
        clamped[index] = detector->recent[detector->recent_count - count + index].clamped;
    return exact_sum(clamped, count, (double)count);
}

static void remember(Detector *detector, Recent reading) {
    if (detector->recent_count == LONGEST_SPAN) {
        detector->recent_count--;
        __builtin_memmove(detector->recent, detector->recent + 1, detector->recent_count * sizeof(Recent));
    }
    detector->recent[detector->recent_count++] = reading;
}

static void note_resolution(Detector *detector, double value) {
    if (detector->recent_count == 0)
        return;
    double step = distance(value, detector->recent[detector->recent_count - 1].value);
    if (step != 0)
        detector->resolution = detector->resolution != 0 ? lesser(detector->resolution, step) : step;
}

static Averages averages_with(const Detector *detector, double value) {
    Averages averages = {.due = {true}, .value = {value}};
    for (size_t index = 1; index < SPAN_COUNT; index++) {
        size_t readings = spans[index].readings, stride = readings < 8 ? 1 : readings / 8;
        averages.due[index] =
            detector->recent_count >= readings && (detector->position + 1) % (int64_t)stride == 0;
        if (averages.due[index])
            averages.value[index] = mean_of_clamped(detector, readings);
    }
    return averages;
}

static Outlier score(Detector *detector, const Averages *averages, const Baseline *baselines) {
    Outlier worst = {0};
    for (size_t index = 0; index < SPAN_COUNT; index++) {
        const Baseline *view = &baselines[index];
        if (!averages->due[index] || !view->known)
            continue;
        double average = averages->value[index];
        double ratio = detector->ratios[index] = baseline_ratio(view, average);
        if (!worst.found || ratio > detector->ratios[worst.span])
            worst = (Outlier){true, index, lesser(ratio * view->limit, HIGHEST_SCORE), average > view->centre,
                              view->centre};
    }
    return worst;
}

static void begin(Detector *detector, const Outlier *outlier, const Baseline *baselines, bool frozen) {
    int64_t count = (int64_t)spans[outlier->span].readings, since = detector->position + 1 - detector->free_from;
    if (since < count)
        count = since;
    const Recent *newest = &detector->recent[detector->recent_count - 1], *oldest = newest - (count - 1);
    Open *open = &detector->open;
    *open = (Open){
        .start = oldest->time,
        .first = detector->position + 1 - count,
        .end = newest->time,
        .last = detector->position,
        .low = oldest->value,
        .high = oldest->value,
        .expected = outlier->centre,
        .score = outlier->score,
        .upward = outlier->upward,
        .frozen = frozen,
    };
    for (const Recent *reading = oldest; reading <= newest; reading++) {
        open->low = lesser(open->low, reading->value);
        open->high = greater(open->high, reading->value);
    }
    if (frozen)
        __builtin_memcpy(open->baselines, baselines, sizeof open->baselines);
    detector->is_open = true;
}

/* To this reading when it stands out itself, else to the middle of the average that does by new readings alone. */
static void extend(Detector *detector, ec_text time, const Baseline *baselines) {
    Open *open = &detector->open;
    if (detector->ratios[0] >= STAY_RATIO) {
        open->end = time;
        open->last = detector->position;
        return;
    }
    size_t shortest = 1;
    while (shortest < SPAN_COUNT - 1 && !(detector->ratios[shortest] >= STAY_RATIO))
        shortest++;
    const Baseline *view = &baselines[shortest];
    int64_t readings = (int64_t)spans[shortest].readings, after = detector->position - open->last;
    if (after > readings)
        after = readings;
    if (!view->known || after <= readings / 2)
        return;
    double alone = mean_of_clamped(detector, (size_t)after);
    if (baseline_ratio(view, alone) * (double)after / (double)readings >= STAY_RATIO) {
        open->end = detector->recent[(int64_t)detector->recent_count - 1 - readings / 2].time;
        open->last = detector->position - readings / 2;
    }
}

static void learn_anew(Detector *detector) {
    __builtin_memset(detector->references, 0, sizeof detector->references);
    __builtin_memset(detector->views, 0, sizeof detector->views);
    __builtin_memset(detector->ratios, 0, sizeof detector->ratios);
    detector->recent_count = 0;
}

static Interval interval_of(const Open *open) {
    return (Interval){
        .start = open->start,
        .end = open->end,
        .peak = open->upward ? open->high : open->low,
        .score = open->score,
        .expected = open->expected,
        .count = open->last - open->first + 1,
        .upward = open->upward,
    };
}

static bool go_on(Detector *detector, ec_text time, double value, const Outlier *outlier, const Baseline *baselines,
                  Interval *ended) {
    Open *open = &detector->open;
    open->calm++;
    double highest = greater(greater(detector->ratios[0], detector->ratios[1]), detector->ratios[2]);
    if (highest >= STAY_RATIO) {
        open->calm = 0;
        open->low = lesser(open->low, value);
        open->high = greater(open->high, value);
        extend(detector, time, baselines);
    }
    if (outlier->found && outlier->score > open->score) {
        open->score = outlier->score;
        open->upward = outlier->upward;
    }
    bool outlasts = detector->position - open->first >= LONGEST_INTERVAL;
    if (open->calm < CALM_READINGS && !outlasts)
        return false;
    detector->is_open = false;
    detector->free_from = open->last + 1;
    if (outlasts)
        learn_anew(detector);
    *ended = interval_of(open);
    return true;
}

static void learn(Detector *detector, const Averages *averages, double value) {
    double resolution = detector->resolution != 0 ? detector->resolution : written_step(value);
    for (size_t index = 0; index < SPAN_COUNT; index++) {
        int64_t readings = (int64_t)spans[index].readings, turn = (detector->position + 1) / readings;
        if ((detector->position + 1) % readings != 0 || !averages->due[index] ||
            (detector->is_open && turn % REMEMBER_EACH != 0))
            continue;
        reference_add(&detector->references[index], averages->value[index]);
        detector->views[index] = baseline_of(&spans[index], &detector->references[index], resolution);
    }
}

bool detector_add(Detector *detector, ec_text time, double value, Interval *ended) {
    Baseline baselines[SPAN_COUNT];
    if (detector->is_open && detector->open.frozen)
        __builtin_memcpy(baselines, detector->open.baselines, sizeof baselines);
    else
        reconcile(detector->views, baselines);
    bool varied = detector->resolution > 0, has_ended = false;
    note_resolution(detector, value);
    remember(detector, (Recent){time, value, baselines[0].known ? baseline_clamp(&baselines[0], value) : value});
    Averages averages = averages_with(detector, value);
    Outlier outlier = score(detector, &averages, baselines);
    if (detector->is_open)
        has_ended = go_on(detector, time, value, &outlier, baselines, ended);
    else if (outlier.found && detector->ratios[outlier.span] >= OPEN_RATIO)
        begin(detector, &outlier, baselines, varied);
    learn(detector, &averages, value);
    detector->position++;
    return has_ended;
}

bool detector_close(Detector *detector, Interval *ended) {
    if (!detector->is_open)
        return false;
    detector->is_open = false;
    *ended = interval_of(&detector->open);
    return true;
}
