"""Answers of a chat: one turn of an assistant, generated piece by piece from the state of the turns before."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from clearstory.generation.engine import Engine
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.models.base import State
from clearstory.text.tokenizers import Tokenizer

Ending = Literal["eos", "length", "stop", "context", "interrupted"]


@dataclass(frozen=True)
class ChatText:
    """A piece of an answer, as it becomes final."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """An answer.

    Args:
        text: its text.
        ids: its token ids, the end-of-turn token included; empty where a server generated it.
        finished: why it ended: eos; length (max_tokens); stop (a stop string); context (the context is full); or
            interrupted.
        generated_tokens: how many tokens it has.
        prompt_tokens: tokens of the conversation before it.
        read_tokens: how many of them were read now; the others were in the model's state.
        left_out: messages of the conversation that were dropped from the context.
        seconds: time it took, of which `prompt_seconds` for the tokens before it.
    """

    text: str
    ids: tuple[int, ...]
    finished: Ending
    generated_tokens: int
    prompt_tokens: int
    read_tokens: int
    left_out: int
    seconds: float
    prompt_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, without the time for the prompt."""
        further = self.generated_tokens - 1
        return further / max(self.seconds - self.prompt_seconds, 1e-9) if further > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The answer as a dictionary for JSON."""
        return {**asdict(self), "ids": list(self.ids), "tokens_per_second": self.tokens_per_second}


class AnswerStream:
    """The generation of one answer: an iterator of its pieces.

    Args:
        prompt_format: the model, and what ends and constrains its answers.
        tokenizer: its tokenizer.
        sampling: how tokens are chosen.
        prompt: ids of the conversation, with the header of the answer.
        state: state of the model after the first of them; None to read all.
        left_out: messages of the conversation that are not in it.
    """

    def __init__(
        self,
        prompt_format: PromptFormat,
        tokenizer: Tokenizer,
        sampling: Sampling,
        prompt: Sequence[int],
        state: State | None,
        left_out: int = 0,
    ) -> None:
        self.prompt_format, self.tokenizer, self.sampling = prompt_format, tokenizer, sampling
        self.prompt, self.state = tuple(prompt), state
        self.ids: list[int] = []
        self.text = ""
        self.finished: Ending = "interrupted"
        self.interrupted = False
        self.left_out = left_out
        self.read_tokens = len(prompt) - (0 if state is None else state.lengths[0])
        self.started, self.prompt_seconds = time.perf_counter(), 0.0
        self.states: list[tuple[tuple[int, ...], State]] = []
        """States that the turns after it can go on from, with the ids that each has read."""

    def __iter__(self) -> Iterator[ChatText]:
        model, most = self.prompt_format.model, self.sampling.max_tokens
        free = most if model.context is None else model.context - len(self.prompt) + 1
        engine = Engine(model, suppress_tokens=self.prompt_format.suppress_tokens)
        sampling, options = replace(self.sampling, max_tokens=min(free, most)), self.prompt_format.request_options
        request = engine.add(self.prompt, sampling, state=self.state, keep_state=True, **options)
        decoder = StreamDecoder(self.tokenizer, self.sampling.stop)
        while engine.has_unfinished:
            [output] = engine.next_tokens()
            text = decoder.push(output.token.id)
            self.ids.append(output.token.id)
            if output.finished:
                self.finished = "context" if output.finished == "length" and free < most else output.finished
                self.keep(engine.states.get(request))
            elif len(self.ids) == 1 or decoder.stopped or self.interrupted:
                self.keep(engine.state_of(request))
            if len(self.ids) == 1:
                self.prompt_seconds = time.perf_counter() - self.started
            if decoder.stopped:
                self.finished = "stop"
            if decoder.stopped or self.interrupted:
                engine.cancel(request)
            if not engine.has_unfinished:
                text += decoder.flush()
            self.text += text
            if text:
                yield ChatText(text)

    def keep(self, state: State | None) -> None:
        """Keep a state that has read all tokens but the last; a GPU's batch has none."""
        if state is not None:
            self.states.append(((*self.prompt, *self.ids[:-1]), state))

    def interrupt(self) -> None:
        """End the answer after the next token."""
        self.interrupted = True

    def answer(self) -> ChatAnswer:
        """The answer so far."""
        return ChatAnswer(
            text=self.text,
            ids=tuple(self.ids),
            finished=self.finished,
            generated_tokens=len(self.ids),
            prompt_tokens=len(self.prompt),
            read_tokens=self.read_tokens,
            left_out=self.left_out,
            seconds=time.perf_counter() - self.started,
            prompt_seconds=self.prompt_seconds,
        )
