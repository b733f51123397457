"""Documents from files, folders, globs and built-in corpora, in order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from clearstory.errors import BadInput, CorruptFile, MissingExtra
from clearstory.text.conllu import CONLLU_SUFFIX, TaggedSentence, by_document, read_conllu
from clearstory.text.document import Document
from clearstory.text.files import COMPRESSED_SUFFIXES, Errors, content_suffix, read_records, read_text_parts
from clearstory.text.parallel_text import has_pairs, read_pairs
from clearstory.text.settings import DataSettings

# Suffixes read from a folder. A file given by name is read as text whatever its suffix, unless it is one of these.
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")
RECORD_SUFFIXES = (".jsonl", ".parquet", CONLLU_SUFFIX)


def read_documents(
    sources: Iterable[str | Path] | str | Path, settings: DataSettings | None = None
) -> Iterator[Document]:
    """All documents of the sources, in order, a part at a time; a large file is never held in memory whole.

    A source is a file (txt, md or any other text; jsonl, one document per line; parquet, one per row; conllu, the words
    of each sentence on a line), the same compressed as .gz, .xz or .zst, a folder (its text files in the order of their
    paths, hidden ones skipped), a glob, or `corpus:NAME`. Line ends are kept; a byte order mark at the start of a file
    is dropped.

    Raises BadInput for a source that is missing, empty, binary or not UTF-8, CorruptFile for a damaged file.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "letter.txt")
    >>> _ = file.write_text("Dear reader,\\n")
    >>> [document.text for document in read_documents([file])]
    ['Dear reader,\\n']
    """
    settings = settings or DataSettings()
    if isinstance(sources, str | Path):
        sources = [sources]
    sources = list(sources)
    if not sources:
        raise BadInput("no text given; give a file, a folder, a glob or corpus:kjv")
    expanded_sources = [
        (source, _expand_source(source)) for source in sources
    ]  # all of them first, so that a wrong path is reported at once
    if settings.pairs:
        yield from _read_pairs_as_documents(expanded_sources, settings)
        return
    for source, paths in expanded_sources:
        if paths is None:
            from clearstory.text.builtin_corpora import load_builtin

            yield from load_builtin(_corpus_name(source)).documents
            continue
        empty = True
        for path in paths:
            for document in _read_file(path, settings):
                empty = False
                yield document
        if empty:
            raise BadInput(f"{source} is empty; give a file with text in it")


def read_tagged_documents(
    sources: Iterable[str | Path] | str | Path, settings: DataSettings | None = None
) -> Iterator[list[TaggedSentence]]:
    """The same documents as lists of tagged sentences.

    Raises BadInput for a source that is not CoNLL-U, and for words without a tag.
    """
    settings = settings or DataSettings()
    for source in [sources] if isinstance(sources, str | Path) else sources:
        for path in _expand_source(source) or [Path(source)]:
            if content_suffix(path) != CONLLU_SUFFIX:
                raise BadInput(f"{path} has no tags; give {CONLLU_SUFFIX} files")
            for document in by_document(read_conllu(path, settings.errors)):
                for sentence in document:
                    if "_" in sentence.tags:
                        word = sentence.words[sentence.tags.index("_")]
                        raise BadInput(f"{sentence.location}: '{word}' has no tag in the sentence that begins here")
                yield document


def is_parallel(sources: Iterable[str | Path], settings: DataSettings) -> bool:
    """Whether the sources contain pairs, judged by their file names; see `parallel_text.has_pairs`."""
    expanded = [_expand_source(source) for source in sources]
    return all(paths is not None for paths in expanded) and has_pairs(
        [path for paths in expanded for path in paths or ()], settings
    )


def _read_pairs_as_documents(
    expanded_sources: list[tuple[str | Path, list[Path] | None]], settings: DataSettings
) -> Iterator[Document]:
    """Sources and targets as alternating documents."""
    for source, paths in expanded_sources:
        if paths is None:
            raise BadInput(f"{source} has no pairs; give .tsv or .jsonl files, or two line-aligned files")
    empty = True
    for location, source, target in read_pairs(
        [path for _, paths in expanded_sources for path in paths or ()], settings
    ):
        empty = False
        for side, text in (("source", source), ("target", target)):
            yield Document(f"{location}, {side}", _without_surrogates(location, text, settings.errors))
    if empty:
        raise BadInput(f"{expanded_sources[0][0]} is empty; give a file with pairs in it")


def is_builtin(source: str | Path) -> bool:
    """Whether a source names a built-in corpus, `corpus:NAME`."""
    return isinstance(source, str) and source.startswith("corpus:")


def absolute_source(source: str) -> str:
    """The source independent of the working directory: absolute paths for files and globs, `corpus:NAME` unchanged.

    >>> absolute_source("corpus:kjv"), Path(absolute_source("book.txt")).is_absolute()
    ('corpus:kjv', True)
    """
    if is_builtin(source):
        return source
    path = Path(source).expanduser()
    if path.exists() or not glob.has_magic(str(path)):
        # Symbolic links are kept in the file name, which names the corpus, and resolved before `..`.
        return str(path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name)
    return os.path.join(glob.escape(os.getcwd()), path)


def _corpus_name(source: str | Path) -> str:
    return str(source).removeprefix("corpus:")


def _expand_source(source: str | Path) -> list[Path] | None:
    """Files of a source, or None for a built-in corpus."""
    if is_builtin(source):
        return None
    path = Path(source).expanduser()
    if path.is_dir():
        found = list(_text_files(path))
        if not found:
            kinds = " ".join(TEXT_SUFFIXES + RECORD_SUFFIXES)
            compressed = " ".join(COMPRESSED_SUFFIXES)
            raise BadInput(
                f"the folder {path} has no text files; supported: {kinds}, plain or compressed ({compressed})"
            )
        return found
    if path.is_file():
        return [path]
    if path.exists():
        raise BadInput(f"{path} is not a regular file, and text is read more than once; save it to a file")
    if glob.has_magic(str(path)):
        matches = sorted(match for match in map(Path, glob.glob(str(path), recursive=True)) if match.is_file())
        if matches:
            return matches
        raise BadInput(f"no file matches {source}; check the pattern (quotes keep the shell from reading it)")
    raise BadInput(f"there is no file or folder {path}; check the path, or name a corpus such as corpus:kjv")


def _text_files(folder: Path) -> Iterator[Path]:
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
    # As POSIX paths, so that the order is the same on every machine.
    for path in sorted(paths, key=lambda path: path.as_posix()):
        if path.is_file() and content_suffix(path) in TEXT_SUFFIXES + RECORD_SUFFIXES:
            yield path


def _read_file(path: Path, settings: DataSettings) -> Iterator[Document]:
    kind = content_suffix(path)
    if kind == ".jsonl":
        yield from _read_jsonl(path, settings)
    elif kind == ".parquet":
        yield from _read_parquet(path, settings)
    elif kind == CONLLU_SUFFIX:
        for number, sentences in enumerate(by_document(read_conllu(path, settings.errors)), start=1):
            yield Document(f"{path}:{number}", "\n".join(sentence.text for sentence in sentences))
    else:
        for part, text in enumerate(read_text_parts(path, settings.errors)):
            yield Document(str(path), text, part)


def _read_jsonl(path: Path, settings: DataSettings) -> Iterator[Document]:
    for number, location, record in read_records(path, settings.errors):
        if settings.text_field not in record:
            raise BadInput(_missing_field_message(location, "field", settings.text_field, record))
        yield _document_from_field(location, f"{path}:{number}", record[settings.text_field], settings)


def _read_parquet(path: Path, settings: DataSettings) -> Iterator[Document]:
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        raise BadInput(f"{path} is a compressed parquet file, which needs random access; decompress it first")
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise MissingExtra(f"{path} needs pyarrow: pip install 'clearstory[data]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if settings.text_field not in columns:
                raise BadInput(_missing_field_message(str(path), "column", settings.text_field, columns))
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[settings.text_field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield _document_from_field(f"{path}, row {row:,}", f"{path}:{row}", text, settings)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        raise CorruptFile(f"{path} is truncated or not a parquet file ({reason}); download it again") from None


def _missing_field_message(location: str, what: str, name: str, known: Iterable[str]) -> str:
    return (
        f"{location} has no {what} {name!r}, only {', '.join(map(repr, known))}; choose one with --data.text_field NAME"
    )


def _document_from_field(location: str, name: str, text: object, settings: DataSettings) -> Document:
    if not isinstance(text, str):
        found = type(text).__name__
        raise BadInput(
            f"{location}: {settings.text_field!r} is {found}, not text; choose another with --data.text_field"
        )
    return Document(name, _without_surrogates(location, text, settings.errors))


def _without_surrogates(location: str, text: str, errors: Errors) -> str:
    """The text without unpaired surrogates, which JSON can contain (\\ud800) and UTF-8 cannot. Raises BadInput under
    "strict".
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "replace":
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        half = f"\\u{ord(text[error.start]):04x}"
        raise BadInput(
            f"{location} contains an unpaired surrogate, {half}; replace it by U+FFFD with --errors replace"
        ) from None
    return text
