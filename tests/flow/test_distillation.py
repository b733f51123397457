"""Targets of a teacher in the data of a run."""

from __future__ import annotations

from clearstory.recipes.finetuning.teacher import with_teacher_targets
from clearstory.tasks.data.examples import DataSplits, LabeledData, ParallelExample


def test_a_note_counts_the_outputs_of_a_teacher() -> None:
    examples = tuple(ParallelExample(source, (target,)) for source, target in (("a", "x"), ("b", "y"), ("a", "z")))
    data = with_teacher_targets(DataSplits(LabeledData(examples), LabeledData(())), {"a": "new", "b": ""})
    assert [(each.source, each.targets) for each in data.train.examples] == [("a", ("new",)), ("b", ("y",))]
    assert data.notes == (
        "1 training targets are the teacher's outputs; its outputs for 1 other sources are empty, and their targets "
        "are kept; 1 training examples with a source that occurs before are left out",
    )
