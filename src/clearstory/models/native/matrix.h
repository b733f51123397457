/* Constant weight matrices in blocks, and their product with rows of fp32.

   A block holds BLOCK_OUTS outputs. Within it the weights of LANES inputs of the first output are followed by those of
   the same inputs of the second and so on: one sequential stream feeds BLOCK_OUTS sums, because decoding is as fast as
   memory is read. Inputs are padded with zeros to a multiple of LANES (PAIR in groups), outputs to one of BLOCK_OUTS.

   fp32, fp16   products and sums are fp32
   int8         inputs are rounded to 15 bits and a sign, with a scale for each row; products are exact; a scale per output
   groups       int8 or int4 weights as integer * scale + offset, the two in fp16 for each LANES inputs of an output;
                inputs as for int8. Two groups of each output lie together: integers, then scales, then offsets. In
                int4 a byte holds an integer of the first group in its lower half, of the second in its upper.

   Each sum is computed in one order, whatever the number of rows and of threads: a row does not depend on others.
*/
#ifndef CLEARSTORY_MATRIX_H
#define CLEARSTORY_MATRIX_H

#include <stdint.h>

#define LANES 32
#define PAIR (2 * LANES)
#define BLOCK_OUTS 4

enum { FP32, FP16, INT8, INT8_GROUPS, INT4_GROUPS };

typedef struct {
    int64_t type;         /* one of the above */
    int64_t outs, ins;    /* without padding */
    const void *blocks;
    const float *scales;  /* int8: of each output, with padding */
    const float *columns; /* inputs are multiplied by these; NULL for none */
    const float *bias;    /* NULL for none */
} Matrix;

/* out = (x * columns) W^T + bias, for rows that lie `x_stride` and `out_stride` floats apart. */
void matrix_product(const Matrix *matrix, const float *x, int64_t rows, int64_t x_stride, float *out,
                    int64_t out_stride, int32_t threads);

/* Whether these kernels were compiled with OpenMP; without it they run in one thread. */
int32_t kernels_have_threads(void);

#endif
