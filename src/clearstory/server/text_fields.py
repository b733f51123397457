"""Fields that requests for chats and for completions share: the model, how tokens are chosen, what is returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.server.errors import RequestError
from clearstory.server.fields import refused_field, request_field

MAX_STOP_STRINGS = 4
"""Largest number of stop strings of a request, that of OpenAI's API."""


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Options of a streamed response."""

    include_usage: bool = request_field("Send the numbers of tokens in a last chunk without choices.", False)
    include_obfuscation: bool | None = refused_field("chunks are not padded; leave it out", (False,))


@dataclass(frozen=True, kw_only=True)
class TextFields:
    """What requests for text have in common. Settings of sampling that are not given are the model's own."""

    model: str = request_field("Name of the model.", max_length=4096)
    n: int = request_field("Number of texts for each prompt.", 1, minimum=1, maximum=128)
    temperature: float | None = request_field(
        "Divides the logits; 0 always takes the likeliest token.", None, minimum=0, maximum=2
    )
    top_p: float | None = request_field(
        "Keeps the likeliest tokens that together have this probability.", None, minimum=0, maximum=1
    )
    top_k: int | None = request_field(
        "Keeps the k likeliest tokens; 0 or -1 keeps all.", None, minimum=-1, maximum=2**31 - 1
    )
    min_p: float | None = request_field(
        "Drops tokens less likely than this share of the likeliest.", None, minimum=0, maximum=1
    )
    repetition_penalty: float | None = request_field(
        "Lowers the logits of tokens of the prompt and the text; 1 for no penalty.", None, minimum=0.01, maximum=100
    )
    presence_penalty: float = request_field(
        "Is subtracted from the logits of tokens that the text has already.", 0.0, minimum=-2, maximum=2
    )
    frequency_penalty: float = request_field(
        "Is subtracted from the logits of tokens as many times as the text has them already.",
        0.0,
        minimum=-2,
        maximum=2,
    )
    logit_bias: dict[str, float] | None = request_field(
        "Token ids, each with a number that is added to its logit.", None, minimum=-100, maximum=100, max_items=1024
    )
    seed: int | None = request_field("Seed of the random generator; text i of several has seed + i.", None)
    stop: str | tuple[str, ...] | None = request_field(
        "Strings that end the text and are no part of it.", None, max_items=MAX_STOP_STRINGS, min_length=1,
        max_length=1000,
    )  # fmt: skip
    ignore_eos: bool = request_field("Continue past the end tokens.", False)
    stream: bool = request_field("Send the text in server-sent events as it is generated.", False)
    stream_options: StreamOptions | None = request_field("Options of the stream.", None)
    truncate: Literal["left"] | None = request_field(
        "left: where the text is longer than the model's context, its beginning is left out; null refuses such a "
        "prompt, and ends a text where the context is full.",
        None,
    )
    return_token_ids: bool = request_field("Return the ids of the prompt and of the generated tokens.", False)
    bits_per_byte: bool = request_field("Return the bits per byte of the tokens with log-probabilities.", False)
    user: str | None = request_field("A name of the user. It changes nothing.", None, max_length=1000)

    def __post_init__(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "stream_options is given, and stream is not true; leave it out", param="stream_options",
                code="invalid_value",
            )  # fmt: skip

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def includes_usage(self) -> bool:
        """Whether the last chunk of a stream has the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage
