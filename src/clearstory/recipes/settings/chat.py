"""Settings of chat: ChatRecipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.generation.settings import TokenSampling
from clearstory.models.precision import Precision
from clearstory.recipes.settings.schema import INLINE_SECTION, positional_setting


@dataclass(frozen=True, kw_only=True)
class ChatRecipe:
    """Chat with a model in the terminal; where standard input is no terminal, each of its lines is a message.

    Args:
        model: model folder, run folder, checkpoint or .gguf file; with --url the name of a model there, which may be
            left out where the server has only one.
        url: address of a server of OpenAI's API that answers, such as http://127.0.0.1:8000/v1.
        api_key_file: file with the API key that the server requires.
        system: system message.
        load: file with a conversation to continue, written by /save.
        chat_template: chatml, or a file with a Jinja template, for a model without one.
        truncate: left drops the first turns of a conversation that exceeds the context; default: raise an error.
        precision: precision of the weights; auto: fp32 or fp16, whichever is faster on this machine.
        int8: same as --precision int8.
        device: cpu, cuda, mps or auto; default: cpu.
    """

    model: str = positional_setting("MODEL", "")
    url: str | None = None
    api_key_file: Path | None = None
    system: str | None = None
    load: Path | None = None
    sampling: TokenSampling = field(default_factory=TokenSampling, metadata=INLINE_SECTION)
    chat_template: str | None = None
    truncate: Literal["left"] | None = None
    precision: Precision = "auto"
    int8: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        local = {name: getattr(self, name) for name in ("chat_template", "precision", "int8", "device")}
        check_chat_source(self.model, self.url, self.api_key_file, local)


def check_chat_source(model: object, url: str | None, api_key_file: object, local: Mapping[str, object]) -> None:
    """Raises BadSetting where neither a model nor a server is named, and for settings that do not go with it.

    `local`: settings of a model that is opened here.
    """
    if url is None:
        if model == "":
            raise BadSetting("no model is given; name a model, or a server with --url http://127.0.0.1:8000/v1")
        if api_key_file is not None:
            raise BadSetting("api_key_file is given without url; name the server with --url, or leave it out")
        return
    if not isinstance(model, str):
        raise BadSetting(f"model is {type(model).__name__} beside url; give the name of a model of the server")
    for name, value in local.items():
        if value not in (None, False, "auto"):
            raise BadSetting(
                f"{name} is for a model that is opened here, and url names a server; leave one of them out"
            )
