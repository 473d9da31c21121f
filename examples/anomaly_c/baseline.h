/* How far from normal is too far, for each span. The reasons stand in the Python version, baseline.py. */
#ifndef BASELINE_H
#define BASELINE_H

#include <stdbool.h>

#include "reference.h"

#define SPAN_COUNT 3

typedef struct {
    size_t readings;
    double limit;
    size_t warm_up;
    double seen;
    bool tails;
} Span;

extern const Span spans[SPAN_COUNT];

typedef struct {
    bool known; /* false before the span's warm-up */
    double centre, above, below, limit;
} Baseline;

double baseline_ratio(const Baseline *baseline, double value);
double baseline_clamp(const Baseline *baseline, double value);

Baseline baseline_of(const Span *span, const Reference *reference, double resolution);

/* Singles spread at least as far as averages, and averages at least as far as independent singles would. */
void reconcile(const Baseline views[SPAN_COUNT], Baseline result[SPAN_COUNT]);

#endif
