"""Settings of translate and summarize. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.models.precision import Precision
from clearstory.recipes.settings.schema import FILE_SUFFIXES, INLINE_SECTION, positional_setting

TEXT_FILE_SUFFIXES = (".jsonl", ".tsv", ".txt", ".md")
"""Suffixes of known files in which texts are written; so are those with other suffixes, such as a language."""


@dataclass(frozen=True, kw_only=True)
class TranslationSettings:
    """Search, prompt and output settings of translate and summarize.

    Args:
        beam: number of beams; 1 is greedy search; default: the model's, otherwise 4, or 1 for a decoder.
        length_penalty: exponent p of the beam search score log-probability / length ** p; default: the model's,
            otherwise 1.
        max_tokens: maximum number of tokens of an output; default: the model's, otherwise 50 more than its source.
        n_best: number of outputs for each source, best first.
        out: output file: .jsonl, .tsv (with the sources), or text with one line per source; if the file exists, an
            interrupted command continues it.
        truncate: source-left (or left) drops the beginning of a source that is too long, source-right its end; default:
            a line of a file is reported and gets an empty output; for a text, an error is raised.
        source_prefix: text before each source of an encoder-decoder; default: the one used in fine-tuning.
        prompt_template: prompt of a decoder, with {source} in place of the source; default: the one used in
            fine-tuning.
        instruction: message to a model with a chat template, with {source} in place of the source.
        errors: invalid UTF-8 in a line: strict reports the line, replace decodes it as U+FFFD.
        precision: precision of the weights; auto: fp32 or fp16, whichever is faster on this machine.
        int8: same as --precision int8.
        device: cpu, cuda or mps; default: cpu.
    """

    beam: int | None = None
    length_penalty: float | None = None
    max_tokens: int | None = None
    n_best: int = 1
    out: Path | None = None
    truncate: Literal["left", "source-left", "source-right"] | None = None
    source_prefix: str | None = None
    prompt_template: str | None = None
    instruction: str | None = None
    errors: Literal["strict", "replace"] = "strict"
    precision: Precision = "auto"
    int8: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        if self.n_best < 1:
            raise BadSetting(f"n_best is {self.n_best}; it must be at least 1")
        suffix = "" if self.out is None else self.out.suffix.lower()
        if self.out is not None and suffix in {*FILE_SUFFIXES, ".parquet"} - {*TEXT_FILE_SUFFIXES}:
            raise BadSetting(
                f"out is {self.out}; texts are written as .jsonl, .tsv, or lines of text, such as "
                f"{self.out.with_suffix('.txt')}"
            )


@dataclass(frozen=True, kw_only=True)
class TranslateRecipe:
    """Translate texts with an encoder-decoder, or with a decoder that was fine-tuned for it.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        text: texts, or files with one text per line; - for the lines of standard input.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    translation: TranslationSettings = field(default_factory=TranslationSettings, metadata=INLINE_SECTION)


@dataclass(frozen=True, kw_only=True)
class SummarizeRecipe(TranslateRecipe):
    """Summarize texts, one per line, with a model that was fine-tuned for it, or with a chat model."""
