"""TextJob: one text in the thread of a model, from request to last event."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from clearstory.errors import GrammarViolation
from clearstory.generation.constraints import TokenMask
from clearstory.generation.engine import Engine
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.request import StepOutput
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.serving.requests import StopReason, TextEvent, TextRequest
from clearstory.text.tokenizers import Tokenizer

DeliverText = Callable[[TextEvent | Exception], None]
"""Receives the events of a text in the thread of the model. The last one is an exception or an event with `finish`."""


class CheckedMask:
    """A token mask whose errors end only its own text, not the step of all texts.

    Args:
        mask: the mask.
        vocab: size of the model's vocabulary.
        error: the first error of the mask; None without one.
    """

    def __init__(self, mask: TokenMask, vocab: int) -> None:
        self.mask, self.vocab = mask, vocab
        self.error: Exception | None = None

    @property
    def finished(self) -> bool:
        """Whether the text is complete."""
        return self.error is not None or self.mask.finished

    def allowed(self) -> Bool[Tensor, "K"]:
        """Tokens that may be generated next; all tokens after an error."""
        try:
            allowed = self.mask.allowed()
            if not bool(allowed.any()):
                raise GrammarViolation("the grammar allows no token after the text generated so far; simplify it")
            return allowed
        except Exception as error:
            self.error = self.error or error
            return torch.ones(self.vocab, dtype=torch.bool)

    def advance(self, id: int) -> None:
        """Advance by the generated token."""
        if self.error is None:
            try:
                self.mask.advance(id)
            except Exception as error:
                self.error = error


@dataclass
class TextJob:
    """A text in progress.

    Args:
        handle: its number in the thread.
        request: the request.
        deliver: receives its events.
        deadline: time by which it must be finished, in seconds of the monotonic clock; None: no limit.
        number: its number in the engine; None before it is added.
    """

    handle: int
    request: TextRequest
    deliver: DeliverText
    deadline: float | None
    number: int | None = None
    mask: CheckedMask | None = None
    decoder: StreamDecoder = field(init=False)

    def begin(self, engine: Engine, tokenizer: Tokenizer, prompt_format: PromptFormat) -> None:
        """Add the request to an engine. Raises the errors of `Engine.add`."""
        request = self.request
        if request.token_mask is not None:
            self.mask = CheckedMask(request.token_mask, engine.model.vocab)
        before = request.prompt if request.continues_prompt else ()
        self.decoder = StreamDecoder(prompt_format.token_decoder(tokenizer), request.sampling.stop, prompt_ids=before)
        self.number = engine.add(
            request.prompt,
            request.sampling,
            eos_token_id=request.eos_token_ids,
            start_token_id=request.start_token_id,
            truncate=request.truncate,
            source=request.source,
            constraints=request.constraints,
            token_mask=self.mask,
            top_logprobs=request.top_logprobs,
            prompt_logprobs=request.prompt_logprobs,
        )

    def event(self, output: StepOutput) -> TextEvent | Exception:
        """The event of a token, or the error that ends the text."""
        if self.mask is not None and self.mask.error is not None:
            return self.mask.error
        text = self.decoder.push(output.token.id)
        finish: StopReason | None = {"eos": "stop", "length": "length", None: None}[output.finished]
        if self.decoder.stopped:
            finish = "stop"
        elif finish is not None:
            text += self.decoder.flush()
            finish = "stop" if self.decoder.stopped else finish
        return TextEvent(
            token=output.token, bytes=self.decoder.new_bytes, text=text, finish=finish, prompt=output.prompt
        )

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline
