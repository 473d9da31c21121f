#include "baseline.h"

#include "numbers.h"

#define SMALL_SAMPLE 8.0
#define SEEN_TIMES 1.6
#define OUTER 0.02
#define INNER 0.1
#define LIGHT_TIMES 3.0
#define TAIL_TIMES 6.0
#define ROUNDING 1e-12

const Span spans[SPAN_COUNT] = {
    {.readings = 1, .limit = 5.5, .warm_up = 32, .seen = 0.01, .tails = true},
    {.readings = 8, .limit = 4.5, .warm_up = 12, .seen = 0.1},
    {.readings = 64, .limit = 3.6, .warm_up = 24, .seen = 0.1},
};

double baseline_ratio(const Baseline *baseline, double value) {
    if (value == baseline->centre)
        return 0;
    double scale = value > baseline->centre ? baseline->above : baseline->below;
    double limit = scale * baseline->limit;
    return limit != 0 ? distance(value, baseline->centre) / limit : __builtin_inf();
}

double baseline_clamp(const Baseline *baseline, double value) {
    double low = baseline->centre - baseline->limit * baseline->below;
    double high = baseline->centre + baseline->limit * baseline->above;
    return lesser(greater(value, low), high);
}

Baseline baseline_of(const Span *span, const Reference *reference, double resolution) {
    if (reference->count < span->warm_up)
        return (Baseline){0};
    double centre = reference_median(reference);
    double low, high, outer_low, outer_high, inner_low, inner_high;
    reference_tails(reference, OUTER, &outer_low, &outer_high);
    reference_tails(reference, INNER, &inner_low, &inner_high);
    double bounded = LIGHT_TIMES * (outer_high - outer_low) / 2 / span->limit;
    double least = lesser(reference_sigma(reference, centre), bounded);
    least = greater(least, resolution / __builtin_sqrt((double)span->readings));
    least = greater(least, __builtin_fabs(centre) * ROUNDING);
    reference_tails(reference, span->seen, &low, &high);
    double reach = span->limit / SEEN_TIMES;
    double above = greater(least, (high - centre) / reach), below = greater(least, (centre - low) / reach);
    if (span->tails) {
        above = greater(above, (outer_high - centre + TAIL_TIMES * (outer_high - inner_high)) / span->limit);
        below = greater(below, (centre - outer_low + TAIL_TIMES * (inner_low - outer_low)) / span->limit);
    }
    double limit = span->limit * (1 + SMALL_SAMPLE / (double)reference->count);
    return (Baseline){.known = true, .centre = centre, .above = above, .below = below, .limit = limit};
}

void reconcile(const Baseline views[SPAN_COUNT], Baseline result[SPAN_COUNT]) {
    double above = 0, below = 0;
    for (size_t index = SPAN_COUNT; index-- > 0;) {
        result[index] = views[index];
        if (!views[index].known)
            continue;
        result[index].above = above = greater(above, views[index].above);
        result[index].below = below = greater(below, views[index].below);
    }
    for (size_t index = 1; index < SPAN_COUNT; index++) {
        if (!result[index].known)
            continue;
        double root = __builtin_sqrt((double)spans[index].readings);
        result[index].above = greater(result[index].above, above / root);
        result[index].below = greater(result[index].below, below / root);
    }
}
