"""Parts of a report on generated texts in addition to their scores: baselines, examples, and the worst outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clearstory.evaluation.text_scores import LOWER_IS_BETTER, SCORERS, TextScores
from clearstory.tasks.data.examples import ParallelExample
from clearstory.tasks.text_to_text_settings import TextToTextTask
from clearstory.text.sentence_splitting import split_sentences

EXAMPLES, WORST = 10, 10
"""Outputs that a report shows: some from all over, and those with the lowest scores."""


def first_sentence(example: ParallelExample) -> str:
    """The first sentence of a source, as its file has it, or as its punctuation marks end it."""
    return example.lead or split_sentences(example.source)[0].strip()


def baseline_scores(
    task: TextToTextTask, scores: TextScores, examples: Sequence[ParallelExample]
) -> dict[str, dict[str, Any]]:
    """The scores of the first sentence (of summaries) and of the source itself in place of the output, with the
    difference of the model's to each by paired bootstrap.
    """
    texts = {"first sentence": [first_sentence(each) for each in examples]} if task == "summarize" else {}
    texts["copy of the source"] = [each.source for each in examples]
    found = {}
    for name, copies in texts.items():
        other = SCORERS[task](copies, [each.targets for each in examples])
        found[name] = {"scores": other.values(), "compared": scores.compared_with(other)}
    return found


def described_outputs(
    scores: TextScores, texts: Sequence[str], examples: Sequence[ParallelExample]
) -> dict[str, list[dict[str, Any]]]:
    """Outputs with their sources and references: some, and the worst by the metric of single texts that is last."""
    metric = next(each for each in scores.metrics if each.name in ("chrf", "rouge1"))
    values = np.array([metric.compute(each) for each in metric.statistics])
    assert metric.name not in LOWER_IS_BETTER

    def describe(index: int) -> dict[str, Any]:
        example = examples[index]
        return {
            "location": example.location,
            metric.name: float(values[index]),
            "source": example.source,
            "output": texts[index],
            "reference": example.targets[0],
        }

    count = min(EXAMPLES, len(texts))
    some = [describe(index * len(texts) // count) for index in range(count)]
    worst = [describe(index) for index in np.argsort(values, kind="stable")[:WORST].tolist()]
    return {"examples": some, "worst_outputs": worst}
