"""Embed: one vector for each text, pooled from the hidden states of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearstory.errors import ContextOverflow
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.encoder import Encoder
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_encoder
from clearstory.recipes.inference.text_inputs import batches_by_length, read_texts
from clearstory.text.character_encodings import Errors
from clearstory.text.special_tokens import build_inputs

Pooling = Literal["mean", "cls", "pooled"]
"""mean: mean of all hidden states, [CLS] and [SEP] included (Reimers and Gurevych 2019); cls: hidden state of [CLS];
pooled: output of the pooler (Devlin et al. 2019).
"""

TruncationSide = Literal["left", "right"]
"""Which end of a text that is longer than the context is dropped."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Texts and their vectors, (N, W)."""

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    pooling: Pooling

    def to_json(self) -> dict[str, object]:
        """Texts and vectors as a dictionary for JSON."""
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
    truncate: TruncationSide | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> Embeddings:
    """One vector for each text; with `normalize`, of length 1.

    A text that names a file is replaced by the lines of the file. Raises CannotDo for a model that is not an encoder,
    ContextOverflow for a text that is too long.

    >>> import clearstory
    >>> clearstory.embed("runs/bert/model", ["A cat sat.", "A dog lay."]).vectors.shape  # doctest: +SKIP
    (2, 256)
    """
    needed = (Capability.POOLER,) if pooling == "pooled" else ()
    network, tokenizer = load_encoder(model, device, *needed)
    inputs = tuple(read_texts(texts, errors, text_field))
    max_tokens = network.config.context - 2
    rows = [
        build_inputs(tokenizer, truncate_tokens(tokenizer.encode(text), max_tokens, truncate))[0] for text in inputs
    ]
    vectors = np.zeros((len(rows), network.config.width), dtype=np.float32)
    with inference_mode(network):
        for batch in batches_by_length(rows, batch_size):
            tokens = TokenBatch.from_sequences([rows[index] for index in batch], next(network.parameters()).device)
            pooled = pool(network, network.encode(tokens), tokens, pooling)
            pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
            vectors[batch] = pooled.float().cpu().numpy()
    return Embeddings(inputs, vectors, pooling)


def truncate_tokens(tokens: list[T], max_tokens: int, side: TruncationSide | None) -> list[T]:
    """At most `max_tokens` of a list with one item for each token, such as ids or offsets.

    Raises ContextOverflow for a longer list if no side is given.
    """
    if len(tokens) <= max_tokens:
        return tokens
    if side is None:
        raise ContextOverflow(
            f"a text has {len(tokens):,} tokens, and {max_tokens:,} fit between [CLS] and [SEP]; shorten it, or pass "
            "--truncate right to drop its end"
        )
    return tokens[:max_tokens] if side == "right" else tokens[-max_tokens:]


def pool(model: Encoder, hidden: Tensor, tokens: TokenBatch, pooling: Pooling) -> Tensor:
    """One vector for each text, (B, W), from the hidden states (B, T, W)."""
    if pooling == "cls":
        return hidden[:, 0]
    return model.pool(hidden) if pooling == "pooled" else mean_pooling(hidden, tokens)


def mean_pooling(hidden: Tensor, tokens: TokenBatch) -> Tensor:
    """Mean of the hidden states of each text, (B, W), without padding."""
    if tokens.lengths is None:
        return hidden.mean(1)
    is_token = torch.arange(hidden.shape[1], device=hidden.device) < tokens.lengths[:, None]
    return (hidden * is_token.unsqueeze(-1)).sum(1) / tokens.lengths.unsqueeze(-1)
