/* Norms, activation functions and exponentials of rows of fp32. */
#ifndef CLEARSTORY_LAYERS_H
#define CLEARSTORY_LAYERS_H

#include <math.h>
#include <string.h>

#include "vectors.h"

enum { RMS_NORM, LAYER_NORM };
enum { GELU, GELU_TANH, RELU, SILU };

typedef struct {
    int64_t kind;      /* RMS_NORM or LAYER_NORM */
    const float *gain; /* NULL for no norm */
    const float *bias; /* NULL for none */
    double eps;
} Norm;

/* What is added to the scores of each head by distance, key less query, from -reach to reach and as at the ends beyond:
   (heads, 2 reach + 1). Raffel et al. 2020, section 2.1. */
typedef struct {
    const float *table; /* NULL for none */
    int64_t reach;
} DistanceBias;

/* e^x to 2e-7 of its size for x up to 88: 2^n e^r with |r| at most ln(2) / 2, and the series of e^r. */
ALWAYS floats exponential(floats x) {
    x = greater(all(-87), lesser(all(88), x));
    /* A sum with 1.5 * 2^23 is rounded to an integer, which its last bits are. */
    const floats magic = all(0x1.8p23f), shifted = x * 1.44269504f + magic, whole = shifted - magic;
    const floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    const floats series =
        1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    return series * (floats)(((ints)shifted - (ints)magic + 127) << 23);
}

/* Applies a function of vectors to all numbers of a row. */
#define APPLY(function, x, count)                                                          \
    do {                                                                                   \
        int64_t i_ = 0;                                                                    \
        for (; i_ + FLOATS <= (count); i_ += FLOATS) store((x) + i_, function(load((x) + i_)));    \
        floats last_ = {0}; /* what is left, padded with zeros */                          \
        memcpy(&last_, (x) + i_, 4 * ((count) - i_));                                      \
        last_ = function(last_);                                                           \
        memcpy((x) + i_, &last_, 4 * ((count) - i_));                                      \
    } while (0)

ALWAYS floats silu(floats x) { return x / (1.0f + exponential(-x)); }

/* x (1 + tanh u) / 2; Hendrycks and Gimpel 2016. The logistic function of 2 u is (1 + tanh u) / 2. */
ALWAYS floats gelu_tanh(floats x) {
    return x / (1.0f + exponential(-1.5957691216f * (x + 0.044715f * x * x * x)));
}

/* x times the normal distribution function, to 2e-7 of x: the error function as z P(z^2) / Q(z^2), fitted by least
   squares to 2e-8 for |z| up to 3.9, from where on it is 1. */
ALWAYS floats gelu(floats x) {
    const floats z = greater(all(-3.9f), lesser(all(3.9f), x * 0.70710678f)), s = z * z;
    const floats above = 1.128378987f
        + s * (0.191939712f + s * (0.052966736f + s * (3.836818971e-3f + s * (2.874556812e-4f + s * 2.050392595e-6f))));
    const floats below = 1.0f
        + s * (0.503433943f + s * (0.114757657f + s * (0.015109089f + s * (1.181720174e-3f + s * 3.823071529e-5f))));
    const floats erf = greater(all(-1), lesser(all(1), z * above / below));
    return 0.5f * x * (1.0f + erf);
}

ALWAYS floats relu(floats x) { return choose(x < all(0), all(0), x); }

/* An activation function of all numbers of a row. */
static inline void activate(int64_t kind, float *x, int64_t count) {
    switch (kind) {
        case GELU: APPLY(gelu, x, count); break;
        case GELU_TANH: APPLY(gelu_tanh, x, count); break;
        case RELU: APPLY(relu, x, count); break;
        default: APPLY(silu, x, count);
    }
}

ALWAYS float sum_lanes(floats v) {
    const floats none = {0};
    return sum_four(v, none, none, none)[0];
}

static float sum(const float *x, int64_t n) {
    floats lanes = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + FLOATS <= n; i += FLOATS) lanes += load(x + i);
    for (; i < n; i++) rest += x[i];
    return sum_lanes(lanes) + rest;
}

/* (x - a) . (y - b) */
static float product(const float *x, float a, const float *y, float b, int64_t n) {
    floats lanes = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + FLOATS <= n; i += FLOATS) lanes += (load(x + i) - a) * (load(y + i) - b);
    for (; i < n; i++) rest += (x[i] - a) * (y[i] - b);
    return sum_lanes(lanes) + rest;
}

static void normalise(const Norm *norm, const float *x, int64_t n, const float *gain, float *out) {
    const float mean = norm->kind == LAYER_NORM ? sum(x, n) / n : 0;
    const float factor = 1.0f / sqrtf(product(x, mean, x, mean, n) / n + (float)norm->eps);
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) * factor * gain[i] + (norm->bias ? norm->bias[i] : 0.0f);
}

static void normalise_rows(const Norm *norm, const float *x, int64_t rows, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        if (norm->gain) normalise(norm, x + r * n, n, norm->gain, out + r * n);
        else memcpy(out + r * n, x + r * n, n * sizeof *x);
    }
}

/* act(gate) * up, or act(up), in place: the first n numbers of each row of 2 n or n. */
static void activate_rows(int64_t kind, int64_t gated, float *x, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * (gated ? 2 * n : n);
        activate(kind, row, n);
        if (gated)
            for (int64_t i = 0; i < n; i++) row[i] *= row[n + i];
    }
}

/* norm(x + sublayer), or x + sublayer where norms come first. */
static void add_sublayer(const Norm *norm, int64_t norm_first, float *x, const float *sublayer, int64_t rows,
                         int64_t width) {
    for (int64_t i = 0; i < rows * width; i++) x[i] += sublayer[i];
    if (!norm_first) normalise_rows(norm, x, rows, width, x);
}

/* Biases of attention scores by distance, those of each head from `first` on, (heads, count). */
static void spread_bias(const DistanceBias *bias, int64_t heads, int64_t first, int64_t count, float *out) {
    for (int64_t head = 0; head < heads; head++)
        for (int64_t i = 0; i < count; i++) {
            int64_t distance = first + i;
            distance = distance < -bias->reach ? -bias->reach : distance > bias->reach ? bias->reach : distance;
            out[head * count + i] = bias->table[head * (2 * bias->reach + 1) + distance + bias->reach];
        }
}

/* The exponentials of scores less the largest, and their sum. */
static float exponentials(float *scores, int64_t count) {
    const int64_t whole = count / FLOATS * FLOATS, rest = 4 * (count - whole);
    floats last = all(-INFINITY), sums = {0};
    memcpy(&last, scores + whole, rest);
    floats most = last;
    for (int64_t t = 0; t < whole; t += FLOATS) most = choose(load(scores + t) > most, load(scores + t), most);
    float largest = -INFINITY;
    for (int i = 0; i < FLOATS; i++) largest = most[i] > largest ? most[i] : largest;
    for (int64_t t = 0; t < whole; t += FLOATS) {
        floats v = exponential(load(scores + t) - largest);
        store(scores + t, v);
        sums += v;
    }
    /* What is left. Lanes behind it add nothing, where exponential would give e^-87. */
    last = choose(last == all(-INFINITY), all(0), exponential(last - largest));
    memcpy(scores + whole, &last, rest);
    return sum_lanes(sums + last);
}

#endif
