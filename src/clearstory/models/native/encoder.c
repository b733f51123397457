/* See encoder.h. Devlin et al. 2019; Vaswani et al. 2017, section 3. */
#include "encoder.h"

#include <stdlib.h>

#include "tiles.h"

static int64_t padded(int64_t n) { return (n + TILE_OUTS - 1) / TILE_OUTS * TILE_OUTS; }

/* The tokens of one sequence: queries of `rows` tokens, keys and values of `count`, in rows that lie `stride` apart. */
typedef struct {
    const float *queries, *keys, *values;
    const float *bias; /* of the first head's distances, from 0 on; those of the next lie `reach` behind; or NULL */
    int64_t rows, count, stride, reach;
    float *out;
    int64_t out_stride;
} Heads;

/* Numbers of scratch memory for one head of a sequence. */
static int64_t scratch_size(const Encoder *e, int64_t count) {
    return e->head_dim * padded(count) + count * padded(e->head_dim) + TILE_ROWS * padded(count);
}

/* out = a b for up to TILE_ROWS rows of a; columns of b are padded to whole tiles. */
static void small_product(const float *a, int64_t a_stride, int64_t rows, const float *b, int64_t b_stride,
                          int64_t count, int64_t columns, const float *divisors, float *out, int64_t out_stride) {
    for (int64_t first = 0; first < columns; first += TILE_OUTS) {
        floats sums[TILE_ROWS][2];
#define CALL(n) float_tile(a, a_stride, b + first, 0, b_stride, count, n, sums)
        FOR_ROWS(rows, CALL)
#undef CALL
        for (int64_t r = 0; r < rows; r++)
            for (int c = 0; c < 2; c++) {
                const int64_t at = first + c * FLOATS, rest = columns - at;
                const floats v = divisors ? sums[r][c] / divisors[r] : sums[r][c];
                if (rest >= FLOATS) store(out + r * out_stride + at, v);
                else if (rest > 0) memcpy(out + r * out_stride + at, &v, 4 * rest);
            }
    }
}

/* softmax(Q K^T scale + bias) V of the heads that share a key. */
static void attend(const Encoder *e, Heads h, int64_t sharing, float *scratch) {
    const int64_t size = e->head_dim, columns = padded(h.count), width = padded(size);
    const float scale = (float)e->score_scale;
    float *keys = scratch, *values = keys + size * columns, *scores = values + h.count * width;
    for (int64_t t = 0; t < h.count; t++) {
        for (int64_t i = 0; i < size; i++) keys[i * columns + t] = h.keys[t * h.stride + i] * scale;
        for (int64_t i = 0; i < size; i++) values[t * width + i] = h.values[t * h.stride + i];
        for (int64_t i = size; i < width; i++) values[t * width + i] = 0;
    }
    for (int64_t i = 0; i < size; i++)
        for (int64_t t = h.count; t < columns; t++) keys[i * columns + t] = 0;
    for (int64_t head = 0; head < sharing; head++)
        for (int64_t row = 0; row < h.rows; row += TILE_ROWS) {
            const int64_t n = h.rows - row < TILE_ROWS ? h.rows - row : TILE_ROWS;
            float totals[TILE_ROWS];
            small_product(h.queries + row * h.stride + head * size, h.stride, n, keys, columns, size, h.count, NULL,
                          scores, columns);
            for (int64_t r = 0; r < n; r++) {
                float *of_row = scores + r * columns;
                if (h.bias) {
                    const float *bias = h.bias + head * h.reach - row - r;
                    for (int64_t t = 0; t < h.count; t++) of_row[t] += bias[t];
                }
                totals[r] = exponentials(of_row, h.count);
            }
            small_product(scores, columns, n, values, width, h.count, size, totals,
                          h.out + row * h.out_stride + head * size, h.out_stride);
        }
}

/* Attention of all sequences; with `first_only`, of their first tokens. projected: queries, keys and values of each
   token side by side. Returns 0, or 1 when memory is exhausted. */
static int32_t attend_sequences(const Encoder *e, const float *projected, const int64_t *lengths, const int64_t *starts,
                                int64_t sequences, int32_t first_only, float *out, int32_t threads) {
    const int64_t size = e->head_dim, sharing = e->heads / e->kv_heads, stride = (e->heads + 2 * e->kv_heads) * size;
    int64_t longest = 1, failed = 0;
    for (int64_t s = 0; s < sequences; s++) longest = lengths[s] > longest ? lengths[s] : longest;
    const int64_t reach = 2 * longest - 1;
    float *bias = NULL;
    if (e->bias.table) {
        bias = malloc((size_t)(e->heads * reach) * sizeof *bias);
        if (!bias) return 1;
        spread_bias(&e->bias, e->heads, 1 - longest, reach, bias);
    }
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) if (threads > 1 && starts[sequences] >= 64) reduction(+ : failed)
#endif
    {
        float *scratch = malloc((size_t)scratch_size(e, longest) * sizeof *scratch);
        failed += !scratch;
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 4)
#endif
        for (int64_t task = 0; task < sequences * e->kv_heads; task++) {
            const int64_t s = task / e->kv_heads, head = task % e->kv_heads;
            const float *rows = projected + starts[s] * stride;
            Heads heads = {
                .queries = rows + head * sharing * size,
                .keys = rows + (e->heads + head) * size,
                .values = rows + (e->heads + e->kv_heads + head) * size,
                .bias = bias ? bias + head * sharing * reach + longest - 1 : NULL,
                .rows = first_only && lengths[s] ? 1 : lengths[s],
                .count = lengths[s],
                .stride = stride,
                .reach = reach,
                .out = out + ((first_only ? s : starts[s]) * e->heads + head * sharing) * size,
                .out_stride = e->heads * size,
            };
            if (scratch) attend(e, heads, sharing, scratch);
        }
        free(scratch);
    }
    free(bias);
    (void)threads;
    return failed > 0;
}

/* The first row of each sequence, in place. */
static void keep_first_rows(float *x, int64_t width, const int64_t *starts, int64_t sequences) {
    for (int64_t s = 0; s < sequences; s++) memmove(x + s * width, x + starts[s] * width, width * sizeof *x);
}

/* Memory for the numbers of some rows between sublayers. */
typedef struct {
    float *normed, *out, *projected, *attended, *feed_forward;
} Scratch;

static Scratch make_scratch(const Encoder *e, int64_t rows) {
    const int64_t joined = (e->heads + 2 * e->kv_heads) * e->head_dim, hidden = (e->gated + 1) * e->intermediate_size;
    const int64_t numbers = rows * (2 * e->width + joined + e->heads * e->head_dim + hidden);
    Scratch s = {malloc((size_t)numbers * sizeof(float) + 1)};
    if (!s.normed) return s;
    s.out = s.normed + rows * e->width, s.projected = s.out + rows * e->width;
    s.attended = s.projected + rows * joined, s.feed_forward = s.attended + rows * e->heads * e->head_dim;
    return s;
}

/* All blocks and the final norm for some sequences, which begin at `starts`. */
static int32_t forward_sequences(const Encoder *e, float *x, const int64_t *lengths, const int64_t *starts,
                                 int64_t sequences, int32_t first_only, Scratch s, int32_t threads) {
    const int64_t width = e->width, joined = (e->heads + 2 * e->kv_heads) * e->head_dim;
    const int64_t attended_width = e->heads * e->head_dim, hidden = (e->gated + 1) * e->intermediate_size;
    const int64_t activation = e->gated ? -1 : e->activation;
    int64_t rows = starts[sequences];
    int32_t failed = 0;
    for (int64_t layer = 0; layer < e->layers && !failed; layer++) {
        const EncoderBlock *block = e->blocks + layer;
        const int32_t first = first_only && layer == e->layers - 1;
        const float *input = e->norm_first ? s.normed : x;
        if (e->norm_first) normalise_rows(&block->attention_norm, x, rows, width, s.normed);
        failed |= panel_product(&block->query_key_value, input, rows, width, s.projected, joined, -1, threads);
        failed |= attend_sequences(e, s.projected, lengths, starts, sequences, first, s.attended, threads);
        if (first) keep_first_rows(x, width, starts, sequences), rows = sequences;
        failed |= panel_product(&block->output, s.attended, rows, attended_width, s.out, width, -1, threads);
        add_sublayer(&block->attention_norm, e->norm_first, x, s.out, rows, width);

        if (e->norm_first) normalise_rows(&block->feed_forward_norm, x, rows, width, s.normed);
        failed |= panel_product(&block->gate_up, input, rows, width, s.feed_forward, hidden, activation, threads);
        if (e->gated) activate_rows(e->activation, 1, s.feed_forward, rows, e->intermediate_size);
        failed |= panel_product(&block->down, s.feed_forward, rows, hidden, s.out, width, -1, threads);
        add_sublayer(&block->feed_forward_norm, e->norm_first, x, s.out, rows, width);
    }
    if (e->final_norm.gain) normalise_rows(&e->final_norm, x, rows, width, x);
    return failed;
}

#define GROUP_TOKENS 384 /* tokens for each thread that go through all layers together: their numbers stay in the cache */

/* The number of sequences, at least one, that go through all layers together, and their starts. */
static int64_t take_group(const int64_t *lengths, int64_t sequences, int64_t most, int64_t *starts) {
    int64_t taken = 0;
    starts[0] = 0;
    while (taken < sequences && (!taken || starts[taken] + lengths[taken] <= most))
        starts[taken + 1] = starts[taken] + lengths[taken], taken++;
    return taken;
}

int32_t encoder_forward(const Encoder *e, float *x, const int64_t *lengths, int64_t sequences, int32_t first_only,
                        int32_t threads) {
    const int64_t most = GROUP_TOKENS * (threads > 1 ? threads : 1);
    int64_t *starts = malloc((size_t)(sequences + 1) * sizeof *starts);
    if (!starts) return 1;
    int64_t longest = 0, total = 0;
    for (int64_t s = 0; s < sequences; s++) total += lengths[s], longest = lengths[s] > longest ? lengths[s] : longest;
    const int64_t largest = longest > most ? longest : most;
    Scratch scratch = make_scratch(e, total < largest ? total : largest);
    int32_t failed = !scratch.normed;
    float *group = x;
    for (int64_t done = 0; done < sequences && !failed;) {
        const int64_t taken = take_group(lengths + done, sequences - done, most, starts), tokens = starts[taken];
        failed = forward_sequences(e, group, lengths + done, starts, taken, first_only, scratch, threads);
        if (first_only) memmove(x + done * e->width, group, (size_t)(taken * e->width) * sizeof *x);
        group += tokens * e->width, done += taken;
    }
    free(scratch.normed);
    free(starts);
    return failed;
}
