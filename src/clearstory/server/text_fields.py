"""Common fields of chat and completion requests: model, sampling parameters and what is returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.server.errors import RequestError
from clearstory.server.fields import refused_field, request_field

MAX_STOP_STRINGS = 4
"""Maximum number of stop strings of a request, as in OpenAI's API."""


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Options of a streamed response."""

    include_usage: bool = request_field("Send the token counts in a final chunk without choices.", False)
    include_obfuscation: bool | None = refused_field("chunks are not padded; omit it", (False,))


@dataclass(frozen=True, kw_only=True)
class TextFields:
    """Common fields of requests for text. Sampling parameters default to the model's generation config."""

    model: str = request_field("Name of the model.", max_length=4096)
    n: int = request_field("Number of texts to generate for each prompt.", 1, minimum=1, maximum=128)
    temperature: float | None = request_field(
        "Sampling temperature, which divides the logits; 0: greedy decoding.", None, minimum=0, maximum=2
    )
    top_p: float | None = request_field(
        "Keep the smallest set of most likely tokens whose probabilities add up to this value (nucleus sampling).",
        None,
        minimum=0,
        maximum=1,
    )
    top_k: int | None = request_field(
        "Keep only the k most likely tokens; 0 or -1: all.", None, minimum=-1, maximum=2**31 - 1
    )
    min_p: float | None = request_field(
        "Drop tokens whose probability is below this fraction of the highest probability.",
        None,
        minimum=0,
        maximum=1,
    )
    repetition_penalty: float | None = request_field(
        "Penalty on the logits of tokens of the prompt and the generated text; 1: no penalty.",
        None,
        minimum=0.01,
        maximum=100,
    )
    presence_penalty: float = request_field(
        "Subtracted from the logits of tokens that are already in the generated text.", 0.0, minimum=-2, maximum=2
    )
    frequency_penalty: float = request_field(
        "Subtracted from the logit of a token once for each occurrence in the generated text.",
        0.0,
        minimum=-2,
        maximum=2,
    )
    logit_bias: dict[str, float] | None = request_field(
        "Values to add to the logits, by token id.", None, minimum=-100, maximum=100, max_items=1024
    )
    seed: int | None = request_field("Seed of the random number generator; text i uses seed + i.", None)
    stop: str | tuple[str, ...] | None = request_field(
        "Strings that end the text; they are not included in it.", None, max_items=MAX_STOP_STRINGS, min_length=1,
        max_length=1000,
    )  # fmt: skip
    ignore_eos: bool = request_field("Continue after end tokens.", False)
    stream: bool = request_field("Send the text as server-sent events while it is generated.", False)
    stream_options: StreamOptions | None = request_field("Options of the stream.", None)
    truncate: Literal["left"] | None = request_field(
        "left: if prompt and text are longer than the model's context, truncate them at the start; null: such a prompt "
        "is an error, and a text ends when the context is full.",
        None,
    )
    return_token_ids: bool = request_field("Return the token ids of the prompt and of the generated text.", False)
    bits_per_byte: bool = request_field(
        "Return the bits per byte of the tokens whose log-probabilities are returned.", False
    )
    user: str | None = request_field("Identifier of the end user; has no effect.", None, max_length=1000)

    def __post_init__(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "stream_options needs stream: true; omit stream_options or set stream", param="stream_options",
                code="invalid_value",
            )  # fmt: skip

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def includes_usage(self) -> bool:
        """Whether the last chunk of a stream contains the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage
