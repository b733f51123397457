"""Completions in the format of OpenAI's API: one object, or chunks of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearstory.server.generated_text import CollectedText, check_grammar, response_head, usage
from clearstory.server.logprobs import CompletionLogprobs, TextToken, TokenTexts, bits_per_byte, bytes_of_each
from clearstory.server.streaming import DONE, sse_event
from clearstory.serving.requests import Token

if TYPE_CHECKING:
    from clearstory.server.completions import CompletionRequest
    from clearstory.server.context import RequestRecord
    from clearstory.server.streaming import TextStream
    from clearstory.server.text_requests import PromptIds
    from clearstory.serving.requests import PromptReading, TextEvent


@dataclass
class CompletionTexts:
    """The texts after the prompts of one request.

    Args:
        fields: the request.
        prompts: its prompts as ids.
        texts: bytes and names of tokens.
        record: counts tokens for the log and the metrics.
        head: common first fields of all chunks.
    """

    fields: CompletionRequest
    prompts: Sequence[PromptIds]
    texts: TokenTexts
    record: RequestRecord
    head: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.head = response_head("cmpl", "text_completion", self.fields.model)

    def whole(self, found: Sequence[CollectedText]) -> dict[str, Any]:
        """The response that is not streamed, without its choices."""
        generated = None if self.fields.max_tokens else 0
        return {**self.head, "usage": usage(found, self.fields.n, generated)}

    def choices(self, found: Sequence[CollectedText]) -> Iterator[dict[str, Any]]:
        """The choices of the response that is not streamed."""
        for index, text in enumerate(found):
            writer = self.writer(index)
            written = writer.piece(text.prompt, text.tokens, text.text)
            finish = text.finish if self.fields.max_tokens else "length"
            yield {**written, "finish_reason": finish, **writer.measure()}

    async def chunks(self, stream: TextStream) -> AsyncIterator[bytes]:
        """The events of the stream: pieces of texts and their finish reasons; the token counts; [DONE]."""
        texts = [CollectedText() for _ in stream.requests]
        writers = [self.writer(index) for index in range(len(texts))]
        async for events in stream:
            self.record.count_events(event for _, event in events)
            for index, event in events:
                texts[index].add(event)
                check_grammar(stream.requests[index], texts[index])
            if sent := b"".join(self.chunk(writers[index], event) for index, event in events):
                yield sent
        if self.fields.includes_usage:
            yield sse_event({**self.head, "choices": [], "usage": usage(texts, self.fields.n)})
        yield DONE

    def chunk(self, writer: ChoiceWriter, event: TextEvent) -> bytes:
        """The chunk of one event; empty if there is nothing to send."""
        fields = self.fields
        choice = writer.piece(event.prompt, [(event.token, event.bytes)], event.text)
        if not (choice["text"] or event.finish or fields.return_token_ids or fields.logprobs is not None):
            return b""
        choice["finish_reason"] = event.finish
        if event.finish is not None:
            choice |= writer.measure()
        return sse_event({**self.head, "choices": [choice], **({"usage": None} if fields.includes_usage else {})})

    def writer(self, index: int) -> ChoiceWriter:
        """The writer of one text."""
        return ChoiceWriter(self.fields, self.prompts[index // self.fields.n], self.texts, index)


class ChoiceWriter:
    """Writes one choice, complete or in pieces.

    Args:
        fields: the request.
        prompt: the prompt.
        texts: bytes and names of tokens.
        index: the index of the choice.
    """

    def __init__(self, fields: CompletionRequest, prompt: PromptIds, texts: TokenTexts, index: int) -> None:
        self.fields, self.prompt, self.texts, self.index = fields, prompt, texts, index
        self.logprobs = CompletionLogprobs(texts, fields.logprobs or 0)
        self.scored: list[TextToken] = []

    def piece(self, reading: PromptReading | None, new: Sequence[TextToken], text: str) -> dict[str, Any]:
        """A piece of the choice: new tokens with the text that has become final. The first piece has a `reading`; it
        begins with the prompt where that is echoed.

        With `max_tokens` 0 the token that was generated, since the prompt had to be read, is left out.
        """
        echoed, before = self.echo(reading) if self.fields.echo and reading is not None else ("", [])
        if self.fields.max_tokens == 0:
            new, text = (), ""
        if self.fields.bits_per_byte:
            self.scored += [*before[1:], *new]
        found = {"index": self.index, "text": echoed + text, "logprobs": None}
        if self.fields.logprobs is not None:
            lists = self.logprobs.of(before, first=True)
            if before:
                self.logprobs.begin_at(len(echoed))
            more = self.logprobs.of(new)
            found["logprobs"] = {name: [*lists[name], *more[name]] for name in lists}
        if self.fields.return_token_ids:
            found["token_ids"] = [token.id for token, _ in new]
            found |= {"prompt_token_ids": list(self.prompt.ids)} if reading is not None else {}
        return found

    def echo(self, reading: PromptReading) -> tuple[str, list[TextToken]]:
        """The text of the prompt, and its tokens where their probabilities are wanted. Of a prompt that was cut, what
        was read.
        """
        ids = self.prompt.ids[-reading.n_tokens :]
        spelled = bytes_of_each(self.texts, ids)
        whole = self.prompt.text is not None and len(ids) == len(self.prompt.ids)
        text = self.prompt.text if whole else b"".join(spelled).decode("utf-8", "replace")
        if reading.tokens is None:
            return text or "", []
        tokens = [Token(ids[0], 0.0), *reading.tokens]
        return text or "", list(zip(tokens, spelled, strict=True))

    def measure(self) -> dict[str, Any]:
        """The bits per byte of all tokens with log-probabilities, if requested."""
        return {"bits_per_byte": bits_per_byte(self.scored)} if self.fields.bits_per_byte else {}
