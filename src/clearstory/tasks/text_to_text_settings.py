"""Settings of tasks that generate a target for a source: translate and summarize. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from clearstory.errors import BadSetting

TextToTextTask = Literal["translate", "summarize"]

TEXT_TO_TEXT_TASKS: tuple[TextToTextTask, ...] = ("translate", "summarize")

SourceTruncation = Literal["source-left", "source-right"]

SOURCE = "{source}"
"""Placeholder of the source in a template."""

DEFAULT_TEMPLATES: dict[str, str] = {"translate": "{source}\nTranslation:", "summarize": "{source}\nTL;DR:"}
"""Prompts of decoders without a chat template. TL;DR: Radford et al. 2019, section 3.6."""

DEFAULT_INSTRUCTIONS: dict[str, str] = {
    "translate": "Translate the following text.\n\n{source}",
    "summarize": "Summarize the following text in one sentence.\n\n{source}",
}
"""Messages of the user to a model with a chat template."""


@dataclass(frozen=True, kw_only=True)
class TextToTextSettings:
    """Formatting of sources and generation of targets (tasks translate and summarize).

    Args:
        max_source_length: maximum number of tokens of a source with its prefix or prompt; default: what fits into the
            model's context.
        max_target_length: maximum number of tokens of a target, including its end token; training pairs with a longer
            target are dropped; default: the longest training target for a decoder and for summaries, otherwise 50 more
            than the source.
        source_prefix: text before each source of an encoder-decoder, such as "summarize: " for T5.
        prompt_template: prompt of a decoder, with {source} in place of the source; default: the instruction in the
            model's chat template if it has one, otherwise the source followed by "TL;DR:" or "Translation:".
        instruction: user message to a model with a chat template, with {source} in place of the source.
        num_beams: number of beams when targets are generated; default: the model's, otherwise 4 for an encoder-decoder
            and 1 (greedy search) for a decoder.
        length_penalty: exponent p of the beam search score log-probability / length ** p; default: the model's,
            otherwise 1.
    """

    max_source_length: int | None = None
    max_target_length: int | None = None
    source_prefix: str | None = None
    prompt_template: str | None = None
    instruction: str | None = None
    num_beams: int | None = None
    length_penalty: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_source_length", "max_target_length", "num_beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")
        for name in ("prompt_template", "instruction"):
            value = getattr(self, name)
            if value is not None and value.count(SOURCE) != 1:
                raise BadSetting(
                    f"{name} is {value[:60]!r}; it must contain {SOURCE} exactly once, in place of the source"
                )
        if self.prompt_template is not None and self.instruction is not None:
            raise BadSetting(
                "prompt_template is the whole prompt, and instruction a message in the model's chat template; give one"
            )

    def check_used(self, task: str) -> None:
        """Raise BadSetting for settings that are given with a task that does not use them."""
        changed = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if changed and task not in TEXT_TO_TEXT_TASKS:
            raise BadSetting(
                f"{changed[0]} is for tasks {' and '.join(TEXT_TO_TEXT_TASKS)}, but task is {task}; leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Where training targets are from, and how many outputs are scored (tasks translate and summarize).

    Args:
        max_eval_samples: number of validation examples, spread evenly, whose targets are generated and scored at the
            end of a run; 0: all. All test examples are scored.
        teacher: model whose output for each training source replaces its target (sequence-level distillation; Kim and
            Rush 2016).
        teacher_num_beams: number of beams of the teacher; default: the teacher's, otherwise 4 for an encoder-decoder
            and 1 for a decoder.
    """

    max_eval_samples: int = 1000
    teacher: str | None = None
    teacher_num_beams: int | None = None

    def __post_init__(self) -> None:
        if self.max_eval_samples < 0:
            raise BadSetting(f"max_eval_samples is {self.max_eval_samples}; give a number, or 0 for all")
        if self.teacher_num_beams is not None and self.teacher_num_beams < 1:
            raise BadSetting(f"teacher_num_beams is {self.teacher_num_beams}; it must be at least 1")
        if self.teacher is None and self.teacher_num_beams is not None:
            raise BadSetting(f"teacher_num_beams is {self.teacher_num_beams}, but there is no teacher; give one")
