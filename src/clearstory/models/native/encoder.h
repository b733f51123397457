/* All blocks of an encoder over sequences of any lengths, whose tokens lie behind each other without padding. */
#ifndef CLEARSTORY_ENCODER_H
#define CLEARSTORY_ENCODER_H

#include "layers.h"
#include "panel.h"

typedef struct {
    Norm attention_norm, feed_forward_norm;
    PanelMatrix query_key_value, output, gate_up, down;
} EncoderBlock;

typedef struct {
    int64_t layers, width, heads, kv_heads, head_dim, intermediate_size;
    int64_t activation, gated, norm_first;
    double score_scale;
    DistanceBias bias;
    Norm final_norm;
    const EncoderBlock *blocks;
} Encoder;

/* x, (tokens, width): the input of the first block, replaced by the output of the final norm. With `first_only`, the
   last block computes the first token of each sequence alone, and x begins with those, (sequences, width).
   Returns 0, or 1 when memory is exhausted. */
int32_t encoder_forward(const Encoder *encoder, float *x, const int64_t *lengths, int64_t sequences,
                        int32_t first_only, int32_t threads);

#endif
