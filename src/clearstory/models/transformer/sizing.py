"""Parameter counts of Transformer configs, computed without building models, and configs of a given size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from clearstory.errors import BadSetting
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import CLEAR

DEFAULT_PARAMETERS = 3_000_000
"""Default size of `clear` without a size or a time budget."""


def parameter_count(config: TransformerConfig) -> int:
    """Number of parameters of a model with this config, computed without building it.

    Tests check that it equals the built model's own count.

    >>> from clearstory.models.transformer.presets import GPT2
    >>> parameter_count(GPT2)
    124439808
    """
    c = config
    norm = c.width * (2 if c.norm == "layer" and c.bias else 1)
    attention = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    attention += 2 * c.head_dim * c.qk_norm
    feed_forward = c.width * c.intermediate_size * (3 if c.gated else 2)
    if c.bias:
        attention += c.head_dim * (c.heads + 2 * c.kv_heads) + c.width
        feed_forward += c.intermediate_size * (2 if c.gated else 1) + c.width
    block = attention + feed_forward + (2 + 2 * c.sandwich_norm) * norm
    stack = (c.norm_first + c.embed_norm) * norm + c.token_types * c.width
    stack += {"learned": c.context * c.width, "relative_bias": 32 * c.heads}.get(c.positions, 0)
    total = c.vocab * (c.width * (1 if c.tie_embeddings else 2) + c.unembed_bias) + c.layers * block + stack
    if c.architecture == "encoder-decoder":
        ssru = c.decoder_autoregression == "ssru"
        own = 2 * c.width**2 + c.width if ssru else attention
        total += (c.decoder_layers or c.layers) * (block + own + norm) + stack
        total -= 32 * c.heads * (ssru and c.positions == "relative_bias")
    square = c.width**2
    total += c.mlm_transform * (square + c.width * c.bias + norm) + c.pooler * (
        square + c.width + c.mlm_transform * (2 * c.width + 2)
    )
    if c.recall:
        row = c.recall_dim or c.vocab
        total += len(c.recall) * (c.recall_rows * row + c.width + 1 + row * c.width) + c.recall_dim * c.width
    return total


def clear_config(target: int, vocab: int, context: int) -> TransformerConfig:
    """The config of `clear` with about `target` parameters. Raises BadSetting if no size is within half of it."""
    found = min(
        iter_clear_configs(vocab, context), key=lambda candidate: abs(math.log(parameter_count(candidate) / target))
    )
    if abs(math.log(parameter_count(found) / target)) > math.log(1.5):
        counts = {parameter_count(each) for each in iter_clear_configs(vocab, context)}
        below, above = [n for n in counts if n < target], [n for n in counts if n > target]
        sizes = " and ".join(f"{n:,}" for n in [*sorted(below)[-1:], *sorted(above)[:1]])
        raise BadSetting(
            f"no size of 'clear' is close to {target:,} parameters with {vocab:,} tokens; the nearest to it: {sizes}; "
            "give such a size, or another vocabulary"
        )
    return found


def clear_config_by_non_embedding(target: int, vocab: int, context: int) -> TransformerConfig:
    """The config of `clear` with about `target` parameters besides its embeddings."""
    return min(
        iter_clear_configs(vocab, context),
        key=lambda candidate: abs(math.log(non_embedding_parameters(candidate) / target)),
    )


def non_embedding_parameters(config: TransformerConfig) -> int:
    """Number of parameters besides the embeddings."""
    return parameter_count(config) - config.vocab * config.width * (1 if config.tie_embeddings else 2)


def iter_clear_configs(vocab: int, context: int) -> Iterator[TransformerConfig]:
    """Configs of `clear` of all sizes: width in steps of 32 (a multiple of vector units and heads), a width of 40 to 96
    per layer; from 30 to 100 the ratio makes little difference (Kaplan et al. 2020, figure 5).
    """
    for width in range(32, 4097, 32):
        head_dim = 16 if width <= 128 else 32 if width < 384 else 64
        if width % head_dim:
            continue
        heads = width // head_dim
        for layers in range(max(1, width // 96), max(1, width // 40) + 1):
            yield replace(
                CLEAR,
                vocab=vocab,
                context=context,
                width=width,
                layers=layers,
                heads=heads,
                kv_heads=heads // 4 if heads % 4 == 0 else 1,
                head_dim=head_dim,
                intermediate_size=2 * width,
            )


def scale_transformer(config: TransformerConfig, target: int) -> TransformerConfig:
    """The config scaled to about `target` parameters, its proportions kept."""
    best = config
    for heads in range(1, 129):
        width = heads * config.head_dim if config.head_dim <= 64 else heads * 64
        for layers in range(max(1, width // 100), max(2, width // 30) + 1):
            candidate = replace(
                config,
                width=width,
                heads=heads,
                kv_heads=heads if config.heads == config.kv_heads else 1,
                head_dim=width // heads,
                layers=layers,
                intermediate_size=max(8, round(config.intermediate_size / config.width * width / 8) * 8),
            )
            if abs(math.log(parameter_count(candidate) / target)) < abs(math.log(parameter_count(best) / target)):
                best = candidate
    return best
