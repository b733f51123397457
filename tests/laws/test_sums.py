"""Nats, tokens and bytes add up over lines, documents, files and batches, for every tokenizer and family."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clearstory.evaluation.units import EvalText, score_units
from clearstory.evaluation.windows import iter_scores, score_dataset
from clearstory.formats.folders import open_model
from clearstory.formats.gguf.write import write_gguf
from clearstory.metrics import Score
from clearstory.models.build import build
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.recipes.inference.evaluate import evaluate
from clearstory.text.document import Document
from clearstory.text.settings import DataSettings
from clearstory.text.token_dataset import encode_documents, encode_text
from clearstory.text.tokenizer_json import AddedTokens, sentencepiece_bpe
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, TINY_LSTM, shaken

LINES = (
    "the cat sat on the mat .",
    "",
    "  a   mat, a cat",
    "naïve 東京 🙂\tthe",
    "on the mat the cat sat on the mat the cat sat on the mat the cat sat .\r",
    "the cat",
)
TEXT = "\n".join(LINES)

KINDS = ("characters", "bytes", "words", "bpe:300", "wordpiece:80", "unigram:300", "byte-fallback")


def byte_fallback() -> Tokenizer:
    """A BPE of SentencePiece without a piece for the space: each is spelled in three byte tokens."""
    special = ["<unk>", "<s>", "</s>"]
    pieces = ["a", "c", "t", "h", "e", "at", "th", "the", "cat"]
    vocabulary = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    contents = sentencepiece_bpe(
        [(piece, -float(rank)) for rank, piece in enumerate(pieces)],
        {piece: id for id, piece in enumerate(vocabulary)},
        "<unk>",
        AddedTokens(special=special),
    )
    parts = json.loads(contents)
    parts["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return Tokenizer(json.dumps(parts), {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"})


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "byte-fallback":
        return byte_fallback()
    return train_tokenizer(kind, [TEXT] * 3)


def ngram(known: Tokenizer) -> Any:
    start = bos_or_eos_token_id(known)
    model: Any = build(NGramConfig(vocab=known.vocab, order=3, smoothing="witten-bell", bos_token_id=start)).double()
    assert list(model.fit(encode_text(known, [TEXT])))
    return model.eval()


FAMILIES: dict[str, Callable[[Tokenizer], Any]] = {
    "ngram": ngram,
    "hmm": lambda known: shaken(HMMConfig(vocab=known.vocab, states=5)),
    "rnn": lambda known: shaken(replace(TINY_LSTM, cell="rnn", vocab=known.vocab)),
    "lstm": lambda known: shaken(replace(TINY_LSTM, vocab=known.vocab)),
    "gru": lambda known: shaken(replace(TINY_LSTM, cell="gru", vocab=known.vocab)),
    "decoder": lambda known: shaken(replace(TINY_GPT2, vocab=known.vocab)),
}


def assert_equal(one: Score, other: Score, rel: float = 1e-9) -> None:
    assert one.nats == pytest.approx(other.nats, rel=rel)
    assert (one.tokens, one.bytes) == (other.tokens, other.bytes)


def score(model: Any, known: Tokenizer, texts: list[str], **options: Any) -> Score:
    return score_dataset(model, encode_text(known, texts), start_token_id=bos_or_eos_token_id(known), **options)


@pytest.mark.parametrize(
    ("kind", "family"),
    # Every family with two tokenizers, every tokenizer with two families.
    [
        (kind, family)
        for kind in KINDS
        for family in FAMILIES
        if kind in ("words", "byte-fallback") or family in ("ngram", "gru")
    ],
)
def test_documents_and_batches_add_up(kind: str, family: str) -> None:
    known = tokenizer(kind)
    model, texts = FAMILIES[family](known), [*LINES, TEXT]
    whole = score(model, known, texts)
    assert whole.bytes == sum(len(text.encode()) for text in texts)
    assert_equal(sum((score(model, known, [text]) for text in texts), Score()), whole)
    assert_equal(score(model, known, texts[:3]) + score(model, known, texts[3:]), whole)
    for batch_size in (1, 3):
        assert_equal(score(model, known, texts, batch_size=batch_size), whole)
    parts = list(iter_scores(model, encode_text(known, [TEXT]), start_token_id=bos_or_eos_token_id(known)))
    assert sum(part.bytes or 0 for part in parts) == len(TEXT.encode())
    assert all((part.bytes or 0) >= 0 for part in parts)


@pytest.mark.parametrize("family", ["ngram", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_and_lines_add_up(tmp_path: Path, kind: str, family: str) -> None:
    known = tokenizer(kind)
    opened: Any = SimpleNamespace(model=FAMILIES[family](known), tokenizer=known)
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file, text in zip(files, (TEXT, TEXT + "\n"), strict=True):
        file.write_bytes(text.encode())
    each = [evaluate(opened, file).score for file in files]
    assert_equal(evaluate(opened, files).score, each[0] + each[1])
    by_line = evaluate(opened, files[1], data=DataSettings(lines=True)).score
    lines = [score(opened.model, known, [line.removesuffix("\r")]) for line in LINES]
    assert by_line.nats == pytest.approx(sum(line.nats for line in lines), rel=1e-9)
    assert by_line.tokens == sum(line.tokens for line in lines)
    if by_line.bytes is not None:
        assert by_line.bytes == each[1].bytes == len(TEXT.encode()) + 1
    if kind == "words":  # a line is a sentence, and the end of the text is the last one's
        assert each[0].tokens == each[1].tokens == by_line.tokens
        if family == "ngram":
            assert by_line.nats == pytest.approx(each[0].nats, rel=1e-9)
            assert each[0].nats == pytest.approx(each[1].nats, rel=1e-12)
    else:
        assert by_line.tokens != each[0].tokens


def test_a_gguf_file_and_single_precision_add_up(tmp_path: Path) -> None:
    known = tokenizer("bpe:300")
    write_gguf(tmp_path / "a.gguf", shaken(replace(TINY_GPT2, vocab=known.vocab)).float(), known, "tiny")
    opened = open_model(tmp_path / "a.gguf")
    lines = list(filter(None, LINES))
    whole = evaluate(opened, texts=lines).score
    assert whole.bytes == sum(len(line.encode()) for line in lines)
    assert_equal(sum((evaluate(opened, texts=[line]).score for line in lines), Score()), whole, rel=1e-5)
    assert_equal(evaluate(opened, texts=lines, batch_size=1).score, whole, rel=1e-5)


def test_bits_per_byte_divide_by_the_bytes_that_were_read() -> None:
    known = byte_fallback()
    # A space is ▁ in three byte tokens, and one is put before each text.
    assert [len(known.encode(text)) for text in ("the", " the", "the the")] == [4, 7, 8]
    opened: Any = SimpleNamespace(model=FAMILIES["gru"](known), tokenizer=known)
    found = evaluate(opened, texts=["hello world"])
    assert (found.lossless, found.score.bytes) == (True, 11)
    dataset = encode_documents(known, [Document("a", "hello world", end_bytes=1)])
    assert (dataset.bytes, dataset.text_bytes) == (16, 12)
    text = EvalText.from_documents("two", [Document("a", "hello world"), Document("b", "the cat")])
    units = score_units(opened.model, known, text)
    assert units.reason is None
    assert units.nats is not None
    assert units.nats.sum() == pytest.approx(units.model_nats, rel=1e-9)


@pytest.mark.parametrize("kind", ["characters", "words", "bpe:300"])
def test_every_document_has_one_end(kind: str) -> None:
    known = tokenizer(kind)
    for texts in (["a cat"], ["a cat", "the mat"], [""], ["a\n", "the mat\n\n", "\n"]):
        dataset = encode_text(known, texts)
        ends = dataset.ids[dataset.starts[1:] - 1]
        assert set(ends.tolist()) == {known.eos_token_id}
        bodies = [known.encode(text) for text in texts]
        extra = [
            len(ids) - len(body)
            for ids, body in zip(map(range, [*(dataset.starts[1:] - dataset.starts[:-1])]), bodies, strict=True)
        ]
        assert extra == [int(kind != "words" or not text.endswith("\n")) for text in texts]
