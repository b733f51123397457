"""Parameter groups: the matrices and vectors of a model, sorted by the names of its parameters.

Models are built on torch's meta device, where nothing is allocated. Parameters that no name pattern matches are counted
under "other".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from clearstory.models.recurrent.config import GATES

PieceShape = Callable[[tuple[int, ...], Any], tuple[tuple[int, ...], int]]
"""A function from the stored shape of a weight and the config to the shape of one of its pieces, and their number."""


@dataclass(frozen=True)
class ParameterGroup:
    """Matrices or vectors of the same kind and shape.

    Args:
        name: such as "query".
        group: embedding, attention, feed-forward, norms and so on.
        symbol: symbol in the papers; empty if there is none.
        shape: shape of one matrix, (in, out).
        count_per_layer: how many there are in a layer.
        layers: number of layers that have them.
    """

    name: str
    group: str
    symbol: str
    shape: tuple[int, ...]
    count_per_layer: int
    layers: int

    @property
    def is_vector(self) -> bool:
        """Whether these are vectors."""
        return len(self.shape) == 1

    @property
    def parameters_per_layer(self) -> int:
        """Number of parameters in one layer."""
        return prod(self.shape) * self.count_per_layer

    @property
    def parameters(self) -> int:
        """Number of parameters in all layers."""
        return self.parameters_per_layer * self.layers


def as_stored(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """One piece of the stored shape: a table or a vector."""
    return shape, 1


def transposed(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """One matrix (in, out); torch stores (out, in)."""
    return shape[::-1], 1


def split_input_heads(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """One matrix (head_dim, width) per head: the output projection of attention."""
    return (config.head_dim, shape[0]), shape[1] // config.head_dim


def split_output_heads(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """One matrix (width, head_dim) per head: a query, key or value projection."""
    return (shape[1], config.head_dim), shape[0] // config.head_dim


def split_gates(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """One matrix (in, units) per gate of a recurrent cell."""
    gates = GATES[config.cell]
    return (*shape[:0:-1], shape[0] // gates), gates


@dataclass(frozen=True)
class NamePattern:
    """The group of parameters whose names end with a pattern; the attention or stack is prefixed to `name`."""

    ending: str
    group: str
    name: str
    symbol: str = ""
    split: PieceShape = as_stored


ATTENTION = r"(?P<which>\w*?)_?attention\."
LAYER = r"layers\.\d+\.(?:forwards\.|backwards\.)?"

NAME_PATTERNS = (
    NamePattern(r"embedding\.weight", "embedding", "tokens", "W_e"),
    NamePattern(r"position_embedding\.weight", "embedding", "positions", "W_p"),
    NamePattern(r"token_type_embedding\.weight", "embedding", "segments"),
    NamePattern(r"relative_position_bias\.bias\.weight", "attention", "distances"),
    NamePattern(rf"{ATTENTION}query\.weight", "attention", "query", "W_q", split_output_heads),
    NamePattern(rf"{ATTENTION}key\.weight", "attention", "key", "W_k", split_output_heads),
    NamePattern(rf"{ATTENTION}value\.weight", "attention", "value", "W_v", split_output_heads),
    NamePattern(rf"{ATTENTION}output\.weight", "attention", "output", "W_o", split_input_heads),
    NamePattern(rf"{ATTENTION}(query|key|value|output)\.bias", "attention", "biases"),
    NamePattern(r"feed_forward\.gate\.weight", "feed-forward", "gate", "W_g", transposed),
    NamePattern(r"feed_forward\.up\.weight", "feed-forward", "up", "W_1", transposed),
    NamePattern(r"feed_forward\.down\.weight", "feed-forward", "down", "W_2", transposed),
    NamePattern(r"feed_forward\.(gate|up|down)\.bias", "feed-forward", "biases"),
    NamePattern(rf"{ATTENTION}(query|key)_norm\.weight", "norms", "query and key"),
    NamePattern(r"embedding_norm\.(weight|bias)", "norms", "first"),
    NamePattern(r"mlm_transform_norm\.(weight|bias)", "norms", "before words"),
    NamePattern(r"\w+_norm\.(weight|bias)", "norms", "in blocks"),
    NamePattern(r"norm\.(weight|bias)", "norms", "last"),
    NamePattern(r"recall\.table\.weight", "recall", "rows"),
    NamePattern(r"recall\.order_weights\.(weight|bias)", "recall", "trust", "", transposed),
    NamePattern(r"recall\.input_projection\.weight", "recall", "into the stream", "", transposed),
    NamePattern(r"recall\.output_projection\.weight", "recall", "into the output", "", transposed),
    NamePattern(rf"{ATTENTION}input\.weight", "cells", "input", "W", transposed),
    NamePattern(rf"{ATTENTION}forget\.weight", "cells", "forget gate", "W_f", transposed),
    NamePattern(rf"{ATTENTION}forget\.bias", "cells", "biases"),
    NamePattern(rf"{ATTENTION}energy", "attention", "energy", "v"),
    NamePattern(rf"{LAYER}input\.weight", "cells", "input", "W", split_gates),
    NamePattern(rf"{LAYER}recurrent\.weight", "cells", "recurrent", "U", split_gates),
    NamePattern(rf"{LAYER}(input|recurrent)\.bias", "cells", "biases", "", split_gates),
    NamePattern(r"readout\.weight", "unembedding", "readout", "W_r", transposed),
    NamePattern(r"readout\.bias", "unembedding", "readout", ""),
    NamePattern(r"initial", "states", "first state"),
    NamePattern(r"transition", "states", "state to state"),
    NamePattern(r"emission", "states", "state to token"),
    NamePattern(r"unembedding\.weight", "unembedding", "tokens", "W_u", transposed),
    NamePattern(r"cluster_embeddings", "unembedding", "rarer parts"),
    NamePattern(r"mlm_transform\.(weight|bias)", "unembedding", "before words", "", transposed),
    NamePattern(r"unembedding_bias", "unembedding", "biases"),
    NamePattern(r"pooler\.(weight|bias)", "heads", "first vector", "", transposed),
    NamePattern(r"nsp_head\.(weight|bias)", "heads", "next sentence", "", transposed),
)
"""The first pattern that matches is used."""

GROUPS = (
    *("embedding", "attention", "feed-forward", "cells", "states", "norms", "recall", "unembedding", "heads", "other"),
)  # fmt: skip
"""Groups in display order."""


@lru_cache(maxsize=8)
def list_parameter_groups(config: Any) -> tuple[ParameterGroup, ...]:
    """The parameter groups of a model, attention split by head; none of a mixture, whose experts have their own.

    >>> from clearstory.models.transformer.presets import GPT2
    >>> list_parameter_groups(GPT2)[2]
    ParameterGroup(name='query', group='attention', symbol='W_q', shape=(768, 64), count_per_layer=12, layers=12)
    """
    found: dict[tuple[str, str, str, tuple[int, ...]], tuple[int, set[str]]] = {}
    for name, shape in parameter_shapes(config) if config.family != "mixture" else ():
        group, label, symbol, split = classify_parameter(name)
        one, count = split(shape, config)
        key = (group, label, symbol, one)
        before, layers = found.get(key, (0, set()))
        found[key] = (before + count, layers | {layer_prefix(name)})
    groups = [
        ParameterGroup(label, group, symbol, shape, count // len(layers), len(layers))
        for (group, label, symbol, shape), (count, layers) in found.items()
    ]
    return tuple(sorted(groups, key=lambda each: (GROUPS.index(each.group), each.group != "norms" and each.is_vector)))


def parameter_shapes(config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all parameters of a model, without allocating it."""
    from clearstory.formats.no_init import build_empty

    # Rotary angles are computed, not learned; those of one position are enough here.
    rotary = config.family == "transformer" and config.positions == "rotary"
    for name, each in build_empty(replace(config, context=1) if rotary else config).named_parameters():
        yield name, tuple(each.shape)


def classify_parameter(name: str) -> tuple[str, str, str, PieceShape]:
    """The group, name and symbol of a parameter, and the function that splits it.

    >>> classify_parameter("decoder.blocks.3.cross_attention.query.weight")[:3]
    ('attention', 'cross query', 'W_q')
    >>> classify_parameter("sieve.weight")[:2]
    ('other', 'sieve.weight')
    """
    stack = re.match(r"(encoder|decoder)\.", name)
    for kind in NAME_PATTERNS:
        match = re.search(rf"(?:^|\.){kind.ending}$", name)
        if match is not None:
            # Only decoders have cross-attention.
            where = match.groupdict().get("which") or (stack[1] if stack else "")
            label = f"{where} {kind.name}" if where else kind.name
            return kind.group, label, kind.symbol, kind.split
    return "other", re.sub(r"\.\d+\.", ".*.", name), "", as_stored


def layer_prefix(name: str) -> str:
    """The parameter name up to the number of its layer; empty outside layers."""
    found = re.match(r".*?\.\d+\.", name)
    return found[0] if found else ""


@dataclass(frozen=True)
class FormulaTerm:
    """One term of a formula for the number of parameters."""

    formula: str
    parameters: int
    meaning: str


def parameter_formula(config: Any) -> tuple[FormulaTerm, ...]:
    """The terms of 12 L d² + 13 L d + V d + T d + 2 d for models with the architecture of GPT-2; empty for others.

    >>> from clearstory.models.families import PRESETS
    >>> [term.parameters for term in parameter_formula(PRESETS["gpt3-175b"])]
    [173946175488, 15335424, 617558016, 25165824, 24576]
    """
    c = config
    gpt2_fields = (
        *(("architecture", "decoder"), ("norm", "layer"), ("norm_first", True), ("embed_norm", False), ("bias", True)),
        *(("positions", "learned"), ("tie_embeddings", True), ("gated", False), ("qk_norm", False), ("recall", ())),
        ("sandwich_norm", False),
    )  # fmt: skip
    if not all(hasattr(c, name) and getattr(c, name) == value for name, value in gpt2_fields):
        return ()
    d, layers = c.width, c.layers
    if c.heads * c.head_dim != d or c.kv_heads != c.heads or c.intermediate_size != 4 * d:
        return ()
    terms = (
        FormulaTerm("12 L d²", 12 * layers * d * d, "in a layer: attention 4 d², feed-forward 8 d²"),
        FormulaTerm("13 L d", 13 * layers * d, "in a layer: biases 4 d and 5 d, norms 4 d"),
        FormulaTerm("V d", c.vocab * d, "tokens; the unembedding is the same matrix"),
        FormulaTerm("T d", c.context * d, "positions"),
        FormulaTerm("2 d", 2 * d, "last norm"),
    )
    return (
        terms
        if sum(term.parameters for term in terms) == sum(group.parameters for group in list_parameter_groups(c))
        else ()
    )
