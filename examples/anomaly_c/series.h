/* One series: its detector, its summary window and its counts; what it has to say leaves as sealed results. */
#ifndef SERIES_H
#define SERIES_H

#include "detector.h"

#define WINDOW_READINGS 50

typedef struct {
    size_t count;
    ec_text first, last;
    double values[WINDOW_READINGS];
} Window;

typedef struct {
    ec_text name;
    int64_t total, anomalies;
    Window window;
    Detector detector;
} Series;

ec_status series_add(Series *series, ec_text time, double value);

/* The series has ended: what is still open is told. */
ec_status series_finish(Series *series);

#endif
