"""Costs: the memory and the arithmetic of a model, reckoned from its parts. Nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.recipes.parts import Part

KEPT_BY = {"relu": 1, "gelu": 2, "silu": 2, "gelu_tanh": 3}
"""Vectors of the feed-forward layer's width that a bend's backward pass needs, what comes out of it included; relu
needs nothing else, and our tanh form of GELU keeps its gate."""

SCORES, ANSWERS = "attention: Q Kᵀ", "attention: their values"

RECALLED = "rows"
"""The part of `recall` that is a table."""

LOOKED_UP = ("embedding", "states")
"""Groups whose rows are looked up, not multiplied."""


def activations_of(parts: Sequence[Part], config: Any) -> tuple[int, str]:
    """Numbers that the backward pass needs of each token, with nothing computed twice but attention's own weights.

    A Transformer keeps, for each step, the stream that goes into its norm and what comes out; for attention queries,
    keys, values and answers; for the feed-forward layer what stands before and after its bend.
    """
    if isinstance(config, RecurrentConfig):
        kept = sum(prod(part.shape[:1]) * part.layers for part in parts if part.symbol == "W")
        gates = [part for part in parts if part.symbol == "U"]
        vectors = 2 if config.cell == "lstm" else 1
        kept += sum(part.shape[1] * (part.each + vectors) * part.layers for part in gates)
        return kept, "each layer's inputs, gates and memory; kernels may keep more"
    c = config
    attended = [part for part in parts if part.symbol == "W_q"]
    thought = [part for part in parts if part.symbol == "W_1"]
    per_head = sum((2 + c.qk_norm) * part.shape[1] * part.each * part.layers for part in attended)
    per_head += sum((1 + c.qk_norm) * part.shape[1] * part.each * part.layers for part in parts if part.symbol == "W_k")
    per_head += sum(part.shape[1] * part.each * part.layers for part in parts if part.symbol == "W_v")
    bent = KEPT_BY[c.activation] + 2 * c.gated
    steps = sum(part.layers for part in (*attended, *thought))
    inside = sum(part.shape[1] * bent * part.layers for part in thought)
    heads = "3 q + 2 k + v" if c.qk_norm else "2 q + k + v"
    words = (
        f"L (4 d + {heads} + {bent} h) + 2 d numbers for each token, with q, k, v and h the queries, keys, values and "
        "feed-forward width of a layer. Attention is fused and keeps no T × T weights, and nothing is computed twice; "
        "compare Korthikanti et al. 2022, eq. 2"
    )
    return 2 * c.width * (steps + 1) + per_head + inside, words


def cache_of(parts: Sequence[Part], config: Any, context: int) -> tuple[int, str]:
    """Numbers that generating keeps of one row: keys and values of a context, or a memory of fixed size."""
    if isinstance(config, RecurrentConfig):
        vectors = 2 if config.cell == "lstm" else 1
        return vectors * sum(config.units), "a memory of fixed size for each row, however long"
    window = getattr(config, "window", None)
    kept = context if window is None else min(context, window)
    per_token = sum(part.shape[1] * part.each * part.layers for part in parts if part.symbol in ("W_k", "W_v"))
    return per_token * kept, "L (k + v) numbers for each token of the context"


def memory_of(parts: Sequence[Part], config: Any, rows: int, context: int) -> dict[str, int]:
    """Bytes of the weights, what training adds to them, and what generating keeps, for rows of `context` tokens.

    AdamW remembers two numbers of each parameter; the rows that are recalled have sparse gradients, of which nothing is
    kept, and are moved by Adagrad with one number a row.
    """
    parameters = sum(part.parameters for part in parts)
    rows_recalled = sum(part.shape[0] for part in parts if part.name == RECALLED)
    dense = sum(part.parameters for part in parts if part.name != RECALLED)
    activations = rows * context * activations_of(parts, config)[0]
    cache = rows * cache_of(parts, config, context)[0]
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


def flops_by_part(parts: Sequence[Part], config: Any, context: int) -> dict[str, int]:
    """Floating-point operations of reading one token: two for each number it is multiplied with, and attention over a
    full context, scores (Q Kᵀ) and answers (their sum of values) alike.

    Kaplan et al. 2020, table 1; Hoffmann et al. 2022, appendix F, but for embeddings, which are looked up here.
    """
    c = config
    window = getattr(c, "window", None)
    seen = context if window is None else min(context, window)
    queries = sum(part.shape[1] * part.each * part.layers for part in parts if part.symbol == "W_q")
    found: dict[str, int] = {}
    for part in parts:
        if part.group not in LOOKED_UP and part.name != RECALLED:
            found[part.group] = found.get(part.group, 0) + 2 * part.parameters
            if part.group == "attention":
                found |= {SCORES: 2 * queries * seen, ANSWERS: 2 * queries * seen}
    if getattr(c, "tied", False):
        found["unembedding"] = found.get("unembedding", 0) + 2 * c.vocab * c.width
    return found


def flops_of(parts: Sequence[Part], config: Any, context: int) -> dict[str, int]:
    """The same added up. The backward pass takes twice the forward pass: Chowdhery et al. 2022, appendix B."""
    by_part = flops_by_part(parts, config, context)
    attention = by_part.get(SCORES, 0) + by_part.get(ANSWERS, 0)
    forward = sum(by_part.values())
    return {"weights": forward - attention, "attention": attention, "forward": forward, "training": 3 * forward}
