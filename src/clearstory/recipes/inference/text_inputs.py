"""Text inputs: the texts given to an inference recipe, directly or as files, and their grouping into batches."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path

from clearstory.durable.paths import find_named_file
from clearstory.errors import BadInput, BadSetting
from clearstory.text.character_encodings import Errors
from clearstory.text.conllu import CONLLU_SUFFIX, read_conllu
from clearstory.text.documents import READERS, read_documents
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.settings import DataSettings


def read_texts(
    texts: str | Path | Sequence[str | Path], errors: Errors = "strict", text_field: str = "text"
) -> list[str]:
    """All texts. A text that is the path of a file is replaced by the texts in the file, without empty lines.

    Raises BadInput if there is no text at all.

    >>> read_texts(["How are you?", "Well."])
    ['How are you?', 'Well.']
    """
    result: list[str] = []
    for text in [texts] if isinstance(texts, str | Path) else texts:
        in_file = texts_in_file(text, errors, text_field)
        result += [str(text)] if in_file is None else [line for line in in_file if line.strip()]
    if not result:
        raise BadInput("there is no text; give one, a file with one text per line, or - for standard input")
    return result


def texts_in_file(text: str | Path, errors: Errors = "strict", text_field: str = "text") -> list[str] | None:
    """The lines of a text file, the sentences of a conllu file, or the records of a jsonl, parquet or csv file.

    None if `text` does not name a file. Raises BadInput for a Path that does not exist.
    """
    path = find_named_file(text)
    if path is None:
        return None
    if content_suffix(path) == CONLLU_SUFFIX:
        return [sentence.text for sentence in read_conllu(path, errors)]
    if content_suffix(path) in READERS:
        return [each.text for each in read_documents(path, DataSettings(text_field=text_field, errors=errors))]
    return [line.removesuffix("\r") for line in read_lines(path, errors)]


def batches_by_length(items: Sequence[Sized], batch_size: int) -> list[list[int]]:
    """Indices of all items in batches of at most `batch_size`, sorted by length to minimize padding.

    >>> batches_by_length(["aa", "b", "ccc"], 2)
    [[1, 0], [2]]
    """
    if batch_size < 1:
        raise BadSetting(f"batch_size is {batch_size}; it must be at least 1")
    order = sorted(range(len(items)), key=lambda index: len(items[index]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
