"""Corpus: documents split into training and validation, and their token ids, cached on disk.

Several documents are split by a hash of their contents: equal documents are never in both splits, and adding files
moves none of the old ones. Of very few, the one of the most suitable size is held out; a single document gives its
last characters. Ids are cached under a hash of the text itself, not of names and times: hashing takes a second per few
hundred megabytes, and the ids always belong to the current contents of the files.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearstory.durable.paths import expand_home
from clearstory.errors import (
    BadInput,
    BadSetting,
    CorruptFile,
    DiskError,
    ModelWarning,
    OutOfSpace,
    UnknownName,
    nearest,
)
from clearstory.text.document import Document
from clearstory.text.documents import as_pairs_where_known, read_documents
from clearstory.text.line_lists import LineListDetector
from clearstory.text.progress import REPORT_BYTES, DocumentCounter, progress_stage, report
from clearstory.text.read_notes import ReadNotes
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.settings import DataSettings
from clearstory.text.sources import STANDARD_INPUT_NAME, is_builtin, is_standard_input
from clearstory.text.token_dataset import TokenDataset, open_datasets, write_datasets
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

SPLITS = ("train", "validation")

ENCODING = "encoding the text"
"""Name of the encoding stage in progress reports."""


@dataclass(frozen=True)
class Corpus:
    """Documents split into training and validation. Open one with `Corpus.open`.

    `notes` are remarks for the user, `size` the number of documents (two for each pair), `text_bytes` their size in
    UTF-8, `fingerprint` a hash of their text in order. `held_out` (D,) is True for documents of the validation split;
    of a single document, the characters from `split_position` on are held out.
    """

    name: str
    sources: tuple[str | Path, ...]
    settings: DataSettings
    size: int
    text_bytes: int
    fingerprint: str
    split_position: int
    held_out: npt.NDArray[np.bool_] = field(repr=False, compare=False)
    notes: ReadNotes = field(default_factory=ReadNotes, repr=False, compare=False)

    @property
    def note(self) -> str | None:
        """Notes on skipped or replaced text and other remarks in one line; None if there are none."""
        return self.notes.text

    @classmethod
    def open(cls, sources: Iterable[str | Path] | str | Path, settings: DataSettings | None = None) -> Corpus:
        """Read the sources once, to measure and split them; `read_documents` lists the supported sources.

        Raises BadInput for sources that cannot be read, are empty, or cannot be split.

        >>> from tempfile import mkdtemp
        >>> file = Path(mkdtemp(), "letter.txt")
        >>> _ = file.write_text("0123456789")
        >>> [document.text for document in Corpus.open(file).documents("validation")]
        ['9']
        """
        settings = settings or DataSettings()
        sources = (sources,) if isinstance(sources, str | Path) else tuple(sources)
        settings = as_pairs_where_known(sources, settings)
        name = _corpus_name(sources)
        notes = ReadNotes(remarks=_builtin_notes(sources))
        lists = LineListDetector()
        with progress_stage("reading the text"):
            counter = DocumentCounter("reading the text")
            scan = _scan(lists.watch(counter.watch(read_documents(sources, settings, notes))))
        notes.complete = True
        if not scan.text_bytes:
            raise BadInput(f"{name} has no text; give files that contain text")
        if len(scan.sizes) == 1 and settings.validation and not settings.lines and lists.is_list:
            notes.remarks.append(lists.sentence(name))
        if settings.pairs:
            held_out = np.repeat(_choose_validation(name, scan.of_sources(), settings.validation), 2)
            return cls(name, sources, settings, len(scan.sizes), scan.text_bytes, scan.fingerprint, 0, held_out, notes)
        single = len(scan.sizes) == 1
        split_position = _split_position(name, scan.characters, settings.validation) if single else 0
        held_out = np.zeros(1, dtype=np.bool_) if single else _choose_validation(name, scan, settings.validation)
        size, fingerprint = len(scan.sizes), scan.fingerprint
        return cls(name, sources, settings, size, scan.text_bytes, fingerprint, split_position, held_out, notes)

    def documents(self, split: str) -> Iterator[Document]:
        """Documents of "train" or "validation", in order, read from the sources again."""
        if split not in SPLITS:
            raise UnknownName(f"unknown split {split!r}; {nearest(split, SPLITS)}")
        documents = read_documents(self.sources, self.settings, self.notes)
        return self._by_document(documents, split) if self.size > 1 else self._by_character(documents, split)

    def texts(self, split: str) -> Iterable[str]:
        """Text of a split in parts, as a re-iterable."""
        return _Texts(self, split)

    def encode(self, tokenizer: Tokenizer, *, sentences: bool = False) -> dict[str, TokenDataset]:
        """Token datasets of both splits, memory-mapped from the cache; encoded first if they are missing or damaged.

        Documents end with the tokenizer's eos token; neither part of a single document that is split does.
        `sentences`: the documents of the datasets are sentences, without eos, and an empty one marks the end of a
        document of the corpus.

        Raises BadSetting if the cache cannot be written, OutOfSpace if the disk is full, BadInput if a file changed
        since the corpus was opened.
        """
        from clearstory.durable import write_folder

        folder = cache_folder(self.settings) / "datasets" / self._cache_key(tokenizer, sentences)
        datasets = _open_cached(folder, tokenizer)
        if datasets is not None:
            return datasets
        try:
            with write_folder(folder) as temporary, progress_stage(ENCODING):
                by_unit, counter = (
                    documents_by_sentence if sentences else iter,
                    DocumentCounter(ENCODING, self.text_bytes),
                )
                splits = ((split, by_unit(counter.watch(self.documents(split)))) for split in SPLITS)
                read = write_datasets(temporary, tokenizer, splits, append_eos=not sentences)
                if read != self.text_bytes:
                    raise self._corpus_changed()
        except DiskError as error:
            if isinstance(error, OutOfSpace) or not str(error).startswith("writing"):
                raise  # a text that cannot be read
            raise BadSetting(f"the cache for encoded text cannot be used ({error}); set --data.cache") from None
        datasets = open_datasets(folder, tokenizer)
        assert datasets is not None, "datasets that were just written have the right size"
        return datasets

    def _cache_key(self, tokenizer: Tokenizer, sentences: bool = False) -> str:
        """Hash of everything that the ids depend on."""
        version = 3  # of the cache format
        parts = [version, self.fingerprint, self.settings.validation, tokenizer.fingerprint, tokenizer.eos_token_id]
        parts += ["sentences"] if sentences else []
        parts += ["pairs"] if self.settings.pairs else []
        parts += ["lines"] if self.settings.lines else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    def _by_document(self, documents: Iterable[Document], split: str) -> Iterator[Document]:
        for number, document in _with_document_number(documents):
            if number >= self.size:
                raise self._corpus_changed()
            if self.held_out[number] == (split == "validation"):
                yield document

    def _by_character(self, documents: Iterable[Document], split: str) -> Iterator[Document]:
        position = part = 0
        for document in documents:
            here = max(
                0, self.split_position - position
            )  # position of the split in this part; at or beyond its end for most parts
            text = document.text[:here] if split == "train" else document.text[here:]
            position += len(document.text)
            if text:
                ends_here = (here >= len(document.text)) == (split == "train")
                end_bytes = document.end_bytes if ends_here else 0
                yield Document(document.name, text, part, end_bytes, ends=not self.settings.validation)
                part += 1
            if split == "train" and position >= self.split_position:
                return

    def _corpus_changed(self) -> BadInput:
        return BadInput(f"{self.name} changed while it was read; run the command again when its files no longer change")


def train_corpus_tokenizer(corpus: Corpus, spec: str, *, uncased: bool = False) -> Tokenizer:
    """The tokenizer that `spec` names (see `train_tokenizer`), trained on the training split only."""
    stage = f"training the tokenizer {spec}"
    with progress_stage(stage):
        return train_tokenizer(spec, _Texts(corpus, "train", stage), uncased=uncased)


def cache_folder(settings: DataSettings) -> Path:
    """Folder of encoded text."""
    from clearstory.durable import user_cache_folder

    if settings.cache is not None:
        return expand_home(settings.cache)
    folder = user_cache_folder()
    if folder is None:
        raise BadSetting("there is no home folder for the cache of encoded text; set a folder with --data.cache")
    return folder


@dataclass(frozen=True)
class _Texts:
    corpus: Corpus
    split: str
    stage: str = ""

    def __iter__(self) -> Iterator[str]:
        if not self.stage:
            yield from (document.text for document in self.corpus.documents(self.split))
            return
        counter = DocumentCounter(self.stage, self.corpus.text_bytes)
        yield from (document.text for document in counter.watch(self.corpus.documents(self.split)))
        if counter.done >= REPORT_BYTES:
            report(f"{self.stage}: computing its vocabulary", 0, 0)


@dataclass(frozen=True)
class _Scan:
    """Result of reading the corpus once: for each document 64 bits of its hash and its size in bytes; totals."""

    hashes: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]
    characters: int
    fingerprint: str

    @property
    def text_bytes(self) -> int:
        return int(self.sizes.sum())

    def of_sources(self) -> _Scan:
        """Each pair as one document, with the hash of its source."""
        return _Scan(self.hashes[::2], self.sizes[::2] + self.sizes[1::2], self.characters, self.fingerprint)


def _open_cached(folder: Path, tokenizer: Tokenizer) -> dict[str, TokenDataset] | None:
    """The datasets of a cache folder; None if there are none, or, with a warning, if they have changed."""
    from clearstory.durable import CHECKSUMS, verify_folder

    if not folder.is_dir():
        return None
    try:
        verify_folder(folder)
        datasets = open_datasets(folder, tokenizer) if (folder / CHECKSUMS).is_file() else None
        reason = f"{folder} is incomplete"
    except (CorruptFile, DiskError) as error:
        datasets, reason = None, str(error).partition(";")[0]
    if datasets is None:
        message = f"the cache of encoded text is damaged ({reason}); the text is encoded again"
        warnings.warn(message, ModelWarning, stacklevel=3)
    return datasets


def _scan(documents: Iterable[Document]) -> _Scan:
    hashes, sizes = array("Q"), array("q")
    characters = 0
    whole = hashlib.sha256()
    for _, parts in groupby(_with_document_number(documents), key=itemgetter(0)):
        one, size = hashlib.sha256(), 0
        for _, document in parts:
            one.update(document.text.encode())
            size += document.n_bytes
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
    """Number of training characters of a single document: nanoGPT's int(n * 0.9)."""
    split_position = int(characters * (1 - share))
    if share and not 0 < split_position < characters:
        raise BadInput(
            f"{name} has {characters:,} characters, too few to hold out {share:.0%}; "
            f"give more text, or train on all text with --data.validation 0"
        )
    return split_position


def _choose_validation(name: str, scan: _Scan, share: float) -> npt.NDArray[np.bool_]:
    """Mask of the validation documents, (D,), chosen by hash.

    If there are fewer documents than 1 / share, or the hash holds out none or all of the text, it is the document whose
    size is nearest to the share, the later of two, together with its copies.
    """
    if not share:
        return np.zeros(len(scan.sizes), dtype=np.bool_)
    held_out = scan.hashes / 2.0**64 < share

    def is_split() -> bool:
        return bool(scan.sizes[held_out].sum() and scan.sizes[~held_out].sum())

    if len(held_out) < 1 / share or not is_split():
        distance = np.where(scan.sizes > 0, np.abs(scan.sizes - share * scan.text_bytes), np.inf)
        held_out = scan.hashes == scan.hashes[len(distance) - 1 - np.argmin(distance[::-1])]
    if not is_split():
        raise BadInput(
            f"the {len(scan.sizes):,} documents of {name} cannot be split, since they all have the same text; add "
            "others, or train on all text with --data.validation 0"
        )
    return held_out


def _corpus_name(sources: tuple[str | Path, ...]) -> str:
    """Name of the corpus for messages."""
    names = []
    for source in sources:
        if is_builtin(source):
            from clearstory.text.builtin_corpora import load_builtin

            names.append(load_builtin(str(source).removeprefix("corpus:")).name)
        elif is_standard_input(source):
            names.append(STANDARD_INPUT_NAME)
        else:
            names.append(Path(source).name or str(source))
    return "text" if not names else names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _builtin_notes(sources: tuple[str | Path, ...]) -> list[str]:
    """Remarks on the built-in corpora among the sources."""
    from clearstory.text.builtin_corpora import load_builtin

    loaded = [load_builtin(str(source).removeprefix("corpus:")) for source in sources if is_builtin(source)]
    return [each.note for each in loaded if each.note]
