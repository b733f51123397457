/* See decoder.h. Vaswani et al. 2017, section 3, with the variants of Llama (Touvron et al. 2023). */
#include "decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"

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
#define MAX_PARTS (128 / FLOATS) /* vectors in the largest head that is computed by vectors */
#define PREFETCH 1024 /* bytes ahead of the stream of keys or values */

/* scores = q K^T scale, (n, count), for n query heads of one key. `n` and `size` are constants wherever this and
   weigh_values are inlined. */
ALWAYS void score_keys(const float *q, int n, const float *keys, int64_t count, int size, float scale, float *scores) {
    floats query[MAX_SHARING][MAX_PARTS];
    const int parts = size / FLOATS;
    for (int h = 0; h < n; h++)
        for (int i = 0; i < parts; i++) query[h][i] = load(q + h * size + FLOATS * i);
    int64_t t = 0;
    for (; t + 4 <= count; t += 4) {
        floats products[MAX_SHARING][4] = {0};
#pragma GCC unroll 16
        for (int i = 0; i < parts; i++) {
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                const float *at = keys + (t + p) * size + FLOATS * i;
                __builtin_prefetch((const char *)at + PREFETCH, 0, 2);
                floats key = load(at);
#pragma GCC unroll 4
                for (int h = 0; h < n; h++) products[h][p] += query[h][i] * key;
            }
        }
#pragma GCC unroll 4
        for (int h = 0; h < n; h++) {
            floats4 four = sum_four(products[h][0], products[h][1], products[h][2], products[h][3]);
            four *= scale;
            memcpy(scores + h * count + t, &four, sizeof four);
        }
    }
    for (; t < count; t++)
        for (int h = 0; h < n; h++) {
            floats lanes = {0};
            for (int i = 0; i < parts; i++) lanes += query[h][i] * load(keys + t * size + FLOATS * i);
            scores[h * count + t] = sum_lanes(lanes) * scale;
        }
}

ALWAYS void weigh_values(const float *scores, int n, const float *values, int64_t count, int size,
                         const float *totals, float *out) {
    floats sums[MAX_SHARING][MAX_PARTS] = {0};
    const int parts = size / FLOATS;
    for (int64_t t = 0; t < count; t++) {
#pragma GCC unroll 16
        for (int i = 0; i < parts; i++) {
            __builtin_prefetch((const char *)(values + t * size + FLOATS * i) + PREFETCH, 0, 2);
            floats value = load(values + t * size + FLOATS * i);
#pragma GCC unroll 4
            for (int h = 0; h < n; h++) sums[h][i] += value * scores[h * count + t];
        }
    }
    for (int h = 0; h < n; h++)
        for (int i = 0; i < parts; i++) store(out + h * size + FLOATS * i, sums[h][i] / totals[h]);
}

ALWAYS void attend(const float *q, int n, const float *keys, const float *values, int64_t count, int size,
                   float scale, float *scores, float *out) {
    float totals[MAX_SHARING];
    score_keys(q, n, keys, count, size, scale, scores);
    for (int h = 0; h < n; h++) totals[h] = exponentials(scores + h * count, count);
    weigh_values(scores, n, values, count, size, totals, out);
}

/* The same for a head of any size. */
static void attend_any_size(const float *q, const float *keys, const float *values, int64_t count, int64_t size,
                            float scale, float *scores, float *out) {
    for (int64_t t = 0; t < count; t++) scores[t] = product(q, 0, keys + t * size, 0, size) * scale;
    const float total = exponentials(scores, count);
    for (int64_t i = 0; i < size; i++) out[i] = 0;
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < size; i++) out[i] += scores[t] * values[t * size + i];
    for (int64_t i = 0; i < size; i++) out[i] /= total;
}

/* Attention of n query heads that share keys and values, each (count, size). */
static void attend_heads(const float *q, int64_t n, const float *keys, const float *values, int64_t count,
                         int64_t size, float scale, float *scores, float *out) {
    for (int64_t head = 0; head < n;) {
        const float *from = q + head * size;
        float *to = out + head * size;
#define CASE(heads, dim)                                                  \
    if (n - head >= heads && size == dim) {                               \
        attend(from, heads, keys, values, count, dim, scale, scores, to); \
        head += heads;                                                    \
        continue;                                                         \
    }
#if FLOATS == 16 /* their sums fit into registers */
        CASE(4, 64) CASE(3, 64) CASE(2, 64) CASE(2, 128) CASE(4, 32)
#endif
        CASE(1, 64) CASE(1, 128) CASE(1, 32) CASE(1, 96) CASE(1, 80) CASE(1, 16)
#undef CASE
        attend_any_size(from, keys, values, count, size, scale, scores, to);
        head++;
    }
}

static void attend_rows(const Decoder *d, int64_t layer, const float *projected, int64_t rows, const Cache *caches,
                        float *scores, int64_t longest, float *out, int threads) {
    const int64_t sharing = d->heads / d->kv_heads, stride = (d->heads + 2 * d->kv_heads) * d->head_dim;
    /* Short caches take less time than threads need to meet. */
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && rows * longest >= 512)
#endif
    for (int64_t task = 0; task < rows * d->kv_heads; task++) {
        const int64_t row = task / d->kv_heads, head = task % d->kv_heads;
        const Cache *cache = caches + row;
        const int64_t window = d->blocks[layer].window;
        const int64_t first = window && cache->kept > window ? cache->kept - window : 0;
        const float *keys = cache->data + ((layer * 2 * d->kv_heads + head) * cache->capacity + first) * d->head_dim;
        const float *values = keys + d->kv_heads * cache->capacity * d->head_dim;
        attend_heads(projected + row * stride + head * sharing * d->head_dim, sharing, keys, values,
                     cache->kept - first, d->head_dim, d->score_scale, scores + task * MAX_SHARING * longest,
                     out + (row * d->heads + head * sharing) * d->head_dim);
    }
    (void)threads;
}

int32_t decoder_step(const Decoder *d, float *x, int64_t rows, const float *all_cos, const float *all_sin,
                     const float *local_cos, const float *local_sin, const Cache *caches, int32_t threads) {
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
        const float *input = x, *cos = block->local ? local_cos : all_cos, *sin = block->local ? local_sin : all_sin;
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
        if (block->attention_output_norm.gain) normalise_rows(&block->attention_output_norm, out, rows, d->width, out);
        add_sublayer(&block->attention_norm, d->norm_first, x, out, rows, d->width);

        input = x;
        if (d->norm_first) normalise_rows(&block->feed_forward_norm, x, rows, d->width, normed), input = normed;
        matrix_product(&block->gate_up, input, rows, d->width, feed_forward, hidden * d->intermediate_size, threads);
        activate_rows(d->activation, d->gated, feed_forward, rows, d->intermediate_size);
        matrix_product(&block->down, feed_forward, rows, hidden * d->intermediate_size, out, d->width, threads);
        if (block->feed_forward_output_norm.gain)
            normalise_rows(&block->feed_forward_output_norm, out, rows, d->width, out);
        add_sublayer(&block->feed_forward_norm, d->norm_first, x, out, rows, d->width);
    }
    if (d->final_norm.gain) normalise_rows(&d->final_norm, x, rows, d->width, x);
    free(normed);
    return 0;
}
