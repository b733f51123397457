/* New tokens of a decoder with cross-attention through all blocks.

   The keys and values of a token, (layers, 2, kv_heads, head_dim), lie together, and those of each token anywhere: a
   sequence is a row of addresses. So sequences that begin alike share them, and none is ever moved or copied. Tokens of
   a source lie behind each other. */
#ifndef CLEARSTORY_CROSS_DECODER_H
#define CLEARSTORY_CROSS_DECODER_H

#include "layers.h"
#include "panel.h"

typedef struct {
    Norm attention_norm, cross_attention_norm, feed_forward_norm;
    PanelMatrix query_key_value, output, cross_query, cross_output, gate_up, down;
} CrossBlock;

typedef struct {
    int64_t layers, width, heads, kv_heads, head_dim, intermediate_size;
    int64_t activation, gated, norm_first;
    double score_scale;
    DistanceBias bias;
    Norm final_norm;
    const CrossBlock *blocks;
} CrossDecoder;

/* A row of x: a new token, after the others of its sequence. */
typedef struct {
    float *const *tokens; /* addresses of `length` tokens, itself the last */
    int64_t length;
    const float *source;
    int64_t source_length;
} CrossRow;

/* x, (rows, width): the input of the first block, replaced by the output of the final norm; the keys and values of each
   new token are written. A row may attend to a new token of a row before it. Returns 0, or 1 when memory is
   exhausted. */
int32_t cross_decoder_forward(const CrossDecoder *decoder, float *x, int64_t rows, const CrossRow *row,
                              int32_t threads);

#endif
