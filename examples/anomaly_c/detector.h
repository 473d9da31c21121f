/* Finds the intervals in which a series does not behave as it did before: detector.py in C, number for number. */
#ifndef DETECTOR_H
#define DETECTOR_H

#include "baseline.h"
#include "edgeclave_ta.h"

#define LONGEST_SPAN 64

typedef struct {
    ec_text time; /* JSON, as it came with the reading */
    double value, clamped;
} Recent;

/* An interval that has not ended; positions count the readings of the series from 0. */
typedef struct {
    ec_text start, end;
    int64_t first, last;
    double low, high, expected, score;
    bool upward;
    int64_t calm;
    bool frozen; /* then `baselines` says what was normal when it began */
    Baseline baselines[SPAN_COUNT];
} Open;

typedef struct {
    int64_t position, free_from;
    double resolution;
    double ratios[SPAN_COUNT];
    size_t recent_count;
    Recent recent[LONGEST_SPAN]; /* oldest first */
    Reference references[SPAN_COUNT];
    Baseline views[SPAN_COUNT];
    bool is_open;
    Open open;
} Detector;

typedef struct {
    ec_text start, end;
    double peak, score, expected;
    int64_t count;
    bool upward;
} Interval;

/* Takes a finite reading. True when an interval ended with it. */
bool detector_add(Detector *detector, ec_text time, double value, Interval *ended);

/* True when an interval was open; the series ends here. */
bool detector_close(Detector *detector, Interval *ended);

#endif
