"""Costs: the memory and the arithmetic of a model, reckoned from its parts. Nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.recipes.planning.parameter_groups import LABELS, ParameterGroup

ACTIVATION_VECTORS = {"relu": 1, "gelu": 2, "silu": 2, "gelu_tanh": 3}
"""Vectors of the feed-forward layer's width that a bend's backward pass needs, what comes out of it included; relu
needs nothing else, and our tanh form of GELU keeps its gate."""

QK_PRODUCTS, WEIGHTED_VALUES = "attention: Q Kᵀ", "attention: their values"

HASHED_NGRAM_TABLE = "rows"
"""The part of `recall` that is a table."""

NOT_MULTIPLIED = ("embedding", "states", "heads")
"""Groups that a token is not multiplied with: rows that are looked up, and heads for whole texts."""


def activation_numbers(parts: Sequence[ParameterGroup], config: Any, context: int) -> tuple[int, str]:
    """Numbers that the backward pass needs of each token, with nothing computed twice but fused attention's weights;
    and the formula in words.

    A Transformer keeps, for each step, the stream that goes into its norm and what comes out; for attention queries,
    keys, values and answers; for the feed-forward layer what stands before and after its bend.
    """
    if isinstance(config, RecurrentConfig):
        memories = 2 if config.cell == "lstm" else 1
        inputs = sum(part.shape[0] * part.layers for part in parts if part.symbol == "W")
        gates = sum(part.shape[1] * (part.count_per_layer + memories) * part.layers for part in parts if part.symbol == "U")
        return inputs + gates, "each layer's inputs, gates and memory; kernels may keep more"
    c = config
    kept = {"W_q": 3 if c.qk_norm else 2, "W_k": 2 if c.qk_norm else 1, "W_v": 1}
    bent = ACTIVATION_VECTORS[c.activation] + 2 * c.gated
    numbers = 2 * c.width
    for part in parts:
        if part.symbol in kept:
            numbers += kept[part.symbol] * part.shape[1] * part.count_per_layer * part.layers
        if part.symbol == "W_1":
            numbers += bent * part.shape[1] * part.layers
        if part.symbol in ("W_q", "W_1"):  # one of each step
            numbers += 2 * c.width * part.layers
    heads = "3 q + 2 k + v" if c.qk_norm else "2 q + k + v"
    formula = f"L (4 d + {heads} + {bent if bent > 1 else ''} h) + 2 d".replace("  ", " ")
    words = (
        f"{formula} numbers for each token, with q, k, v and h the queries, keys, values and feed-forward width of a "
        "layer. Attention is fused and keeps no T × T weights, and nothing is computed twice; compare Korthikanti et "
        "al. 2022, eq. 2"
    )
    if c.architecture == "encoder-decoder":
        words += f". For a token of the source and one of the answer; looking across is another 2 d + {heads}"
    if c.positions == "buckets":
        numbers += sum(
            part.count_per_layer * part.layers * context for part in parts if part.symbol == "W_q" and part.name != "cross query"
        )
        words += ". Learnt biases keep attention to itself from being fused: T more for each of its heads"
    return numbers, words


def cache_numbers(parts: Sequence[ParameterGroup], config: Any, context: int) -> tuple[int, str]:
    """Numbers that generating keeps of one row, and the formula in words: keys and values of a context (and of a
    source of that length, where there is one), a memory of fixed size, or nothing.
    """
    if isinstance(config, RecurrentConfig):
        memories = 2 if config.cell == "lstm" else 1
        return memories * sum(config.units), "a memory of fixed size for each row, however long"
    c = config
    if c.architecture == "encoder":
        return 0, "an encoder generates nothing"
    kept = context if c.sliding_window is None else min(context, c.sliding_window)
    read = [part for part in parts if part.symbol in ("W_k", "W_v") and not part.name.startswith("encoder ")]
    per_token = sum(part.shape[1] * part.count_per_layer * part.layers for part in read)
    words = "L (k + v) numbers for each token of the context"
    return per_token * kept, f"{words}, and of the source" if c.architecture == "encoder-decoder" else words


def memory_breakdown(parts: Sequence[ParameterGroup], config: Any, rows: int, context: int) -> dict[str, int]:
    """Bytes of the weights, what training adds to them, and what generating keeps, for rows of `context` tokens.

    AdamW remembers two numbers of each parameter; the rows that are recalled have sparse gradients, of which nothing is
    kept, and are moved by Adagrad with one number a row.
    """
    parameters = sum(part.parameters for part in parts)
    rows_recalled = sum(part.shape[0] for part in parts if part.name == HASHED_NGRAM_TABLE)
    dense = sum(part.parameters for part in parts if part.name != HASHED_NGRAM_TABLE)
    activations = rows * context * activation_numbers(parts, config, context)[0]
    cache = rows * cache_numbers(parts, config, context)[0]
    return {
        "weights_fp32": 4 * parameters,
        "weights_bf16": 2 * parameters,
        "gradients_fp32": 4 * dense,
        "adamw_fp32": 8 * dense + 4 * rows_recalled,
        "activations_fp32": 4 * activations,
        "activations_bf16": 2 * activations,
        "cache_fp32": 4 * cache,
        "cache_bf16": 2 * cache,
    }


def flops_by_group(parts: Sequence[ParameterGroup], config: Any, context: int) -> dict[str, int]:
    """Floating-point operations of reading one token (one of the source and one of the answer, where a model has both):
    two for each number it is multiplied with, and attention over a full context, scores (Q Kᵀ) and answers (their sum
    of values) alike.

    Kaplan et al. 2020, table 1; Hoffmann et al. 2022, appendix F, but for embeddings, which are looked up here.
    """
    c = config
    window = getattr(c, "sliding_window", None)
    seen = context if window is None else min(context, window)
    queries = sum(part.shape[1] * part.count_per_layer * part.layers for part in parts if part.symbol == "W_q")
    found: dict[str, int] = {}
    for part in parts:
        told = part.name == LABELS and c.label_level == "token"
        if (part.group not in NOT_MULTIPLIED or told) and part.name not in (HASHED_NGRAM_TABLE, "distances"):
            found[part.group] = found.get(part.group, 0) + 2 * part.parameters
            if part.group == "attention":
                found |= {QK_PRODUCTS: 2 * queries * seen, WEIGHTED_VALUES: 2 * queries * seen}
    if getattr(c, "tie_embeddings", False):
        found["unembedding"] = found.get("unembedding", 0) + 2 * c.vocab * c.width
    return found


def flops_per_token(parts: Sequence[ParameterGroup], config: Any, context: int) -> dict[str, int]:
    """The same added up. The backward pass takes twice the forward pass: Chowdhery et al. 2022, appendix B."""
    by_part = flops_by_group(parts, config, context)
    attention = by_part.get(QK_PRODUCTS, 0) + by_part.get(WEIGHTED_VALUES, 0)
    forward = sum(by_part.values())
    return {"weights": forward - attention, "attention": attention, "forward": forward, "training": 3 * forward}
