"""Metrics: sums add up, and what is not known stays unknown."""

from __future__ import annotations

import math

import pytest

from clearstory.errors import BadInput
from clearstory.metrics import Score, bits_per_byte, perplexity


def test_scores_add_up_as_their_texts_do() -> None:
    # 2 nats over 4 bytes and 6 over 4 are 8 over 8: ln 2 nats to the bit.
    total = Score(nats=2.0, tokens=1, bytes=4) + Score(nats=6.0, tokens=3, bytes=4)
    assert total == Score(nats=8.0, tokens=4, bytes=8)
    assert total.bits_per_byte == pytest.approx(1 / math.log(2))
    assert total.nats_per_token == 2.0
    assert total.perplexity == pytest.approx(math.e**2)


def test_unknown_bytes_make_the_sum_unknown_and_keep_their_reason() -> None:
    total = Score(nats=2.0, tokens=1, bytes=4) + Score(nats=1.0, tokens=1, bytes=4).without_bytes("it is uncased")
    assert (total.bytes, total.bits_per_byte, total.reason) == (None, None, "it is uncased")


def test_nothing_scored_is_no_number() -> None:
    assert math.isnan(Score().nats_per_token)
    assert math.isnan(Score().perplexity)
    assert math.isnan(bits_per_byte(0.0, 0))
    assert perplexity(1e6, 1) == math.inf
    with pytest.raises(BadInput):
        bits_per_byte(1.0, -1)
