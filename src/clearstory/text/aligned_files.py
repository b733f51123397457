"""Two line-aligned files: line n of the second is the target of line n of the first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.files import COMPRESSED_SUFFIXES, read_lines
from clearstory.text.parallel_columns import USUAL_NAMES
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings
from clearstory.text.sources import TEXT_SUFFIXES

LANGUAGE_CODES = frozenset(
    [
        "aa",
        "ab",
        "ae",
        "af",
        "ak",
        "am",
        "an",
        "ar",
        "as",
        "av",
        "ay",
        "az",
        "ba",
        "be",
        "bg",
        "bh",
        "bi",
        "bm",
        "bn",
        "bo",
        "br",
        "bs",
        "ca",
        "ce",
        "ch",
        "co",
        "cr",
        "cs",
        "cu",
        "cv",
        "cy",
        "da",
        "de",
        "dv",
        "dz",
        "ee",
        "el",
        "en",
        "eo",
        "es",
        "et",
        "eu",
        "fa",
        "ff",
        "fi",
        "fj",
        "fo",
        "fr",
        "fy",
        "ga",
        "gd",
        "gl",
        "gn",
        "gu",
        "gv",
        "ha",
        "he",
        "hi",
        "ho",
        "hr",
        "ht",
        "hu",
        "hy",
        "hz",
        "ia",
        "id",
        "ie",
        "ig",
        "ii",
        "ik",
        "io",
        "is",
        "it",
        "iu",
        "ja",
        "jv",
        "ka",
        "kg",
        "ki",
        "kj",
        "kk",
        "kl",
        "km",
        "kn",
        "ko",
        "kr",
        "ks",
        "ku",
        "kv",
        "kw",
        "ky",
        "la",
        "lb",
        "lg",
        "li",
        "ln",
        "lo",
        "lt",
        "lu",
        "lv",
        "mg",
        "mh",
        "mi",
        "mk",
        "ml",
        "mn",
        "mr",
        "ms",
        "mt",
        "my",
        "na",
        "nb",
        "nd",
        "ne",
        "ng",
        "nl",
        "nn",
        "no",
        "nr",
        "nv",
        "ny",
        "oc",
        "oj",
        "om",
        "or",
        "os",
        "pa",
        "pi",
        "pl",
        "ps",
        "pt",
        "qu",
        "rm",
        "rn",
        "ro",
        "ru",
        "rw",
        "sa",
        "sc",
        "sd",
        "se",
        "sg",
        "si",
        "sk",
        "sl",
        "sm",
        "sn",
        "so",
        "sq",
        "sr",
        "ss",
        "st",
        "su",
        "sv",
        "sw",
        "ta",
        "te",
        "tg",
        "th",
        "ti",
        "tk",
        "tl",
        "tn",
        "to",
        "tr",
        "ts",
        "tt",
        "tw",
        "ty",
        "ug",
        "uk",
        "ur",
        "uz",
        "ve",
        "vi",
        "vo",
        "wa",
        "wo",
        "xh",
        "yi",
        "yo",
        "za",
        "zh",
        "zu",
    ]
)
"""Two-letter codes of ISO 639."""


def read_line_aligned(
    first: Path, second: Path, settings: ReadSettings, notes: ReadNotes | None
) -> Iterator[tuple[str, str, str]]:
    """Location, source and target of each line. Raises BadInput at the end of the shorter of two files."""
    sides = (read_lines(path, settings.errors, settings.encoding, notes) for path in (first, second))
    pairs = enumerate(zip_longest(*sides), start=1)
    for number, (source, target) in pairs:
        if source is None or target is None:
            counts = number - 1, number + sum(1 for _ in pairs)
            n_first, n_second = counts if source is None else counts[::-1]
            raise BadInput(
                f"{first} has {n_first:,} line{'s' * (n_first != 1)} and {second} has {n_second:,}; line-aligned files "
                "have a target line for each source line"
            )
        yield f"line {number:,} of {first} and {second}", source, target


def are_aligned_by_name(paths: Sequence[Path]) -> bool:
    """Whether two files have the same name except for two languages, such as train.en and train.de, or for the usual
    names of sources and targets, such as train.src and train.tgt.

    >>> [are_aligned_by_name([Path("a.en.gz"), Path(other)]) for other in ("a.pt_BR.gz", "b.de.gz", "a.py")]
    [True, False, False]
    """
    if len(paths) != 2:
        return False
    names = [path.name.casefold() for path in paths]
    for suffix in COMPRESSED_SUFFIXES:
        names = [name.removesuffix(suffix) for name in names]
    for separators in (r"\.", r"[._-]"):
        first, second = (re.split(separators, name) for name in names)
        different = [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]
        if len(first) != len(second) or len(different) != 1:
            continue
        pair = different[0]
        plain = pair == (first[-1], second[-1]) or f".{names[0].rpartition('.')[2]}" in TEXT_SUFFIXES
        if plain and (all(map(_is_language, pair)) or pair in USUAL_NAMES or pair[::-1] in USUAL_NAMES):
            return True
    return False


def equal_lines_note(sources: Sequence[str | Path], settings: ReadSettings) -> str | None:
    """A note on two text files that were read as running text and have equally many lines; None for other sources."""
    paths = [Path(source) for source in sources]
    if len(paths) != 2 or not all(path.is_file() for path in paths):
        return None
    first, second = (sum(1 for _ in read_lines(path, settings.errors, settings.encoding)) for path in paths)
    if first != second or first < 2:
        return None
    return (
        f"{paths[0].name} and {paths[1].name} have {first:,} lines each and are read as running text; if their lines "
        "are sources and targets, add --objective seq2seq"
    )


def _is_language(name: str) -> bool:
    """Whether a part of a file name is a language, with a region or not, such as en or pt_br."""
    language, separator, region = re.sub("-", "_", name).partition("_")
    return language in LANGUAGE_CODES and (not separator or 2 <= len(region) <= 4)
