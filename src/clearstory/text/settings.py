"""Data settings: how files become documents, and where their token ids are cached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.text.character_encodings import AUTO, check_encoding

OnError = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How files become documents.

    Args:
        text_field: field (jsonl) or column (parquet, csv, tsv) that contains the text; a number, from 1, for a column
            of a csv or tsv file without a header.
        lines: make each line a document, without its line end; a blank line is an empty document.
        include: additional files to read from folders: suffixes such as .py, or code, html, ipynb, csv, tsv, or all.
        encoding: encoding of text files, such as cp1252 or shift_jis; auto: detected for each file that is not UTF-8.
            UTF-16 and UTF-32 are always detected.
        errors: what to do with bytes that are invalid in the encoding: strict raises an error with the offset, replace
            decodes them as U+FFFD.
        on_error: what to do with a file that cannot be read: stop or skip. By default, files that were named stop the
            run; files found in a folder or by a glob are skipped and listed.
        pairs: whether the text consists of pairs of a source and a target: tsv, jsonl with a field for each, or two
            line-aligned files. Pairs are split by source, so that no source is in both splits.
        source_field: field (jsonl) that contains the source of a pair; a list of sentences is joined.
        target_field: field (jsonl) that contains the target of a pair; a list of references makes one pair each.

    >>> ReadSettings(lines=True).errors
    'strict'
    """

    text_field: str = "text"
    lines: bool = False
    include: tuple[str, ...] = ()
    encoding: str = "utf-8"
    errors: Literal["strict", "replace"] = "strict"
    on_error: OnError | None = None
    pairs: bool = False
    source_field: str = "source"
    target_field: str = "target"

    def __post_init__(self) -> None:
        if self.errors not in ("strict", "replace"):
            raise BadSetting(f"data.errors is {self.errors!r}; it must be 'strict' or 'replace'")
        if self.encoding != AUTO:
            check_encoding(self.encoding, "data.encoding")
        for name in ("text_field", "source_field", "target_field"):
            if not getattr(self, name):
                default = name.removesuffix("_field")
                raise BadSetting(
                    f"data.{name} is empty; give the field that contains the {default}, such as '{default}'"
                )
        if self.source_field == self.target_field:
            raise BadSetting(f"data.source_field and data.target_field are both {self.source_field!r}; give two fields")
        if self.lines and self.pairs:
            raise BadSetting("data.lines makes each line a document, and data.pairs reads pairs; give one of them")


@dataclass(frozen=True, kw_only=True)
class DataSettings(ReadSettings):
    """How files become documents, how much text is held out, and where token ids are cached.

    Args:
        validation: fraction of the text held out for validation, at least 0 and below 1. Several documents are split by
            a hash of their contents; of very few documents, the one of the most suitable size is held out; of a single
            document, its end.
        cache: folder of cached token ids; default: clearstory under $XDG_CACHE_HOME or ~/.cache.

    >>> DataSettings(validation=0.05).errors
    'strict'
    """

    validation: float = 0.1
    cache: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.validation < 1:
            raise BadSetting(f"data.validation is {self.validation}; it must be at least 0 and below 1, such as 0.1")
