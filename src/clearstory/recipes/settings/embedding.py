"""Settings of embed, search and deduplicate. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.recipes.settings.schema import INLINE_SECTION, positional_setting


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """How texts are read and become vectors.

    Args:
        pooling: mean: mean over tokens; cls: vector of [CLS]; max: maximum of each dimension; last: vector of the last
            token; pooled: output of the pooler; default: the setting in the model's folder, otherwise mean for an
            encoder and last for other models.
        prompt: name of a prompt in the model's folder, which is prepended to each text.
        truncate: end to drop of a text that exceeds the context, left or right; default: raise an error.
        batch_size: texts per batch.
        text_field: field (jsonl) or column (parquet) with the text.
        errors: invalid UTF-8 in files: strict raises an error, replace decodes it as U+FFFD.
        device: cpu, cuda or mps; default: cpu.
        int8: round the linear layers of an encoder's blocks to 8 bits (CPU only).
    """

    pooling: Literal["mean", "cls", "max", "last", "pooled"] | None = None
    prompt: str | None = None
    truncate: Literal["left", "right"] | None = None
    batch_size: int = 32
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None
    int8: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbedRecipe:
    """Compute vectors of texts, search texts by their vectors, or remove near-duplicates.

    Args:
        model: model folder, run folder or checkpoint.
        text: texts, or files with one text per line or record (jsonl, parquet); - for the lines of standard input.
        normalize: scale vectors to length 1, so that dot products are cosine similarities.
        query: text to search for; the most similar texts are printed, with their cosines and positions; repeatable.
        top: number of texts to print for each query.
        duplicates: cosine threshold, such as 0.9; a text whose cosine with an earlier kept text reaches it is removed.
        out: output file for the vectors (.jsonl, .csv, .tsv, .npy), for the results of queries (.jsonl, .csv, .tsv), or
            for the texts with their groups of duplicates (.txt: only the kept texts); default: standard output.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings, metadata=INLINE_SECTION)
    normalize: bool = False
    query: tuple[str, ...] = ()
    top: int = 5
    duplicates: float | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.query and self.duplicates is not None:
            raise BadSetting(f"duplicates is {self.duplicates:g} and query {self.query[0][:60]!r}; give one of them")
        if self.normalize and (self.query or self.duplicates is not None):
            raise BadSetting("normalize does not apply to query and duplicates, which use cosines; leave it out")
        if self.top != EmbedRecipe.top and not self.query:
            raise BadSetting(f"top is {self.top}, but there is no query; give a query, or leave top out")
