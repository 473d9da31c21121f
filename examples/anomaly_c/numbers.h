/* Arithmetic that gives the same doubles as Python's. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include <stddef.h>

/* As Python's min and max: the first of equals. */
static inline double lesser(double a, double b) { return b < a ? b : a; }
static inline double greater(double a, double b) { return b > a ? b : a; }
static inline double distance(double a, double b) { return __builtin_fabs(a - b); }

/* The sum of values[i] / divisor, rounded once, as math.fsum does (Shewchuk 1997). At most MOST_SUMMED values. */
#define MOST_SUMMED 64
double exact_sum(const double *values, size_t count, double divisor);

/* The last decimal place of a value as it is written, at most a hundredth of it; 0 for 0. */
double written_step(double value);

#endif
