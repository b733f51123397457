"""Completions: the text generated after a prompt, and its construction from tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clearstory.generation.engine import Token
from clearstory.generation.grammar import Grammar
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.text.tokenizers import Tokenizer

FinishReason = Literal["eos", "length", "stop"]


@dataclass(frozen=True)
class TextChunk:
    """Generated text of the completion with index `completion`; `continues_prompt` as in Completion."""

    completion: int
    text: str
    continues_prompt: bool = True


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The text generated after one prompt.

    Args:
        prompt: the prompt.
        text: the generated text, without stop string and end token.
        ids: all generated ids, including those of the stop string and the end token.
        logprobs: natural logarithm of each token's probability under the model, before temperature and top-k.
        finished: reason for the end: eos, length (`max_tokens` were generated), or stop (a stop string).
        score: score of the beam; None for sampling.
        continues_prompt: True if the text continues the prompt; False for the answer of a chat model, and for an
            encoder-decoder, whose prompt is a source.
        chat: True if the prompt was a message in the model's chat template.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: FinishReason
    score: float | None = None
    continues_prompt: bool = True
    chat: bool = False

    def to_json(self) -> dict[str, Any]:
        """The completion as a dictionary for JSON."""
        out: dict[str, Any] = {
            "prompt": self.prompt,
            "text": self.text,
            "tokens": len(self.ids),
            "ids": list(self.ids),
            "logprobs": list(self.logprobs),
            "finished": self.finished,
            "chat": self.chat,
        }
        return out if self.score is None else {**out, "score": self.score}


class CompletionBuilder:
    """A completion under construction: tokens are appended, their text is decoded as far as it is final."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str,
        sampling: Sampling,
        prompt_format: PromptFormat,
        grammar: Grammar | None = None,
    ) -> None:
        encoded = prompt_format.encode_prompt(tokenizer, prompt)
        self.prompt, self.continues_prompt, self.chat = prompt, encoded.continues_prompt, encoded.chat
        ids = list(encoded.ids)
        self.prompt_ids: list[int] = [] if prompt_format.reads_source else ids
        self.source = ids if prompt_format.reads_source else None
        # A text that does not continue the prompt is decoded as a text of its own; that of a grammar as it is.
        before = self.prompt_ids if encoded.continues_prompt or grammar is not None else ()
        self.grammar = grammar
        self.decoder = StreamDecoder(prompt_format.token_decoder(tokenizer), sampling.stop, prompt_ids=before)
        self.tokens: list[Token] = []
        self.text = ""
        self.finished: FinishReason = "length"

    def append_token(self, token: Token) -> str:
        """Append a token and return the text that has become final."""
        self.tokens.append(token)
        return self._append_text(self.decoder.push(token.id))

    def close(self) -> str:
        """Return the text that was held back as a possible beginning of a stop string."""
        return self._append_text(self.decoder.flush())

    def _append_text(self, text: str) -> str:
        self.text += text
        if self.decoder.stopped:
            self.finished = "stop"
        return text

    def completion(self, score: float | None = None) -> Completion:
        """The completion with the tokens appended so far. Raises GrammarViolation if it does not follow its grammar."""
        if self.grammar is not None and self.finished == "eos":
            self.grammar.check(self.text)
        return Completion(
            prompt=self.prompt,
            text=self.text,
            ids=tuple(token.id for token in self.tokens),
            logprobs=tuple(token.logprob for token in self.tokens),
            finished=self.finished,
            score=score,
            continues_prompt=self.continues_prompt,
            chat=self.chat,
        )
