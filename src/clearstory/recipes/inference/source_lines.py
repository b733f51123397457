"""Source lines: the texts to translate, given themselves or as the lines of files, each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clearstory.durable.paths import find_named_file
from clearstory.errors import BadInput
from clearstory.recipes.inference.text_inputs import texts_in_file
from clearstory.text.character_encodings import Errors
from clearstory.text.conllu import CONLLU_SUFFIX
from clearstory.text.documents import READERS
from clearstory.text.files import content_suffix, read_blocks, refuse_other_formats
from clearstory.text.sources import STANDARD_INPUT_NAME, is_standard_input


class SourceLine(NamedTuple):
    """A text; where it is in a file, "" for one that was given itself; and why it cannot be read."""

    text: str
    location: str = ""
    error: str | None = None


def read_source_lines(texts: str | Path | Sequence[str | Path], errors: Errors = "strict") -> list[SourceLine]:
    """All texts, and the lines of the files among them, including empty lines.

    A line that is not UTF-8 has an error under "strict". Raises BadInput for an empty text, and where there is none.

    >>> read_source_lines("How are you?")
    [SourceLine(text='How are you?', location='', error=None)]
    """
    found: list[SourceLine] = []
    for text in [texts] if isinstance(texts, str | Path) else texts:
        path = find_named_file(text)
        if path is None:
            if not str(text).strip():
                raise BadInput("one of the texts is empty; leave it out")
            found.append(SourceLine(str(text)))
        elif content_suffix(path) in (*READERS, CONLLU_SUFFIX):
            records = texts_in_file(path, errors) or []
            found += [SourceLine(each, f"record {at:,} of {path}") for at, each in enumerate(records, start=1)]
        else:
            found += lines_of_file(path, errors)
    if not any(line.text.strip() or line.error for line in found):
        raise BadInput("there is no text; give one, a file with one text per line, or - for standard input")
    return found


def lines_of_file(path: Path, errors: Errors) -> Iterator[SourceLine]:
    """Every line of a text file. Raises BadInput for a file of another format."""
    data = b"".join(read_blocks(path))
    refuse_other_formats(path, data)
    if b"\0" in data:
        raise BadInput(f"{path} is binary or UTF-16, not text in UTF-8: it has NUL bytes; convert it with iconv")
    name = STANDARD_INPUT_NAME if is_standard_input(path) else path
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        line = line.removesuffix(b"\r")
        location = f"line {number:,} of {name}"
        try:
            yield SourceLine(line.decode("utf-8"), location)
        except UnicodeDecodeError as error:
            text = line.decode("utf-8", "replace")
            reason = f"{location} is not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start:,} of the line"
            yield SourceLine(text, location, reason if errors == "strict" else None)
