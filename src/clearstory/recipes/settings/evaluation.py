"""Settings of `evaluate`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.models.precision import Precision
from clearstory.recipes.settings.evaluation_tasks import HARNESS, PROBES, BenchmarkSettings, harness_tasks
from clearstory.recipes.settings.schema import INLINE_SECTION, positional_setting
from clearstory.recipes.settings.vector_tasks import TEXT_SETTINGS, VectorTask, check_text_settings, vector_tasks
from clearstory.tasks.chat_settings import ChatSettings
from clearstory.tasks.data.settings import LabelSettings, Problem, Trees
from clearstory.tasks.text_to_text_settings import TextToTextSettings
from clearstory.text.settings import ReadSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """Evaluate a model on a text, in bits per byte.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        text: text files, folders or globs (txt, jsonl, parquet, csv, html and others), or a built-in corpus; - for
            standard input.
        task: text: likelihood of running text; classify, pairs: labels of texts, of pairs of texts; tag: tags of words;
            embed: vectors of pairs and triplets, as in finetune; translate, summarize: generated targets; chat: the
            assistant's answers in conversations, in nats per token; choose: the correct choice of each question;
            similarity:FILE, analogy:FILE, weat:FILE: vectors of words and sentences, with any number of files, folders
            or globs; lm-eval:NAME,NAME: tasks of lm-evaluation-harness; probes: all probes with files in probe_files.
        vectors: vectors to compare: input (input embeddings) or sentence (those of embed); default: sentence for texts
            of several words, and if the model folder defines a pooling; otherwise input.
        windows: strided: overlapping windows in which every token has at least half a context before it; blocks:
            disjoint windows.
        stride: tokens between the starts of strided windows; default: half the context.
        batch_size: windows per batch.
        limit: evaluate on approximately this many tokens; for tasks lm-eval and probes, on this many examples of each.
        precision: precision of the weights; auto: unchanged.
        int8: same as --precision int8.
        device: cpu, cuda, mps or auto; default: cpu.
        truncate: end to drop of a text that exceeds the context (tasks classify and tag), or of a source: source-left
            or source-right; default: raise an error, or split the text into windows if stride is given.
        text_column: column with the text (task classify), by name or by number from 1.
        pair_column: column with the second text of a pair.
        label_column: column with the label or the number.
        problem: whether an example has a single label, multi (several labels) or a number (regression); auto: as the
            model was trained.
        trees: examples to read from bracketed trees (.trees): all phrases, or only sentences.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    task: tuple[str, ...] = ("text",)
    vectors: Literal["input", "sentence"] | None = None
    windows: Literal["strided", "blocks"] = "strided"
    stride: int | None = None
    batch_size: int = 8
    limit: int | None = None
    precision: Precision = "auto"
    int8: bool = False
    device: str | None = None
    truncate: Literal["left", "right", "source-left", "source-right"] | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    problem: Problem = "auto"
    trees: Trees = "phrases"
    data: ReadSettings = field(default_factory=ReadSettings)
    benchmarks: BenchmarkSettings = field(default_factory=BenchmarkSettings, metadata=INLINE_SECTION)
    chat: ChatSettings = field(default_factory=ChatSettings, metadata=INLINE_SECTION)
    text_to_text: TextToTextSettings = field(default_factory=TextToTextSettings, metadata=INLINE_SECTION)

    def __post_init__(self) -> None:
        by_others = self.harness_tasks or self.task == (PROBES,)
        if not self.text and not self.vector_tasks and not by_others:
            raise BadSetting("TEXT is missing; give a file, a folder or a corpus")
        if by_others and self.text:
            raise BadSetting(
                f"TEXT is {self.text[0][:60]!r}, but task {self.task[0]} reads its files from a folder; set it with "
                f"{'--task-files' if self.harness_tasks else '--probe-files'}"
            )
        self.chat.check_used(self.task[0])
        self.text_to_text.check_used(self.task[0])
        self.benchmarks.check_used(HARNESS if self.harness_tasks else self.task[0])
        for name in ("stride", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")
        self.reading()  # checks it
        check_text_settings(self.task, {name: getattr(self, name) for name in (*TEXT_SETTINGS, "stride")})
        if self.vectors and not self.vector_tasks:
            raise BadSetting(f"vectors does not apply to task {self.task[0]}; leave it out")

    @property
    def harness_tasks(self) -> tuple[str, ...]:
        """Names of the tasks of lm-evaluation-harness; () for other tasks."""
        return harness_tasks(self.task)

    @property
    def vector_tasks(self) -> tuple[VectorTask, ...]:
        """The tasks that compare vectors, with their files; () for other tasks."""
        return vector_tasks(self.task, self.text)

    def reading(self) -> LabelSettings:
        """How labeled examples are read (task classify)."""
        return LabelSettings(
            text_column=self.text_column,
            pair_column=self.pair_column,
            label_column=self.label_column,
            problem=self.problem,
            trees=self.trees,
            encoding=self.data.encoding,
            errors=self.data.errors,
        )
