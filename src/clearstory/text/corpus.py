"""Corpus: documents divided once into training and validation, and their ids, kept on disk.

Many documents are divided by a hash of their contents: equal documents are never on both sides, and adding files
moves none of the old ones. Of a few, the one of the fittest size is held out; a single one gives its last
characters. The ids are cached under a hash of the
text itself, not of names and times: it costs a second for each few hundred megabytes, and what is trained on is
always what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, BadSetting, UnknownName, nearest
from clearstory.text.documents import Document, is_builtin, read_documents
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.token_dataset import TokenDataset, open_datasets, write_datasets
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.settings import DataSettings
from clearstory.text.tokenizers import Tokenizer

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Corpus:
    """Text to learn from and text held out. Open one with `Corpus.open`.

    `note` says what is not as asked for, `size` how many documents there are (two for each pair), `text_bytes` how
    large they are in UTF-8, `fingerprint` is a hash of their text in order. `held_out` (D,) marks the documents kept
    for validation; of a single document, the characters from `cut` on are.
    """

    name: str
    sources: tuple[str | Path, ...]
    settings: DataSettings
    size: int
    text_bytes: int
    fingerprint: str
    split_position: int
    held_out: npt.NDArray[np.bool_] = field(repr=False, compare=False)
    note: str | None = None

    @classmethod
    def open(cls, sources: Iterable[str | Path] | str | Path, settings: DataSettings | None = None) -> Corpus:
        """Read the sources through once, to measure and divide them; see `read_documents` for what they can be.

        Raises BadInput for sources that cannot be read, hold nothing, or cannot be divided.

        >>> from tempfile import mkdtemp
        >>> file = Path(mkdtemp(), "letter.txt")
        >>> _ = file.write_text("0123456789")
        >>> [document.text for document in Corpus.open(file).documents("validation")]
        ['9']
        """
        settings = settings or DataSettings()
        sources = (sources,) if isinstance(sources, str | Path) else tuple(sources)
        name, note = _corpus_name_and_note(sources)
        scan = _scan(read_documents(sources, settings))
        if not scan.text_bytes:
            raise BadInput(f"{name} holds no text; give files with text in them")
        if settings.pairs:
            held_out = np.repeat(_choose_validation(name, scan.of_sources(), settings.validation), 2)
            return cls(name, sources, settings, len(scan.sizes), scan.text_bytes, scan.fingerprint, 0, held_out, note)
        single = len(scan.sizes) == 1
        split_position = _split_position(name, scan.characters, settings.validation) if single else 0
        held_out = np.zeros(1, dtype=np.bool_) if single else _choose_validation(name, scan, settings.validation)
        size, fingerprint = len(scan.sizes), scan.fingerprint
        return cls(name, sources, settings, size, scan.text_bytes, fingerprint, split_position, held_out, note)

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of "train" or "validation", in order, read anew from the sources."""
        if split not in SPLITS:
            raise UnknownName(f"there is no split {split!r}; {nearest(split, SPLITS)}")
        documents = read_documents(self.sources, self.settings)
        return self._by_document(documents, split) if self.size > 1 else self._by_character(documents, split)

    def texts(self, split: str) -> Iterable[str]:
        """The text of a split in parts; it can be gone through again and again."""
        return _Texts(self, split)

    def encode(self, tokenizer: Tokenizer, *, sentences: bool = False) -> dict[str, TokenDataset]:
        """The ids of both splits, mapped from the cache; made first where they are not there, or damaged.

        Documents end with the tokenizer's eos if the corpus has several. `sentences`: the rows' documents are its
        sentences, without eos, and an empty one stands where a document of the corpus ends.

        Raises BadSetting where the cache cannot be written, OutOfSpace where the disk is full, BadInput where a file
        changed since the corpus was opened.
        """
        from clearstory.durable import write_folder

        folder = cache_folder(self.settings) / "rows" / self._cache_key(tokenizer, sentences)
        rows = open_datasets(folder, tokenizer)
        if rows is not None:
            return rows
        try:
            with write_folder(folder) as temporary:
                split_position = documents_by_sentence if sentences else iter
                splits = ((split, split_position(self.documents(split))) for split in SPLITS)
                read = write_datasets(temporary, tokenizer, splits, self.size > 1 or sentences, append_eos=not sentences)
                if read != self.text_bytes:
                    raise self._corpus_changed()
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise BadSetting(
                f"encoded text cannot be kept in {folder.parent} ({error.strerror}); choose another with --data.cache"
            ) from None
        rows = open_datasets(folder, tokenizer)
        assert rows is not None, "rows that were just written measure up"
        return rows

    def _cache_key(self, tokenizer: Tokenizer, sentences: bool = False) -> str:
        """The name of what is cached: all that the ids depend on."""
        version = 1  # of the way ids are written
        parts = [version, self.fingerprint, self.settings.validation, tokenizer.fingerprint, tokenizer.eos_token_id]
        parts += ["sentences"] if sentences else []
        parts += ["pairs"] if self.settings.pairs else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    def _by_document(self, documents: Iterable[Document], split: str) -> Iterator[Document]:
        for number, document in _with_document_number(documents):
            if number >= self.size:
                raise self._corpus_changed()
            if self.held_out[number] == (split == "validation"):
                yield document

    def _by_character(self, documents: Iterable[Document], split: str) -> Iterator[Document]:
        place = part = 0
        for document in documents:
            here = max(0, self.split_position - place)  # where the cut lies in this part; at its end or behind for most
            text = document.text[:here] if split == "train" else document.text[here:]
            place += len(document.text)
            if text:
                yield Document(document.name, text, part)
                part += 1
            if split == "train" and place >= self.split_position:
                return

    def _corpus_changed(self) -> BadInput:
        return BadInput(f"{self.name} changed while it was being read; start again when its files are left alone")


def train_corpus_tokenizer(corpus: Corpus, spec: str, *, uncased: bool = False) -> Tokenizer:
    """The tokenizer that `spec` names (see `learn`), learnt from the training split only."""
    return train_tokenizer(spec, corpus.texts("train"), uncased=uncased)


def cache_folder(settings: DataSettings) -> Path:
    """Where encoded text is kept."""
    if settings.cache is not None:
        return settings.cache.expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clearstory"


@dataclass(frozen=True)
class _Texts:
    corpus: Corpus
    split: str

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in self.corpus.documents(self.split))


@dataclass(frozen=True)
class _Scan:
    """What reading once has found out: of each document 64 bits of its hash and its size in bytes, and of all."""

    hashes: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]
    characters: int
    fingerprint: str

    @property
    def text_bytes(self) -> int:
        return int(self.sizes.sum())

    def of_sources(self) -> _Scan:
        """A pair as one document, known by its source."""
        return _Scan(self.hashes[::2], self.sizes[::2] + self.sizes[1::2], self.characters, self.fingerprint)


def _scan(documents: Iterable[Document]) -> _Scan:
    hashes, sizes = array("Q"), array("q")
    characters = 0
    whole = hashlib.sha256()
    for _, parts in groupby(_with_document_number(documents), key=itemgetter(0)):
        one, size = hashlib.sha256(), 0
        for _, document in parts:
            data = document.text.encode()
            one.update(data)
            size += len(data)
            characters += len(document.text)
        hashes.append(int.from_bytes(one.digest()[:8], "big"))
        sizes.append(size)
        whole.update(one.digest())
    return _Scan(np.array(hashes, np.uint64), np.array(sizes, np.int64), characters, whole.hexdigest())


def _with_document_number(documents: Iterable[Document]) -> Iterator[tuple[int, Document]]:
    """Every part with the number of its document."""
    number = -1
    for document in documents:
        number += document.part == 0
        yield number, document


def _split_position(name: str, characters: int, share: float) -> int:
    """How many characters of a single document are for training: nanoGPT's int(n * 0.9)."""
    split_position = int(characters * (1 - share))
    if share and not 0 < split_position < characters:
        raise BadInput(
            f"{name} has {characters:,} characters, too few to hold out {share:.0%}; "
            f"give more text, or train on all of it with --data.validation 0"
        )
    return split_position


def _choose_validation(name: str, scan: _Scan, share: float) -> npt.NDArray[np.bool_]:
    """Which documents are for validation, (D,): those whose hash falls into the share.

    Fewer documents than one over the share, or documents of which none or all would be held out, are too few for
    chance. Then it is the one whose size comes nearest to the share, the later of two, together with its copies.
    """
    if not share:
        return np.zeros(len(scan.sizes), dtype=np.bool_)
    held_out = scan.hashes / 2.0**64 < share

    def divided() -> bool:
        return bool(scan.sizes[held_out].sum() and scan.sizes[~held_out].sum())

    if len(held_out) < 1 / share or not divided():
        away = np.where(scan.sizes > 0, np.abs(scan.sizes - share * scan.text_bytes), np.inf)
        held_out = scan.hashes == scan.hashes[len(away) - 1 - np.argmin(away[::-1])]
    if not divided():
        raise BadInput(
            f"the {len(scan.sizes):,} documents of {name} cannot be divided, as all their text is the same; "
            f"add others, or train on all of it with --data.validation 0"
        )
    return held_out


def _corpus_name_and_note(sources: tuple[str | Path, ...]) -> tuple[str, str | None]:
    """What to call the corpus, and what there is to say about it."""
    names, notes = [], []
    for source in sources:
        if is_builtin(source):
            from clearstory.text.builtin_corpora import load_builtin

            loaded = load_builtin(str(source).removeprefix("corpus:"))
            names.append(loaded.name)
            notes += [loaded.note] if loaded.note else []
        else:
            names.append(Path(source).name or str(source))
    name = "text" if not names else names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return name, "; ".join(dict.fromkeys(notes)) or None
