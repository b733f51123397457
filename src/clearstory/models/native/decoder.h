/* One decoding step of a decoder-only Transformer: one token of each sequence through all blocks. */
#ifndef CLEARSTORY_DECODER_H
#define CLEARSTORY_DECODER_H

#include "layers.h"
#include "matrix.h"

typedef struct {
    Norm attention_norm, feed_forward_norm;
    Norm attention_output_norm, feed_forward_output_norm; /* of what is added to the residual stream, if any */
    Norm head_norm; /* of each query and key: gains of all heads, queries first */
    int64_t window; /* tokens that a token attends to; 0 for all */
    int64_t local;  /* whether it has the rotations of layers with a window of their own */
    Matrix query_key_value, output, gate_up, down;
} Block;

typedef struct {
    int64_t layers, width, heads, kv_heads, head_dim, intermediate_size;
    int64_t activation, gated, norm_first;
    double score_scale;
    Norm final_norm;
    const Block *blocks;
} Decoder;

/* The cache of a sequence: keys and values (layers, 2, kv_heads, capacity, head_dim), of which `kept` are in use, the
   last of them for the new token. */
typedef struct {
    float *data;
    int64_t capacity, kept;
} Cache;

/* x, (rows, width): the embeddings of the tokens, replaced by the output of the final norm. cos and sin, (rows,
   head_dim / 2), rotate queries and keys by position, local_cos and local_sin those of local blocks; NULL for no
   rotation. Keys and values are written into the caches.
   Returns 0, or 1 when memory is exhausted. */
int32_t decoder_step(const Decoder *decoder, float *x, int64_t rows, const float *cos, const float *sin,
                     const float *local_cos, const float *local_sin, const Cache *caches, int32_t threads);

#endif
