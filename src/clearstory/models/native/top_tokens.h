/* The largest logits of each row, and the logarithm of the sum of all exponentials. */
#ifndef CLEARSTORY_TOP_TOKENS_H
#define CLEARSTORY_TOP_TOKENS_H

#include <stdint.h>

/* Of each row of `logits`, (rows, vocab), the `count` largest and their ids, (rows, count), largest first, of equal ones
   the first; and log_totals, (rows). NaN is never among the largest; log_totals then is NaN. */
void top_tokens(const float *logits, int64_t rows, int64_t vocab, int64_t count, float *values, int64_t *ids,
                double *log_totals, int32_t threads);

#endif
