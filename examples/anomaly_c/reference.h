/* What is normal: the last few hundred values, kept sorted, and robust statistics of them. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stddef.h>

#define CAPACITY 512

typedef struct {
    size_t count;
    double arrival[CAPACITY]; /* oldest first */
    double sorted[CAPACITY];
} Reference;

void reference_add(Reference *reference, double value);
double reference_median(const Reference *reference);
double reference_sigma(const Reference *reference, double median);

/* The value that `fraction` of all lie below, and the one that as many lie above. */
void reference_tails(const Reference *reference, double fraction, double *low, double *high);

/* Median of |value - centre| over sorted values. */
double median_deviation(const double *sorted, size_t count, double centre);

/* Puts `value` into `sorted` behind its equals; there must be room. */
void insert_sorted(double *sorted, size_t count, double value);

#endif
