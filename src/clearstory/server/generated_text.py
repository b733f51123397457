"""Generated texts, collected from the events of a model's thread, and their token counts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearstory.generation.grammar import GrammarMask
from clearstory.server.logprobs import TextToken
from clearstory.serving.requests import PromptReading, StopReason, TextEvent, TextRequest

if TYPE_CHECKING:
    from clearstory.server.context import RequestRecord
    from clearstory.server.streaming import TextStream


@dataclass
class CollectedText:
    """A text so far.

    Args:
        tokens: its tokens, each with the bytes that it adds to the text.
        text: the text that is final.
        finish: why it ended; None before.
        prompt: information about its prompt, from its first event on.
    """

    tokens: list[TextToken] = field(default_factory=list)
    text: str = ""
    finish: StopReason | None = None
    prompt: PromptReading | None = None

    def add(self, event: TextEvent) -> None:
        """Add the next event of the text."""
        self.tokens.append((event.token, event.bytes))
        self.text += event.text
        self.finish = event.finish
        self.prompt = self.prompt or event.prompt


def response_head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """Common first fields of a response or of its chunks: a random id, its kind, its time and the model."""
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


async def collect_texts(stream: TextStream, record: RequestRecord) -> list[CollectedText]:
    """All texts of a stream, complete."""
    texts = [CollectedText() for _ in stream.requests]
    async for events in stream:
        record.count_events(event for _, event in events)
        for index, event in events:
            texts[index].add(event)
    for request, text in zip(stream.requests, texts, strict=True):
        check_grammar(request, text)
    return texts


def check_grammar(request: TextRequest, text: CollectedText) -> None:
    """Raises GrammarViolation if a complete text is not valid for the grammar of its request."""
    if isinstance(request.token_mask, GrammarMask) and text.finish == "stop":
        request.token_mask.grammar.check(text.text)


def usage(texts: Sequence[CollectedText], n: int, generated: int | None = None) -> dict[str, Any]:
    """Token counts of a response in OpenAI's format; a prompt with `n` texts counts once. End tokens count.

    `generated`: the number of tokens generated, where it is not that of the texts.
    """
    prompts = [text.prompt for text in texts[::n] if text.prompt is not None]
    n_prompt = sum(prompt.n_tokens for prompt in prompts)
    n_generated = sum(len(text.tokens) for text in texts) if generated is None else generated
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "prompt_tokens_details": {"cached_tokens": sum(prompt.n_cached for prompt in prompts)},
    }
