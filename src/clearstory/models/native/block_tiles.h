/* Tiles of products with blocks of a matrix (matrix.h): sums of a few rows and the outputs of one block, in registers. */
#ifndef CLEARSTORY_BLOCK_TILES_H
#define CLEARSTORY_BLOCK_TILES_H

#include "matrix.h"
#include "vectors.h"

#define MAX_TILE 6
#if defined(__AVX512BW__) || defined(__aarch64__)
#define ROW_TILE MAX_TILE /* rows of x that share one read of a block: as many as 32 registers have sums for, */
#else
#define ROW_TILE 3        /* or 16 registers */
#endif
/* Bytes that are fetched ahead of the stream, into the second-level cache: for one row, which only reads, and for
   several, whose sums take time. Measured on a Zen 4. */
#define AHEAD_OF_ONE 1024
#define AHEAD_OF_SEVERAL 8192
#define INTEGERS 32767  /* an input is rounded to so many steps of either sign */
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

/* `wide`: the weights have 16 bits. */
ALWAYS void tile_int8(int wide, const void *block, const float *scales, Inputs x, int64_t row, int n, int first,
                      floats4 *out) {
    floats sums[MAX_TILE][BLOCK_OUTS] = {0};
    const int16_t *start = x.integers + row * x.stride;
    const char *w = block;
    const int size = wide ? 2 : 1;
    for (int64_t from = 0; from < x.ins; from += EXACT_INS) {
        const int64_t to = x.ins - from < EXACT_INS ? x.ins : from + EXACT_INS;
        ints total[MAX_TILE][BLOCK_OUTS] = {0};
        for (int64_t j = from; j < to; j += LANES, w += size * LANES * BLOCK_OUTS) {
            if (first) prefetch(w, LANES * BLOCK_OUTS, n);
#pragma GCC unroll 4
            for (int part = 0; part < LANES; part += 2 * FLOATS) {
                shorts in[MAX_TILE];
#pragma GCC unroll 6
                for (int a = 0; a < n; a++) {
                    in[a] = *(const loose_shorts *)(start + a * x.stride + j + part);
                    if (wide) KEEP(in[a]);
                }
#pragma GCC unroll 4
                for (int b = 0; b < BLOCK_OUTS; b++) {
                    const char *at = w + size * (b * LANES + part);
                    shorts weights = wide ? (shorts)*(const loose_shorts *)at : load_bytes((const int8_t *)at);
                    if (wide) KEEP(weights);
#pragma GCC unroll 6
                    for (int a = 0; a < n; a++) {
                        total[a][b] = add_products(total[a][b], weights, in[a]);
                        if (wide) KEEP(total[a][b]); /* else products are computed early and lie in memory */
                    }
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

#endif
