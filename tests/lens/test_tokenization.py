"""Tokenization: every token with its bytes and characters; two tokenizers row by row."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.tokenization import align_tokenizers, split_words, token_table, tokenization
from clearstory.lens.views import Table
from clearstory.models.build import build
from clearstory.models.prompts import encode_prompt
from clearstory.models.transformer.presets import BERT_TINY
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken
from trained import words

MODEL: Any = shaken(TINY_GPT2)
TEXT = words(200)
TOKENIZERS = {
    spec: train_tokenizer(spec, [TEXT])
    for spec in ("characters", "bytes", "words", "bpe:300", "wordpiece:60", "unigram:300")
}


def test_a_row_for_each_token() -> None:
    tokenizer = train_tokenizer("characters", ["ab \n"])
    view = token_table(tokenizer, "ab\n吾 a", encode_prompt(MODEL, tokenizer, "ab\n吾 a"))
    assert view.rows == (
        (0, "a", 2, 1, "a", ""),
        (1, "b", 3, 1, "b", ""),
        (2, "↵", 0, 1, "↵", ""),
        (3, "<unk>", 5, 0, "吾", "unknown"),
        (4, "␣", 1, 1, "␣", ""),
        (5, "a", 2, 1, "a", ""),
    )
    assert view.caption == (
        "8 bytes in 6 tokens: 1.33 bytes per token. 1 of them are the unknown token, which loses their text."
    )


def test_an_encoder_shows_its_special_tokens() -> None:
    tokenizer = TOKENIZERS["wordpiece:60"]
    sizes: Any = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}
    model = build(replace(BERT_TINY, **sizes, vocab=tokenizer.vocab), seed=1)
    table = tokenization(model, tokenizer, "the [MASK] sat").panels[0]
    assert isinstance(table, Table)
    assert table.column("token")[0] == "[CLS]"
    assert table.column("token")[-1] == "[SEP]"
    assert table.column("characters").count("[MASK]") == 1
    assert [row[5] for row in table.rows].count("special") == 3


@pytest.mark.parametrize("one", TOKENIZERS)
@settings(deadline=None, max_examples=20)
@given(text=st.text(max_size=30) | st.text("the cat sat\n吾é ", max_size=30), other=st.sampled_from(list(TOKENIZERS)))
def test_segments_hold_all_tokens_of_both_in_order(one: str, text: str, other: str) -> None:
    first, second = TOKENIZERS[one], TOKENIZERS[other]
    found = align_tokenizers(first, second, text)
    assert [id for each in found for id in each.first] == first.encode(text)
    assert [id for each in found for id in each.second] == second.encode(text)
    assert all(before.stop <= after.start for before, after in pairwise(found))


def test_two_tokenizers_are_compared_row_by_row() -> None:
    report = tokenization(MODEL, TOKENIZERS["bpe:300"], "the cat", compare_tokenizer="characters")
    assert [step.title for step in report.panels][1] == "Compared with characters"
    table = report.panels[1]
    assert isinstance(table, Table)
    assert sum(int(str(each)) for each in table.column("characters: tokens")) == 7
    assert "7 tokens, 1.00 bytes each" in str(table.caption)


def test_words_with_the_fewest_bytes_per_token_come_first() -> None:
    table = tokenization(MODEL, TOKENIZERS["bpe:300"], "the cat xyzzy the mat.", top=2).panels[-1]
    assert isinstance(table, Table)
    assert table.rows[0][:4] == ("xyzzy", 5, 5, 1.0)
    assert [each.text for each in split_words(TOKENIZERS["bpe:300"], "a b a")] == ["a", "b"]
    sizes = [float(str(each)) for each in table.column("bytes per token")]
    assert sizes == sorted(sizes)


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(BadInput, match="the text is empty"):
        tokenization(MODEL, TOKENIZERS["bpe:300"], "")
    with pytest.raises(BadInput, match="4,001 characters"):
        tokenization(MODEL, TOKENIZERS["bpe:300"], "a" * 4001)
    with pytest.raises(BadSetting, match="top is 0"):
        tokenization(MODEL, TOKENIZERS["bpe:300"], "a", top=0)
