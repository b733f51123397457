"""Embed: one vector for each text, pooled from the hidden states of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import torch

from clearstory.errors import BadInput, CannotDo
from clearstory.formats.folders import open_model
from clearstory.formats.sentence_folder import SentencePipeline, read_sentence_pipeline
from clearstory.models.base import TokenBatch, inference_mode, reads_source
from clearstory.models.capabilities import Capability, family_name, has_capability, require
from clearstory.models.head_config import hidden_width
from clearstory.models.heads import backbone_of, hidden_states
from clearstory.models.inference_encoder import inference_encoder
from clearstory.models.pooling import pool
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.text_inputs import batches_by_length, read_texts
from clearstory.recipes.settings.embedding import EmbeddingSettings
from clearstory.recipes.settings.keywords import EmbeddingKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.tasks.sentence_inputs import SentenceInputs, TruncationSide
from clearstory.text.tokenizers import Tokenizer

Pooling = Literal["mean", "cls", "max", "last", "pooled"]
"""mean: mean of all hidden states, [CLS] and [SEP] included (Reimers and Gurevych 2019); cls: hidden state of [CLS];
max: largest value of each dimension; last: hidden state of the last token; pooled: output of the pooler (Devlin et al.
2019).
"""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Texts and their vectors, (N, W), with their pooling; `note` reports the pooling if it was chosen by default."""

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    pooling: str
    note: str | None = None

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
    normalize: bool = False,
    **settings: Unpack[EmbeddingKeywords],
) -> Embeddings:
    """Compute a vector for each text; with `normalize`, of length 1.

    By default, the pooling is read from the model's folder (modules.json of sentence-transformers); otherwise it is the
    mean for encoders, and the last token for other models. For a model with a classification head, the backbone is
    used. `prompt` is the name of a prompt in the folder that is prepended to each text. With `int8`, the linear layers
    of the blocks are rounded to 8 bits, which is two to three times as fast on a CPU.

    A text that is the path of a file is replaced by the lines of the file. Raises CannotDo for a model without hidden
    states, ContextOverflow for a text that is too long.

    >>> import clearstory
    >>> clearstory.embed("runs/bert/model", ["A cat sat.", "A dog lay."]).vectors.shape  # doctest: +SKIP
    (2, 256)
    """
    s = build_settings(EmbeddingSettings, settings)
    encoder = load_embedder(model, s.pooling, s.device, int8=s.int8)
    inputs = tuple(read_texts(texts, s.errors, s.text_field))
    vectors = encoder.vectors(
        inputs, prompt=s.prompt, truncate=s.truncate, batch_size=s.batch_size, normalize=normalize
    )
    return Embeddings(inputs, vectors, encoder.summary, encoder.note)


@dataclass(frozen=True)
class Embedder:
    """A model that gives texts vectors.

    Args:
        network: the model; of one with a classification head, its backbone where that suffices.
        tokenizer: its tokenizer.
        pipeline: the modules of its folder that pool; None without them, or where another pooling is chosen.
        pooling: how hidden states are pooled without them.
        int8: whether the linear layers of the blocks are rounded to int8.
        note: a sentence on the pooling, where nobody has chosen it for a model that was not trained for vectors.
    """

    network: Any
    tokenizer: Tokenizer
    pipeline: SentencePipeline | None
    pooling: str
    note: str | None = None
    int8: bool = False

    @property
    def summary(self) -> str:
        """How a vector is made, in one phrase."""
        return POOLING_TITLES.get(self.pooling, self.pooling) if self.pipeline is None else self.pipeline.summary

    def vectors(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        truncate: TruncationSide | None = None,
        batch_size: int = 32,
        normalize: bool = False,
    ) -> npt.NDArray[np.float32]:
        """A vector of each text, (N, W)."""
        inputs = self.inputs(prompt, truncate)
        rows = inputs(texts)
        network = inference_encoder(self.network, int8=self.int8, n_tokens=sum(map(len, rows)))
        return self.vectors_of_ids(rows, network, inputs.skipped, batch_size, normalize)

    def inputs(self, prompt: str | None = None, truncate: TruncationSide | None = None) -> SentenceInputs:
        """How texts become ids. Raises CannotDo for a prompt that the model's folder does not have."""
        if self.pipeline is None and prompt is not None:
            raise CannotDo(
                f"this model's folder has no prompts, so prompt {prompt[:60]!r} cannot be used; leave it out"
            )
        before = "" if self.pipeline is None else self.pipeline.prompt(prompt)
        return SentenceInputs.of_model(self.network, self.tokenizer, self.pipeline, before, truncate)

    def vectors_of_ids(
        self,
        rows: Sequence[Sequence[int]],
        network: Any,
        skipped: int = 0,
        batch_size: int = 32,
        normalize: bool = False,
    ) -> npt.NDArray[np.float32]:
        """A vector of each row of ids, (N, W), by the model or its inference form; the first `skipped` tokens of each
        row are not pooled.
        """
        pipeline = self.pipeline
        vectors: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(rows)
        with inference_mode(network):
            for batch in batches_by_length(rows, batch_size):
                tokens = TokenBatch.from_sequences([rows[index] for index in batch], next(network.parameters()).device)
                hidden = hidden_states(backbone_of(network), tokens)
                if pipeline is not None:
                    pooled = pipeline.pool(hidden, tokens, skipped)
                else:
                    pooled = network.pool(hidden) if self.pooling == "pooled" else pool(hidden, tokens, self.pooling)
                pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
                for index, vector in zip(batch, pooled.float().cpu().numpy(), strict=True):
                    vectors[index] = vector
        return np.stack(vectors) if vectors else np.zeros((0, hidden_width(network.config)), dtype=np.float32)


POOLING_TITLES = {"lasttoken": "last"}
"""Names of poolings as --pooling has them, where those of sentence-transformers differ."""


def load_embedder(
    model: str | Path | ModelWithTokenizer, pooling: Pooling | None, device: str | None, *, int8: bool = False
) -> Embedder:
    """The model with its pooling: that which is named, or that of its folder, or the mean of an encoder's hidden states
    and the last one of other models.

    Raises CannotDo for a model without hidden states, and for a pooling that it lacks.
    """
    opened = open_model(model) if isinstance(model, str | Path) else model
    pipeline = None if pooling is not None else find_pipeline(opened)
    network: Any
    network, tokenizer = load_model_and_tokenizer(opened, device)
    if not has_capability(network, Capability.EMBEDDINGS) or reads_source(network):
        raise CannotDo(
            f"this model ({family_name(network)}) has no sentence vectors, which are pooled from the hidden states of "
            "a single stack of layers; use an encoder, a decoder, or a model of the family rnn, gru or lstm"
        )
    if pooling == "pooled":
        require(network, Capability.POOLER)
    if pooling is not None or pipeline is not None:
        named = {"last": "lasttoken"}.get(pooling or "", pooling or "")
        return Embedder(network, tokenizer, pipeline, named, int8=int8)
    if has_capability(network, Capability.BIDIRECTIONAL):
        return Embedder(network, tokenizer, None, "mean", int8=int8)
    note = (
        f"this model ({family_name(network)}) was not trained for sentence vectors; the hidden state of the last "
        "token is used: pass --pooling mean for the mean of all tokens"
    )
    return Embedder(network, tokenizer, None, "lasttoken", note, int8)


def find_pipeline(opened: ModelWithTokenizer) -> SentencePipeline | None:
    """The modules of sentence-transformers in a model's folder; None without them."""
    folder: Path | None = getattr(opened, "folder", None)
    try:
        return None if folder is None else read_sentence_pipeline(folder)
    except BadInput as error:
        raise BadInput(f"{error}; pass --pooling mean to average the hidden states without these modules") from None
