"""Tokenization steps: they reproduce the library's result."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearstory.errors import CannotDo
from clearstory.text.tokenization_steps import tokenize_by_words
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from trained import words

TEXT = words(200) + " naïve 吾輩は猫\n\tunaffable cats"
TOKENIZERS = {
    spec: train_tokenizer(spec, [TEXT])
    for spec in ("characters", "bytes", "words", "bpe:300", "wordpiece:60", "unigram:300")
}


@pytest.mark.parametrize("spec", TOKENIZERS)
@settings(deadline=None, max_examples=20)
@given(text=st.text(max_size=40) | st.text("the cat sat on mats, dogs", max_size=40))
def test_every_word_ends_in_its_tokens(spec: str, text: str) -> None:
    tokenizer = TOKENIZERS[spec]
    found = tokenize_by_words(tokenizer, text)
    assert sum(len(word.ids) * word.count for word in found) == len(tokenizer.encode(text))
    for word in found:
        assert len(word.steps[0].pieces) >= 1 or not word.ids
        assert all(step.made is not None for step in word.steps[1:])


def byte_level_bpe(*merges: str, **more: object) -> Tokenizer:
    """A tokenizer of single letters and what these pairs make."""
    letters = sorted({letter for merge in merges for letter in merge.replace(" ", "")})
    made = [merge.replace(" ", "") for merge in merges]
    ids = {piece: id for id, piece in enumerate([*letters, *dict.fromkeys(made)])}
    model = {"type": "BPE", "vocab": ids, "merges": [list(merge.split()) for merge in merges], **more}
    return Tokenizer(json.dumps({"version": "1.0", "model": model}))


def test_pairs_are_joined_by_rank_and_then_from_the_left() -> None:
    tokenizer = byte_level_bpe("a b", "c d", "ab cd", "b c")
    # abcdab: a-b has rank 0 and occurs twice, the first goes first; then c-d (1); then ab-cd (2). b-c (3) never comes.
    [word] = tokenize_by_words(tokenizer, "abcdab")
    assert [(step.made, step.number, " ".join(step.pieces)) for step in word.steps] == [
        (None, None, "a b c d a b"),
        ("ab", 0, "ab c d a b"),
        ("ab", 0, "ab c d ab"),
        ("cd", 1, "ab cd ab"),
        ("abcd", 2, "abcd ab"),
    ]
    [whole] = tokenize_by_words(byte_level_bpe("a b", "c d", "ab cd", ignore_merges=True), "abcd")
    assert [step.pieces for step in whole.steps] == [("abcd",)]


def test_pieces_of_words_are_the_longest_from_the_left() -> None:
    vocab = {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "u": 4, "##n": 5}
    usual = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    tokenizer = Tokenizer(json.dumps({"model": {**usual, "max_input_chars_per_word": 100, "vocab": vocab}}))
    [word] = tokenize_by_words(tokenizer, "unaffable")
    # Longer than ‘un’ are 9 - 2 = 7 beginnings; than ‘##aff’ 7 - 3 = 4; than ‘##able’ none.
    assert [(step.made, step.number) for step in word.steps] == [(None, None), ("un", 7), ("##aff", 4), ("##able", 0)]
    assert word.steps[1].pieces == ("un", "##affable")
    [unknown] = tokenize_by_words(tokenizer, "unaxable")
    assert unknown.steps[-1].pieces == ("[UNK]",)


def test_scores_of_the_likeliest_pieces_add_up_highest() -> None:
    scores = {"<unk>": 0.0, "a": -2.0, "b": -3.0, "ab": -4.5, "ba": -6.0, "aba": -8.0}
    model = {"type": "Unigram", "unk_id": 0, "vocab": [list(item) for item in scores.items()]}
    tokenizer = Tokenizer(json.dumps({"model": model}))
    [word] = tokenize_by_words(tokenizer, "aba")

    def segmentation_scores(text: str) -> list[float]:
        ends = [piece for piece in scores if text and text.startswith(piece)]
        return (
            [scores[piece] + rest for piece in ends for rest in segmentation_scores(text[len(piece) :])]
            if text
            else [0.0]
        )

    # ab a: -6.5; a b a: -7; a ba: -8; aba: -8
    assert sum(step.number or 0 for step in word.steps) == max(segmentation_scores("aba")) == -6.5
    assert [step.made for step in word.steps] == [None, "ab", "a"]


def test_an_unknown_way_of_splitting_is_refused() -> None:
    contents = json.loads(train_tokenizer("bpe:300", [TEXT]).contents)
    # Added tokens with lstrip include the space before them, which the steps do not reproduce.
    contents["added_tokens"].append(
        {"id": 300, "content": "dogs", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
        | {"special": False}
    )
    with pytest.raises(CannotDo, match="the merge steps of this tokenizer cannot be reproduced"):
        tokenize_by_words(Tokenizer(json.dumps(contents)), "the dogs")


@pytest.mark.parametrize(
    "name", ["gpt-2", "phi-3", "bert-bge", *(pytest.param(name, marks=pytest.mark.slow) for name in ("falcon", "mpt"))]
)
def test_the_steps_of_published_tokenizers_on_difficult_texts(name: str, data: Path, tmp_path: Path) -> None:
    from clearstory.formats.gguf.header import GGUFHeader
    from clearstory.formats.gguf.tokenizer import read_gguf_tokenizer

    folder, file = data / "gguf-vocab", tmp_path / f"{name}.gguf"
    file.write_bytes(gzip.decompress((folder / f"ggml-vocab-{name}.gguf.gz").read_bytes()))
    tokenizer = read_gguf_tokenizer(file, GGUFHeader.read(file).metadata)
    assert tokenizer is not None
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")
    assert (
        sum(len(tokenize_by_words(tokenizer, text)) for text in texts) >= 45
    )  # each is checked against the library's ids
