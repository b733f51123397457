"""Passage: a view is about the very tokens that the model reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadInput, ContextOverflow
from clearstory.lens.hooks.passage import encode_passage
from clearstory.models.base import TokenBatch
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken

TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}


def test_a_decoder_reads_its_prompt() -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    model: Any = shaken(replace(TINY_GPT2, vocab=tokenizer.vocab, context=4))
    read = encode_passage(model, tokenizer, "abca")
    assert read.ids == tuple(tokenizer.encode("abca"))
    assert read.labels == ("a·0", "b", "c", "a·3")
    assert torch.equal(read.forward(model), model.forward(TokenBatch.from_sequences([read.ids]))[0][0])
    with pytest.raises(BadInput, match="the text is empty"):
        encode_passage(model, tokenizer, "")
    with pytest.raises(ContextOverflow, match=r"5 tokens .* 4"):
        encode_passage(model, tokenizer, "abcab")
    assert encode_passage(model, tokenizer, "abcab", truncate="left").pieces == ("b", "c", "a", "b")


def test_an_encoder_reads_between_its_own_tokens_and_in_two_token_types() -> None:
    tokenizer = train_tokenizer("wordpiece:20", ["a b c", "a c b"])
    model: Any = shaken(replace(BERT_TINY, **TINY, vocab=tokenizer.vocab, context=12))
    read = encode_passage(model, tokenizer, "a [MASK]")
    assert read.pieces == ("[CLS]", "a", "[MASK]", "[SEP]")
    assert read.token_types is None
    two = encode_passage(model, tokenizer, "a b ||| c")
    assert two.pieces == ("[CLS]", "a", "b", "[SEP]", "c", "[SEP]")
    assert two.token_types == (0, 0, 0, 0, 1, 1)
    assert torch.equal(
        two.forward(model), model.encode(TokenBatch.from_sequences([two.ids]), torch.tensor([two.token_types]))[0]
    )


def test_an_encoder_decoder_reads_a_source_and_what_it_wrote() -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    model: Any = shaken(replace(T5_SMALL, **TINY, vocab=tokenizer.vocab, context=12, decoder_start_token_id=0))
    read = encode_passage(model, tokenizer, "abc", target="ba")
    assert read.source[:3] == tuple(tokenizer.encode("abc"))
    assert read.source[3:] == (tokenizer.eos_token_id,)
    assert read.ids == (0, *tokenizer.encode("ba"))
    assert encode_passage(model, tokenizer, "abc").ids == (0,)
    assert torch.equal(
        read.forward(model),
        model.forward(TokenBatch.from_sequences([read.ids]), source=TokenBatch.from_sequences([read.source]))[0][0],
    )
