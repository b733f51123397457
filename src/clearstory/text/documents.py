"""Documents from files, folders, globs and built-in corpora, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from clearstory.errors import BadInput, ClearstoryError, CorruptFile, MissingExtra
from clearstory.text.aligned_files import are_aligned_by_name
from clearstory.text.arrow_tables import read_arrow_rows, read_schema
from clearstory.text.conllu import CONLLU_SUFFIX, TaggedSentence, by_document, read_conllu
from clearstory.text.document import Document, documents_by_line
from clearstory.text.files import (
    content_suffix,
    read_records,
    read_text_parts,
    without_surrogates,
)
from clearstory.text.label_files import SAMPLE_LINES, find_labeled_lines, label_column, note_labels
from clearstory.text.markup import read_html, read_notebook
from clearstory.text.parallel_text import MEMORIES, check_not_labels, has_pairs, read_pairs
from clearstory.text.read_notes import ReadNotes, count_files
from clearstory.text.settings import DataSettings, ReadSettings
from clearstory.text.sources import GROUPS, STANDARD_INPUT_NAME, SourceFiles, expand_sources, is_standard_input
from clearstory.text.tables import read_csv, read_tsv

HELD = 1 << 24
"""Maximum number of characters of a file that is read into memory before it is known to be valid; a larger file is read
twice.
"""


def read_documents(
    sources: Iterable[str | Path] | str | Path, settings: ReadSettings | None = None, notes: ReadNotes | None = None
) -> Iterator[Document]:
    """All documents of the sources, in order, in parts; a large file is never completely in memory.

    A source is a file (txt, md or any other text; jsonl, one document per line; parquet, csv and tsv, one per row;
    conllu, the words of each sentence on a line; the text of html, the cells of ipynb, both sides of the pairs of tmx
    and xliff), the same compressed as .gz, .xz or .zst, a folder (its text files in the order of their paths, hidden
    ones skipped), a glob, `-` for standard input, or `corpus:NAME`. Line ends are kept; a byte order mark at the start
    of a file is dropped. With `settings.lines` each line is a document. Skipped and replaced parts are added to
    `notes`.

    Raises BadInput for a source that is missing, empty, binary or in another encoding, CorruptFile for a damaged file.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "letter.txt")
    >>> _ = file.write_text("Dear reader,\\n")
    >>> [document.text for document in read_documents([file])]
    ['Dear reader,\\n']
    """
    settings = settings or DataSettings()
    notes = ReadNotes() if notes is None else notes
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if not sources:
        raise BadInput("no text given; give a file, a folder, a glob or corpus:kjv")
    # All of them first, so that a wrong path is reported at once.
    expanded = expand_sources(sources, settings, None if notes.complete else notes)
    if settings.pairs or are_translation_memories(expanded):
        yield from _read_pairs_as_documents(expanded, settings, notes)
    elif settings.lines:
        yield from documents_by_line(_read_sources(expanded, settings, notes))
    else:
        yield from _read_sources(expanded, settings, notes)


def read_tagged_documents(
    sources: Iterable[str | Path] | str | Path, settings: ReadSettings | None = None
) -> Iterator[list[TaggedSentence]]:
    """The same documents as lists of tagged sentences.

    Raises BadInput for a source that is not CoNLL-U, and for words without a tag.
    """
    settings = settings or DataSettings()
    for each in expand_sources([sources] if isinstance(sources, str | Path) else sources, settings):
        for path in each.files or [Path(each.source)]:
            if content_suffix(path) != CONLLU_SUFFIX:
                raise BadInput(f"{path} has no tags; give {CONLLU_SUFFIX} files, which have")
            for document in by_document(read_conllu(path, settings.errors, settings.encoding)):
                for sentence in document:
                    if "_" in sentence.tags:
                        word = sentence.words[sentence.tags.index("_")]
                        raise BadInput(f"{sentence.location}: '{word}' has no tag in the sentence that begins here")
                yield document


def is_parallel(sources: Iterable[str | Path], settings: ReadSettings, *, by_name: bool = True) -> bool:
    """Whether the sources contain pairs: files with both sides, see `parallel_text.has_pairs`, or, unless `by_name` is
    False, two text files whose names say so, such as train.en and train.de.

    Raises BadInput for labelled text, which has the form of pairs.
    """
    expanded = expand_sources(sources, settings)
    if any(each.files is None for each in expanded):
        return False
    paths = [path for each in expanded for path in each.files or ()]
    if by_name and all(each.named for each in expanded) and are_aligned_by_name(paths):
        return True
    return has_pairs(paths, settings)


def as_pairs_where_known(sources: Iterable[str | Path], settings: DataSettings) -> DataSettings:
    """The settings, with `pairs` set for sources that are always read as pairs: translation memories."""
    known = not settings.lines and are_translation_memories(expand_sources(sources, settings))
    return replace(settings, pairs=True) if known else settings


def are_translation_memories(expanded: Iterable[SourceFiles]) -> bool:
    """Whether all sources are TMX or XLIFF files, whose text is that of their pairs."""
    paths = [path for each in expanded for path in each.files or (Path(each.source),)]
    return bool(paths) and all(content_suffix(path) in MEMORIES for path in paths)


def check_no_labels(sources: Iterable[str | Path], settings: ReadSettings) -> None:
    """Raise BadInput for files of texts with labels that would be read as pairs."""
    for each in expand_sources(sources, settings):
        for path in each.files or ():
            check_not_labels([path], settings)


def _read_sources(expanded: list[SourceFiles], settings: ReadSettings, notes: ReadNotes) -> Iterator[Document]:
    """Documents of all files; unreadable files are skipped or raise an error, according to `on_error`."""
    n_named = sum(len(each.files or ()) for each in expanded if each.named)
    for each in expanded:
        if each.files is None:
            from clearstory.text.builtin_corpora import load_builtin

            yield from load_builtin(str(each.source).removeprefix("corpus:")).documents
            continue
        skip = settings.on_error == "skip" or (settings.on_error is None and not each.named)
        empty = True
        for path in each.files:
            read = _read_or_skip(path, settings, notes) if skip else _read_or_stop(path, settings, notes, n_named)
            if is_standard_input(each.source):
                read = _named_standard_input(read, path)
            for document in read:
                empty = False
                yield document
        if empty and not (each.named and skip and len(expanded) > len(notes.unreadable)):
            raise _nothing_to_read(each, notes)


def _nothing_to_read(source: SourceFiles, notes: ReadNotes) -> BadInput:
    """The error for a source without any text, with the first reason."""
    failed = [notes.unreadable[path] for path in source.files or () if path in notes.unreadable]
    failed = [message for message in failed if not message.endswith(EMPTY)]
    if not failed:
        name = STANDARD_INPUT_NAME if is_standard_input(source.source) else source.source
        return BadInput(f"{name} is empty; give a file that contains text")
    others = len(source.files or ()) - 1
    also = f"; {count_files(others)} more cannot be read either" if others else ""
    return BadInput(f"{failed[0]}{also}")


EMPTY = " is empty"


def _read_or_stop(path: Path, settings: ReadSettings, notes: ReadNotes, n_named: int) -> Iterator[Document]:
    """Documents of a file. The error for one of several files explains how to skip it."""
    try:
        yield from read_file(path, settings, notes)
    except (BadInput, CorruptFile) as error:
        way_out = "" if n_named < 2 or settings.on_error else "; or leave such files out with --data.on_error skip"
        raise type(error)(f"{error}{way_out}") from None


def _named_standard_input(documents: Iterator[Document], path: Path) -> Iterator[Document]:
    """Documents and errors of the file that standard input was saved to, with its name in place of the path."""
    try:
        for document in documents:
            yield replace(document, name=STANDARD_INPUT_NAME)
    except (BadInput, CorruptFile) as error:
        raise type(error)(str(error).replace(str(path), STANDARD_INPUT_NAME)) from None


def _read_or_skip(path: Path, settings: ReadSettings, notes: ReadNotes) -> Iterator[Document]:
    """Documents of a file; none, and a note, if a part of it cannot be read."""
    if path in notes.unreadable:
        return
    if notes.complete:
        yield from read_file(path, settings, notes)
        return
    held: list[Document] = []
    size = 0
    documents = read_file(path, settings, notes)
    try:
        for document in documents:
            held.append(document)
            size += len(document.text)
            if size > HELD:
                deque(documents, maxlen=0)  # errors first, then the documents
                held, documents = [], read_file(path, settings, notes)
                break
    except (BadInput, CorruptFile, MissingExtra) as error:
        notes.unreadable[path] = str(error)
        notes.replaced.pop(path, None)
        notes.guessed.pop(path, None)
        return
    if not size:
        notes.unreadable[path] = f"{path}{EMPTY}"
        return
    yield from held or documents


def read_file(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Document]:
    """Documents of one file, by the reader for its suffix; files with other suffixes are read as text.

    Raises BadInput for contents that do not match the suffix, CorruptFile for a damaged file.
    """
    reader = READERS.get(content_suffix(path), _read_text)
    try:
        yield from reader(path, settings, notes)
    except ClearstoryError:
        raise
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from None


def _read_text(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[Document]:
    for part, text in enumerate(read_text_parts(path, settings.errors, settings.encoding, notes)):
        if part == 0 and not settings.lines:
            _refuse_labels(path, text)
        yield Document(str(path), text, part)


def _refuse_labels(path: Path, text: str) -> None:
    """Raise BadInput for a text whose lines are labeled examples."""
    labeled = find_labeled_lines(text[: 1 << 16].split("\n", SAMPLE_LINES)[:SAMPLE_LINES])
    if labeled is not None:
        what, task = labeled
        raise BadInput(
            f"{path} has {what}, not prose; fine-tune a model on it with clearstory finetune MODEL FILE --task {task}, "
            "or read each line as text anyway with --data.lines"
        )


def _read_conllu(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[Document]:
    sentences = read_conllu(path, settings.errors, settings.encoding, notes)
    for number, document in enumerate(by_document(sentences), start=1):
        yield Document(f"{path}:{number}", "\n".join(sentence.text for sentence in document))


def _read_jsonl(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[Document]:
    noted = False
    for number, location, record in read_records(path, settings.errors, settings.encoding, notes):
        if not noted:
            note_labels(path, record, notes)
            noted = True
        if settings.text_field not in record:
            raise BadInput(_missing_field_message(location, "field", settings.text_field, record))
        yield _document_from_field(location, path, number, record[settings.text_field], settings, notes)


def _read_parquet(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[Document]:
    columns, _ = read_schema(path)
    if settings.text_field not in columns:
        raise BadInput(_missing_field_message(str(path), "column", settings.text_field, columns))
    note_labels(path, columns, notes)
    for number, row in read_arrow_rows(path, [settings.text_field]):
        text = row[settings.text_field]
        yield _document_from_field(f"{path}, row {number:,}", path, number, text, settings, notes)


READERS: dict[str, Callable[[Path, ReadSettings, ReadNotes | None], Iterator[Document]]] = {
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    CONLLU_SUFFIX: _read_conllu,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".ipynb": read_notebook,
    **dict.fromkeys(GROUPS["html"], read_html),
}
"""Reader by suffix; all other files are text."""


def _missing_field_message(location: str, what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    labels = "" if label_column(known) is None else "; or fine-tune a model on its labels with clearstory finetune"
    return (
        f"{location} has no {what} {name!r}, only {', '.join(map(repr, known))}; choose one with --data.text_field NAME"
        f"{labels}"
    )


def _document_from_field(
    location: str, path: Path, number: int, text: object, settings: ReadSettings, notes: ReadNotes | None
) -> Document:
    if not isinstance(text, str):
        found = type(text).__name__
        raise BadInput(
            f"{location}: {settings.text_field!r} is {found}, not text; choose another with --data.text_field"
        )
    known = without_surrogates(location, text, settings.errors)
    if known is not text and notes is not None and not notes.complete:
        notes.surrogates[path] += sum("\ud800" <= each <= "\udfff" for each in text)
    return Document(f"{path}:{number}", known)


def _read_pairs_as_documents(
    expanded: list[SourceFiles], settings: ReadSettings, notes: ReadNotes
) -> Iterator[Document]:
    """Sources and targets as alternating documents."""
    for each in expanded:
        if each.files is None:
            raise BadInput(f"{each.source} has no pairs; give .tsv or .jsonl files, or two line-aligned files")
    empty = True
    for location, source, target in read_pairs(
        [path for each in expanded for path in each.files or ()], settings, notes
    ):
        empty = False
        for side, text in (("source", source), ("target", target)):
            yield Document(f"{location}, {side}", without_surrogates(location, text, settings.errors))
    if empty:
        raise BadInput(f"{expanded[0].source} is empty; give a file that contains pairs")
