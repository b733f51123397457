"""Generate: let a model write on."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clearstory.errors import BadInput
from clearstory.generation.engine import Engine, Token
from clearstory.generation.beam_search import beam_search_batch
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.models.encoder import Encoder
from clearstory.models.int8 import int8 as in_int8
from clearstory.models.layout import for_decoding
from clearstory.models.prompts import Truncate
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.text.tokenizers import Tokenizer

WORTH_IT = 32
"""Tokens from which laying the weights out for decoding costs less than it saves."""

SIDE_BY_SIDE = 16
"""Prompts whose beams are searched together."""


@dataclass(frozen=True)
class TextChunk:
    """Text that is certain now, of one of the completions; `goes_on` as there."""

    completion: int
    text: str
    continues_prompt: bool = True


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What was written after one prompt.

    Args:
        prompt: as given.
        text: what follows it, stop strings and the end token left out.
        ids: every token written, those of the stop string and the end token included.
        logprobs: each one's log-probability in nats, under the model's own distribution.
        finished: why it ended: the end token, as many tokens as asked for, or a stop string.
        score: beam search's; None otherwise.
        goes_on: whether the text goes on from the prompt; else the prompt was a source, and this is what came of it.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: Literal["eos", "length", "stop"]
    score: float | None = None
    continues_prompt: bool = True

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        out: dict[str, Any] = {
            "prompt": self.prompt,
            "text": self.text,
            "tokens": len(self.ids),
            "ids": list(self.ids),
            "logprobs": list(self.logprobs),
            "finished": self.finished,
        }
        return out if self.score is None else {**out, "score": self.score}


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All completions, in the order of their prompts (of one prompt's beams, best first), and how long they took."""

    completions: tuple[Completion, ...]
    seconds: float

    @property
    def text(self) -> str:
        """The first completion's."""
        return self.completions[0].text

    @property
    def tokens(self) -> int:
        """Written in all."""
        return sum(len(completion.ids) for completion in self.completions)

    @property
    def tokens_per_second(self) -> float:
        """Reading the prompts included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The first completion, all of them under `completions` where there are several, and the speed."""
        speed = {"tokens": self.tokens, "tokens_per_second": self.tokens_per_second, "seconds": self.seconds}
        first = self.completions[0].to_json()
        if len(self.completions) == 1:
            return {**first, **speed}
        return {**first, "completions": [completion.to_json() for completion in self.completions], **speed}


def generate(
    model: str | Path | ModelWithTokenizer,
    prompt: str | Sequence[str] = "",
    sampling: Sampling | None = None,
    *,
    truncate: Truncate | None = None,
    ignore_eos: bool = False,
    int8: bool = False,
    device: str | None = None,
    on_text: Callable[[TextChunk], None] | None = None,
    **settings: Any,
) -> Generation:
    """What a model writes after one prompt or several; `settings` are fields of Sampling by name. To an encoder-decoder
    a prompt is its source: what is to be translated, summarized, filled in.

    `on_text` is called with each piece of text as soon as it is certain. For an iterator of them, see `write`.

    >>> import clearstory
    >>> clearstory.generate("runs/book/model", "Once", max_tokens=20, seed=1).text  # doctest: +SKIP
    ' upon a time'
    """
    sampling = replace(sampling or Sampling(), **settings)
    for item in stream_generate(model, prompt, sampling, truncate=truncate, ignore_eos=ignore_eos, int8=int8, device=device):
        if isinstance(item, Generation):
            return item
        if on_text is not None:
            on_text(item)
    raise AssertionError("the last item is the Generation")


def stream_generate(
    model: str | Path | ModelWithTokenizer,
    prompt: str | Sequence[str],
    sampling: Sampling,
    *,
    truncate: Truncate | None = None,
    ignore_eos: bool = False,
    int8: bool = False,
    device: str | None = None,
) -> Iterator[TextChunk | Generation]:
    """Pieces of text as they come, and at the end the Generation.

    Several prompts are written side by side; prompt i draws by `seed` + i, so it reads the same in any company. Pieces
    come only from sampling: a beam is not certain of anything before its end.
    """
    network, tokenizer = load_model_and_tokenizer(model, device)
    if isinstance(network, Encoder):
        network.cannot_go_on()
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise BadInput("there is no prompt to write on from; give one, or an empty text for a beginning of its own")
    prompt_format = PromptFormat.of(network, tokenizer, truncate, ignore_eos)
    if prompt_format.reads_source and not all(prompts):
        raise BadInput("this model rewrites a source, and there is none; give it the text to be rewritten")
    rows = len(prompts) if sampling.beam == 1 else sampling.beam * min(len(prompts), SIDE_BY_SIDE)
    if int8:
        network = in_int8(network)
    elif sampling.max_tokens >= WORTH_IT:
        network = for_decoding(network, rows)
    started = time.perf_counter()
    written: list[Completion] = []
    if sampling.beam > 1:
        for start in range(0, len(prompts), SIDE_BY_SIDE):
            written += search(network, tokenizer, prompts[start : start + SIDE_BY_SIDE], sampling, prompt_format)
    else:
        written = yield from sample(network, tokenizer, prompts, sampling, prompt_format)
    yield Generation(completions=tuple(written), seconds=time.perf_counter() - started)


class Answer:
    """A completion as it grows."""

    def __init__(self, tokenizer: Tokenizer, prompt: str, sampling: Sampling, prompt_format: PromptFormat) -> None:
        self.prompt = prompt
        self.prompt_ids, self.source = prompt_format.encode(tokenizer, prompt)
        self.writer = StreamDecoder(prompt_format.token_decoder(tokenizer), sampling.stop, after=self.prompt_ids)
        self.tokens: list[Token] = []
        self.text = ""
        self.finished: Literal["eos", "length", "stop"] = "length"

    def take(self, token: Token) -> str:
        """Write a token down; the text that is certain now."""
        self.tokens.append(token)
        return self.add(self.writer.write(token.id))

    def close(self) -> str:
        """The end: what was held back."""
        return self.add(self.writer.close())

    def add(self, text: str) -> str:
        self.text += text
        if self.writer.stopped:
            self.finished = "stop"
        return text

    def completion(self, score: float | None = None) -> Completion:
        """As it stands."""
        return Completion(
            prompt=self.prompt,
            text=self.text,
            ids=tuple(token.id for token in self.tokens),
            logprobs=tuple(token.logprob for token in self.tokens),
            finished=self.finished,
            score=score,
            continues_prompt=self.source is None,
        )


def sample(
    network: Any, tokenizer: Tokenizer, prompts: Sequence[str], sampling: Sampling, prompt_format: PromptFormat
) -> Generator[TextChunk, None, list[Completion]]:
    """All prompts side by side; yields pieces, returns the completions."""
    engine = Engine(network, suppress_tokens=prompt_format.suppress_tokens)
    how: dict[str, Any] = {"eos": prompt_format.eos_token_id, "begin": prompt_format.start_token_id, "truncate": prompt_format.truncate}
    answers: list[Answer] = []
    for number, prompt in enumerate(prompts):
        seed = None if sampling.seed is None else sampling.seed + number
        answers.append(Answer(tokenizer, prompt, sampling, prompt_format))
        engine.add(answers[-1].prompt_ids, replace(sampling, seed=seed), source=answers[-1].source, **how)
    while engine.busy:
        for reply in engine.step():
            answer = answers[reply.request]
            if reply.finished:
                answer.finished = reply.finished
            text = answer.take(reply.token)
            if reply.finished and not answer.writer.stopped:
                text += answer.close()
            elif answer.writer.stopped and not reply.finished:
                engine.cancel(reply.request)
            if text:
                yield TextChunk(reply.request, text, not prompt_format.reads_source)
    return [answer.completion() for answer in answers]


def search(
    network: Any, tokenizer: Tokenizer, prompts: Sequence[str], sampling: Sampling, prompt_format: PromptFormat
) -> list[Completion]:
    """The beams of several prompts, best first, one prompt after the other."""
    ids = [prompt_format.encode(tokenizer, prompt) for prompt in prompts]
    every = beam_search_batch(
        network,
        [written for written, _ in ids],
        sampling,
        eos=prompt_format.eos_token_id,
        begin=prompt_format.start_token_id,
        truncate=prompt_format.truncate,
        sources=[source for _, source in ids if source is not None] or None,
        suppress_tokens=prompt_format.suppress_tokens,
    )
    completions = []
    for prompt, beams in zip(prompts, every, strict=True):
        for found in beams:
            answer = Answer(tokenizer, prompt, sampling, prompt_format)
            for id, logprob in zip(found.ids, found.logprobs, strict=True):
                answer.take(Token(id, logprob))
                if answer.writer.stopped:
                    break
            answer.close()
            if answer.finished == "length" and found.ids[-1] == prompt_format.eos_token_id:
                answer.finished = "eos"
            completions.append(answer.completion(found.score))
    return completions
