/* The largest logits of each row, and the logarithm of the sum of all exponentials. */
#ifndef CLEARSTORY_TOP_TOKENS_H
#define CLEARSTORY_TOP_TOKENS_H

#include <stdint.h>

/* Of each row of `logits`, (rows, vocab), the `count` largest and their ids, (rows, count), largest first, of equal ones
   the first; and log_totals, (rows). NaN is never among the largest; log_totals then is NaN, as where a logit is
   infinite or none is more than -infinity. */
void top_tokens(const float *logits, int64_t rows, int64_t vocab, int64_t count, float *values, int64_t *ids,
                double *log_totals, int32_t threads);

/* A row of which some logits were seen: the largest, and the sum of all exponentials over that of the largest. */
typedef struct {
    int64_t count;
    float *values;
    int64_t *ids;
    float most;
    double total;
} Top;

Top start_top(int64_t count, float *values, int64_t *ids);

/* Adds n logits of the ids from `first` on. */
void extend_top(Top *top, const float *logits, int64_t n, int64_t first);

double log_total(const Top *top);

#endif
