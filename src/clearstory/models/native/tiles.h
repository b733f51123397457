/* Tiles of products: sums of a few rows and two vectors of outputs, in registers. */
#ifndef CLEARSTORY_TILES_H
#define CLEARSTORY_TILES_H

#include "vectors.h"

#define TILE_OUTS (2 * FLOATS)
#if FLOATS == 16 || defined(__aarch64__)
#define TILE_ROWS 12 /* 32 registers */
#else
#define TILE_ROWS 6
#endif

/* sums[r][c] = a[r] . b, for n rows of `count` numbers; the numbers of b for one k, fp32 or fp16 (`half`), lie side by
   side. n and half are constants wherever this is inlined. */
ALWAYS void float_tile(const float *a, int64_t a_stride, const void *b, int half, int64_t b_stride, int64_t count, int n,
                       floats sums[TILE_ROWS][2]) {
    floats total[TILE_ROWS][2] = {0};
    for (int64_t k = 0; k < count; k++) {
        const float *wide = (const float *)b + k * b_stride;
        const uint16_t *narrow = (const uint16_t *)b + k * b_stride;
        floats first = half ? load_half(narrow) : load(wide);
        floats second = half ? load_half(narrow + FLOATS) : load(wide + FLOATS);
        KEEP(first);
        KEEP(second);
#pragma GCC unroll 12
        for (int r = 0; r < n; r++) {
            floats number = all(a[r * a_stride + k]);
            KEEP(number);
            total[r][0] += number * first;
            total[r][1] += number * second;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < n; r++) sums[r][0] = total[r][0], sums[r][1] = total[r][1];
}

/* Calls a function with a constant number of rows. */
#define FOR_ROWS(n, call)           \
    switch (n) {                    \
        case 1: call(1); break;     \
        case 2: call(2); break;     \
        case 3: call(3); break;     \
        case 4: call(4); break;     \
        case 5: call(5); break;     \
        case 6: call(6); break;     \
        case 7: call(7); break;     \
        case 8: call(8); break;     \
        case 9: call(9); break;     \
        case 10: call(10); break;   \
        case 11: call(11); break;   \
        default: call(TILE_ROWS);   \
    }

#endif
