"""Data settings: how files become documents, and where their token ids are cached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How files become documents, how much text is held out, and where token ids are cached.

    Args:
        text_field: field (jsonl) or column (parquet) that contains the text.
        validation: share of the text held out for validation, from 0 to below 1. Several documents are split by a hash
            of their contents; of very few, the one of the most suitable size is held out; a single document gives its
            last characters.
        errors: what to do with bytes that are not UTF-8; "strict" refuses the file and reports the offset, "replace"
            puts U+FFFD there.
        pairs: whether the text consists of pairs of a source and a target; tsv, jsonl with a field for each, or two
            line-aligned files. Split by source, so that no source is in both splits.
        source_field: field (jsonl) that contains the source of a pair.
        target_field: field (jsonl) that contains the target of a pair.
        cache: folder of cached token ids; clearstory under $XDG_CACHE_HOME or ~/.cache if not given.

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
                default = name.removesuffix("_field")
                raise BadSetting(
                    f"data.{name} is empty; give the field that contains the {default}, such as '{default}'"
                )
        if self.source_field == self.target_field:
            raise BadSetting(f"data.source_field and data.target_field are both {self.source_field!r}; give two fields")
