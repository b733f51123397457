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

Top start_top(int64_t count, float *values, int64_t *ids) {
    for (int64_t i = 0; i < count; i++) values[i] = -INFINITY, ids[i] = 0;
    return (Top){count, values, ids, -INFINITY, 0};
}

/* The sum of e^(x - most). */
static double sum_exponentials(const float *x, int64_t n, float most) {
    double total = 0;
    for (int64_t first = 0; first < n; first += PART) {
        const int64_t end = first + PART < n ? first + PART : n;
        floats lanes = {0};
        int64_t i = first;
        for (; i + FLOATS <= end; i += FLOATS) lanes += exponential(load(x + i) - most);
        for (; i < end; i++) total += exponential(all(x[i] - most))[0];
        total += sum_lanes(lanes);
    }
    return total;
}

void extend_top(Top *top, const float *x, int64_t n, int64_t first) {
    int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP)
        if (any_above(x + i, top->values[top->count - 1]))
            for (int j = 0; j < GROUP; j++) insert(x[i + j], first + i + j, top->count, top->values, top->ids);
    for (; i < n; i++) insert(x[i], first + i, top->count, top->values, top->ids);
    const float most = top->values[0];
    if (most > top->most) top->total *= exp((double)top->most - most), top->most = most;
    /* -infinity less itself is no number, and adds nothing. */
    top->total += sum_exponentials(x, n, most == -INFINITY ? 0 : most);
}

double log_total(const Top *top) { return isfinite(top->most) ? top->most + log(top->total) : NAN; }

void top_tokens(const float *logits, int64_t rows, int64_t vocab, int64_t count, float *values, int64_t *ids,
                double *log_totals, int32_t threads) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows > 1)
#endif
    for (int64_t r = 0; r < rows; r++) {
        Top top = start_top(count, values + r * count, ids + r * count);
        extend_top(&top, logits + r * vocab, vocab, 0);
        log_totals[r] = log_total(&top);
    }
    (void)threads;
}
