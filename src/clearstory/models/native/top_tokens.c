/* See top_tokens.h. */
#include "top_tokens.h"

#include <math.h>

#include "layers.h"

#define GROUP (4 * FLOATS) /* logits that are compared with the least of the largest at once */
#define PART (64 * FLOATS) /* exponentials that are summed in fp32 */

/* Puts a logit among the largest, in order, if it is one of them. */
static void insert(float value, int64_t id, int64_t count, float *values, int64_t *ids) {
    if (!(value > values[count - 1])) return;
    int64_t at = count - 1;
    for (; at > 0 && value > values[at - 1]; at--) values[at] = values[at - 1], ids[at] = ids[at - 1];
    values[at] = value, ids[at] = id;
}

/* Whether any of GROUP numbers is greater than a bound. */
ALWAYS int any_above(const float *x, float bound) {
    ints above = load(x) > bound;
    for (int i = 1; i < 4; i++) above |= load(x + i * FLOATS) > bound;
    uint64_t words[FLOATS / 2], some = 0;
    memcpy(words, &above, sizeof words);
    for (int i = 0; i < FLOATS / 2; i++) some |= words[i];
    return some != 0;
}

static void largest(const float *x, int64_t vocab, int64_t count, float *values, int64_t *ids) {
    for (int64_t i = 0; i < count; i++) values[i] = -INFINITY, ids[i] = 0;
    int64_t first = 0;
    for (; first + GROUP <= vocab; first += GROUP)
        if (any_above(x + first, values[count - 1]))
            for (int i = 0; i < GROUP; i++) insert(x[first + i], first + i, count, values, ids);
    for (; first < vocab; first++) insert(x[first], first, count, values, ids);
}

static double log_total(const float *x, int64_t vocab, float most) {
    double total = 0;
    for (int64_t first = 0; first < vocab; first += PART) {
        const int64_t end = first + PART < vocab ? first + PART : vocab;
        floats lanes = {0};
        int64_t i = first;
        for (; i + FLOATS <= end; i += FLOATS) lanes += exponential(load(x + i) - most);
        for (; i < end; i++) total += exponential(all(x[i] - most))[0];
        total += sum_lanes(lanes);
    }
    return most + log(total);
}

void top_tokens(const float *logits, int64_t rows, int64_t vocab, int64_t count, float *values, int64_t *ids,
                double *log_totals, int32_t threads) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows > 1)
#endif
    for (int64_t r = 0; r < rows; r++) {
        const float *x = logits + r * vocab;
        largest(x, vocab, count, values + r * count, ids + r * count);
        log_totals[r] = log_total(x, vocab, values[r * count]);
    }
    (void)threads;
}
