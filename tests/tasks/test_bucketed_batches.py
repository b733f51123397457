"""Batches of rows of similar length: every row once an epoch, each batch a function of the seed and its number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
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


def test_batches_of_tokens_have_every_row_once_and_keep_the_limit() -> None:
    rng = random.Random(3)
    rows = [SimpleNamespace(length=sum(parts), parts=parts, example=index)
            for index, parts in enumerate((rng.randint(1, 30), rng.randint(1, 20)) for _ in range(200))]  # fmt: skip
    rows.append(SimpleNamespace(length=400, parts=(300, 100), example=200))  # longer than a batch: one of its own
    made: Any = [BucketedBatches(rows, 4, seed, list, batch_tokens=150) for seed in (1, 1, 2)]
    epochs = [[batches.batch(at) for at in range(2 * batches.batches_per_epoch)] for batches in made]
    for batches, epoch in zip(made, epochs, strict=True):
        half = batches.batches_per_epoch
        for part in (epoch[:half], epoch[half:]):
            assert sorted(row.example for batch in part for row in batch) == list(range(201))
        for batch in epoch:
            padded = len(batch) * sum(max(row.parts[side] for row in batch) for side in (0, 1))
            assert padded <= 150 or len(batch) == 1
    assert epochs[0] == epochs[1] != epochs[2]
    assert epochs[0][:half] != epochs[0][half:]
    assert max(map(len, epochs[0])) > 4  # the number of rows is no limit
