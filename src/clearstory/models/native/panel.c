/* See panel.h. */
#include "panel.h"

#include <math.h>
#include <stdlib.h>

#include "layers.h"
#include "tiles.h"
#include "top_tokens.h"

#define BLOCK_BYTES (384 << 10) /* rows that stay in the second-level cache while all panels pass */
#define MOST_ROWS 192
#define PARALLEL (1 << 20) /* products from which threads take less time than they need to meet */

/* A block of rows as the tiles read them: in int8 as bytes, which stand for (byte - zero) * scale. */
typedef struct {
    const float *floats;
    const uint8_t *bytes;
    const float *scales, *zeros;
    int64_t stride; /* numbers between rows */
} Rows;

static int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* sums[r][c] += a[r] . b in integers, four products of bytes in each lane. */
ALWAYS void byte_tile(const uint8_t *a, int64_t a_stride, const int8_t *b, int64_t quads, int n,
                      ints sums[TILE_ROWS][2]) {
    ints total[TILE_ROWS][2] = {0};
    for (int64_t q = 0; q < quads; q++) {
        bytes4 first = load_quads(b + q * PANEL * QUAD), second = load_quads(b + (q * PANEL + FLOATS) * QUAD);
#pragma GCC unroll 12
        for (int r = 0; r < n; r++) {
            int32_t four;
            memcpy(&four, a + r * a_stride + q * QUAD, sizeof four);
            ints numbers = (ints){0} + four;
            total[r][0] = add_byte_products(total[r][0], numbers, first);
            total[r][1] = add_byte_products(total[r][1], numbers, second);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < n; r++) sums[r][0] = total[r][0], sums[r][1] = total[r][1];
}

ALWAYS floats activated(int64_t kind, floats v) {
    switch (kind) {
        case GELU: return gelu(v);
        case GELU_TANH: return gelu_tanh(v);
        case RELU: return relu(v);
        case SILU: return silu(v);
        default: return v;
    }
}

/* Outputs from `out` on of n rows from `row` on. */
static inline __attribute__((always_inline)) void tile(const PanelMatrix *m, Rows x, int64_t row, int n, int64_t out,
                                                       float *to, int64_t to_stride, int64_t activation) {
    floats sums[TILE_ROWS][2];
    const int64_t panel = out / PANEL, within = out % PANEL;
    if (m->type == PANELS_FP32) {
        const float *weights = (const float *)m->panels + panel * m->ins * PANEL + within;
        float_tile(x.floats + row * x.stride, x.stride, weights, 0, PANEL, m->ins, n, sums);
    } else if (m->type == PANELS_FP16) {
        const uint16_t *weights = (const uint16_t *)m->panels + panel * m->ins * PANEL + within;
        float_tile(x.floats + row * x.stride, x.stride, weights, 1, PANEL, m->ins, n, sums);
    } else {
        ints whole[TILE_ROWS][2];
        const int64_t ins = padded(m->ins, QUAD);
        const int8_t *weights = (const int8_t *)m->panels + panel * ins * PANEL + within * QUAD;
        byte_tile(x.bytes + row * x.stride, x.stride, weights, ins / QUAD, n, whole);
        for (int r = 0; r < n; r++)
            for (int c = 0; c < 2; c++) {
                const int64_t at = out + c * FLOATS;
                const floats products = __builtin_convertvector(whole[r][c], floats) - load(m->sums + at) * x.zeros[row + r];
                sums[r][c] = products * (load(m->scales + at) * x.scales[row + r]);
            }
    }
    const int64_t left = m->outs - out;
    for (int r = 0; r < n; r++)
        for (int c = 0; c < 2; c++) {
            const int64_t rest = left - c * FLOATS;
            if (rest <= 0) continue;
            floats v = sums[r][c];
            if (m->bias) v += load(m->bias + out + c * FLOATS);
            v = activated(activation, v);
            float *at = to + (row + r) * to_stride + out + c * FLOATS;
            if (rest >= FLOATS) store(at, v);
            else memcpy(at, &v, 4 * rest);
        }
}

static void panel_rows(const PanelMatrix *m, int64_t number, Rows x, int64_t rows, float *out, int64_t out_stride,
                       int64_t activation) {
    for (int64_t first = number * PANEL; first < (number + 1) * PANEL && first < m->outs; first += TILE_OUTS)
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const int n = rows - row < TILE_ROWS ? rows - row : TILE_ROWS;
#define CALL(n) tile(m, x, row, n, first, out, out_stride, activation)
            FOR_ROWS(n, CALL)
#undef CALL
        }
}

/* One row in 8 bits: x * columns is near (byte - zero) * scale. Infinities and NaN make the scale NaN. `padded_ins` is
   a multiple of the vector's length, and all of `scratch` and `to` are written. */
static void round_to_bytes(const PanelMatrix *m, const float *x, int64_t padded_ins, uint8_t *to, float *scale,
                           float *zero, float *scratch) {
    typedef uint8_t numbers __attribute__((vector_size(FLOATS), aligned(1), may_alias));
    floats low = {0}, high = {0}, nothing = {0};
    float least = 0, most = 0;
    if (m->columns || m->ins < padded_ins) {
        for (int64_t j = 0; j < m->ins; j++) scratch[j] = m->columns ? x[j] * m->columns[j] : x[j];
        for (int64_t j = m->ins; j < padded_ins; j++) scratch[j] = 0;
        x = scratch;
    }
    for (int64_t j = 0; j < padded_ins; j += FLOATS) {
        const floats v = load(x + j);
        low = lesser(v, low), high = greater(v, high), nothing += v * 0;
    }
    for (int i = 0; i < FLOATS; i++) least = low[i] < least ? low[i] : least, most = high[i] > most ? high[i] : most;
    *scale = (most - least) / 255 + sum_lanes(nothing);
    const float factor = *scale > 0 ? 1 / *scale : 0;
    *zero = floorf(-least * factor + 0.5f);
    const float shift = *zero + 0.5f;
    for (int64_t j = 0; j < padded_ins; j += FLOATS) {
        const floats v = lesser(load(x + j) * factor + shift, all(255));
        *(numbers *)(to + j) = __builtin_convertvector(__builtin_convertvector(v, ints), numbers);
    }
}

/* What rows need to be computed in blocks: their number, and memory for their bytes in int8. */
typedef struct {
    int64_t rows, ins;
    float *memory;
} Block;

/* Returns 0, or 1 when memory is exhausted. */
static int32_t make_block(const PanelMatrix *m, int64_t rows, Block *block) {
    const int64_t ins = padded(m->ins, 16);
    int64_t most = BLOCK_BYTES / (4 * ins) / TILE_ROWS * TILE_ROWS;
    most = most < TILE_ROWS ? TILE_ROWS : most > MOST_ROWS ? MOST_ROWS : most;
    *block = (Block){rows < most ? rows : most, ins, NULL};
    if (m->type != PANELS_INT8) return 0;
    block->memory = malloc((size_t)(4 * (ins + 2 * block->rows) + block->rows * ins));
    return !block->memory;
}

static Rows block_inputs(const PanelMatrix *m, const Block *block, const float *x, int64_t rows, int64_t stride) {
    if (!block->memory) return (Rows){.floats = x, .stride = stride};
    float *scales = block->memory + block->ins, *zeros = scales + block->rows;
    uint8_t *numbers = (uint8_t *)(zeros + block->rows);
    for (int64_t r = 0; r < rows; r++)
        round_to_bytes(m, x + r * stride, block->ins, numbers + r * block->ins, scales + r, zeros + r, block->memory);
    return (Rows){NULL, numbers, scales, zeros, block->ins};
}

int32_t panel_product(const PanelMatrix *m, const float *x, int64_t rows, int64_t x_stride, float *out,
                      int64_t out_stride, int64_t activation, int32_t threads) {
    const int64_t panels = padded(m->outs, PANEL) / PANEL;
    Block block;
    if (make_block(m, rows, &block)) return 1;
    for (int64_t start = 0; start < rows; start += block.rows) {
        const int64_t count = rows - start < block.rows ? rows - start : block.rows;
        const Rows inputs = block_inputs(m, &block, x + start * x_stride, count, x_stride);
        float *to = out + start * out_stride;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count * m->outs * m->ins >= PARALLEL)
#endif
        for (int64_t number = 0; number < panels; number++)
            panel_rows(m, number, inputs, count, to, out_stride, activation);
    }
    free(block.memory);
    (void)threads;
    return 0;
}

#define PART 16 /* panels whose outputs stay in the second-level cache until they are compared */

int32_t panel_top(const PanelMatrix *m, const float *x, int64_t rows, int64_t x_stride, int64_t count, float *values,
                  int64_t *ids, double *log_totals, int32_t threads) {
    const int64_t panels = padded(m->outs, PANEL) / PANEL, width = PART * PANEL;
    Block block;
    if (make_block(m, rows, &block)) return 1;
    float *logits = malloc((size_t)(block.rows * width) * sizeof *logits + 1);
    Top *tops = malloc((size_t)block.rows * sizeof *tops + 1);
    const int32_t failed = !logits || !tops;
    for (int64_t start = 0; start < rows && !failed; start += block.rows) {
        const int64_t n = rows - start < block.rows ? rows - start : block.rows;
        const Rows inputs = block_inputs(m, &block, x + start * x_stride, n, x_stride);
        for (int64_t r = 0; r < n; r++)
            tops[r] = start_top(count, values + (start + r) * count, ids + (start + r) * count);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) if (threads > 1 && n * m->outs * m->ins >= PARALLEL)
#endif
        for (int64_t first = 0; first < panels; first += PART) {
            const int64_t end = first + PART < panels ? first + PART : panels, out = first * PANEL;
            const int64_t outs = m->outs - out < width ? m->outs - out : width;
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
            for (int64_t number = first; number < end; number++)
                panel_rows(m, number, inputs, n, logits - out, width, -1);
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
            for (int64_t r = 0; r < n; r++) extend_top(tops + r, logits + r * width, outs, out);
        }
        for (int64_t r = 0; r < n; r++) log_totals[start + r] = log_total(tops + r);
    }
    free(tops);
    free(logits);
    free(block.memory);
    (void)threads;
    return failed;
}
