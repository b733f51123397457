"""Settings of chat: ChatRecipe. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clearstory.generation.settings import TokenSampling
from clearstory.models.precision import Precision
from clearstory.recipes.settings.schema import INLINE_SECTION, positional_setting


@dataclass(frozen=True, kw_only=True)
class ChatRecipe:
    """Chat with a model in the terminal; where standard input is no terminal, each of its lines is a message.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        system: system message.
        load: file with a conversation to continue, written by /save.
        chat_template: chatml, or a file with a Jinja template, for a model without one.
        truncate: left drops the first turns of a conversation that exceeds the context; default: raise an error.
        precision: precision of the weights; auto: fp32 or fp16, whichever is faster on this machine.
        int8: same as --precision int8.
        device: cpu, cuda, mps or auto; default: cpu.
    """

    model: str = positional_setting("MODEL")
    system: str | None = None
    load: Path | None = None
    sampling: TokenSampling = field(default_factory=TokenSampling, metadata=INLINE_SECTION)
    chat_template: str | None = None
    truncate: Literal["left"] | None = None
    precision: Precision = "auto"
    int8: bool = False
    device: str | None = None
