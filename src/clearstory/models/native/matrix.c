/* See matrix.h. */
#include "matrix.h"

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

#define MAX_TILE 6
#if defined(__AVX512BW__) || defined(__aarch64__)
#define ROW_TILE MAX_TILE /* rows of x that share one read of a block: as many as 32 registers have sums for, */
#else
#define ROW_TILE 3        /* or 16 registers */
#endif
#define ROW_CHUNK 64    /* rows of x that stay in the cache while all weights pass */
/* Bytes that are fetched ahead of the stream, into the second-level cache: for one row, which only reads, and for
   several, whose sums take time. Measured on a Zen 4. */
#define AHEAD_OF_ONE 1024
#define AHEAD_OF_SEVERAL 8192
#define INTEGERS 32767  /* an input is rounded to so many steps of either sign */
#define PARALLEL (1 << 18) /* products from which threads take less time than they need to meet: about 10 microseconds */
#define EXACT_INS (512 * FLOATS) /* inputs of which a lane has 512 products: 512 * 127 * INTEGERS is below 2^31 */

/* Rows of inputs as the tiles read them: padded, and as integers where the weights are integers. */
typedef struct {
    const float *floats;
    const int16_t *integers;
    const float *scales; /* of each row's integers */
    const float *sums;   /* of each group of LANES integers */
    int64_t stride;      /* numbers between rows */
    int64_t ins;         /* with padding */
} Inputs;

ALWAYS void prefetch(const void *from, int64_t bytes, int rows) {
    const char *ahead = (const char *)from + (rows == 1 ? AHEAD_OF_ONE : AHEAD_OF_SEVERAL);
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(ahead + i, 0, 2);
}

static int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static int64_t padded_ins(const Matrix *m) { return padded(m->ins, m->type >= INT8_GROUPS ? PAIR : LANES); }

/* Bytes of a block of BLOCK_OUTS outputs. */
static int64_t block_bytes(const Matrix *m) {
    int64_t numbers = BLOCK_OUTS * padded_ins(m), scales = 2 * 2 * numbers / LANES;
    switch (m->type) {
        case FP32: return 4 * numbers;
        case FP16: return 2 * numbers;
        case INT8: return numbers;
        case INT8_GROUPS: return numbers + scales;
        default: return numbers / 2 + scales;
    }
}

/* Each tile writes BLOCK_OUTS sums for n rows from `row` on. `n`, and in tile_floats `half`, are constants wherever
   they are inlined; `first` says that the block comes from memory. */

ALWAYS void tile_floats(int half, const void *block, Inputs x, int64_t row, int n, int first, floats4 *out) {
    floats total[MAX_TILE][BLOCK_OUTS] = {0};
    const float *start = x.floats + row * x.stride;
    const char *w = block;
    const int size = half ? 2 : 4;
    for (int64_t j = 0; j < x.ins; j += LANES, w += size * LANES * BLOCK_OUTS) {
        if (first) prefetch(w, size * LANES * BLOCK_OUTS, n);
#pragma GCC unroll 8
        for (int part = 0; part < LANES; part += FLOATS) {
            floats in[MAX_TILE];
#pragma GCC unroll 6
            for (int a = 0; a < n; a++) {
                in[a] = load(start + a * x.stride + j + part);
                if (n > 1) KEEP(in[a]);
            }
#pragma GCC unroll 4
            for (int b = 0; b < BLOCK_OUTS; b++) {
                const char *at = w + size * (b * LANES + part);
                floats weights = half ? load_half((const uint16_t *)at) : load((const float *)at);
                if (n > 1) KEEP(weights);
#pragma GCC unroll 6
                for (int a = 0; a < n; a++) total[a][b] += weights * in[a];
            }
        }
    }
#pragma GCC unroll 6
    for (int a = 0; a < n; a++)
        out[a] = sum_four(total[a][0], total[a][1], total[a][2], total[a][3]);
}

ALWAYS void tile_int8(const void *block, const float *scales, Inputs x, int64_t row, int n, int first, floats4 *out) {
    floats sums[MAX_TILE][BLOCK_OUTS] = {0};
    const int16_t *start = x.integers + row * x.stride;
    const int8_t *w = block;
    for (int64_t from = 0; from < x.ins; from += EXACT_INS) {
        const int64_t to = x.ins - from < EXACT_INS ? x.ins : from + EXACT_INS;
        ints total[MAX_TILE][BLOCK_OUTS] = {0};
        for (int64_t j = from; j < to; j += LANES, w += LANES * BLOCK_OUTS) {
            if (first) prefetch(w, LANES * BLOCK_OUTS, n);
#pragma GCC unroll 4
            for (int part = 0; part < LANES; part += 2 * FLOATS) {
                shorts in[MAX_TILE];
#pragma GCC unroll 6
                for (int a = 0; a < n; a++) in[a] = *(const loose_shorts *)(start + a * x.stride + j + part);
#pragma GCC unroll 4
                for (int b = 0; b < BLOCK_OUTS; b++) {
                    shorts weights = load_bytes(w + b * LANES + part);
#pragma GCC unroll 6
                    for (int a = 0; a < n; a++) total[a][b] = add_products(total[a][b], weights, in[a]);
                }
            }
        }
#pragma GCC unroll 6
        for (int a = 0; a < n; a++)
#pragma GCC unroll 4
            for (int b = 0; b < BLOCK_OUTS; b++) sums[a][b] += __builtin_convertvector(total[a][b], floats);
    }
    floats4 of_outputs;
    memcpy(&of_outputs, scales, sizeof of_outputs);
#pragma GCC unroll 6
    for (int a = 0; a < n; a++)
        out[a] = sum_four(sums[a][0], sums[a][1], sums[a][2], sums[a][3]) * of_outputs
                 * x.scales[row + a];
}

ALWAYS void tile_groups(int int4, const void *block, Inputs x, int64_t row, int n, int first, floats4 *out) {
    floats total[MAX_TILE][BLOCK_OUTS] = {0};
    floats4 offset_total[MAX_TILE] = {0};
    const int16_t *start = x.integers + row * x.stride;
    const float *sums = x.sums + row * (x.stride / LANES);
    const int integer_bytes = int4 ? LANES * BLOCK_OUTS : PAIR * BLOCK_OUTS;
    const char *w = block;
    for (int64_t j = 0; j < x.ins; j += PAIR, w += integer_bytes + 2 * 2 * 2 * BLOCK_OUTS) {
        if (first) prefetch(w, integer_bytes + 64, n);
        /* Scales of the first group's outputs, of the second's, then their offsets. */
        float numbers[4][BLOCK_OUTS];
        for (int i = 0; i < 4 * BLOCK_OUTS; i += FLOATS)
            store(&numbers[0][0] + i, load_half((const uint16_t *)(w + integer_bytes) + i));
#pragma GCC unroll 6
        for (int a = 0; a < n; a++)
#pragma GCC unroll 2
            for (int g = 0; g < 2; g++) {
                floats4 offsets;
                memcpy(&offsets, numbers[2 + g], sizeof offsets);
                offset_total[a] += offsets * sums[a * (x.stride / LANES) + j / LANES + g];
            }
#pragma GCC unroll 4
        for (int part = 0; part < LANES; part += 2 * FLOATS) {
            shorts in[MAX_TILE][2];
#pragma GCC unroll 6
            for (int a = 0; a < n; a++)
#pragma GCC unroll 2
                for (int g = 0; g < 2; g++)
                    in[a][g] = *(const loose_shorts *)(start + a * x.stride + j + g * LANES + part);
#pragma GCC unroll 4
            for (int b = 0; b < BLOCK_OUTS; b++) {
                shorts weights[2];
                if (int4) {
                    shorts both = load_unsigned_bytes((const uint8_t *)w + b * LANES + part);
                    weights[0] = both & 15, weights[1] = both >> 4;
                } else {
                    weights[0] = load_bytes((const int8_t *)w + b * PAIR + part);
                    weights[1] = load_bytes((const int8_t *)w + b * PAIR + LANES + part);
                }
#pragma GCC unroll 6
                for (int a = 0; a < n; a++)
#pragma GCC unroll 2
                    for (int g = 0; g < 2; g++) {
                        ints products = add_products((ints){0}, weights[g], in[a][g]);
                        total[a][b] += __builtin_convertvector(products, floats) * numbers[g][b];
                    }
            }
        }
    }
#pragma GCC unroll 6
    for (int a = 0; a < n; a++) {
        floats4 sums = sum_four(total[a][0], total[a][1], total[a][2], total[a][3]);
        out[a] = (sums + offset_total[a]) * x.scales[row + a];
    }
}

ALWAYS void tile(const Matrix *m, const void *block, int64_t number, Inputs x, int64_t row, int n, int first,
                 floats4 *out) {
    switch (m->type) {
        case FP32: tile_floats(0, block, x, row, n, first, out); break;
        case FP16: tile_floats(1, block, x, row, n, first, out); break;
        case INT8: tile_int8(block, m->scales + number * BLOCK_OUTS, x, row, n, first, out); break;
        case INT8_GROUPS: tile_groups(0, block, x, row, n, first, out); break;
        default: tile_groups(1, block, x, row, n, first, out);
    }
}

/* BLOCK_OUTS outputs of all rows. */
static void block_product(const Matrix *m, int64_t number, Inputs x, int64_t rows, float *out, int64_t out_stride) {
    const char *block = (const char *)m->blocks + number * block_bytes(m);
    floats4 sums[MAX_TILE];
    int outs = m->outs - number * BLOCK_OUTS < BLOCK_OUTS ? m->outs - number * BLOCK_OUTS : BLOCK_OUTS;
    floats4 bias = {0};
    if (m->bias) memcpy(&bias, m->bias + number * BLOCK_OUTS, 4 * outs);
    for (int64_t row = 0; row < rows; row += ROW_TILE) {
        int n = rows - row < ROW_TILE ? rows - row : ROW_TILE;
        switch (n) {
            case 1: tile(m, block, number, x, row, 1, 1, sums); break;
            case 2: tile(m, block, number, x, row, 2, row == 0, sums); break;
            case 3: tile(m, block, number, x, row, 3, row == 0, sums); break;
            case 4: tile(m, block, number, x, row, 4, row == 0, sums); break;
            case 5: tile(m, block, number, x, row, 5, row == 0, sums); break;
            default: tile(m, block, number, x, row, MAX_TILE, row == 0, sums);
        }
        for (int a = 0; a < n; a++) {
            float *to = out + (row + a) * out_stride + number * BLOCK_OUTS;
            const floats4 numbers = sums[a] + bias;
            if (outs == BLOCK_OUTS) memcpy(to, &numbers, sizeof numbers);
            else memcpy(to, &numbers, 4 * outs);
        }
    }
}

/* One row as integers of 15 bits and a sign: x is near scale * integer. Infinities and NaN make the scale NaN. */
static void round_row(const float *x, int64_t ins, int64_t with_padding, int16_t *integers, float *scale, float *sums) {
    int32_t bits = 0; /* magnitudes of floats are ordered as their bits */
    for (int64_t j = 0; j < ins; j++) {
        int32_t each;
        memcpy(&each, x + j, 4);
        each &= 0x7fffffff;
        bits = each > bits ? each : bits;
    }
    float largest;
    memcpy(&largest, &bits, 4);
    const float factor = bits > 0 ? INTEGERS / largest : 0;
    for (int64_t j = 0; j < ins; j++) {
        float number = x[j] * factor;
        integers[j] = (int16_t)(int32_t)(number + (number < 0 ? -0.5f : 0.5f));
    }
    for (int64_t j = ins; j < with_padding; j++) integers[j] = 0;
    *scale = bits < 0x7f800000 ? largest / INTEGERS : NAN;
    for (int64_t g = 0; sums && g < with_padding / LANES; g++) {
        int32_t total = 0;
        for (int64_t j = g * LANES; j < (g + 1) * LANES; j++) total += integers[j];
        sums[g] = (float)total;
    }
}

void matrix_product(const Matrix *m, const float *x, int64_t rows, int64_t x_stride, float *out, int64_t out_stride,
                    int32_t threads) {
    const int64_t ins = padded_ins(m), blocks = padded(m->outs, BLOCK_OUTS) / BLOCK_OUTS;
    const int64_t chunk = rows < ROW_CHUNK ? rows : ROW_CHUNK;
    const int integers = m->type >= INT8, copied = integers || m->columns || ins != m->ins;
    /* Floats, integers, scales and sums of a chunk of rows. */
    float *scratch = copied ? malloc((size_t)(chunk * (ins * 4 + ins * 2 + 4 + ins / LANES * 4))) : NULL;
    for (int64_t start = 0; start < rows; start += chunk) {
        const int64_t count = rows - start < chunk ? rows - start : chunk;
        Inputs inputs = {.floats = x + start * x_stride, .stride = x_stride, .ins = ins};
        if (copied) {
            int16_t *whole = (int16_t *)(scratch + chunk * ins);
            float *scales = (float *)(whole + chunk * ins), *sums = scales + chunk;
            for (int64_t r = 0; r < count; r++) {
                const float *from = x + (start + r) * x_stride;
                float *to = scratch + r * ins;
                for (int64_t j = 0; j < m->ins; j++) to[j] = m->columns ? from[j] * m->columns[j] : from[j];
                for (int64_t j = m->ins; j < ins; j++) to[j] = 0;
                if (integers) round_row(to, m->ins, ins, whole + r * ins, scales + r, sums + r * (ins / LANES));
            }
            inputs = (Inputs){scratch, whole, scales, sums, ins, ins};
        }
        float *to = out + start * out_stride;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count * m->outs * ins >= PARALLEL)
#endif
        for (int64_t number = 0; number < blocks; number++) block_product(m, number, inputs, count, to, out_stride);
    }
    free(scratch);
}

int32_t kernels_have_threads(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
