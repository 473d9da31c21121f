#include "reference.h"

#include "numbers.h"

#define MAD_TO_SIGMA 1.4826

static void move(double *to, const double *from, size_t count) { __builtin_memmove(to, from, count * sizeof *to); }

static size_t first_not_below(const double *sorted, size_t count, double value) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sorted[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void insert_sorted(double *sorted, size_t count, double value) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (value < sorted[middle])
            high = middle;
        else
            low = middle + 1;
    }
    move(sorted + low + 1, sorted + low, count - low);
    sorted[low] = value;
}

void reference_add(Reference *reference, double value) {
    if (reference->count == CAPACITY) {
        size_t oldest = first_not_below(reference->sorted, CAPACITY, reference->arrival[0]);
        reference->count--;
        move(reference->sorted + oldest, reference->sorted + oldest + 1, reference->count - oldest);
        move(reference->arrival, reference->arrival + 1, reference->count);
    }
    insert_sorted(reference->sorted, reference->count, value);
    reference->arrival[reference->count++] = value;
}

double reference_median(const Reference *reference) {
    const double *values = reference->sorted;
    size_t middle = reference->count / 2;
    return reference->count % 2 ? values[middle] : values[middle - 1] / 2 + values[middle] / 2;
}

double reference_sigma(const Reference *reference, double median) {
    return MAD_TO_SIGMA * median_deviation(reference->sorted, reference->count, median);
}

void reference_tails(const Reference *reference, double fraction, double *low, double *high) {
    size_t beyond = (size_t)((double)reference->count * fraction);
    *low = reference->sorted[beyond];
    *high = reference->sorted[reference->count - 1 - beyond];
}

double median_deviation(const double *sorted, size_t count, double centre) {
    size_t half = count / 2, low = 0, high = count - half - 1;
    while (low < high) {
        size_t start = (low + high) / 2;
        if (centre - sorted[start] > sorted[start + half] - centre)
            low = start + 1;
        else
            high = start;
    }
    double reach = greater(centre - sorted[low], sorted[low + half] - centre);
    if (low == 0)
        return reach;
    return lesser(greater(centre - sorted[low - 1], sorted[low - 1 + half] - centre), reach);
}
