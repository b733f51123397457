"""Answers of a chat in the forms of OpenAI's API: one object, or chunks of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clearstory.server.generated_text import GeneratedText, response_head, usage
from clearstory.server.logprobs import TextToken, TokenTexts, bits_per_byte, chat_logprobs
from clearstory.server.streaming import DONE, sse_event

if TYPE_CHECKING:
    from clearstory.server.chat_completions import ChatCompletionRequest
    from clearstory.server.context import RequestRecord
    from clearstory.server.streaming import TextStream
    from clearstory.server.text_requests import PromptIds
    from clearstory.serving.requests import TextEvent


@dataclass
class ChatAnswers:
    """The answers to one conversation.

    Args:
        fields: the request.
        prompt: the conversation as ids.
        texts: bytes and names of tokens.
        record: counts tokens for the log and the metrics.
        head: what all chunks begin with.
    """

    fields: ChatCompletionRequest
    prompt: PromptIds
    texts: TokenTexts
    record: RequestRecord
    head: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        kind = "chat.completion.chunk" if self.fields.stream else "chat.completion"
        self.head = response_head("chatcmpl", kind, self.fields.model)

    def response(self, answers: Sequence[GeneratedText]) -> dict[str, Any]:
        """The response that is not streamed."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []},
                "logprobs": self.logprobs(answer.tokens),
                "finish_reason": answer.finish,
                **self.ids(answer.tokens),
                **self.measure(answer),
            }
            for index, answer in enumerate(answers)
        ]
        return {**self.head, "choices": choices, "usage": usage(answers, self.fields.n), **self.prompt_ids()}

    async def chunks(self, stream: TextStream) -> AsyncIterator[bytes]:
        """The events of the stream: the role of each answer, its text, why it ended; the numbers of tokens; [DONE]."""
        answers = [GeneratedText() for _ in stream.requests]
        opening = b"".join(self.opening(index) for index in range(len(answers)))
        async for events in stream:
            self.record.count_events(event for _, event in events)
            yield opening + b"".join(self.chunk(index, event, answers[index]) for index, event in events)
            opening = b""
        if self.fields.includes_usage:
            yield sse_event({**self.head, "choices": [], "usage": usage(answers, self.fields.n)})
        yield DONE

    def opening(self, index: int) -> bytes:
        """The first chunk of an answer; the very first has the ids of the prompt, where they were asked for."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self.encode(index, delta, **({} if index else self.prompt_ids()))

    def chunk(self, index: int, event: TextEvent, answer: GeneratedText) -> bytes:
        """The chunks of one event: its text, if there is something to send, and the end of the answer."""
        answer.add(event)
        new = [(event.token, event.bytes)]
        sent = b""
        if event.text or self.fields.logprobs or self.fields.return_token_ids:
            sent = self.encode(index, {"content": event.text}, logprobs=self.logprobs(new), choice=self.ids(new))
        if event.finish is not None:
            sent += self.encode(index, {}, finish=event.finish, choice=self.measure(answer))
        return sent

    def encode(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
        choice: Mapping[str, Any] = MappingProxyType({}),
        **others: Any,
    ) -> bytes:
        """A chunk of one answer; `choice`: what its choice has besides, and the chunk itself has `others`."""
        found = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish, **choice}
        if self.fields.includes_usage:
            others["usage"] = None
        return sse_event({**self.head, "choices": [found], **others})

    def logprobs(self, tokens: Sequence[TextToken]) -> dict[str, Any] | None:
        """The log-probabilities of tokens, where they were asked for."""
        if not self.fields.logprobs:
            return None
        top, with_ids = self.fields.top_logprobs or 0, self.fields.return_token_ids
        return chat_logprobs(tokens, self.texts, top=top, with_ids=with_ids)

    def prompt_ids(self) -> dict[str, Any]:
        """The ids of the prompt, where they were asked for."""
        return {"prompt_token_ids": list(self.prompt.ids)} if self.fields.return_token_ids else {}

    def ids(self, tokens: Sequence[TextToken]) -> dict[str, Any]:
        """The ids of generated tokens, where they were asked for."""
        return {"token_ids": [token.id for token, _ in tokens]} if self.fields.return_token_ids else {}

    def measure(self, answer: GeneratedText) -> dict[str, Any]:
        """The bits per byte of a whole answer, where they were asked for."""
        return {"bits_per_byte": bits_per_byte(answer.tokens)} if self.fields.bits_per_byte else {}
