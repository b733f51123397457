"""Sentence splitting without loss, document boundaries, and the inputs of an encoder for one text or two."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearstory.errors import CannotDo
from clearstory.models.prompts import encode_for_encoder
from clearstory.text.document import Document
from clearstory.text.sentence_splitting import documents_by_sentence, split_sentences
from clearstory.text.special_tokens import build_inputs, continuation_mask, require_mask_token
from clearstory.text.token_dataset import encode_documents
from clearstory.text.train_tokenizer import train_tokenizer

calm = hypothesis.settings(deadline=None)  # busy machines are slow, not wrong


@calm
@given(st.text(alphabet='aB .!?\n\t。”")1', max_size=60))
def test_sentences_joined_are_the_text(text: str) -> None:
    found = split_sentences(text)
    assert "".join(found) == text
    assert all(each.strip() for each in found[:-1])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three? Four", 4),
        ("He said “No.” Then he left.", 2),
        ("At 5 p.m. it rains, i.e. it pours.", 1),
        ("3.14 is no end", 1),
        (" = Title = \n \n The text . It goes on . \n", 3),
        ("東京へ行く。雨が降る！「はい。」", 3),
        ("", 0),
        (" \n ", 1),
    ],
)
def test_number_of_sentences(text: str, count: int) -> None:
    assert len(split_sentences(text)) == count


def test_documents_and_their_parts_end_with_an_empty_sentence() -> None:
    parts = [Document("a", "One. Two is "), Document("a", "long. Three.", 1), Document("b", ""), Document("c", "Four.")]
    texts = [each.text for each in documents_by_sentence(parts)]
    assert texts == ["One. ", "Two is long. ", "Three.", "", "", "Four.", ""]
    assert list(documents_by_sentence([])) == []


def test_ids_of_sentences_are_those_of_the_text() -> None:
    text = "The cat sat. The dog lay!\nWell, said the cat."
    tokenizer = train_tokenizer("wordpiece:60", [text])
    dataset = encode_documents(tokenizer, documents_by_sentence([Document("a", text)]), append_eos=False)
    assert dataset.ids.tolist() == tokenizer.encode(text)
    assert (np.diff(dataset.starts) == 0).nonzero()[0].tolist() == [3]
    assert dataset.text_bytes == len(text.encode())


def test_one_text_and_two_get_their_special_tokens() -> None:
    tokenizer = train_tokenizer("wordpiece:40", ["a cat sat"])
    cls, sep, mask = tokenizer.cls_token_id, tokenizer.sep_token_id, require_mask_token(tokenizer)
    a, b = tokenizer.encode("a cat"), tokenizer.encode("sat")
    assert build_inputs(tokenizer, "a cat") == ([cls, *a, sep], [0] * (len(a) + 2))
    assert build_inputs(tokenizer, "a cat", b) == ([cls, *a, sep, *b, sep], [0] * (len(a) + 2) + [1] * (len(b) + 1))
    assert encode_for_encoder(tokenizer, "a [MASK] sat").ids == (cls, *tokenizer.encode("a"), mask, *b, sep)
    # The mask is the only special token that is parsed: others are text.
    assert encode_for_encoder(tokenizer, "[SEP] [MASK]").ids.count(sep) == 1
    assert tokenizer.display_token(int(np.flatnonzero(continuation_mask(tokenizer))[0])).startswith("##")
    assert tokenizer.special_tokens_mask.sum() == 5


@pytest.mark.parametrize("kind", ["bytes", "characters", "words", "bpe:300"])
def test_tokenizers_without_special_tokens_refuse(kind: str) -> None:
    # In a text of words, [MASK] is one of them.
    tokenizer = train_tokenizer(kind, ["a b [MASK] [CLS] [SEP] c " * 3])
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (None, None, None)
    with pytest.raises(CannotDo, match="wordpiece:8192"):
        build_inputs(tokenizer, "a")
    with pytest.raises(CannotDo, match="wordpiece:8192"):
        require_mask_token(tokenizer)
