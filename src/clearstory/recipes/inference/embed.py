"""Embed: one vector for a text, near those of texts that mean alike as far as the encoder has learnt what that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearstory.errors import CannotDo, ContextOverflow
from clearstory.models.base import TokenBatch
from clearstory.models.prompts import resting
from clearstory.recipes.inference.text_inputs import asked, groups
from clearstory.recipes.inference.loading import ModelWithTokenizer, encoder
from clearstory.text.files import Errors
from clearstory.text.special_tokens import build_inputs

Pooling = Literal["mean", "cls", "pooled"]
"""The mean of all tokens' vectors, [CLS] and [SEP] included (Reimers and Gurevych 2019); that of [CLS]; or the same as
the pooler maps it (Devlin et al. 2019).
"""

Cut = Literal["left", "right"]
"""Which end of a text that does not fit is dropped."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Texts and a vector for each, (N, W)."""

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    pooling: Pooling

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "texts": list(self.texts),
            "vectors": self.vectors.tolist(),
            "width": int(self.vectors.shape[1]),
            "pooling": self.pooling,
        }


def embed(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    truncate: Cut | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> Embeddings:
    """A vector for each text; a text that names a file stands for the file's lines. `normalize`: each of length 1.

    Raises CannotDo for a model that is no encoder, ContextOverflow for a text that is too long.

    >>> import clearstory
    >>> clearstory.embed("runs/bert/model", ["A cat sat.", "A dog lay."]).vectors.shape  # doctest: +SKIP
    (2, 256)
    """
    network, tokenizer = encoder(model, device)
    if pooling == "pooled" and network.pooler is None:
        raise CannotDo("this encoder has no pooler; pool by mean or cls")
    known = tuple(asked(texts, errors, text_field))
    rows = [build_inputs(tokenizer, fit(tokenizer.encode(text), network.config.context - 2, truncate))[0] for text in known]
    vectors = np.zeros((len(rows), network.config.width), dtype=np.float32)
    with resting(network):
        for group in groups(rows, batch_size):
            tokens = TokenBatch.from_sequences([rows[place] for place in group], next(network.parameters()).device)
            pooled = POOLINGS[pooling](network, network.encode(tokens), tokens)
            pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
            vectors[group] = pooled.float().cpu().numpy()
    return Embeddings(known, vectors, pooling)


T = TypeVar("T")


def fit(ids: list[T], room: int, truncate: Cut | None) -> list[T]:
    """The ids that are read, or whatever else stands token by token."""
    if len(ids) <= room:
        return ids
    if truncate is None:
        raise ContextOverflow(
            f"a text has {len(ids):,} tokens, and {room:,} fit between [CLS] and [SEP]; shorten it, or pass --truncate "
            "right to drop its end"
        )
    return ids[:room] if truncate == "right" else ids[-room:]


def mean(network: Any, hidden: Tensor, tokens: TokenBatch) -> Tensor:
    """Of all that are no padding."""
    if tokens.lengths is None:
        return hidden.mean(1)
    real = torch.arange(hidden.shape[1], device=hidden.device) < tokens.lengths[:, None]
    return (hidden * real.unsqueeze(-1)).sum(1) / tokens.lengths.unsqueeze(-1)


POOLINGS: dict[str, Any] = {
    "mean": mean,
    "cls": lambda network, hidden, tokens: hidden[:, 0],
    "pooled": lambda network, hidden, tokens: network.pool(hidden),
}
"""From vectors (B, T, W) to one for each text, (B, W)."""
