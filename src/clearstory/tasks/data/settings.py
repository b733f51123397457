"""Settings of labeled data: columns and labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.text.settings import ReadSettings

Trees = Literal["phrases", "sentences", "binary-phrases", "binary-sentences"]
Problem = Literal["auto", "single", "multi", "regression"]


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Settings for reading labeled examples; a column is also a field of jsonl.

    Args:
        text_column: column with the text (or the tokens, or the anchor), by name or by number from 1; default: found by
            its usual names.
        pair_column: column with the second text of a pair (or the positive).
        negative_column: column with the negative of an anchor.
        label_column: column with the label, the tags or the score.
        split_column: column with the split of each example: training, validation or test.
        labels: names of the labels in the order of their ids: separated by commas, or a file with one name per line.
        problem: whether an example has a single label, multi (several labels) or a number (regression); auto: inferred
            from the values.
        trees: examples to read from bracketed trees (.trees): all phrases, or only sentences; the binary variants drop
            neutral ones and merge very negative with negative and very positive with positive.
        encoding: encoding of text files; auto: detected for each file that is not UTF-8.
        errors: what to do with invalid bytes: strict raises an error, replace decodes them as U+FFFD.
    """

    text_column: str | None = None
    pair_column: str | None = None
    negative_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    labels: str | None = None
    problem: Problem = "auto"
    trees: Trees = "phrases"
    encoding: str = "utf-8"
    errors: Literal["strict", "replace"] = "strict"

    def __post_init__(self) -> None:
        for name, known in (("problem", Problem), ("trees", Trees)):
            values = known.__args__  # type: ignore[attr-defined]  # of typing.Literal
            if getattr(self, name) not in values:
                raise BadSetting(f"{name} is {getattr(self, name)!r}; supported: {', '.join(values)}")

    def for_held_out(self, kind: str) -> LabelSettings:
        """The settings for validation and test data: labels of the kind that training has, and the sentences of trees.

        >>> LabelSettings(trees="binary-phrases").for_held_out("multi").problem
        'multi'
        """
        problems: dict[str, Problem] = {"single": "single", "multi": "multi", "regression": "regression"}
        trees: Trees = "binary-sentences" if self.trees.startswith("binary-") else "sentences"
        return replace(self, trees=trees, problem=problems.get(kind, self.problem))

    @property
    def reading(self) -> ReadSettings:
        """The settings with which files are read."""
        return ReadSettings(encoding=self.encoding, errors=self.errors)
