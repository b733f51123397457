/* See cross_decoder.h. Vaswani et al. 2017, section 3. */
#include "cross_decoder.h"

#include <stdlib.h>

/* Scores of one head, q . k scale for the key of each token; `parts`, vectors of a head, is a constant wherever this
   and weigh_tokens are inlined. */
ALWAYS void score_tokens(const float *q, const float *const *tokens, int64_t offset, int64_t count, int parts,
                         float scale, float *scores) {
    int64_t t = 0;
    for (; t + 4 <= count; t += 4) {
        floats products[4] = {0};
        for (int i = 0; i < parts; i++) {
            const floats query = load(q + FLOATS * i);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) products[p] += query * load(tokens[t + p] + offset + FLOATS * i);
        }
        const floats4 four = sum_four(products[0], products[1], products[2], products[3]) * scale;
        memcpy(scores + t, &four, sizeof four);
    }
    for (; t < count; t++) {
        floats lanes = {0};
        for (int i = 0; i < parts; i++) lanes += load(q + FLOATS * i) * load(tokens[t] + offset + FLOATS * i);
        scores[t] = sum_lanes(lanes) * scale;
    }
}

/* Values weighed by scores over their total; tokens of even and of odd place are summed apart. */
ALWAYS void weigh_tokens(const float *scores, const float *const *tokens, int64_t offset, int64_t count, int parts,
                         float total, float *out) {
    for (int i = 0; i < parts; i += 4) { /* four vectors fit into registers with any `parts` */
        const int some = parts - i < 4 ? parts - i : 4;
        floats sums[2][4] = {0};
        int64_t t = 0;
        for (; t + 2 <= count; t += 2)
#pragma GCC unroll 2
            for (int p = 0; p < 2; p++)
#pragma GCC unroll 4
                for (int j = 0; j < some; j++)
                    sums[p][j] += scores[t + p] * load(tokens[t + p] + offset + FLOATS * (i + j));
        if (t < count)
            for (int j = 0; j < some; j++) sums[0][j] += scores[t] * load(tokens[t] + offset + FLOATS * (i + j));
        for (int j = 0; j < some; j++) store(out + FLOATS * (i + j), (sums[0][j] + sums[1][j]) / total);
    }
}

/* Attention of one head, whose keys and values lie at offsets within each token, to `count` tokens. */
static void attend_head(const CrossDecoder *d, const float *q, const float *const *tokens, int64_t key, int64_t value,
                        int64_t count, const float *bias, float *scores, float *out) {
    const int64_t size = d->head_dim;
    const float scale = (float)d->score_scale;
    const int parts = size % FLOATS || size > 16 * FLOATS ? 0 : (int)(size / FLOATS);
#define FOR_PARTS(call)        \
    switch (parts) {           \
        case 1: call(1) break; \
        case 2: call(2) break; \
        case 4: call(4) break; \
        case 8: call(8) break; \
        default: call(parts)   \
    }
    if (parts) {
#define SCORE(n) score_tokens(q, tokens, key, count, n, scale, scores);
        FOR_PARTS(SCORE)
#undef SCORE
    } else {
        for (int64_t t = 0; t < count; t++) scores[t] = product(q, 0, tokens[t] + key, 0, size) * scale;
    }
    if (bias)
        for (int64_t t = 0; t < count; t++) scores[t] += bias[t];
    const float total = exponentials(scores, count);
    if (parts) {
#define WEIGH(n) weigh_tokens(scores, tokens, value, count, n, total, out);
        FOR_PARTS(WEIGH)
#undef WEIGH
    } else {
        for (int64_t i = 0; i < size; i++) out[i] = 0;
        for (int64_t t = 0; t < count; t++)
            for (int64_t i = 0; i < size; i++) out[i] += scores[t] / total * tokens[t][value + i];
    }
}

/* Head outputs of one row over `count` tokens in one layer; of a row of `bias` for each head, `stride` apart. */
static void attend_row(const CrossDecoder *d, int64_t layer, const float *q, const float *const *tokens, int64_t count,
                       const float *bias, int64_t stride, float *scores, float *out) {
    const int64_t size = d->head_dim, sharing = d->heads / d->kv_heads, all_keys = d->kv_heads * size;
    if (!count) memset(out, 0, (size_t)(d->heads * size) * sizeof *out);
    for (int64_t head = 0; head < d->heads && count; head++) {
        const int64_t key = 2 * layer * all_keys + head / sharing * size;
        attend_head(d, q + head * size, tokens, key, key + all_keys, count, bias ? bias + head * stride : NULL, scores,
                    out + head * size);
    }
}

/* Attention of all rows: to their tokens, or with `cross` to their sources. Returns 0, or 1 when memory is
   exhausted. */
static int32_t attend_rows(const CrossDecoder *d, int64_t layer, const float *queries, int64_t stride, int64_t rows,
                           const CrossRow *row, int32_t cross, int64_t longest, const float *bias, float *out,
                           int32_t threads) {
    const int64_t token_size = d->layers * 2 * d->kv_heads * d->head_dim;
    int64_t failed = 0;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) if (threads > 1 && rows * longest >= 512) reduction(+ : failed)
#endif
    {
        const float **tokens = malloc((size_t)longest * (sizeof *tokens + sizeof(float)));
        float *scores = (float *)(tokens + longest);
        failed += !tokens;
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 4)
#endif
        for (int64_t r = 0; r < rows; r++) {
            const float *q = queries + r * stride;
            float *to = out + r * d->heads * d->head_dim;
            if (!tokens) continue;
            if (cross) {
                for (int64_t t = 0; t < row[r].source_length; t++) tokens[t] = row[r].source + t * token_size;
                attend_row(d, layer, q, tokens, row[r].source_length, NULL, 0, scores, to);
            } else {
                /* Biases of a row end with that of distance 0, its own token's. */
                const float *own = bias ? bias + longest - row[r].length : NULL;
                attend_row(d, layer, q, (const float *const *)row[r].tokens, row[r].length, own, longest, scores, to);
            }
        }
        free(tokens);
    }
    (void)threads;
    return failed > 0;
}

/* Scratch memory of a forward pass: numbers of each row, and biases of all distances. */
typedef struct {
    float *normed, *out, *projected, *attended, *feed_forward, *bias;
} Scratch;

static Scratch make_scratch(const CrossDecoder *d, int64_t rows, int64_t longest) {
    const int64_t joined = (d->heads + 2 * d->kv_heads) * d->head_dim, hidden = (d->gated + 1) * d->intermediate_size;
    const int64_t numbers[] = {rows * d->width, rows * d->width, rows * joined, rows * d->heads * d->head_dim,
                               rows * hidden, d->bias.table ? d->heads * longest : 0};
    int64_t total = 0;
    for (int i = 0; i < 6; i++) total += numbers[i];
    Scratch s = {malloc((size_t)total * sizeof(float) + 1)};
    if (!s.normed) return s;
    s.out = s.normed + numbers[0], s.projected = s.out + numbers[1], s.attended = s.projected + numbers[2];
    s.feed_forward = s.attended + numbers[3], s.bias = numbers[5] ? s.feed_forward + numbers[4] : NULL;
    if (s.bias) spread_bias(&d->bias, d->heads, 1 - longest, longest, s.bias);
    return s;
}

int32_t cross_decoder_forward(const CrossDecoder *d, float *x, int64_t rows, const CrossRow *row, int32_t threads) {
    const int64_t width = d->width, size = d->head_dim, all_keys = d->kv_heads * size, queries = d->heads * size;
    const int64_t joined = queries + 2 * all_keys, hidden = (d->gated + 1) * d->intermediate_size;
    int64_t longest = 1, longest_source = 1;
    for (int64_t r = 0; r < rows; r++) {
        longest = row[r].length > longest ? row[r].length : longest;
        longest_source = row[r].source_length > longest_source ? row[r].source_length : longest_source;
    }
    const Scratch s = make_scratch(d, rows, longest);
    if (!s.normed) return 1;
    int32_t failed = 0;
    for (int64_t layer = 0; layer < d->layers && !failed; layer++) {
        const CrossBlock *block = d->blocks + layer;
        const float *input = d->norm_first ? s.normed : x;
        if (d->norm_first) normalise_rows(&block->attention_norm, x, rows, width, s.normed);
        failed |= panel_product(&block->query_key_value, input, rows, width, s.projected, joined, -1, threads);
        for (int64_t r = 0; r < rows; r++)
            memcpy(row[r].tokens[row[r].length - 1] + 2 * layer * all_keys, s.projected + r * joined + queries,
                   (size_t)(2 * all_keys) * sizeof *x);
        failed |= attend_rows(d, layer, s.projected, joined, rows, row, 0, longest, s.bias, s.attended, threads);
        failed |= panel_product(&block->output, s.attended, rows, queries, s.out, width, -1, threads);
        add_sublayer(&block->attention_norm, d->norm_first, x, s.out, rows, width);

        if (d->norm_first) normalise_rows(&block->cross_attention_norm, x, rows, width, s.normed);
        failed |= panel_product(&block->cross_query, input, rows, width, s.projected, queries, -1, threads);
        failed |= attend_rows(d, layer, s.projected, queries, rows, row, 1, longest_source, NULL, s.attended, threads);
        failed |= panel_product(&block->cross_output, s.attended, rows, queries, s.out, width, -1, threads);
        add_sublayer(&block->cross_attention_norm, d->norm_first, x, s.out, rows, width);

        if (d->norm_first) normalise_rows(&block->feed_forward_norm, x, rows, width, s.normed);
        failed |= panel_product(&block->gate_up, input, rows, width, s.feed_forward, hidden,
                                d->gated ? -1 : d->activation, threads);
        if (d->gated) activate_rows(d->activation, 1, s.feed_forward, rows, d->intermediate_size);
        failed |= panel_product(&block->down, s.feed_forward, rows, hidden, s.out, width, -1, threads);
        add_sublayer(&block->feed_forward_norm, d->norm_first, x, s.out, rows, width);
    }
    if (d->final_norm.gain) normalise_rows(&d->final_norm, x, rows, width, x);
    free(s.normed);
    return failed;
}
