"""Texts and pairs become inputs of models; texts that are too long are refused, cut or read in windows."""

from __future__ import annotations

import pytest

from clearstory.errors import BadInput, BadSetting, ContextOverflow
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.special_tokens import build_inputs
from clearstory.text.train_tokenizer import train_tokenizer

WORDS = [chr(97 + number) for number in range(20)]
ENCODER = train_tokenizer("wordpiece:60", [" ".join(WORDS)])
DECODER = train_tokenizer("words", [" ".join(WORDS)])
LONG = " ".join(WORDS)


def test_an_encoder_reads_a_pair_as_bert_does() -> None:
    window = TextWindows(ENCODER, encoder=True, context=None)("a b", "c")[0]
    ids, types = build_inputs(ENCODER, "a b", "c")
    assert (list(window.ids), list(window.token_types or ())) == (ids, types)
    assert TextWindows(ENCODER, encoder=True, context=None)("a b")[0].token_types is None


def test_a_text_that_is_too_long_names_both_lengths_and_its_place() -> None:
    with pytest.raises(
        ContextOverflow, match=r"f\.tsv, line 3 has 22 tokens .* context is 8; pass --truncate .*--stride"
    ):
        TextWindows(ENCODER, encoder=True, context=8)(LONG, None, "f.tsv, line 3")


@pytest.mark.parametrize(("side", "kept"), [("right", "a b c d e f"), ("left", "o p q r s t")])
def test_truncation_keeps_special_tokens(side: str, kept: str) -> None:
    window = TextWindows(ENCODER, encoder=True, context=8, truncate=side)(LONG)[0]  # type: ignore[arg-type]
    assert list(window.ids) == build_inputs(ENCODER, kept)[0]


def test_truncation_of_a_pair_drops_tokens_of_the_longer_text() -> None:
    windows = TextWindows(ENCODER, encoder=True, context=10, truncate="right")
    assert list(windows("a b", LONG)[0].ids) == build_inputs(ENCODER, "a b", "a b c d e")[0]  # 10 - 3 = 2 + 5
    assert list(windows(LONG, LONG)[0].ids) == build_inputs(ENCODER, "a b c d", "a b c")[0]  # 4 + 3


def test_windows_cover_a_text_and_the_last_one_ends_with_it() -> None:
    found = TextWindows(DECODER, encoder=False, context=8, stride=5)(LONG)
    ids = DECODER.encode(LONG)
    assert [list(window.ids) for window in found] == [ids[0:8], ids[5:13], ids[10:18], ids[12:20]]
    assert len(TextWindows(DECODER, encoder=False, context=20, stride=5)(LONG)) == 1


def test_windows_of_a_pair_repeat_the_first_text() -> None:
    found = TextWindows(ENCODER, encoder=True, context=13, stride=4)("a b", " ".join(WORDS[:12]))
    texts = [" ".join(WORDS[start : start + 8]) for start in (0, 4)]
    assert [list(window.ids) for window in found] == [build_inputs(ENCODER, "a b", text)[0] for text in texts]


def test_a_stride_longer_than_a_window_would_skip_tokens() -> None:
    with pytest.raises(BadSetting, match="stride is 9"):
        TextWindows(DECODER, encoder=False, context=8, stride=9)(LONG)


def test_a_model_without_special_tokens_needs_a_token() -> None:
    with pytest.raises(BadInput, match="line 2 is empty"):
        TextWindows(DECODER, encoder=False, context=8)("", None, "f.tsv, line 2")
    assert len(TextWindows(ENCODER, encoder=True, context=8)("")[0].ids) == 2
