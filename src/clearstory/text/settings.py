"""Data settings: how files become documents, and where their ids are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How files become documents, how much is held out, and where encoded text is kept.

    Args:
        text_field: the field (jsonl) or column (parquet) that holds the text.
        validation: share held out for validation, from 0 to below 1. Many documents are divided by a hash of
            their contents; of a few, the one whose size fits best is held out; a single one gives its last characters.
        errors: what to do with bytes that are not UTF-8: "strict" refuses the file and names the place,
            "replace" puts U+FFFD there.
        pairs: whether the text is pairs of a source and what is to be made of it: tsv, jsonl with both as fields, or
            two files line by line. Divided by their sources, so that none is on both sides.
        source_field: the field (jsonl) that holds a pair's source.
        target_field: the field (jsonl) that holds its target.
        cache: folder for encoded text; none means clearstory under $XDG_CACHE_HOME or ~/.cache.

    >>> DataSettings(validation=0.05).errors
    'strict'
    """

    text_field: str = "text"
    validation: float = 0.1
    errors: Literal["strict", "replace"] = "strict"
    pairs: bool = False
    source_field: str = "source"
    target_field: str = "target"
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise BadSetting(f"data.validation is {self.validation}; it is a share from 0 to below 1, such as 0.1")
        if self.errors not in ("strict", "replace"):
            raise BadSetting(f"data.errors is {self.errors!r}; it is 'strict' or 'replace'")
        for name in ("text_field", "source_field", "target_field"):
            if not getattr(self, name):
                usual = name.removesuffix("_field")
                raise BadSetting(f"data.{name} is empty; name the field that holds the {usual}, such as '{usual}'")
        if self.source_field == self.target_field:
            raise BadSetting(f"data.source_field and data.target_field are both {self.source_field!r}; name two fields")
