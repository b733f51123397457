"""Metrics: sums add up, and unknown bytes stay unknown."""

from __future__ import annotations

import math

import pytest

from clearstory.errors import BadInput
from clearstory.metrics import Score, bits_per_byte, bleu, chrf, perplexity


def test_scores_add_up() -> None:
    # 2 nats over 4 bytes and 6 over 4 are 8 over 8: ln 2 nats to the bit.
    total = Score(nats=2.0, tokens=1, bytes=4) + Score(nats=6.0, tokens=3, bytes=4)
    assert total == Score(nats=8.0, tokens=4, bytes=8)
    assert total.bits_per_byte == pytest.approx(1 / math.log(2))
    assert total.nats_per_token == 2.0
    assert total.perplexity == pytest.approx(math.e**2)


def test_unknown_bytes_make_the_sum_unknown_and_keep_their_reason() -> None:
    total = Score(nats=2.0, tokens=1, bytes=4) + Score(nats=1.0, tokens=1, bytes=4).without_bytes("it is uncased")
    assert (total.bytes, total.bits_per_byte, total.reason) == (None, None, "it is uncased")


def test_texts_are_compared_with_references() -> None:
    pytest.importorskip("sacrebleu", reason="chrF and BLEU are sacrebleu's, which is not installed")
    right = ["Der Hund bellt laut heute.", "Guten Morgen zusammen, Freunde."]
    assert [chrf(right, right), bleu(right, right)] == pytest.approx([100, 100])
    half = ["Der Hund schweigt heute.", "Guten Abend zusammen, Freunde."]
    assert 0 < bleu(half, right) < chrf(half, right) < 100
    # Words that are separated already: the full stop is a word only where it is written apart.
    assert bleu(["a b c d ."], ["a b c d ."], tokenizer=None) == pytest.approx(100)
    assert bleu(["a b c d."], ["a b c d ."], tokenizer=None) < bleu(["a b c d."], ["a b c d ."]) == pytest.approx(100)
    with pytest.raises(BadInput, match="2 texts cannot be compared with 1 references"):
        chrf(right, right[:1])


def test_nothing_scored_is_nan() -> None:
    assert math.isnan(Score().nats_per_token)
    assert math.isnan(Score().perplexity)
    assert math.isnan(bits_per_byte(0.0, 0))
    assert perplexity(1e6, 1) == math.inf
    with pytest.raises(BadInput):
        bits_per_byte(1.0, -1)
