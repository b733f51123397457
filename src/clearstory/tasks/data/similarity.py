"""Pairs and triplets of texts for sentence vectors, word similarity and word analogies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clearstory.tasks.data.examples import LabeledData, SimilarityExample
from clearstory.tasks.data.settings import LabelSettings


@dataclass(frozen=True)
class Analogy:
    """`first` is to `second` as `third` is to `fourth`; `section` is the relation."""

    first: str
    second: str
    third: str
    fourth: str
    section: str = ""
    location: str = ""


def read_similarity(
    sources: Iterable[str | Path] | str | Path, settings: LabelSettings | None = None
) -> LabeledData[SimilarityExample]:
    """Anchors with positives, triplets, or pairs with a score, of sentences or words."""
    raise NotImplementedError


def read_analogies(path: str | Path) -> list[Analogy]:
    """Analogies of a file with four words on a line and `: section` lines between them."""
    raise NotImplementedError
