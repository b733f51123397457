"""Settings of prompting: PromptRecipe. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.recipes.settings.schema import check_output_folder, positional_setting
from clearstory.tasks.data.settings import LabelSettings


@dataclass(frozen=True, kw_only=True)
class PromptRecipe:
    """Measure zero-shot and few-shot prompting of a task, by the number of examples shown before each row.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        template: text of one example, or a file with it, with {label} in place of the answer and the names of other
            columns in braces: "Review: {text} Sentiment: {label}"; for questions with choices, {question} and
            {choices}.
        examples: file with labeled texts, or with questions and choices: csv, tsv, jsonl, parquet.
        test: file with test examples, or the fraction of the examples to hold out for testing.
        shots: numbers of examples in the prompt.
        draws: number of random samples of the examples in the prompt, each with its own seed.
        seed: seed of the samples and of the held-out split.
        limit: maximum number of test examples, sampled with the seed.
        labels: word for each label in the prompt (verbalizer): positive=great,negative=terrible.
        answer: likelihood: the most likely candidate; generate: the candidate that the generated text begins with.
        normalize: characters: divide the log-likelihood of each candidate by its length in characters, for candidates
            of several words.
        calibrate: contextual calibration: divide each label's probability by its probability for content-free inputs
            (Zhao et al. 2021).
        separator: text between two examples; \\n is a line feed.
        raw: use prompts as plain text, not as messages in the model's chat template.
        system: system message in the model's chat template.
        max_tokens: maximum number of generated tokens of an answer.
        show_prompt: print the complete prompt of this test example, counted from 1, with the largest number of
            examples.
        out: output folder for report.json, report.html and predictions.jsonl.
        text_column: column with the text, by name or by number from 1.
        pair_column: column with the second text of a pair.
        label_column: column with the label or the answer.
        device: cpu, cuda, mps or auto; default: cpu.
    """

    model: str = positional_setting("MODEL")
    template: str
    examples: str
    test: str = "0.2"
    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    draws: int = 5
    seed: int = 0
    limit: int | None = None
    labels: tuple[str, ...] = ()
    answer: Literal["likelihood", "generate"] = "likelihood"
    normalize: Literal["none", "characters"] = "none"
    calibrate: bool = False
    separator: str = "\\n\\n"
    raw: bool = False
    system: str | None = None
    max_tokens: int = 10
    show_prompt: int | None = None
    out: Path | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        check_output_folder(self.out)
        if not self.shots or min(self.shots) < 0:
            raise BadSetting(
                f"shots is {', '.join(map(str, self.shots)) or 'empty'}; give numbers from 0, such as 0 4 16"
            )
        for name in ("draws", "max_tokens", "limit", "show_prompt"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")
        if self.answer == "generate":
            for name, usual in (("calibrate", False), ("normalize", "none")):
                if getattr(self, name) != usual:
                    raise BadSetting(
                        f"{name} is for answers by likelihood, but answer is generate; leave one of them out"
                    )
        elif self.max_tokens != PromptRecipe.max_tokens:
            raise BadSetting(f"max_tokens is {self.max_tokens}, but nothing is generated; pass --answer generate")
        if self.raw and self.system is not None:
            raise BadSetting("raw text has no system message; leave raw or system out")

    def reading(self) -> LabelSettings:
        """How the files are read."""
        return LabelSettings(text_column=self.text_column, pair_column=self.pair_column, label_column=self.label_column)
