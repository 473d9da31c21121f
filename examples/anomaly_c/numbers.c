#include "numbers.h"

#include "edgeclave_ta.h"

double exact_sum(const double *values, size_t count, double divisor) {
    /* Partial sums that do not overlap, smallest first: together they are the sum so far, exactly. */
    double partials[MOST_SUMMED];
    size_t kept = 0;
    for (size_t index = 0; index < count; index++) {
        double x = values[index] / divisor;
        size_t used = 0;
        for (size_t at = 0; at < kept; at++) {
            double y = partials[at];
            if (__builtin_fabs(x) < __builtin_fabs(y)) {
                double swap = x;
                x = y;
                y = swap;
            }
            double high = x + y, low = y - (high - x);
            if (low != 0)
                partials[used++] = low;
            x = high;
        }
        kept = used;
        if (x != 0)
            partials[kept++] = x;
    }
    double high = 0, low = 0;
    if (kept > 0)
        high = partials[--kept];
    while (kept > 0) {
        double x = high, y = partials[--kept];
        high = x + y;
        low = y - (high - x);
        if (low != 0)
            break;
    }
    /* What is left decides a tie. */
    if (kept > 0 && ((low < 0 && partials[kept - 1] < 0) || (low > 0 && partials[kept - 1] > 0))) {
        double twice = low * 2, x = high + twice;
        if (twice == x - high)
            high = x;
    }
    return high;
}

/* "0.1", "400.0", "-1e-07", "2.5e+20": digits after the point, less the exponent. */
static int64_t decimal_places(ec_text number) {
    int64_t places = 0, exponent = 0;
    bool after_point = false, in_exponent = false, negative = false;
    for (size_t index = 0; index < number.size; index++) {
        char c = number.data[index];
        if (c == '.')
            after_point = true;
        else if (c == 'e' || c == 'E')
            in_exponent = true;
        else if (in_exponent && c == '-')
            negative = true;
        else if (c >= '0' && c <= '9') {
            if (in_exponent)
                exponent = exponent * 10 + (c - '0');
            else if (after_point)
                places++;
        }
    }
    return places - (negative ? -exponent : exponent);
}

double written_step(double value) {
    ec_writer *written = ec_new_writer(), *power = ec_new_writer();
    ec_text digits, text;
    ec_json parsed;
    double step = 0;
    ec_write_number(written, value);
    if (ec_finish(written, &digits) != EC_OK)
        return 0;
    ec_write_json(power, EC_TEXT("1e"));
    int64_t exponent = -decimal_places(digits);
    ec_write_integer(power, exponent);
    if (ec_finish(power, &text) == EC_OK && ec_parse(text, &parsed))
        ec_read_number(parsed, &step);
    return lesser(step, __builtin_fabs(value) / 100);
}
