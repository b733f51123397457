"""Sources of text: the files of a file name, a folder, a glob or standard input."""

from __future__ import annotations

import atexit
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, nearest
from clearstory.text.conllu import CONLLU_SUFFIX
from clearstory.text.files import COMPRESSED_SIGNATURES, COMPRESSED_SUFFIXES, content_suffix
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings

# Suffixes read from a folder. A file given by name is read as text whatever its suffix, unless it has a reader.
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")
RECORD_SUFFIXES = (".jsonl", ".parquet", CONLLU_SUFFIX)

CODE_SUFFIXES = (
    ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".rs",
    ".go", ".java", ".kt", ".scala", ".cs", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".swift", ".m", ".hs", ".ml",
    ".ex", ".exs", ".erl", ".clj", ".lisp", ".el", ".sh", ".bash", ".zsh", ".ps1", ".sql", ".css", ".scss", ".vue",
    ".cu", ".f90", ".asm", ".s", ".dart", ".zig", ".nim", ".v", ".tex", ".toml", ".yaml", ".yml", ".ini", ".cfg",
    ".cmake",
)  # fmt: skip
GROUPS = {
    "code": CODE_SUFFIXES,
    "html": (".html", ".htm", ".xhtml"),
    "ipynb": (".ipynb",),
    "csv": (".csv",),
    "tsv": (".tsv",),
}
"""Suffixes of the groups of files that `include` names."""

ALL = "all"
"""The word of `include` for every file of a folder."""

NOT_TEXT = frozenset((
    ".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".mobi", ".ppt", ".pptx", ".odp", ".xls", ".xlsx", ".ods",
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".bmp", ".tif", ".tiff", ".ico", ".heic", ".mp3", ".wav",
    ".flac", ".ogg", ".m4a", ".mp4", ".mkv", ".avi", ".mov", ".webm", ".zip", ".tar", ".7z", ".rar", ".tgz", ".bz2",
    ".jar", ".whl", ".exe", ".dll", ".so", ".dylib", ".o", ".a", ".pyc", ".class", ".bin", ".pt", ".pth",
    ".safetensors", ".gguf", ".npy", ".npz", ".pkl", ".db", ".sqlite", ".ttf", ".woff", ".woff2",
))  # fmt: skip
"""Suffixes of files whose text, if there is any, needs another program."""

STANDARD_INPUT = "-"
"""The source that is standard input."""

STANDARD_INPUT_NAME = "standard input"
"""Its name in messages."""


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source, in the order in which they are read; `named` if each was given by name.

    `files` is None for a built-in corpus.
    """

    source: str | Path
    files: tuple[Path, ...] | None
    named: bool


def expand_sources(
    sources: Iterable[str | Path], settings: ReadSettings, notes: ReadNotes | None = None
) -> list[SourceFiles]:
    """The files of all sources; what folders have besides is added to `notes`.

    Raises BadInput for a source that does not exist, and for one without files to read.
    """
    sources = list(sources)
    if sum(map(is_standard_input, sources)) > 1:
        raise BadInput("standard input (-) is given twice but can be read only once; give it once")
    return [_expand_source(source, settings, notes or ReadNotes()) for source in sources]


def is_standard_input(source: str | Path) -> bool:
    """Whether a source is standard input: `-`, or the file that it was saved to."""
    saved = save_standard_input.cache_info().currsize > 0
    return str(source) == STANDARD_INPUT or (saved and Path(source) == save_standard_input())


def is_builtin(source: str | Path) -> bool:
    """Whether a source names a built-in corpus, `corpus:NAME`."""
    return isinstance(source, str) and source.startswith("corpus:")


def absolute_source(source: str) -> str:
    """The source independent of the working directory: absolute paths for files and globs, `corpus:NAME` unchanged.

    >>> absolute_source("corpus:kjv"), Path(absolute_source("book.txt")).is_absolute()
    ('corpus:kjv', True)
    """
    if is_builtin(source) or source == STANDARD_INPUT:
        return source
    path = expand_home(source)
    if path.exists() or not glob.has_magic(str(path)):
        # Symbolic links are kept in the file name, which names the corpus, and resolved before `..`.
        return str(path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name)
    return os.path.join(glob.escape(os.getcwd()), path)


def included_suffixes(settings: ReadSettings) -> frozenset[str]:
    """Suffixes of the files that are read from folders; groups of `include` are resolved."""
    more: list[str] = []
    for word in _included_words(settings):
        suffix = f".{word.removeprefix('.')}"
        if word in GROUPS:
            more += GROUPS[word]
        elif word.startswith(".") or suffix in CODE_SUFFIXES or suffix in TEXT_SUFFIXES + RECORD_SUFFIXES:
            more.append(suffix)
        elif word != ALL:
            raise BadSetting(
                f"data.include has '{word}', which is not a suffix such as .py; {nearest(word, [*GROUPS, ALL])}"
            )
    return frozenset((*TEXT_SUFFIXES, *RECORD_SUFFIXES, *more))


def _included_words(settings: ReadSettings) -> list[str]:
    return [word.lower() for part in settings.include for word in re.split(r"[,\s]+", part) if word]


def _expand_source(source: str | Path, settings: ReadSettings, notes: ReadNotes) -> SourceFiles:
    if source == "":
        raise BadInput("the path of a text is empty; give a file or folder, or . for the current folder")
    if is_builtin(source):
        return SourceFiles(source, None, named=True)
    if str(source) == STANDARD_INPUT:
        return SourceFiles(source, (save_standard_input(),), named=True)
    path = expand_home(source)
    if path.is_dir():
        return SourceFiles(source, _files_of_folder(path, settings, notes), named=False)
    if path.is_file():
        return SourceFiles(source, (path,), named=True)
    if path.exists():
        raise BadInput(
            f"{path} is not a regular file, but text is read more than once; save it to a file, or pipe it to -"
        )
    if glob.has_magic(str(path)):
        matches = sorted(match for match in map(Path, glob.glob(str(path), recursive=True)) if match.is_file())
        if matches:
            return SourceFiles(source, tuple(matches), named=False)
        raise BadInput(f"no file matches {source}; check the pattern (quotes keep the shell from reading it)")
    raise BadInput(f"there is no file or folder {path}; check the path, or give a corpus such as corpus:kjv")


def _files_of_folder(folder: Path, settings: ReadSettings, notes: ReadNotes) -> tuple[Path, ...]:
    """Files to read, in the order of their POSIX paths, so that it is the same on every machine."""
    suffixes = included_suffixes(settings)
    everything = ALL in _included_words(settings)
    found = []
    skipped: list[tuple[str, str]] = []
    for path in sorted(_visible_files(folder, notes), key=lambda path: path.as_posix()):
        suffix = content_suffix(path)
        if not path.is_file():
            what = "link to a folder" if path.is_dir() else "broken link" if path.is_symlink() else "special file"
            skipped.append(("not regular files", what))
        elif suffix in suffixes or everything:
            found.append(path)
        else:
            skipped.append(_why_skipped(suffix))
    if not found:
        kinds = " ".join(TEXT_SUFFIXES + RECORD_SUFFIXES)
        compressed = " ".join(COMPRESSED_SUFFIXES)
        others = ReadNotes()
        _count(skipped, others)
        raise BadInput(
            f"the folder {folder} has no text files; supported: {kinds}, plain or compressed ({compressed})"
            + "".join(f"; {sentence}" for sentence in others.sentences())
        )
    _count(skipped, notes)
    return tuple(found)


def _visible_files(folder: Path, notes: ReadNotes) -> Iterator[Path]:
    """Files of a folder and its subfolders, and links to folders, which are not followed; no hidden ones."""

    def unreadable(error: OSError) -> None:
        notes.unreadable[Path(error.filename)] = f"{error.filename} cannot be read: {error.strerror}; check it"

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield from (Path(parent, name) for name in [*names, *linked] if not name.startswith("."))


def _count(skipped: Iterable[tuple[str, str]], notes: ReadNotes) -> None:
    for why, kind in skipped:
        notes.other_kinds[why][kind] += 1


def _why_skipped(suffix: str) -> tuple[str, str]:
    """Why files of a suffix are not read from folders, with the way to include them; and the kind they count as."""
    if suffix in NOT_TEXT:
        return "not text", suffix
    group = next((name for name, suffixes in GROUPS.items() if suffix in suffixes), None)
    if group is not None:
        return f"include them with --data.include {group}", suffix
    return f"include them with --data.include {ALL}", suffix or "without a suffix"


@lru_cache(maxsize=1)
def save_standard_input() -> Path:
    """A temporary file with the contents of standard input, which can be read only once; deleted at exit.

    Raises BadInput if standard input is a terminal or closed.
    """
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or sys.stdin.isatty():
        raise BadInput("standard input is empty; write COMMAND | clearstory ... -, or give a file")
    folder = tempfile.mkdtemp(prefix="clearstory-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder, STANDARD_INPUT_NAME)
    try:
        with path.open("w+b") as file:
            shutil.copyfileobj(stream, file)
            file.seek(0)
            beginning = file.read(8)
        suffix = next((each for each, sign in COMPRESSED_SIGNATURES.items() if beginning.startswith(sign)), "")
        path = path.rename(path.with_suffix(suffix))  # files are decompressed by their suffix
    except OSError as error:
        raise BadInput(f"standard input cannot be saved to {path}: {error.strerror}; give a file instead") from None
    return path
