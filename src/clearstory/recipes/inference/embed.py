"""Embed: one vector for each text, pooled from the hidden states of an encoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, ContextOverflow, ModelWarning
from clearstory.formats.folders import open_model
from clearstory.formats.sentence_folder import SentencePipeline, read_sentence_pipeline
from clearstory.models.base import TokenBatch, inference_mode, reads_source
from clearstory.models.capabilities import Capability, has_capability
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_encoder, load_model_and_tokenizer
from clearstory.recipes.inference.text_inputs import batches_by_length, read_texts
from clearstory.text.character_encodings import Errors
from clearstory.text.encoding import encode_text
from clearstory.text.special_tokens import cls_and_sep_ids
from clearstory.text.tokenizers import Tokenizer

Pooling = Literal["mean", "cls", "max", "pooled"]
"""mean: mean of all hidden states, [CLS] and [SEP] included (Reimers and Gurevych 2019); cls: hidden state of [CLS];
max: largest value of each dimension; pooled: output of the pooler (Devlin et al. 2019).
"""

TruncationSide = Literal["left", "right"]
"""Which end of a text that is longer than the context is dropped."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Texts and their vectors, (N, W)."""

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    pooling: str

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
    pooling: Pooling | None = None,
    normalize: bool = False,
    truncate: TruncationSide | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
    prompt: str | None = None,
) -> Embeddings:
    """One vector for each text; with `normalize`, of length 1.

    By default, vectors are pooled as the model's folder says (modules.json of sentence-transformers), and else by mean.
    `prompt` names one of the folder's prompts, which is put before each text.

    A text that names a file is replaced by the lines of the file. Raises CannotDo for a model that is not an encoder,
    ContextOverflow for a text that is too long.

    >>> import clearstory
    >>> clearstory.embed("runs/bert/model", ["A cat sat.", "A dog lay."]).vectors.shape  # doctest: +SKIP
    (2, 256)
    """
    opened = open_model(model) if isinstance(model, str | Path) else model
    pipeline = None if pooling is not None else find_pipeline(opened)
    network, tokenizer = load_embedder(opened, device, pooling, pipeline)
    inputs = tuple(read_texts(texts, errors, text_field))
    rows, skipped = encode_inputs(network, tokenizer, inputs, pipeline, prompt, truncate)
    vectors: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(rows)
    with inference_mode(network):
        for batch in batches_by_length(rows, batch_size):
            tokens = TokenBatch.from_sequences([rows[index] for index in batch], next(network.parameters()).device)
            hidden = network.encode(tokens) if hasattr(network, "encode") else network.forward(tokens)[0]
            if pipeline is None:
                pooled = network.pool(hidden) if pooling == "pooled" else pool(hidden, tokens, pooling or "mean")
            else:
                parts = [pool(hidden, tokens, each, skipped) for each in pipeline.poolings]
                pooled = pipeline.apply_layers(torch.cat(parts, dim=-1))
            pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
            for index, vector in zip(batch, pooled.float().cpu().numpy(), strict=True):
                vectors[index] = vector
    width = len(vectors[0]) if vectors else network.config.width
    summary = (pooling or "mean") if pipeline is None else pipeline.summary
    return Embeddings(inputs, np.stack(vectors) if vectors else np.zeros((0, width), dtype=np.float32), summary)


def find_pipeline(opened: ModelWithTokenizer) -> SentencePipeline | None:
    """The modules of sentence-transformers in a model's folder; None without them."""
    folder: Path | None = getattr(opened, "folder", None)
    try:
        return None if folder is None else read_sentence_pipeline(folder)
    except BadInput as error:
        raise BadInput(f"{error}; pass --pooling mean to average the hidden states without these modules") from None


def load_embedder(
    opened: ModelWithTokenizer, device: str | None, pooling: Pooling | None, pipeline: SentencePipeline | None
) -> tuple[Any, Tokenizer]:
    """The model and its tokenizer: an encoder, or a decoder whose folder says how its hidden states are pooled."""
    if pipeline is not None and has_capability(opened.model, Capability.CAUSAL) and not reads_source(opened.model):
        return load_model_and_tokenizer(opened, device)
    return load_encoder(opened, device, *((Capability.POOLER,) if pooling == "pooled" else ()))


def encode_inputs(
    network: Any,
    tokenizer: Tokenizer,
    inputs: Sequence[str],
    pipeline: SentencePipeline | None,
    prompt: str | None,
    truncate: TruncationSide | None,
) -> tuple[list[list[int]], int]:
    """The ids of each text, special tokens included, and the number of first tokens that are not pooled."""
    if pipeline is None and prompt is not None:
        raise CannotDo(f"this model's folder has no prompts, so prompt {prompt[:60]!r} cannot be used; leave it out")
    before = "" if pipeline is None else pipeline.prompt(prompt)
    context = network.config.context
    longest = context if pipeline is None or pipeline.max_length is None else min(context, pipeline.max_length)
    cut = 0
    rows = []
    for text in inputs:
        full = before + text
        encoded = encode_text_ids(network, tokenizer, full.lower() if pipeline and pipeline.lowercase else full)
        first, own, last = encoded
        own_limit = longest - len(first) - len(last)
        side = truncate
        if pipeline is not None and len(own) > own_limit:
            cut += 1
            side = truncate or "right"
        rows.append([*first, *truncate_tokens(own, max(own_limit, 0), side), *last])
    if cut:
        warnings.warn(
            f"{cut:,} of {len(rows):,} texts are longer than the {longest:,} tokens that the model's folder sets, and "
            "were cut",
            ModelWarning,
            stacklevel=3,
        )
    if not before or pipeline is None or pipeline.include_prompt:
        return rows, 0
    first, own, _ = encode_text_ids(network, tokenizer, before.lower() if pipeline.lowercase else before)
    return rows, len(first) + len(own)


def encode_text_ids(network: Any, tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int], list[int]]:
    """Special tokens before a text, its own tokens, and special tokens after it."""
    if has_capability(network, Capability.BIDIRECTIONAL):
        first, last = cls_and_sep_ids(tokenizer)
        return [first], tokenizer.encode(text), [last]
    own = tokenizer.encode(text)
    around = list(encode_text(tokenizer, text, add_special_tokens=True).ids)
    start = next((at for at in range(len(around) - len(own) + 1) if around[at : at + len(own)] == own), 0)
    return around[:start], own, around[start + len(own) :]


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


def pool(hidden: Float[Tensor, "B T W"], tokens: TokenBatch, pooling: str, skipped: int = 0) -> Float[Tensor, "B W"]:
    """One vector for each text. Padding, and the first `skipped` tokens, are left out of all but cls.

    cls: the first token's; lasttoken: the last one's; mean; max of each dimension; mean_sqrt_len: the sum over the root
    of the number of tokens; weightedmean: a mean with the weights 1, 2, 3 ...
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), tokens.last_positions()]
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    lengths = (tokens.last_positions() + 1).unsqueeze(-1)
    mask = ((positions < lengths) & (positions >= skipped)).unsqueeze(-1)
    if pooling == "max":
        return hidden.masked_fill(~mask, -1e9).amax(1)
    weights = mask * (positions + 1).unsqueeze(-1) if pooling == "weightedmean" else mask
    total, count = (hidden * weights).sum(1), weights.sum(1).clamp(min=1)
    return total / (count.to(total).sqrt() if pooling == "mean_sqrt_len" else count)
