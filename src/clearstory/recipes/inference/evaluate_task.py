"""Evaluation of a model on the labeled examples of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.folders import open_model
from clearstory.models.capabilities import Capability, has_capability, require
from clearstory.models.hmm.tagger import Tagger
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.settings.text_to_text import source_truncation
from clearstory.tasks.base import TaskSettings, evaluate_task
from clearstory.tasks.chat_settings import ChatSettings
from clearstory.tasks.classify import PROBLEM_TYPES
from clearstory.tasks.data.examples import DataSplits
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.head_labels import describe_head
from clearstory.tasks.hmm_tags import evaluate_tagger
from clearstory.tasks.table import TASKS
from clearstory.tasks.text_to_text_settings import TextToTextSettings

HEAD_TASKS = ("classify", "pairs", "tag")
"""Tasks of models with a head for labels."""


def evaluate_on_task(
    model: str | Path | ModelWithTokenizer,
    sources: Sequence[str],
    task: str,
    *,
    reading: LabelSettings | None = None,
    truncate: Literal["left", "right", "source-left", "source-right"] | None = None,
    stride: int | None = None,
    chat: ChatSettings | None = None,
    text_to_text: TextToTextSettings | None = None,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskEvaluation:
    """The metrics of a fine-tuned model, or of a hidden Markov model of tags, on the examples of files, with their
    intervals.

    Raises CannotDo for a model without a head, BadInput for a model whose head is for another task, and for an unknown
    label.
    """
    network: Any
    opened = open_model(model) if isinstance(model, str | Path) else model
    network, tokenizer = load_model_and_tokenizer(opened, device)
    spec, reading = TASKS[task], reading or LabelSettings()
    if task not in HEAD_TASKS:
        if stride is not None:
            raise BadSetting(
                f"stride is {stride}, and task {task} does not split texts into windows; leave it out, or pass "
                "--truncate"
            )
        data = spec.read(sources, reading, None)
        settings = TaskSettings(
            truncate=truncate if truncate in ("left", "right") else None,
            source_truncation=source_truncation(truncate),
            chat=chat or ChatSettings(),
            text_to_text=text_to_text or TextToTextSettings(),
            generation_config=getattr(opened, "generation_config", None),
            folder=getattr(opened, "folder", None),
        )
        tokenizer, _ = spec.tokenizer(tokenizer, settings)
        made = spec.make(DataSplits(data, replace(data, examples=())), network, tokenizer, settings)
        return evaluate_task(made, network, data, on_progress)
    if truncate is not None and truncate not in ("left", "right"):
        raise BadSetting(f"truncate is {truncate}, but task {task} has no sources; give left or right")
    if task == "tag" and has_capability(network, Capability.TAGS):
        tagger = Tagger(network, tokenizer)
        return evaluate_tagger(tagger, spec.read(sources, reading, tagger.tags))
    require(network, Capability.CLASSIFIER)
    if task in ("classify", "pairs"):
        if network.config.label_level != "text":
            raise BadInput(f"the model has a head for {describe_head(network.config)}; use --task tag")
        kinds: dict[str, Any] = {problem_type: kind for kind, problem_type in PROBLEM_TYPES.items()}
        if reading.problem == "auto":
            reading = replace(reading, problem=kinds[network.config.problem_type])
    if task == "tag" and network.config.label_level != "token":
        raise BadInput(f"the model has a head for {describe_head(network.config)}, not for words; use --task classify")
    data = spec.read(sources, reading, spec.known_labels(network))
    settings = TaskSettings(truncate=truncate, stride=stride)
    made = spec.make(DataSplits(data, replace(data, examples=())), network, tokenizer, settings)
    made.build_model(network)  # raises where the head is for other labels
    return evaluate_task(made, network, data)
