/*
 * Doubles to decimal and back, exactly: reading gives the nearest double (ties to even), writing the shortest decimal
 * that reads back the same and of those the nearest, laid out as Python's repr does. Both by integers of arbitrary
 * size, without tables; what a sensor sends takes the short way.
 *
 * A decimal is compared with the midpoint of two neighbouring doubles as two integers, so the result is right whatever
 * the first guess was. (W. D. Clinger, "How to Read Floating Point Numbers Accurately", 1990; G. L. Steele and J. L.
 * White, "How to Print Floating-Point Numbers Accurately", 1990.)
 */
#include "ec_internal.h"

#define MAX_DIGITS 780 /* no midpoint of two doubles has more than 768; what follows only says "and a little more" */
#define LIMBS 168      /* of 32 bits: 10^1130 shifted by 1,080 bits fits */
#define FRACTION_BITS 52
#define LEAST_EXPONENT (-1074)
#define INFINITE_BITS ((uint64_t)0x7FF << FRACTION_BITS)

/* digits (each 0 to 9, the first not 0) times ten to the exponent */
typedef struct {
    int count, exponent;
    uint8_t digits[MAX_DIGITS + 1];
} decimal;

typedef struct {
    int size;
    uint32_t limbs[LIMBS]; /* least significant first */
} integer;

static void multiply_add(integer *a, uint32_t factor, uint32_t carry) {
    uint64_t sum = carry;
    for (int index = 0; index < a->size; index++) {
        sum += (uint64_t)a->limbs[index] * factor;
        a->limbs[index] = (uint32_t)sum;
        sum >>= 32;
    }
    if (sum != 0) {
        if (a->size == LIMBS)
            __builtin_trap();
        a->limbs[a->size++] = (uint32_t)sum;
    }
}

static void set(integer *a, uint64_t value) {
    a->limbs[0] = (uint32_t)value;
    a->limbs[1] = (uint32_t)(value >> 32);
    a->size = a->limbs[1] != 0 ? 2 : a->limbs[0] != 0;
}

static void multiply_power(integer *a, uint32_t base, int exponent) {
    for (; exponent >= 8; exponent -= 8)
        multiply_add(a, base == 5 ? 390625 : 100000000, 0);
    for (; exponent > 0; exponent--)
        multiply_add(a, base, 0);
}

static void shift_left(integer *a, int bits) {
    for (; bits >= 31; bits -= 31)
        multiply_add(a, (uint32_t)1 << 31, 0);
    multiply_add(a, (uint32_t)1 << bits, 0);
}

static int compare(const integer *a, const integer *b) {
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    for (int index = a->size - 1; index >= 0; index--)
        if (a->limbs[index] != b->limbs[index])
            return a->limbs[index] < b->limbs[index] ? -1 : 1;
    return 0;
}

static double from_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t to_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* A positive double as an integer times two to the exponent. */
static uint64_t split(uint64_t bits, int *exponent) {
    int biased = (int)(bits >> FRACTION_BITS);
    uint64_t fraction = bits & (((uint64_t)1 << FRACTION_BITS) - 1);
    *exponent = LEAST_EXPONENT + (biased == 0 ? 0 : biased - 1);
    return biased == 0 ? fraction : fraction | (uint64_t)1 << FRACTION_BITS;
}

/* Compares a decimal with the midpoint between the double of `bits` and the next larger one. */
static int compare_midpoint(const decimal *d, uint64_t bits) {
    int exponent;
    integer left, right;
    set(&right, 2 * split(bits, &exponent) + 1);
    exponent--;
    set(&left, 0);
    for (int index = 0; index < d->count; index++)
        multiply_add(&left, 10, d->digits[index]);
    multiply_power(d->exponent > 0 ? &left : &right, 10, d->exponent > 0 ? d->exponent : -d->exponent);
    shift_left(exponent > 0 ? &right : &left, exponent > 0 ? exponent : -exponent);
    return compare(&left, &right);
}

static double scaled(double value, int exponent) {
    static const double powers[] = {1e1, 1e2, 1e4, 1e8, 1e16, 1e32, 1e64, 1e128, 1e256};
    int left = exponent < 0 ? -exponent : exponent;
    for (int bit = 0; bit < 9; bit++)
        if (left >> bit & 1)
            value = exponent < 0 ? value / powers[bit] : value * powers[bit];
    return value;
}

/* Bits of the nearest double of a decimal; those of infinity when it is too large. */
static uint64_t nearest(const decimal *d) {
    int magnitude = d->count + d->exponent;
    if (d->count == 0 || magnitude < -330)
        return 0;
    if (magnitude > 310)
        return INFINITE_BITS;
    int taken = d->count < 19 ? d->count : 19;
    uint64_t leading = 0;
    for (int index = 0; index < taken; index++)
        leading = leading * 10 + d->digits[index];
    int exponent = d->exponent + d->count - taken;
    /* Both the integer and the power of ten are exact doubles, so one operation rounds once. */
    if (taken == d->count && leading <= (uint64_t)1 << 53 && exponent >= -22 && exponent <= 22) {
        double power = scaled(1, exponent < 0 ? -exponent : exponent);
        return to_bits(exponent < 0 ? (double)leading / power : (double)leading * power);
    }
    uint64_t bits = to_bits(scaled((double)leading, exponent));
    if (bits >= INFINITE_BITS)
        bits = INFINITE_BITS - 1;
    for (;;) {
        int above = compare_midpoint(d, bits);
        if (above > 0 || (above == 0 && bits & 1)) {
            if (++bits == INFINITE_BITS)
                return bits;
            continue;
        }
        int below = bits == 0 ? 1 : compare_midpoint(d, bits - 1);
        if (below > 0 || (below == 0 && !(bits & 1)))
            return bits;
        bits--;
    }
}

bool ec_to_double(const char *at, const char *end, double *out) {
    decimal d = {0, 0, {0}};
    bool negative = *at == '-', fraction = false, more = false;
    for (at += negative; at < end && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        bool kept = d.count < MAX_DIGITS && (d.count > 0 || *at != '0');
        if (kept)
            d.digits[d.count++] = (uint8_t)(*at - '0');
        else if (d.count > 0)
            more = more || *at != '0';
        bool dropped = !kept && d.count > 0;
        if (fraction != dropped)
            d.exponent += fraction ? -1 : 1;
    }
    if (at < end) {
        int exponent = 0;
        bool smaller = *++at == '-';
        for (at += *at == '-' || *at == '+'; at < end; at++)
            exponent = exponent < 100000 ? exponent * 10 + (*at - '0') : exponent;
        /* Digits are bounded by the size of a message, far below what an exponent that was cut off here stands for. */
        d.exponent += smaller ? -exponent : exponent;
    }
    while (!more && d.count > 0 && d.digits[d.count - 1] == 0) {
        d.count--;
        d.exponent++;
    }
    if (more) {
        d.digits[d.count++] = 1;
        d.exponent--;
    }
    uint64_t bits = nearest(&d);
    if (bits == INFINITE_BITS)
        return false;
    *out = from_bits(bits | (uint64_t)negative << 63);
    return true;
}

/* All digits of a positive double: m * 2^e is m * 5^-e * 10^e where e is negative. */
static void exact(uint64_t bits, decimal *d) {
    int exponent;
    integer number;
    uint64_t mantissa = split(bits, &exponent);
    for (; exponent < 0 && !(mantissa & 1); exponent++)
        mantissa >>= 1;
    set(&number, mantissa);
    if (exponent < 0)
        multiply_power(&number, 5, -exponent);
    else
        shift_left(&number, exponent);
    d->exponent = exponent < 0 ? exponent : 0;
    d->count = 0;
    while (number.size > 0) { /* nine digits at a time, the last first */
        uint64_t rest = 0;
        for (int index = number.size - 1; index >= 0; index--) {
            rest = rest << 32 | number.limbs[index];
            number.limbs[index] = (uint32_t)(rest / 1000000000);
            rest %= 1000000000;
        }
        while (number.size > 0 && number.limbs[number.size - 1] == 0)
            number.size--;
        for (int digit = 0; digit < 9 && (rest != 0 || number.size > 0); digit++, rest /= 10)
            d->digits[d->count++] = (uint8_t)(rest % 10);
    }
    for (int low = 0, high = d->count - 1; low < high; low++, high--) {
        uint8_t digit = d->digits[low];
        d->digits[low] = d->digits[high];
        d->digits[high] = digit;
    }
}

/* The first `count` digits, up by one in the last place or not, without zeros at the end. */
static void cut(const decimal *d, int count, bool up, decimal *out) {
    memcpy(out->digits, d->digits, (size_t)count);
    out->count = count;
    out->exponent = d->exponent + d->count - count;
    if (up) {
        int last = count - 1;
        while (last >= 0 && out->digits[last] == 9)
            out->digits[last--] = 0;
        if (last >= 0) {
            out->digits[last]++;
        } else {
            out->digits[0] = 1; /* 99 became 100 */
            out->exponent++;
        }
    }
    while (out->count > 1 && out->digits[out->count - 1] == 0) {
        out->count--;
        out->exponent++;
    }
}

static bool rounds_up(const decimal *d, int count) {
    if (d->digits[count] != 5)
        return d->digits[count] > 5;
    for (int index = count + 1; index < d->count; index++)
        if (d->digits[index] != 0)
            return true;
    return d->digits[count - 1] & 1;
}

static void shortest(uint64_t bits, decimal *out) {
    decimal d;
    exact(bits, &d);
    /* Any 15 digits are told apart by normal doubles, so fewer only means zeros at the end of 15. */
    for (int count = bits >> FRACTION_BITS == 0 ? 1 : 15; count < d.count && count < 17; count++) {
        bool up = rounds_up(&d, count);
        for (int other = 0; other < 2; other++) {
            cut(&d, count, up != (other == 1), out);
            if (nearest(out) == bits)
                return;
        }
    }
    bool all = d.count <= 17;
    cut(&d, all ? d.count : 17, !all && rounds_up(&d, 17), out);
}

size_t ec_from_double(double value, char out[EC_MAX_NUMBER_CHARS]) {
    char *at = out;
    uint64_t bits = to_bits(value);
    decimal d = {1, 0, {0}};
    if (bits >> 63)
        *at++ = '-';
    bits &= ~((uint64_t)1 << 63);
    if (bits != 0)
        shortest(bits, &d);
    int point = d.count + d.exponent; /* digits before the point */
    bool plain = point > -4 && point <= 16;
    int before = plain ? point : 1;
    if (plain && point <= 0)
        *at++ = '0';
    for (int index = 0; index < before; index++)
        *at++ = (char)('0' + (index < d.count ? d.digits[index] : 0));
    if (plain || d.count > 1)
        *at++ = '.';
    for (int zeros = before; zeros < 0; zeros++)
        *at++ = '0';
    for (int index = before < 0 ? 0 : before; index < d.count; index++)
        *at++ = (char)('0' + d.digits[index]);
    if (plain && before >= d.count)
        *at++ = '0';
    if (!plain) {
        int exponent = point - 1 < 0 ? 1 - point : point - 1;
        *at++ = 'e';
        *at++ = point - 1 < 0 ? '-' : '+';
        if (exponent >= 100)
            *at++ = (char)('0' + exponent / 100);
        *at++ = (char)('0' + exponent / 10 % 10);
        *at++ = (char)('0' + exponent % 10);
    }
    return (size_t)(at - out);
}
