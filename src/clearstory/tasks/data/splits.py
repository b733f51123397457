"""Splits: training, validation and test data, by file, by column, or by a share of each label."""

from __future__ import annotations

from clearstory.tasks.data.examples import DataSplits, Example, LabeledData


def split_data(
    data: LabeledData[Example],
    validation: float | LabeledData[Example] = 0.1,
    test: float | LabeledData[Example] | None = None,
    seed: int = 0,
) -> DataSplits[Example]:
    """Data split by label: each label has the same share in every part, and no text is in two parts.

    A part that the examples themselves name (`part`: a split column or files of a `datasets` folder) is taken before a
    share is.
    """
    raise NotImplementedError


def few_per_label(data: LabeledData[Example], k: int, seed: int = 0) -> LabeledData[Example]:
    """`k` examples of each label, drawn by `seed`. Raises BadInput where a label has fewer."""
    raise NotImplementedError
