"""Splits: shares by label, no text on both sides, the same for the same seed, and labels that must agree."""

from __future__ import annotations

from collections import Counter

import pytest

from clearstory.errors import BadInput, BadSetting
from clearstory.tasks.data.examples import LabeledData, LabeledText, LabeledWords, SimilarityExample
from clearstory.tasks.data.splits import few_per_label, split_data


def make_data(counts: dict[str, int], name: str = "train.csv", start: int = 0) -> LabeledData[LabeledText]:
    """Different texts, `counts[label]` of each label."""
    examples = [
        LabeledText(f"{label} {number}", labels=(label,), location=f"{name}, line {number + 1} of {label}")
        for label, count in counts.items()
        for number in range(start, start + count)
    ]
    return LabeledData(tuple(examples), tuple(sorted(counts)), name=name)


def test_each_label_has_its_share() -> None:
    splits = split_data(make_data({"a": 300, "b": 50, "c": 7}), 0.1)
    counts = Counter(each.labels[0] for each in splits.validation.examples)
    assert len(splits.train) + len(splits.validation) == 357
    assert len(splits.validation) == 36
    assert counts["a"] == 30
    assert counts["b"] == 5
    assert counts["c"] == 1


def test_a_split_depends_on_texts_and_seed_alone() -> None:
    data = make_data({"a": 50, "b": 50})
    turned = LabeledData(data.examples[::-1], data.label_names)
    texts = [{each.text for each in split_data(each, 0.2, seed=seed).validation.examples} for each, seed in
             ((data, 0), (turned, 0), (data, 1))]  # fmt: skip
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_no_text_is_on_both_sides() -> None:
    data = make_data({"a": 20, "b": 20})
    again = tuple(LabeledText(each.text.upper() + " ", labels=each.labels) for each in data.examples)
    splits = split_data(LabeledData(data.examples + again, data.label_names), 0.3)
    sides = [{each.text.lower().strip() for each in side.examples} for side in (splits.train, splits.validation)]
    assert not sides[0] & sides[1]
    assert len(splits.validation) == 24
    splits = split_data(data, make_data({"a": 3, "b": 3}, "dev.csv", start=18))
    assert len(splits.train) == 36
    assert "4 training examples are also held out, and removed from training" in splits.notes


def test_phrases_of_a_sentence_stay_together() -> None:
    examples = tuple(
        LabeledText(f"{tree} {node}", labels=(str(node % 2),), location=f"a.trees, line {tree}")
        for tree in range(30)
        for node in range(6)
    )
    splits = split_data(LabeledData(examples, ("0", "1")), 0.2)
    lines = [{each.location for each in side.examples} for side in (splits.train, splits.validation)]
    assert not lines[0] & lines[1]
    assert len(splits.validation) == 36


def test_values_and_several_labels_and_tags_are_split_too() -> None:
    values = [LabeledText(f"text {n}", value=float(n)) for n in range(100)]
    held_out = split_data(LabeledData(tuple(values), (), "regression"), 0.1).validation.examples
    assert sorted(int((each.value or 0) // 10) for each in held_out) == list(range(10))
    several = [LabeledText(f"text {n}", labels=("often", "rare") if n % 10 == 0 else ("often",)) for n in range(100)]
    held = split_data(LabeledData(tuple(several), ("often", "rare"), "multi"), 0.2).validation.examples
    assert Counter(label for each in held for label in each.labels) == {"often": 20, "rare": 2}
    words = [LabeledWords((f"word{n}",), ("O" if n % 2 else "B-X",)) for n in range(40)]
    assert len(split_data(LabeledData(tuple(words), ("B-X", "O"), "tags"), 0.25).validation) == 10


def test_an_anchor_is_on_one_side() -> None:
    pairs = [SimilarityExample(f"query {n % 10}", f"answer {n}") for n in range(40)]
    splits = split_data(LabeledData(tuple(pairs), (), "pairs"), 0.2)
    sides = [{each.anchor for each in side.examples} for side in (splits.train, splits.validation)]
    assert not sides[0] & sides[1]
    assert len(splits.validation) == 8


def test_parts_of_the_data_come_before_a_share() -> None:
    data = make_data({"a": 5, "b": 5})
    parts = ("train", "train", "train", "validation", "test")
    examples = [
        LabeledText(each.text, labels=each.labels, part=part)
        for each, part in zip(data.examples, parts * 2, strict=True)
    ]
    splits = split_data(LabeledData(tuple(examples), ("a", "b")), 0.5)
    assert splits.test is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 2, 2)


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ({"a": 9, "b": 1}, None, r"the label 'b' has only one text \(train.csv, line 1 of b\).*--validation FILE"),
        ({"a": 9}, None, "all 8 training examples of train.csv have the label 'a'"),
        ({"a": 9, "b": 9}, {"c": 2}, "dev.csv, line 101 of c: the label 'c' does not occur in training"),
        ({"0": 10, "1": 10, "2": 90}, {"0": 30, "1": 30}, "dev.csv has only the labels 0, 1, and 82% .*--trees"),
    ],
)
def test_labels_that_cannot_be_learned_are_errors(
    train: dict[str, int], dev: dict[str, int] | None, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        split_data(make_data(train), 0.1 if dev is None else make_data(dev, "dev.csv", start=100))


def test_data_of_another_kind_is_an_error() -> None:
    values = LabeledData((LabeledText("x", value=1.0),), (), "regression", name="dev.csv")
    with pytest.raises(BadInput, match=r"dev.csv has numbers to predict, and train.csv has one label for each text"):
        split_data(make_data({"a": 9, "b": 9}), values)


def test_what_is_rare_or_contradicts_itself_is_noted() -> None:
    data = make_data({"a": 9, "b": 1})
    data = LabeledData((*data.examples, LabeledText("A 0", labels=("b",))), ("a", "b", "c"))
    notes = split_data(data, make_data({"a": 1}, "dev.csv", start=50)).notes
    assert "no training example of 'c'" in notes
    assert "1 training text occurs with different labels" in notes
    assert "dev.csv has no example of b" in notes


@pytest.mark.parametrize("share", [1.0, -0.5])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(BadSetting, match="the fraction for validation"):
        split_data(make_data({"a": 5, "b": 5}), share)


def test_few_are_drawn_of_each_label() -> None:
    data = make_data({"a": 40, "b": 20})
    draws = [few_per_label(data, 8, seed=seed) for seed in (0, 0, 1)]
    assert all(Counter(each.labels[0] for each in draw.examples) == {"a": 8, "b": 8} for draw in draws)
    assert draws[0].examples == draws[1].examples != draws[2].examples
    with pytest.raises(BadInput, match=r"train.csv has 20 examples of the label 'b', fewer than 30"):
        few_per_label(data, 30)
