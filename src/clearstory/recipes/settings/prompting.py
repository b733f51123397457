"""Settings of prompting: PromptRecipe. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.recipes.settings.schema import positional_setting
from clearstory.tasks.data.settings import LabelSettings


@dataclass(frozen=True, kw_only=True)
class PromptRecipe:
    """Measure zero-shot and few-shot prompting of a task, by the number of examples shown before each row.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        template: text, or file with it, of one example, with {label} where the answer belongs and the names of other
            columns in braces: "Review: {text} Sentiment: {label}"; of questions with choices {question} and {choices}.
        examples: file with labeled texts or with questions and choices: csv, tsv, jsonl, parquet.
        test: file with the rows to answer, or the share of the examples that is held out.
        shots: numbers of examples shown before each row.
        draws: number of draws of the examples, each by its own seed.
        seed: seed of the draws and of the share that is held out.
        limit: answer at most this many rows, drawn by the seed.
        labels: the word that stands for each label in the prompt: positive=great,negative=terrible.
        answer: likelihood, the candidate that is most likely; or generate, the candidate that the generated text begins
            with.
        normalize: characters divides the log-likelihood of a candidate by its length, for candidates of several words.
        calibrate: divide each label's probability by that after content-free inputs (Zhao et al. 2021).
        separator: text between two examples; \\n is a line feed.
        raw: read prompts as text, and not as messages in the model's chat template.
        system: system message in the model's chat template.
        max_tokens: maximum number of tokens of an answer that is generated.
        show_prompt: print the whole prompt of this row, from 1, with the largest number of examples.
        out: folder for the results: report.json, report.html and predictions.jsonl.
        text_column: column with the text, by its name or by its number from 1.
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
                        f"{name} is for answers by likelihood, and answer is generate; leave one of them out"
                    )
        elif self.max_tokens != PromptRecipe.max_tokens:
            raise BadSetting(f"max_tokens is {self.max_tokens}, and nothing is generated; pass --answer generate")
        if self.raw and self.system is not None:
            raise BadSetting("raw text has no system message; leave raw or system out")

    def reading(self) -> LabelSettings:
        """How the files are read."""
        return LabelSettings(text_column=self.text_column, pair_column=self.pair_column, label_column=self.label_column)
