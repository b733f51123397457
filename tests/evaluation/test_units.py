"""Units of comparison, the cost of what a tokenizer leaves out, and bootstrap intervals."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from clearstory.evaluation.oov_cost import AdaptiveStringModel, ByteNgrams, OovCostModel
from clearstory.evaluation.units import EvalText, nats_per_unit, score_units
from clearstory.metrics import bootstrap_interval, paired_bootstrap
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.text.document import Document
from clearstory.text.train_tokenizer import train_tokenizer

TEXT = "the cat sat on the mat.\nthe dog sat  on the log.\n"


def eval_text(*texts: str) -> EvalText:
    return EvalText.from_documents("a text", [Document(name="text", text=text) for text in texts])


def counted(tokenizer: Any, text: EvalText) -> Any:
    """A bigram model of the text itself."""
    from clearstory.text.token_dataset import encode_documents

    model = build(
        NGramConfig(vocab=tokenizer.vocab, order=2, smoothing="witten-bell", bos_token_id=tokenizer.eos_token_id)
    )
    for _ in model.fit(encode_documents(tokenizer, text.documents)):
        pass
    return model


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe:300", "words", "wordpiece:60"])
def test_units_add_up_to_the_whole_text_whatever_its_tokens(kind: str) -> None:
    tokenizer = train_tokenizer(kind, [TEXT, "0123456789"])
    text = eval_text(*[f"{TEXT}{number} cats.\n" for number in range(30)])
    found = score_units(counted(tokenizer, text), tokenizer, text, windows="blocks")
    assert found.nats is not None
    assert len(found.nats) == len(text.sizes) == 30
    assert found.nats.sum() == pytest.approx(found.model_nats + found.oov_nats, rel=1e-9)
    assert (found.oov_nats > 0) == (kind in ("words", "wordpiece:60"))
    assert np.all(found.nats > 0)


@pytest.mark.parametrize("kind", ["bytes", "words", "wordpiece:60"])
def test_units_of_lines_add_up_with_their_line_feeds(kind: str) -> None:
    tokenizer = train_tokenizer(kind, [TEXT])
    lines = [Document("lines", line, end_bytes=1) for line in ("the cat", "", "the dog  sat", "a zebra") * 8]
    text = EvalText.from_documents("lines", lines)
    found = score_units(counted(tokenizer, text), tokenizer, text, windows="blocks")
    assert found.nats is not None
    assert text.sizes.tolist() == [len(line.text) + 1 for line in lines]
    assert found.nats.sum() == pytest.approx(found.model_nats + found.oov_nats, rel=1e-9)
    assert np.all(found.nats > 0)


def test_a_token_across_the_end_of_a_unit_is_divided() -> None:
    # 4 bytes for 2 nats: its first byte to the first unit, three quarters of it to the second.
    assert nats_per_unit(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([3.0, 6.0])).tolist() == [1.5, 1.5]


def test_spelling_probabilities_come_from_counts() -> None:
    # One word "a" of order 1: two symbols seen, "a" and the end, each once; t = 2 continuations.
    spelling = ByteNgrams([b"a"], order=1)
    # p(a) = (1 + 2 / 257) / (2 + 2), and as much for the end; another byte: (2 / 257) / 4
    once = (1 + 2 / 257) / 4
    assert spelling.nats(b"a") == pytest.approx(-2 * math.log(once))
    assert spelling.nats(b"b") == pytest.approx(-math.log(2 / 257 / 4) - math.log(once))


def test_probabilities_of_spelled_words_sum_to_at_most_one() -> None:
    spelling = ByteNgrams([b"ab", b"ba", b"a"], order=3)
    total = sum(math.exp(-spelling.nats(bytes(word))) for size in range(5) for word in product(b"abc", repeat=size))
    assert 0.5 < total <= 1.0


def test_a_string_costs_less_the_second_time() -> None:
    strings = AdaptiveStringModel(ByteNgrams([b"cat"]))
    first, second, third = strings.cost(b"zebra"), strings.cost(b"zebra"), strings.cost(b"zebra")
    assert first > second > third > 0


def test_a_known_word_costs_little_and_an_unknown_one_its_spelling() -> None:
    found = OovCostModel(train_tokenizer("words", [TEXT])).cost("the cat")
    assert found is not None
    assert found[1].unknown == 0
    assert found[1].sizes.sum() == len("the cat")
    strange = OovCostModel(train_tokenizer("words", [TEXT])).cost("the zebra")
    assert strange is not None
    assert strange[1].unknown == 1
    assert strange[1].nats[1] > found[1].nats[1] + 8  # five spelling that no word of the text has


def test_an_interval_holds_the_mean_and_the_paired_bootstrap_separates_close_models() -> None:
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
