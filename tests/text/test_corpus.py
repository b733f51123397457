"""Corpora: split once without leaks, encoded once, cached correctly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearstory.errors import BadInput, BadSetting, UnknownName
from clearstory.text import corpus as corpus_module
from clearstory.text import files, token_dataset
from clearstory.text.corpus import SPLITS, Corpus, cache_folder, train_corpus_tokenizer
from clearstory.text.settings import DataSettings
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.train_tokenizer import train_tokenizer

calm = hypothesis.settings(deadline=None)  # busy machines are slow, not wrong

BYTES = train_tokenizer("bytes", [])


def jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def split(corpus: Corpus) -> tuple[list[str], list[str]]:
    train, validation = ([document.text for document in corpus.documents(name)] for name in SPLITS)
    return train, validation


@pytest.fixture
def settings(tmp_path: Path) -> DataSettings:
    return DataSettings(cache=tmp_path / "cache")


@calm
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=2, max_size=40),
    share=st.sampled_from([0.05, 0.1, 0.5, 0.9]),
)
def test_a_split_has_no_leaks_and_keeps_every_document(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], share: float
) -> None:
    file = jsonl(tmp_path_factory.getbasetemp() / "documents.jsonl", texts)
    settings = DataSettings(validation=share)
    if len(set(texts) - {""}) < 2:
        with pytest.raises(BadInput, match=r"cannot be split|has no text"):
            Corpus.open(file, settings)
        return
    train, validation = split(Corpus.open(file, settings))
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(texts)
    assert "".join(train)
    assert "".join(validation)


def test_documents_keep_their_split_when_others_are_added(tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(300)]
    _, before = split(Corpus.open(jsonl(tmp_path / "a.jsonl", texts)))
    more = [f"another {number}" for number in range(50)] + texts[::-1] + texts[:20]
    _, after = split(Corpus.open(jsonl(tmp_path / "b.jsonl", more)))
    assert 15 <= len(before) <= 45  # a tenth of 300, give or take three standard deviations of 5
    assert set(before) == {text for text in after if text.startswith("document")}


def test_of_two_documents_the_one_nearest_the_fraction_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("t" * 900)
    (tmp_path / "valid.txt").write_text("v" * 90)
    assert split(Corpus.open(tmp_path)) == (["t" * 900], ["v" * 90])
    (tmp_path / "valid.txt").write_text("v" * 900)
    assert split(Corpus.open(tmp_path)) == (["t" * 900], ["v" * 900])


def test_identical_documents_cannot_be_split(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", ["same"] * 5)
    with pytest.raises(BadInput, match=r"5 documents of a.jsonl cannot be split.*--data.validation 0"):
        Corpus.open(file)
    assert split(Corpus.open(file, DataSettings(validation=0))) == (["same"] * 5, [])


@pytest.mark.parametrize("block", [64, 1 << 19])
def test_the_last_characters_of_a_single_document_are_held_out_as_in_nanogpt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(files, "BLOCK", block)
    text = "".join(f"{number} naïve 東京\n" for number in range(400))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    corpus = Corpus.open(tmp_path / "a.txt")
    train, validation = map("".join, split(corpus))
    cut = int(len(text) * 0.9)
    assert (train, validation) == (text[:cut], text[cut:])
    assert corpus.size == 1
    assert next(corpus.documents("validation")).part == 0


def test_a_document_too_short_to_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadInput, match=r"a.txt has 1 characters, too few to hold out 10%.*--data.validation 0"):
        Corpus.open(tmp_path / "a.txt")
    assert split(Corpus.open(tmp_path / "a.txt", DataSettings(validation=0))) == (["x"], [])


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a.jsonl has no text"):
        Corpus.open(jsonl(tmp_path / "a.jsonl", ["", ""]))


def test_a_split_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    corpus = Corpus.open(jsonl(tmp_path / "a.jsonl", ["a", "b"]))
    with pytest.raises(UnknownName, match="did you mean 'validation'"):
        corpus.documents("valid")


def test_documents_end_with_eos_and_the_parts_of_a_single_one_do_not(tmp_path: Path, settings: DataSettings) -> None:
    several = Corpus.open(jsonl(tmp_path / "a.jsonl", ["aa", "b", "cc"]), settings).encode(BYTES)
    assert [several[name].documents for name in SPLITS] == [2, 1]
    assert [several[name].ids[several[name].starts[1:] - 1].tolist() for name in SPLITS] == [[256, 256], [256]]
    single = Corpus.open(jsonl(tmp_path / "b.jsonl", ["abcdefghij"]), settings).encode(BYTES)
    assert bytes(single["train"].ids.tolist()) == b"abcdefghi"
    assert single["validation"].ids.tolist() == [ord("j")]
    assert single["validation"].starts.tolist() == [0, 1]
    whole = Corpus.open(tmp_path / "b.jsonl", replace(settings, validation=0)).encode(BYTES)
    assert whole["train"].ids.tolist() == [*b"abcdefghij", 256]


def datasets_equal(one: TokenDataset, other: TokenDataset) -> bool:
    same = np.array_equal(one.ids, other.ids) and np.array_equal(one.starts, other.starts)
    return same and (len(one), one.bytes, one.text_bytes) == (len(other), other.bytes, other.text_bytes)


@pytest.mark.parametrize("spec", ["bytes", "characters", "words", "bpe:300"])
@pytest.mark.parametrize(
    "texts", [["東京 is\nnot naïve\n" * 90], [f"{number} naïve\n" * number for number in range(9)]]
)
def test_the_cache_equals_a_fresh_encoding(
    tmp_path: Path, settings: DataSettings, monkeypatch: pytest.MonkeyPatch, spec: str, texts: list[str]
) -> None:
    corpus = Corpus.open(jsonl(tmp_path / "a.jsonl", texts), settings)
    tokenizer = train_corpus_tokenizer(corpus, spec)
    monkeypatch.setattr(token_dataset, "BATCH", 50)
    first, second = corpus.encode(tokenizer), corpus.encode(tokenizer)
    for name in SPLITS:
        fresh = encode_documents(tokenizer, corpus.documents(name))
        assert datasets_equal(first[name], fresh)
        assert datasets_equal(second[name], fresh)
        assert fresh.text_bytes == sum(len(document.text.encode()) for document in corpus.documents(name))
    assert isinstance(second["train"].ids, np.memmap)
    assert second["train"].ids.dtype == np.uint16
    assert second["train"].byte_lengths.shape == (tokenizer.vocab,)


def test_what_is_cached_is_not_encoded_again(
    tmp_path: Path, settings: DataSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = jsonl(tmp_path / "a.jsonl", ["one", "two", "three"])
    first = Corpus.open(file, settings).encode(BYTES)
    monkeypatch.setattr(corpus_module, "write_datasets", None)
    assert datasets_equal(Corpus.open(file, settings).encode(BYTES)["train"], first["train"])
    file.rename(tmp_path / "b.jsonl")  # names do not count, contents do
    assert datasets_equal(Corpus.open(tmp_path / "b.jsonl", settings).encode(BYTES)["train"], first["train"])


def test_each_text_tokenizer_and_validation_fraction_has_its_own_cache(tmp_path: Path, settings: DataSettings) -> None:
    from dataclasses import replace

    file = jsonl(tmp_path / "a.jsonl", ["one" * 9, "two" * 9, "three" * 9])
    Corpus.open(file, settings).encode(BYTES)
    Corpus.open(file, settings).encode(train_tokenizer("characters", ["onetwthr"]))
    Corpus.open(file, replace(settings, validation=0.5)).encode(BYTES)
    jsonl(file, ["one" * 9, "two" * 9, "Three" * 9])
    changed = Corpus.open(file, settings).encode(BYTES)
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 4
    assert b"Three" in bytes(id for name in SPLITS for id in changed[name].ids.tolist() if id < 256)


def damage_ids(folder: Path) -> None:
    (folder / "train.ids").write_bytes((folder / "train.ids").read_bytes()[:-1])


def damage_starts(folder: Path) -> None:
    (folder / "train.starts").write_bytes(b"\1" * 8)


def damage_one_id(folder: Path) -> None:
    (folder / "train.ids").write_bytes(bytes(2) + (folder / "train.ids").read_bytes()[2:])


def lose_checksums(folder: Path) -> None:
    (folder / "checksums.json").unlink()


def damage_index(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"train": {"tokens": 5')


def damage_numbers(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"train": 5}')


def lose_a_file(folder: Path) -> None:
    (folder / "validation.ids").unlink()


DAMAGES = [damage_ids, damage_one_id, damage_starts, damage_index, damage_numbers, lose_a_file, lose_checksums]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, settings: DataSettings, damage: Callable[[Path], None]) -> None:
    corpus = Corpus.open(jsonl(tmp_path / "a.jsonl", ["one", "two", "three"]), settings)
    good = {name: np.array(dataset.ids) for name, dataset in corpus.encode(BYTES).items()}
    [folder] = (tmp_path / "cache" / "datasets").iterdir()
    damage(folder)
    with pytest.warns(UserWarning, match=r"the cache of encoded text is damaged \(.*\); the text is encoded again"):
        again = corpus.encode(BYTES)
    assert all(np.array_equal(again[name].ids, good[name]) for name in SPLITS)


def test_a_file_changed_while_encoding_is_reported_and_not_cached(tmp_path: Path, settings: DataSettings) -> None:
    corpus = Corpus.open(jsonl(tmp_path / "a.jsonl", ["one", "two", "three"]), settings)
    for texts in (["one", "two", "threes"], ["one", "two", "three", "four"]):
        jsonl(tmp_path / "a.jsonl", texts)
        with pytest.raises(BadInput, match=r"a.jsonl changed while it was read"):
            corpus.encode(BYTES)
    assert list((tmp_path / "cache" / "datasets").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    corpus = Corpus.open(jsonl(tmp_path / "a.jsonl", ["a", "b"]), DataSettings(cache=tmp_path / "file"))
    with pytest.raises(BadSetting, match=r"the cache for encoded text cannot be used .*--data.cache"):
        corpus.encode(BYTES)


def test_the_default_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(DataSettings()) == tmp_path / "clearstory"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_folder(DataSettings()) == Path("/home/ada/.cache/clearstory")


def test_tokenizers_are_trained_on_the_training_split_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 90 + "z" * 10)
    tokenizer = train_corpus_tokenizer(Corpus.open(tmp_path / "a.txt"), "characters")
    assert tokenizer.encode("z") == [tokenizer.unk_token_id]


def test_large_vocabularies_use_wider_ids(tmp_path: Path, settings: DataSettings) -> None:
    many = " ".join(f"w{number}" for number in range(70_000))
    tokenizer = train_tokenizer("words", [many])
    found = Corpus.open(jsonl(tmp_path / "a.jsonl", ["w69999 w1 w2 w3 w4 w5"]), settings).encode(tokenizer)
    assert found["train"].ids.dtype == np.uint32


def test_a_corpus_is_named_after_its_sources(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "b.txt").write_text("other text")
    assert Corpus.open(tmp_path / "a.txt").name == "a.txt"
    assert Corpus.open([tmp_path / "a.txt", tmp_path / "b.txt"]).name == "a.txt and 1 more"
    assert Corpus.open([tmp_path / "a.txt", tmp_path / "b.txt"]).note is None


def test_a_substitute_corpus_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearstory.text import builtin_corpora
    from clearstory.text.document import Document

    substitute = builtin_corpora.BuiltinCorpus(
        "python-docs", (Document("a", "a"), Document("b", "b")), "kjv is missing"
    )
    monkeypatch.setattr(builtin_corpora, "load_builtin", lambda name: substitute)
    corpus = Corpus.open("corpus:kjv")
    assert (corpus.name, corpus.note) == ("python-docs", "kjv is missing")


def test_a_home_that_cannot_hold_a_cache_or_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    corpus = Corpus.open(jsonl(tmp_path / "a.jsonl", ["a", "b"]))
    (tmp_path / "home").write_text("")
    for home in (tmp_path / "home", Path("/proc")):
        if home.exists():
            monkeypatch.setenv("HOME", str(home))
            with pytest.raises(BadSetting, match=r"the cache for encoded text cannot be used .*; set --data.cache"):
                corpus.encode(BYTES)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(BadSetting, match=r"there is no home folder .*; set a folder with --data.cache"):
        corpus.encode(BYTES)


def test_lines_are_encoded_with_their_ends_counted(tmp_path: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(40)) + "last"
    (tmp_path / "a.txt").write_text(text)
    for sentences in (False, True):
        corpus = Corpus.open(tmp_path / "a.txt", DataSettings(lines=True, cache=tmp_path / "cache"))
        datasets = corpus.encode(BYTES, sentences=sentences)
        assert (corpus.size, corpus.text_bytes) == (41, len(text))
        assert sum(dataset.text_bytes for dataset in datasets.values()) == len(text)
        if not sentences:
            assert sum(dataset.documents for dataset in datasets.values()) == 41
            assert sum(len(dataset) for dataset in datasets.values()) == len(text) + 1  # an end token for each line
    # The same text as one document has a cache of its own.
    whole = Corpus.open(tmp_path / "a.txt", DataSettings(cache=tmp_path / "cache")).encode(BYTES)
    assert whole["train"].documents == 1
    one = Corpus.open(jsonl(tmp_path / "b.jsonl", ["only line\n"]), DataSettings(lines=True, cache=tmp_path / "cache"))
    assert sum(dataset.text_bytes for dataset in one.encode(BYTES).values()) == one.text_bytes == 10
