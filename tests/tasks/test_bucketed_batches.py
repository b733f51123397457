"""Batches of rows of similar length: every row once an epoch, each batch a function of the seed and its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from clearstory.errors import BadInput
from clearstory.tasks.bucketed_batches import BucketedBatches


@dataclass(frozen=True)
class Length:
    length: int
    example: int


ROWS = [Length(1 + (7 * number) % 30, number) for number in range(203)]


def batches(seed: int = 0, size: int = 8) -> BucketedBatches[Length]:
    return BucketedBatches(ROWS, size, seed, lambda rows: list(rows))  # type: ignore[arg-type,return-value]


def epoch(number: int, seed: int = 0) -> list[Any]:
    made = batches(seed)
    return [made.batch(number * made.batches_per_epoch + index) for index in range(made.batches_per_epoch)]


def test_an_epoch_has_every_row_once_and_its_last_batch_may_be_smaller() -> None:
    read = [row.example for batch in epoch(3) for row in batch]
    assert sorted(read) == list(range(203))
    assert sorted(len(batch) for batch in epoch(3))[:2] == [3, 8]  # 203 = 25 · 8 + 3


def test_a_batch_depends_on_the_seed_and_its_number_alone() -> None:
    made = batches()
    assert made.batch(40) == batches().batch(40)
    made.batch(3)
    assert made.batch(40) == batches().batch(40)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)


def test_rows_of_a_batch_are_of_similar_length() -> None:
    made = batches()
    spread = [max(r.length for r in batch) - min(r.length for r in batch) for batch in epoch(0)]
    assert max(spread) <= 3
    assert made.padding_share < 0.1
    shuffled = 1 - sum(r.length for r in ROWS) / (len(ROWS) * 30)
    assert shuffled > 4 * made.padding_share


def test_no_rows_are_an_error() -> None:
    with pytest.raises(BadInput, match="no training example"):
        BucketedBatches([], 8, 0, lambda rows: list(rows))  # type: ignore[arg-type,return-value]
