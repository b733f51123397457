/* Constant weight matrices in panels, and their product with many rows of fp32 at once.

   A panel holds PANEL outputs: their weights of the first input, then those of the second and so on. A tile of rows
   keeps its sums in registers while it goes through a panel, and each number of a row meets a whole vector of weights:
   where many rows share each read of the weights, arithmetic is the limit, not memory as in matrix.h.

   fp32   products and sums are fp32
   fp16   weights alone are fp16
   int8   weights with a scale for each output; inputs are rounded to 8 bits, with a scale and a zero point for each row;
          weights of four inputs lie together, and products are exact

   Each sum is computed in one order, whatever the number of rows and of threads: a row does not depend on others.
*/
#ifndef CLEARSTORY_PANEL_H
#define CLEARSTORY_PANEL_H

#include <stdint.h>

#define PANEL 32
#define QUAD 4 /* int8: inputs that lie together */

enum { PANELS_FP32, PANELS_INT8, PANELS_FP16 };

typedef struct {
    int64_t type;         /* one of the above */
    int64_t outs, ins;    /* without padding */
    const void *panels;   /* (outs / PANEL, ins, PANEL), or in int8 (outs / PANEL, ins / QUAD, PANEL, QUAD) */
    const float *scales;  /* int8: of each output */
    const float *sums;    /* int8: of each output's integers */
    const float *columns; /* int8: inputs are multiplied by these; NULL for none */
    const float *bias;    /* NULL for none; like all others padded with zeros to whole panels and quads */
} PanelMatrix;

/* out = activation(x W^T + bias), for rows that lie `x_stride` and `out_stride` floats apart; no activation function if
   negative. Returns 0, or 1 when memory is exhausted. */
int32_t panel_product(const PanelMatrix *matrix, const float *x, int64_t rows, int64_t x_stride, float *out,
                      int64_t out_stride, int64_t activation, int32_t threads);

/* Of x W^T + bias the `count` largest of each row and their ids, (rows, count), and the logarithms of the sums of all
   exponentials, (rows), as top_tokens finds them; the products are not kept. Returns 0, or 1 when memory is
   exhausted. */
int32_t panel_top(const PanelMatrix *matrix, const float *x, int64_t rows, int64_t x_stride, int64_t count,
                  float *values, int64_t *ids, double *log_totals, int32_t threads);

#endif
