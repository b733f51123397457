"""Parts: what a model's numbers are for, told by their names.

Models are built on torch's meta device, where nothing is allocated, and every parameter is sorted by a table of names.
A wiring with other names needs rows there; until then its numbers are counted under "other".
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
"""From a weight as it is stored, and the config, to what one of its pieces is and how many there are."""


@dataclass(frozen=True)
class ParameterGroup:
    """One kind of matrix or vector.

    Args:
        name: what it is.
        group: where it belongs: embedding, attention, feed-forward, norms and so on.
        symbol: what papers write for it; empty where they write nothing.
        shape: of one of them, from what goes in to what comes out.
        each: how many there are in a layer.
        layers: in how many layers.
    """

    name: str
    group: str
    symbol: str
    shape: tuple[int, ...]
    each: int
    layers: int

    @property
    def vector(self) -> bool:
        """Whether it is no matrix."""
        return len(self.shape) == 1

    @property
    def parameters_per_layer(self) -> int:
        """Numbers learnt in one layer."""
        return prod(self.shape) * self.count_per_layer

    @property
    def parameters(self) -> int:
        """Numbers learnt in all of them."""
        return self.parameters_per_layer * self.layers


def as_stored(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """As it is stored: rows of a table, or a vector."""
    return shape, 1


def transposed(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """A linear map is stored (out, in)."""
    return shape[::-1], 1


def split_input_heads(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """A linear map whose inputs are the answers of heads."""
    return (config.head_dim, shape[0]), shape[1] // config.head_dim


def split_output_heads(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """A linear map whose outputs are shared out among heads."""
    return (shape[1], config.head_dim), shape[0] // config.head_dim


def split_gates(shape: tuple[int, ...], config: Any) -> tuple[tuple[int, ...], int]:
    """A linear map whose outputs are the gates of a cell."""
    gates = GATES[config.cell]
    return (*shape[:0:-1], shape[0] // gates), gates


@dataclass(frozen=True)
class NamePattern:
    """What names that end so are. Where there are several attentions or stacks, theirs stands before the name."""

    ending: str
    group: str
    name: str
    symbol: str = ""
    split: PieceShape = as_stored


LABELS = "labels"
"""The part that tells labels."""

ATTENTION = r"(?P<which>\w*?)_?attention\."

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
    NamePattern(r"recall\.trust\.(weight|bias)", "recall", "trust", "", transposed),
    NamePattern(r"recall\.into\.weight", "recall", "into the stream", "", transposed),
    NamePattern(r"layers\.\d+\.input\.weight", "cells", "from the input", "W", split_gates),
    NamePattern(r"layers\.\d+\.memory\.weight", "cells", "from memory", "U", split_gates),
    NamePattern(r"layers\.\d+\.(input|memory)\.bias", "cells", "biases", "", split_gates),
    NamePattern(r"initial", "states", "first state"),
    NamePattern(r"transition", "states", "state to state"),
    NamePattern(r"emission", "states", "state to token"),
    NamePattern(r"unembedding\.weight", "unembedding", "tokens", "W_u", transposed),
    NamePattern(r"names", "unembedding", "rarer parts"),
    NamePattern(r"mlm_transform\.(weight|bias)", "unembedding", "before words", "", transposed),
    NamePattern(r"unembedding_bias", "unembedding", "biases"),
    NamePattern(r"pooler\.(weight|bias)", "heads", "first vector", "", transposed),
    NamePattern(r"nsp_head\.(weight|bias)", "heads", "next sentence", "", transposed),
    NamePattern(r"classifier\.(weight|bias)", "heads", LABELS, "", transposed),
)
"""The first row whose ending fits decides."""

GROUPS = (
    *("embedding", "attention", "feed-forward", "cells", "states", "norms", "recall", "unembedding", "heads", "other"),
)  # fmt: skip
"""In the order in which they are shown."""


@lru_cache(maxsize=8)
def list_parameter_groups(config: Any) -> tuple[ParameterGroup, ...]:
    """Every matrix and vector of a model, head by head.

    >>> from clearstory.models.transformer.presets import GPT2
    >>> list_parameter_groups(GPT2)[2]
    Part(name='query', group='attention', symbol='W_q', shape=(768, 64), each=12, layers=12)
    """
    found: dict[tuple[str, str, str, tuple[int, ...]], tuple[int, set[str]]] = {}
    for name, shape in parameter_shapes(config):
        group, label, symbol, split = classify_parameter(name)
        one, count = split(shape, config)
        key = (group, label, symbol, one)
        before, layers = found.get(key, (0, set()))
        found[key] = (before + count, layers | {layer_prefix(name)})
    parts = [
        ParameterGroup(label, group, symbol, shape, count // len(layers), len(layers))
        for (group, label, symbol, shape), (count, layers) in found.items()
    ]
    return tuple(sorted(parts, key=lambda part: (GROUPS.index(part.group), part.group != "norms" and part.is_vector)))


def parameter_shapes(config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every learnt number of a model by name, without allocating any."""
    from clearstory.formats.no_init import build_empty

    # Rotary angles are computed, not learnt, and those of one place are enough here.
    rotary = getattr(config, "positions", None) == "rotary"
    for name, each in build_empty(replace(config, context=1) if rotary else config).named_parameters():
        yield name, tuple(each.shape)


def classify_parameter(name: str) -> tuple[str, str, str, PieceShape]:
    """The group, the name and the symbol of a parameter, and how it comes apart.

    >>> classify_parameter("decoder.blocks.3.cross_attention.query.weight")[:3]
    ('attention', 'cross query', 'W_q')
    >>> classify_parameter("sieve.weight")[:2]
    ('other', 'sieve.weight')
    """
    stack = re.match(r"(encoder|decoder)\.", name)
    for kind in NAME_PATTERNS:
        match = re.search(rf"(?:^|\.){kind.ending}$", name)
        if match is not None:
            # Only decoders look across.
            where = match.groupdict().get("which") or (stack[1] if stack else "")
            label = f"{where} {kind.name}" if where else kind.name
            return kind.group, label, kind.symbol, kind.split
    return "other", re.sub(r"\.\d+\.", ".*.", name), "", as_stored


def layer_prefix(name: str) -> str:
    """What tells one layer from another: everything up to its number."""
    found = re.match(r".*?\.\d+\.", name)
    return found[0] if found else ""


@dataclass(frozen=True)
class FormulaTerm:
    """A summand of a formula for all parameters."""

    formula: str
    parameters: int
    meaning: str


def parameter_formula(config: Any) -> tuple[FormulaTerm, ...]:
    """12 L d² + 13 L d + V d + T d + 2 d, term by term, where a model is wired as GPT-2 and GPT-3 are; else nothing.

    >>> from clearstory.models.families import PRESETS
    >>> [term.parameters for term in parameter_formula(PRESETS["gpt3-175b"])]
    [173946175488, 15335424, 617558016, 25165824, 24576]
    """
    c = config
    wired = (
        *(("architecture", "decoder"), ("norm", "layer"), ("norm_first", True), ("embed_norm", False), ("bias", True)),
        *(("positions", "learned"), ("tie_embeddings", True), ("gated", False), ("qk_norm", False), ("recall", ())),
    )  # fmt: skip
    if not all(hasattr(c, name) and getattr(c, name) == value for name, value in wired):
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
    return terms if sum(term.parameters for term in terms) == sum(part.parameters for part in list_parameter_groups(c)) else ()
