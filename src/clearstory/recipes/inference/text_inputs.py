"""Asked: the texts that a verb is asked about, each given as such or in a file; and how they are read together."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path

from clearstory.errors import BadInput, BadSetting
from clearstory.text.conllu import CONLLU_SUFFIX, read_conllu
from clearstory.text.documents import RECORD_SUFFIXES, read_documents
from clearstory.text.files import Errors, read_lines
from clearstory.text.settings import DataSettings


def lines_of(text: str | Path, errors: Errors = "strict", text_field: str = "text") -> list[str] | None:
    """The lines of a file, its sentences (conllu) or its records (jsonl, parquet); None for what names no file.

    Raises BadInput for a Path that leads nowhere.
    """
    path = Path(text).expanduser()
    try:
        file = path.is_file()
    except (OSError, ValueError):  # too long to be a path, or with a NUL
        file = False
    if not file:
        if isinstance(text, Path):
            raise BadInput(f"there is no file {path}; check the path, or give the text itself")
        return None
    if CONLLU_SUFFIX in path.suffixes:
        return [sentence.text for sentence in read_conllu(path, errors)]
    if set(path.suffixes) & set(RECORD_SUFFIXES):
        return [each.text for each in read_documents(path, DataSettings(text_field=text_field, errors=errors))]
    return list(read_lines(path, errors))


def asked(texts: str | Path | Sequence[str | Path], errors: Errors = "strict", text_field: str = "text") -> list[str]:
    """All texts: those that name a file are its lines, empty ones left out; the others are what they are.

    Raises BadInput where there is none.

    >>> asked(["How are you?", "Well."])
    ['How are you?', 'Well.']
    """
    found: list[str] = []
    for text in [texts] if isinstance(texts, str | Path) else texts:
        inside = lines_of(text, errors, text_field)
        found += [str(text)] if inside is None else [line for line in inside if line.strip()]
    if not found:
        raise BadInput("there is no text; give one, or a file with a text on each line")
    return found


def groups(rows: Sequence[Sized], batch_size: int) -> list[list[int]]:
    """The places of all rows in groups to be read together, those of like lengths side by side: padding is work for
    nothing.

    >>> groups(["aa", "b", "ccc"], 2)
    [[1, 0], [2]]
    """
    if batch_size < 1:
        raise BadSetting(f"batch_size is {batch_size}; it must be at least 1")
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
