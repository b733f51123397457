"""Data: number of documents, bytes and tokens of a text, and its splits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Unpack

from clearstory.recipes.settings.keywords import DataReportKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.settings.tools import DataRecipe
from clearstory.text.corpus import SPLITS, Corpus, train_corpus_tokenizer

EXCERPT_LENGTH = 200
"""Characters shown of the beginning of a document."""


@dataclass(frozen=True)
class DataReport:
    """Size and splits of a text.

    Args:
        corpus: name of the text.
        note: a note on the text, or None.
        documents: number of documents, or of pairs.
        unit: what is counted, "document" or "pair".
        bytes: length in UTF-8.
        split_bytes: the same by split.
        tokenizer: the tokenizer with which tokens were counted; None if they were not counted.
        vocab: its vocabulary size.
        tokens: number of tokens by split.
        excerpts: names and beginnings of some documents.
    """

    corpus: str
    note: str | None
    documents: int
    unit: str
    bytes: int
    split_bytes: dict[str, int]
    tokenizer: str | None
    vocab: int | None
    tokens: dict[str, int] | None
    excerpts: tuple[tuple[str, str], ...]


def data(*text: str, recipe: DataRecipe | None = None, **settings: Unpack[DataReportKeywords]) -> DataReport:
    """Count the documents, or pairs, and bytes of a text and, with a tokenizer, its tokens.

    `settings` are the fields of DataRecipe. Raises BadInput for sources that cannot be read.

    >>> data("corpus:python-docs", show=1).documents > 100
    True
    """
    recipe = recipe or build_settings(DataRecipe, {"text": text, **settings})
    corpus = Corpus.open(recipe.text, recipe.data)
    beginnings = (each for each in corpus.documents("train") if each.part == 0 and each.text.strip())
    first = islice(beginnings, recipe.show)
    vocab, tokens = None, None
    if recipe.tokenizer is not None:
        tokenizer = train_corpus_tokenizer(corpus, recipe.tokenizer)
        vocab = tokenizer.vocab
        tokens = {split: len(dataset) for split, dataset in corpus.encode(tokenizer).items()}
    return DataReport(
        corpus=corpus.name,
        note=corpus.note,
        documents=corpus.size // 2 if corpus.settings.pairs else corpus.size,
        unit="pair" if corpus.settings.pairs else "document",
        bytes=corpus.text_bytes,
        split_bytes={split: sum(part.n_bytes for part in corpus.documents(split)) for split in SPLITS},
        tokenizer=recipe.tokenizer,
        vocab=vocab,
        tokens=tokens,
        excerpts=tuple((document.name, document.text[:EXCERPT_LENGTH]) for document in first),
    )
