"""Vectors of words and texts that are compared: input embeddings of a model, or its sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from clearstory.formats.folders import open_model
from clearstory.lens.hooks.activations import embedding_module
from clearstory.recipes.inference.embed import Embedder, load_embedder
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.tasks.sentence_inputs import TruncationSide
from clearstory.text.tokenizers import Tokenizer

VectorKind = Literal["input", "sentence"]
"""input: rows of the token embedding; sentence: what `embed` returns."""


class FoundVectors(NamedTuple):
    """The vector of each text, (N, W), whether there is one, and whether it is a mean over several tokens."""

    vectors: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    several_tokens: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InputVectors:
    """Input embeddings: of a text of several tokens their mean; a text with an unknown token has no vector."""

    network: Any
    tokenizer: Tokenizer
    summary: str = "input embeddings"

    @cached_property
    def vocabulary(self) -> list[str]:
        """The words that are one token each: those of which a text with that word alone has the token alone."""
        words: dict[str, int] = {}
        for id in range(self.tokenizer.vocab):
            word = self.tokenizer.token_bytes(id).decode("utf-8", "replace").strip()
            if any(map(str.isalnum, word)) and len(word.split()) == 1:
                words.setdefault(word, id)
        return [word for word, ids in zip(words, self.word_ids(list(words)), strict=True) if len(ids) == 1]

    def word_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text in the middle of others; [] with an unknown token among them.

        Of several spellings the one of fewest tokens: after a space, without one, with spaces for underscores; and in
        lower case if all others are unknown.
        """
        found: list[list[int]] = [[] for _ in texts]
        unknown = self.tokenizer.unk_token_id
        for spell in (lambda text: f" {text}", str, lambda text: " " + text.replace("_", " "), str.lower):
            missing = range(len(texts)) if spell is not str.lower else [at for at, ids in enumerate(found) if not ids]
            for at, array in zip(
                missing, self.tokenizer.encode_arrays([spell(texts[at]) for at in missing]), strict=True
            ):
                ids = array.tolist()
                if unknown not in ids and ids and (not found[at] or len(ids) < len(found[at])):
                    found[at] = ids
        return found

    @torch.inference_mode()
    def find(self, texts: Sequence[str]) -> FoundVectors:
        """The mean input embedding of each text's tokens."""
        weight: Any = embedding_module(self.network).weight
        ids = self.word_ids(texts)
        lengths = torch.tensor([len(each) for each in ids])
        flat = torch.tensor([id for each in ids for id in each], dtype=torch.long, device=weight.device)
        offsets = (lengths.cumsum(0) - lengths).to(weight.device)
        vectors = F.embedding_bag(flat, weight, offsets, mode="mean") if len(flat) else weight.new_zeros(len(ids), 1)
        return FoundVectors(vectors.float().cpu().numpy(), (lengths > 0).numpy(), (lengths > 1).numpy())


@dataclass(frozen=True)
class SentenceVectors:
    """Sentence vectors, which every text has."""

    embedder: Embedder
    truncate: TruncationSide | None = None
    vocabulary: Sequence[str] = ()

    @property
    def summary(self) -> str:
        """How they are pooled."""
        return f"sentence vectors ({self.embedder.summary})"

    def find(self, texts: Sequence[str]) -> FoundVectors:
        """The sentence vector of each text, each computed once."""
        different = list(dict.fromkeys(texts))
        index = {text: at for at, text in enumerate(different)}
        vectors = self.embedder.vectors(different, truncate=self.truncate)[[index[text] for text in texts]]
        return FoundVectors(vectors, np.ones(len(texts), dtype=bool), np.zeros(len(texts), dtype=bool))


TextVectors = InputVectors | SentenceVectors
"""Sources of text vectors: `summary` describes them, `vocabulary` lists the words that always have a vector."""


class VectorSource:
    """The vectors of one model of either kind, opened once; `default` selects the kind if none is given.

    Raises CannotDo for a model without token embeddings.
    """

    def __init__(
        self, model: str | Path | ModelWithTokenizer, device: str | None, truncate: TruncationSide | None = None
    ) -> None:
        self.opened = open_model(model) if isinstance(model, str | Path) else model
        self.device, self.truncate = device, truncate
        self.network, self.tokenizer = load_model_and_tokenizer(self.opened, device)
        embedding_module(self.network)  # raises where there is none

    def default(self, texts: Sequence[str]) -> VectorKind:
        """The default kind: sentence vectors for texts with several words, and if the folder defines a pooling."""
        if any(len(text.split()) > 1 for text in texts):
            return "sentence"
        return "input" if self.sentence.embedder.pipeline is None else "sentence"

    @cached_property
    def sentence(self) -> SentenceVectors:
        """The model's sentence vectors."""
        return SentenceVectors(load_embedder(self.opened, None, self.device), self.truncate)

    @cached_property
    def input(self) -> InputVectors:
        """The model's input embeddings."""
        return InputVectors(self.network, self.tokenizer)

    def of_kind(self, kind: VectorKind) -> TextVectors:
        """The vectors of a kind."""
        return self.input if kind == "input" else self.sentence
