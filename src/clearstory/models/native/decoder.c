/* See decoder.h. Vaswani et al. 2017, section 3, with the variants of Llama (Touvron et al. 2023). */
#include "decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

/* e^x to 2e-7 of its size for x up to 88: 2^n e^r with |r| at most ln(2) / 2, and the series of e^r. */
ALWAYS float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    int32_t n = (int32_t)(x * 1.44269504f + (x < 0 ? -0.5f : 0.5f));
    float r = x - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    float series = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r / 720)))));
    int32_t bits = (n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return series * power;
}

static void normalise(const Norm *norm, const float *x, int64_t n, const float *gain, float *out) {
    float mean = 0, squares = 0;
    if (norm->kind == LAYER_NORM) {
        for (int64_t i = 0; i < n; i++) mean += x[i];
        mean /= n;
    }
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / sqrtf(squares / n + (float)norm->eps);
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) * factor * gain[i] + (norm->bias ? norm->bias[i] : 0.0f);
}

static void normalise_rows(const Norm *norm, const float *x, int64_t rows, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        if (norm->gain) normalise(norm, x + r * n, n, norm->gain, out + r * n);
        else memcpy(out + r * n, x + r * n, n * sizeof *x);
    }
}

/* Queries and keys normalised and rotated, the key and value copied into the cache. Pairs (i, i + half) of a rotated
   head are written side by side: products of queries and keys are the same. */
static void place_heads(const Decoder *d, const Block *block, float *projected, const float *cos, const float *sin,
                        float *keys, float *values, int64_t capacity, int64_t slot) {
    const int64_t size = d->head_dim, half = size / 2;
    float turned[size];
    for (int64_t head = 0; head < d->heads + d->kv_heads; head++) {
        float *x = projected + head * size;
        if (block->head_norm.gain) normalise(&block->head_norm, x, size, block->head_norm.gain + head * size, x);
        if (!cos) continue;
        for (int64_t i = 0; i < half; i++) {
            turned[2 * i] = x[i] * cos[i] - x[i + half] * sin[i];
            turned[2 * i + 1] = x[i] * sin[i] + x[i + half] * cos[i];
        }
        memcpy(x, turned, size * sizeof *x);
    }
    for (int64_t head = 0; head < d->kv_heads; head++) {
        const int64_t at = (head * capacity + slot) * size;
        memcpy(keys + at, projected + (d->heads + head) * size, size * sizeof *keys);
        memcpy(values + at, projected + (d->heads + d->kv_heads + head) * size, size * sizeof *values);
    }
}

#define MAX_SHARING 4 /* query heads of one key that are computed together */

/* softmax(q K^T scale) V of n query heads that share keys and values, each (count, size). `size` and `n` are constants
   wherever this is inlined with common ones. */
ALWAYS void attend(const float *q, int n, const float *keys, const float *values, int64_t count, int64_t size,
                   float scale, float *scores, float *out) {
    float largest[MAX_SHARING], total[MAX_SHARING];
    for (int h = 0; h < n; h++) largest[h] = -INFINITY;
    for (int64_t t = 0; t < count; t++) {
        const float *key = keys + t * size;
        for (int h = 0; h < n; h++) {
            float product = 0;
            for (int64_t i = 0; i < size; i++) product += q[h * size + i] * key[i];
            scores[h * count + t] = product * scale;
        }
    }
    for (int h = 0; h < n; h++) {
        float *s = scores + h * count;
        for (int64_t t = 0; t < count; t++) largest[h] = s[t] > largest[h] ? s[t] : largest[h];
        total[h] = 0;
        for (int64_t t = 0; t < count; t++) s[t] = exponential(s[t] - largest[h]);
        for (int64_t t = 0; t < count; t++) total[h] += s[t];
    }
    float sums[MAX_SHARING][size];
    for (int h = 0; h < n; h++)
        for (int64_t i = 0; i < size; i++) sums[h][i] = 0;
    for (int64_t t = 0; t < count; t++)
        for (int h = 0; h < n; h++)
            for (int64_t i = 0; i < size; i++) sums[h][i] += scores[h * count + t] * values[t * size + i];
    for (int h = 0; h < n; h++)
        for (int64_t i = 0; i < size; i++) out[h * size + i] = sums[h][i] / total[h];
}

static void attend_heads(const float *q, int64_t n, const float *keys, const float *values, int64_t count,
                         int64_t size, float scale, float *scores, float *out) {
    for (int64_t head = 0; head < n;) {
        const int64_t left = n - head;
        const float *from = q + head * size;
        float *to = out + head * size;
#define CASE(heads, dim)                                                         \
    if (left >= heads && size == dim) {                                          \
        attend(from, heads, keys, values, count, dim, scale, scores, to);        \
        head += heads;                                                           \
        continue;                                                                \
    }
        CASE(4, 64) CASE(3, 64) CASE(2, 64) CASE(1, 64) CASE(4, 128) CASE(2, 128) CASE(1, 128)
        CASE(4, 32) CASE(1, 32) CASE(1, 96) CASE(1, 80)
#undef CASE
        attend(from, 1, keys, values, count, size, scale, scores, to);
        head++;
    }
}

static void attend_rows(const Decoder *d, int64_t layer, const float *projected, int64_t rows, const Cache *caches,
                        float *scores, int64_t longest, float *out, int threads) {
    const int64_t sharing = d->heads / d->kv_heads, stride = (d->heads + 2 * d->kv_heads) * d->head_dim;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
#endif
    for (int64_t task = 0; task < rows * d->kv_heads; task++) {
        const int64_t row = task / d->kv_heads, head = task % d->kv_heads;
        const Cache *cache = caches + row;
        const int64_t first = d->window && cache->kept > d->window ? cache->kept - d->window : 0;
        const float *keys = cache->data + ((layer * 2 * d->kv_heads + head) * cache->capacity + first) * d->head_dim;
        const float *values = keys + d->kv_heads * cache->capacity * d->head_dim;
        attend_heads(projected + row * stride + head * sharing * d->head_dim, sharing, keys, values,
                     cache->kept - first, d->head_dim, d->score_scale, scores + task * MAX_SHARING * longest,
                     out + (row * d->heads + head * sharing) * d->head_dim);
    }
    (void)threads;
}

ALWAYS float activate(int64_t activation, float x) {
    switch (activation) {
        case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
        /* (1 + tanh u) / 2 is the logistic function of 2 u; Hendrycks and Gimpel 2016. */
        case GELU_TANH: return x / (1.0f + exponential(-1.5957691216f * (x + 0.044715f * x * x * x)));
        case RELU: return x > 0 ? x : x < 0 ? 0 : x;
        default: return x / (1.0f + exponential(-x));
    }
}

/* act(gate) * up, or act(up), in place: (rows, columns) to the first n of each row. */
static void activate_rows(const Decoder *d, float *x, int64_t rows) {
    const int64_t n = d->intermediate_size, stride = d->gated ? 2 * n : n;
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * stride;
        switch (d->activation) {
            case GELU: for (int64_t i = 0; i < n; i++) row[i] = activate(GELU, row[i]); break;
            case GELU_TANH: for (int64_t i = 0; i < n; i++) row[i] = activate(GELU_TANH, row[i]); break;
            case RELU: for (int64_t i = 0; i < n; i++) row[i] = activate(RELU, row[i]); break;
            default: for (int64_t i = 0; i < n; i++) row[i] = activate(SILU, row[i]);
        }
        if (d->gated)
            for (int64_t i = 0; i < n; i++) row[i] *= row[n + i];
    }
}

/* norm(x + sublayer), or x + sublayer where norms come first. */
static void add_sublayer(const Decoder *d, const Norm *norm, float *x, const float *sublayer, int64_t rows) {
    for (int64_t i = 0; i < rows * d->width; i++) x[i] += sublayer[i];
    if (!d->norm_first) normalise_rows(norm, x, rows, d->width, x);
}

int32_t decoder_step(const Decoder *d, float *x, int64_t rows, const float *cos, const float *sin, const Cache *caches,
                     int32_t threads) {
    const int64_t size = d->head_dim, joined = (d->heads + 2 * d->kv_heads) * size, hidden = d->gated + 1;
    int64_t longest = 0;
    for (int64_t r = 0; r < rows; r++) longest = caches[r].kept > longest ? caches[r].kept : longest;
    const int64_t numbers[] = {rows * d->width, rows * d->width, rows * joined, rows * d->heads * size,
                               rows * hidden * d->intermediate_size, rows * d->kv_heads * MAX_SHARING * longest};
    int64_t all = 0;
    for (int i = 0; i < 6; i++) all += numbers[i];
    float *normed = malloc((size_t)all * sizeof *normed);
    if (!normed) return 1;
    float *out = normed + numbers[0], *projected = out + numbers[1], *attended = projected + numbers[2];
    float *feed_forward = attended + numbers[3], *scores = feed_forward + numbers[4];
    for (int64_t layer = 0; layer < d->layers; layer++) {
        const Block *block = d->blocks + layer;
        const float *input = x;
        if (d->norm_first) normalise_rows(&block->attention_norm, x, rows, d->width, normed), input = normed;
        matrix_product(&block->query_key_value, input, rows, d->width, projected, joined, threads);
        for (int64_t r = 0; r < rows; r++) {
            const Cache *cache = caches + r;
            const int64_t part = d->kv_heads * cache->capacity * size;
            float *keys = cache->data + layer * 2 * part;
            place_heads(d, block, projected + r * joined, cos ? cos + r * (size / 2) : NULL,
                        sin ? sin + r * (size / 2) : NULL, keys, keys + part, cache->capacity, cache->kept - 1);
        }
        attend_rows(d, layer, projected, rows, caches, scores, longest, attended, threads);
        matrix_product(&block->output, attended, rows, d->heads * size, out, d->width, threads);
        add_sublayer(d, &block->attention_norm, x, out, rows);

        input = x;
        if (d->norm_first) normalise_rows(&block->feed_forward_norm, x, rows, d->width, normed), input = normed;
        matrix_product(&block->gate_up, input, rows, d->width, feed_forward, hidden * d->intermediate_size, threads);
        activate_rows(d, feed_forward, rows);
        matrix_product(&block->down, feed_forward, rows, hidden * d->intermediate_size, out, d->width, threads);
        add_sublayer(d, &block->feed_forward_norm, x, out, rows);
    }
    if (d->final_norm.gain) normalise_rows(&d->final_norm, x, rows, d->width, x);
    free(normed);
    return 0;
}
