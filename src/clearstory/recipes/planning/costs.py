"""Memory and FLOPs of a model, computed from its parameter groups without allocating it; peak FLOP/s of hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clearstory.recipes.planning.parameter_groups import ParameterGroup

ACTIVATION_VECTORS = {"relu": 1, "gelu": 2, "silu": 2, "gelu_tanh": 3}
"""Vectors of feed-forward width that the backward pass of an activation function needs, its output included; relu needs
nothing else, and the tanh form of GELU keeps its gate.
"""

QK_PRODUCTS, WEIGHTED_VALUES = "attention: Q Kᵀ", "attention: weights V"

HASHED_NGRAM_TABLE = "rows"
"""The parameter group with the table of hashed n-grams."""

NOT_MULTIPLIED = ("embedding", "states", "heads")
"""Groups that are not multiplied with each token: embeddings, which are looked up, and heads for whole texts."""


def activation_numbers(groups: Sequence[ParameterGroup], config: Any, context: int) -> tuple[int, str]:
    """Activations per token that the backward pass needs, without recomputation except for fused attention weights; and
    a description of the formula.

    A Transformer keeps the input and output of the norm of each sublayer; queries, keys, values and outputs of
    attention; and the inputs and outputs of the feed-forward activation function.
    """
    if config.family != "transformer":
        state_vectors = 2 if config.cell == "lstm" else 1
        inputs = sum(group.shape[0] * group.layers for group in groups if group.symbol == "W")
        gates = sum(
            group.shape[1] * (group.count_per_layer + state_vectors) * group.layers
            for group in groups
            if group.symbol == "U"
        )
        return inputs + gates, "inputs, gates and state of each layer; kernels may keep more"
    c = config
    kept = {"W_q": 3 if c.qk_norm else 2, "W_k": 2 if c.qk_norm else 1, "W_v": 1}
    kept_by_activation = ACTIVATION_VECTORS[c.activation] + 2 * c.gated
    numbers = 2 * c.width
    for group in groups:
        if group.symbol in kept:
            numbers += kept[group.symbol] * group.shape[1] * group.count_per_layer * group.layers
        if group.symbol == "W_1":
            numbers += kept_by_activation * group.shape[1] * group.layers
        if group.symbol in ("W_q", "W_1"):  # once per sublayer
            numbers += 2 * c.width * group.layers
    heads = "3 q + 2 k + v" if c.qk_norm else "2 q + k + v"
    formula = f"L (4 d + {heads} + {kept_by_activation if kept_by_activation > 1 else ''} h) + 2 d".replace("  ", " ")
    words = (
        f"{formula} numbers per token, with q, k, v and h the widths of queries, keys, values and feed-forward layer. "
        "Attention is fused and keeps no T × T weights, and nothing is recomputed; compare Korthikanti et al. 2022, "
        "eq. 2"
    )
    if c.architecture == "encoder-decoder":
        words += f". For one source token and one target token; cross-attention is another 2 d + {heads}"
    if c.positions == "relative_bias":
        numbers += sum(
            group.count_per_layer * group.layers * context
            for group in groups
            if group.symbol == "W_q" and group.name != "cross query"
        )
        words += ". With learned relative biases self-attention is not fused: T more for each head"
    return numbers, words


def cache_numbers(groups: Sequence[ParameterGroup], config: Any, context: int) -> tuple[int, str]:
    """Numbers that generation caches per sequence, and a description of the formula: the keys and values of a full
    context (and of a source of that length), a recurrent state of fixed size, or nothing for an encoder.
    """
    if config.family != "transformer":
        state_vectors = 2 if config.cell == "lstm" else 1
        state = state_vectors * sum(config.units)
        if config.architecture == "encoder-decoder" and config.attention != "none":
            kept = config.hidden_size + config.head_dim
            return state + kept * context, "a state of fixed size, and the vector and key of each source token"
        return state, "a state of fixed size per sequence, at any length"
    c = config
    if c.architecture == "encoder":
        return 0, "an encoder generates nothing"
    cached = context if c.cache_window is None else min(context, c.cache_window)
    cached_groups = [
        group for group in groups if group.symbol in ("W_k", "W_v") and not group.name.startswith("encoder ")
    ]
    per_token = sum(group.shape[1] * group.count_per_layer * group.layers for group in cached_groups)
    if c.architecture == "encoder-decoder" and c.decoder_autoregression == "ssru":
        cells = (c.decoder_layers or c.layers) * c.width
        return per_token * context + cells, "a cell of W numbers per layer, and L (k + v) per token of the source"
    words = "L (k + v) numbers per token of the context"
    return per_token * cached, f"{words}, and of the source" if c.architecture == "encoder-decoder" else words


def memory_breakdown(groups: Sequence[ParameterGroup], config: Any, batch_size: int, context: int) -> dict[str, int]:
    """Bytes of weights, gradients, optimizer state, activations and cache of a batch of sequences of `context` tokens.

    AdamW keeps two numbers per parameter. The table of hashed n-grams has sparse gradients, which are not kept, and is
    updated by Adagrad with one number per row.
    """
    parameters = sum(group.parameters for group in groups)
    table_rows = sum(group.shape[0] for group in groups if group.name == HASHED_NGRAM_TABLE)
    dense = sum(group.parameters for group in groups if group.name != HASHED_NGRAM_TABLE)
    activations = batch_size * context * activation_numbers(groups, config, context)[0]
    cache = batch_size * cache_numbers(groups, config, context)[0]
    return {
        "weights_fp32": 4 * parameters,
        "weights_bf16": 2 * parameters,
        "gradients_fp32": 4 * dense,
        "adamw_fp32": 8 * dense + 4 * table_rows,
        "activations_fp32": 4 * activations,
        "activations_bf16": 2 * activations,
        "cache_fp32": 4 * cache,
        "cache_bf16": 2 * cache,
    }


def flops_by_group(groups: Sequence[ParameterGroup], config: Any, context: int) -> dict[str, int]:
    """FLOPs of the forward pass per token, by parameter group (per source and target token of an encoder-decoder).

    Two per parameter that a token is multiplied with, and attention over a full context: Q Kᵀ, and weights times V.
    Kaplan et al. 2020, table 1; Hoffmann et al. 2022, appendix F, except that embeddings are looked up here.
    """
    c = config
    windows = [c.window(layer) for layer in range(c.layers)] if c.family == "transformer" else [None]
    attended = sum(context if each is None else min(context, each) for each in windows) / len(windows)
    queries = sum(group.shape[1] * group.count_per_layer * group.layers for group in groups if group.symbol == "W_q")
    flops: dict[str, int] = {}
    for group in groups:
        if group.group not in NOT_MULTIPLIED and group.name not in (HASHED_NGRAM_TABLE, "distances"):
            flops[group.group] = flops.get(group.group, 0) + 2 * group.parameters
            if group.group == "attention":
                products = round(2 * queries * attended)
                flops |= {QK_PRODUCTS: products, WEIGHTED_VALUES: products}
    if c.tie_embeddings:
        flops["unembedding"] = flops.get("unembedding", 0) + 2 * c.vocab * c.width
    return flops


def flops_per_token(groups: Sequence[ParameterGroup], config: Any, context: int) -> dict[str, int]:
    """Total FLOPs per token. The backward pass takes twice the forward pass: Chowdhery et al. 2022, appendix B."""
    by_group = flops_by_group(groups, config, context)
    attention = by_group.get(QK_PRODUCTS, 0) + by_group.get(WEIGHTED_VALUES, 0)
    forward = sum(by_group.values())
    return {"weights": forward - attention, "attention": attention, "forward": forward, "training": 3 * forward}


@dataclass(frozen=True, kw_only=True)
class HardwareSpec:
    """One kind of hardware.

    Args:
        name: its name.
        peak_flops: peak FLOP/s of dense bf16 matrix products, accumulated in fp32.
        memory: bytes.
        watts: board power; None if it is not published.
        source: document of these numbers.
        precision: precision of training in the estimate.
    """

    name: str
    peak_flops: float
    memory: int
    watts: float | None
    source: str
    precision: str = "bf16"


HARDWARE = (
    HardwareSpec(
        name="RTX 4090",
        peak_flops=165.2e12,
        memory=24 * 10**9,
        watts=450,
        source="NVIDIA Ada GPU Architecture whitepaper v2, appendix A: bf16 tensor, fp32 accumulate, dense",
    ),
    HardwareSpec(
        name="A100 80GB SXM",
        peak_flops=312e12,
        memory=80 * 10**9,
        watts=400,
        source="NVIDIA A100 data sheet: bf16 tensor core, dense",
    ),
    HardwareSpec(
        name="H100 SXM",
        peak_flops=989.4e12,
        memory=80 * 10**9,
        watts=700,
        source="NVIDIA H100 Tensor Core GPU Architecture whitepaper, table 2: bf16 tensor, dense",
    ),
    HardwareSpec(
        name="TPU v5e",
        peak_flops=197e12,
        memory=16 * 10**9,
        watts=None,
        source="Google Cloud documentation, TPU v5e: peak compute per chip, bf16",
    ),
    HardwareSpec(
        name="TPU v5p",
        peak_flops=459e12,
        memory=95 * 10**9,
        watts=None,
        source="Google Cloud documentation, TPU v5p: peak compute per chip, bf16",
    ),
)
"""Peak FLOP/s of dense products, not the doubled figures for sparsity. The numbers of TPUs were read in the named
documents, those of NVIDIA in citations of them: check them before an expensive decision.
"""
