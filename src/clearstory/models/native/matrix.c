/* See matrix.h. */
#include "matrix.h"

#include <math.h>
#include <stdlib.h>

#include "block_tiles.h"

/* Where at least so many rows share a block of int8, its weights are widened to 16 bits once, as many blocks at a time as
   fill most of a first-level cache; WIDE_TILE rows then meet them at once: fewer than 3 or 6, since the products, too,
   need registers. Measured on a Zen 3. */
#define FROM_WIDE 8
#define WIDE_BYTES (24 << 10)
#define MAX_WIDE_INS (1 << 14) /* a block of so many inputs takes 128 KiB of a thread's stack */
#if ROW_TILE == MAX_TILE
#define WIDE_TILE 4
#else
#define WIDE_TILE 2
#endif
#define ROW_CHUNK 64    /* rows of x that stay in the cache while all weights pass */
#define PARALLEL (1 << 18) /* products from which threads take less time than they need to meet: about 10 microseconds */

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

ALWAYS void tile(const Matrix *m, const void *block, int64_t number, Inputs x, int64_t row, int n, int first,
                 floats4 *out) {
    switch (m->type) {
        case FP32: tile_floats(0, block, x, row, n, first, out); break;
        case FP16: tile_floats(1, block, x, row, n, first, out); break;
        case INT8: tile_int8(0, block, m->scales + number * BLOCK_OUTS, x, row, n, first, out); break;
        case INT8_GROUPS: tile_groups(0, block, x, row, n, first, out); break;
        default: tile_groups(1, block, x, row, n, first, out);
    }
}

/* Number of the outputs of a block, and their biases. */
ALWAYS int block_outs(const Matrix *m, int64_t number, floats4 *bias) {
    const int outs = m->outs - number * BLOCK_OUTS < BLOCK_OUTS ? m->outs - number * BLOCK_OUTS : BLOCK_OUTS;
    *bias = (floats4){0};
    if (m->bias) memcpy(bias, m->bias + number * BLOCK_OUTS, 4 * outs);
    return outs;
}

/* Sums of n rows as outputs of a block. */
ALWAYS void write_sums(const floats4 *sums, floats4 bias, int outs, int n, float *out, int64_t out_stride) {
    for (int a = 0; a < n; a++) {
        const floats4 numbers = sums[a] + bias;
        if (outs == BLOCK_OUTS) memcpy(out + a * out_stride, &numbers, sizeof numbers);
        else memcpy(out + a * out_stride, &numbers, 4 * outs);
    }
}

/* BLOCK_OUTS outputs of all rows. */
static void block_product(const Matrix *m, int64_t number, Inputs x, int64_t rows, float *out, int64_t out_stride) {
    const char *block = (const char *)m->blocks + number * block_bytes(m);
    floats4 sums[MAX_TILE], bias;
    const int outs = block_outs(m, number, &bias);
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
        write_sums(sums, bias, outs, n, out + row * out_stride + number * BLOCK_OUTS, out_stride);
    }
}

/* Outputs of the blocks from `number` to `end` of an int8 matrix, of all rows. */
static void wide_product(const Matrix *m, int64_t number, int64_t end, Inputs x, int64_t rows, float *out,
                         int64_t out_stride) {
    const int64_t size = BLOCK_OUTS * x.ins, count = (end - number) * size;
    const int8_t *narrow = (const int8_t *)m->blocks + number * size;
    int16_t wide[count];
    for (int64_t i = 0; i < count; i += LANES * BLOCK_OUTS) {
        prefetch(narrow + i, LANES * BLOCK_OUTS, 2);
        for (int64_t j = i; j < i + LANES * BLOCK_OUTS; j += 2 * FLOATS)
            *(loose_shorts *)(wide + j) = load_bytes(narrow + j);
    }
    floats4 sums[MAX_TILE], bias;
    for (int64_t row = 0; row < rows; row += WIDE_TILE) {
        const int n = rows - row < WIDE_TILE ? rows - row : WIDE_TILE;
        const int16_t *block = wide;
        for (int64_t b = number; b < end; b++, block += size) {
            const float *scales = m->scales + b * BLOCK_OUTS;
            switch (n) {
                case 1: tile_int8(1, block, scales, x, row, 1, 0, sums); break;
                case 2: tile_int8(1, block, scales, x, row, 2, 0, sums); break;
                case 3: tile_int8(1, block, scales, x, row, 3, 0, sums); break;
                default: tile_int8(1, block, scales, x, row, WIDE_TILE, 0, sums);
            }
            const int outs = block_outs(m, b, &bias);
            write_sums(sums, bias, outs, n, out + row * out_stride + b * BLOCK_OUTS, out_stride);
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
        const int wide = m->type == INT8 && count >= FROM_WIDE && ins <= MAX_WIDE_INS;
        const int64_t each = (blocks + threads - 1) / threads, fitting = WIDE_BYTES / (2 * BLOCK_OUTS * ins);
        const int64_t most = each < fitting ? each : fitting, together = wide && most > 1 ? most : 1;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count * m->outs * ins >= PARALLEL)
#endif
        for (int64_t number = 0; number < blocks; number += together) {
            const int64_t end = number + together < blocks ? number + together : blocks;
            if (wide) wide_product(m, number, end, inputs, count, to, out_stride);
            else block_product(m, number, inputs, count, to, out_stride);
        }
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
