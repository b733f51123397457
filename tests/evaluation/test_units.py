"""What a ladder stands on: units of the same text, and a charge for what a tokenizer leaves out."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from clearstory.metrics import bootstrap_interval, paired_bootstrap
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.evaluation.units import EvalText, divided, measure
from clearstory.evaluation.oov_cost import Guess, Letters, Spelling
from clearstory.text.document import Document
from clearstory.text.train_tokenizer import train_tokenizer

TEXT = "the cat sat on the mat.\nthe dog sat  on the log.\n"


def held(*texts: str) -> EvalText:
    return EvalText.of("a text", [Document(name="text", text=text) for text in texts])


def counted(tokenizer: Any, text: EvalText) -> Any:
    """A bigram of the very text."""
    from clearstory.text.token_dataset import encode_documents

    model = build(NGramConfig(vocab=tokenizer.vocab, order=2, smoothing="witten-bell", bos_token_id=tokenizer.eos_token_id))
    for _ in model.fit(encode_documents(tokenizer, text.documents, text.several)):
        pass
    return model


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe:300", "words", "wordpiece:60"])
def test_units_add_up_to_the_whole_text_whatever_its_tokens(kind: str) -> None:
    tokenizer = train_tokenizer(kind, [TEXT, "0123456789"])
    text = held(*[f"{TEXT}{number} cats.\n" for number in range(30)])
    found = measure(counted(tokenizer, text), tokenizer, text, windows="blocks")
    assert found.nats is not None
    assert len(found.nats) == len(text.sizes) == 30
    assert found.nats.sum() == pytest.approx(found.model_nats + found.charged, rel=1e-9)
    assert (found.charged > 0) == (kind in ("words", "wordpiece:60"))
    assert np.all(found.nats > 0)


def test_a_token_over_the_end_of_a_unit_is_shared_out() -> None:
    # 4 bytes for 2 nats: its first byte to the first unit, three quarters of it to the second.
    assert divided(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([3.0, 6.0])).tolist() == [1.5, 1.5]


def test_a_word_is_spelt_from_what_was_counted() -> None:
    # One word "a" of order 1: two symbols met, "a" and the end, each once; t = 2 ways of going on.
    letters = Letters([b"a"], order=1)
    # p(a) = (1 + 2 / 257) / (2 + 2), and as much for the end; another byte: (2 / 257) / 4
    once = (1 + 2 / 257) / 4
    assert letters.nats(b"a") == pytest.approx(-2 * math.log(once))
    assert letters.nats(b"b") == pytest.approx(-math.log(2 / 257 / 4) - math.log(once))


def test_spelling_is_a_code_its_words_probabilities_sum_to_at_most_one() -> None:
    letters = Letters([b"ab", b"ba", b"a"], order=3)
    total = sum(math.exp(-letters.nats(bytes(word))) for size in range(5) for word in product(b"abc", repeat=size))
    assert 0.5 < total <= 1.0


def test_what_was_met_before_costs_less_the_second_time() -> None:
    guess = Guess(Letters([b"cat"]))
    first, second, third = guess.charge(b"zebra"), guess.charge(b"zebra"), guess.charge(b"zebra")
    assert first > second > third > 0


def test_a_word_that_is_known_costs_little_and_one_that_is_not_its_letters() -> None:
    found = Spelling(train_tokenizer("words", [TEXT])).charge("the cat")
    assert found is not None
    assert found[1].unknown == 0
    assert found[1].sizes.sum() == len("the cat")
    strange = Spelling(train_tokenizer("words", [TEXT])).charge("the zebra")
    assert strange is not None
    assert strange[1].unknown == 1
    assert strange[1].nats[1] > found[1].nats[1] + 8  # five letters that no word of the text has


def test_an_interval_holds_the_mean_and_pairs_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 150, 400).astype(float)
    hard = rng.normal(1.0, 0.3, 400)
    first, second = hard * sizes, (hard + 0.01) * sizes
    low, high = bootstrap_interval(first, sizes) or (0, 0)
    assert low < first.sum() / sizes.sum() / math.log(2) < high
    other = bootstrap_interval(second, sizes) or (0, 0)
    assert other[0] < high  # the intervals overlap, and yet:
    difference = paired_bootstrap(first, second, sizes)
    assert difference is not None
    assert difference.bits == pytest.approx(-0.01 / math.log(2))
    assert difference.high < 0
    assert difference.better == 1.0
    assert paired_bootstrap(first, first, sizes).bits == 0  # type: ignore[union-attr]
    assert bootstrap_interval(first[:1], sizes[:1]) is None
