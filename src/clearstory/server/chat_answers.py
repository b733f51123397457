"""Answers of a chat in the forms of OpenAI's API: one object, or chunks of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearstory.server.generated_text import GeneratedText, ResponseHead, usage
from clearstory.server.logprobs import TokenTexts, bits_per_byte, chat_logprobs
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
        model: the name of the model.
    """

    fields: ChatCompletionRequest
    prompt: PromptIds
    texts: TokenTexts
    record: RequestRecord
    head: ResponseHead = field(init=False)

    def __post_init__(self) -> None:
        kind = "chat.completion.chunk" if self.fields.stream else "chat.completion"
        self.head = ResponseHead.new("chatcmpl", kind, self.fields.model)

    def response(self, answers: Sequence[GeneratedText]) -> dict[str, Any]:
        """The response that is not streamed."""
        found = {
            **self.head.to_json(),
            "choices": [self.choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage(answers, self.fields.n),
        }
        return {**found, **self.prompt_ids()}

    def choice(self, index: int, answer: GeneratedText) -> dict[str, Any]:
        """One answer."""
        message = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        return {
            "index": index,
            "message": message,
            "logprobs": self.logprobs(answer.tokens),
            "finish_reason": answer.finish,
            **self.extras(answer, answer.ids),
        }

    def prompt_ids(self) -> dict[str, Any]:
        """The ids of the prompt, where they were asked for."""
        return {"prompt_token_ids": list(self.prompt.ids)} if self.fields.return_token_ids else {}

    def logprobs(self, tokens: Sequence[Any]) -> dict[str, Any] | None:
        """The log-probabilities of tokens, where they were asked for."""
        if not self.fields.logprobs:
            return None
        top, with_ids = self.fields.top_logprobs or 0, self.fields.return_token_ids
        return chat_logprobs(tokens, self.texts, top=top, with_ids=with_ids)

    def extras(self, answer: GeneratedText, ids: Sequence[int]) -> dict[str, Any]:
        """What a choice has besides the fields of OpenAI's API, where it was asked for."""
        found: dict[str, Any] = {"token_ids": list(ids)} if self.fields.return_token_ids else {}
        if self.fields.bits_per_byte and answer.finish is not None:
            found["bits_per_byte"] = bits_per_byte(answer.tokens)
        return found

    async def chunks(self, stream: TextStream) -> AsyncIterator[bytes]:
        """The events of the stream: the role of each answer, its text, why it ended; the numbers of tokens; [DONE]."""
        answers = [GeneratedText() for _ in stream.requests]
        opening = self.opening(len(answers))
        async for events in stream:
            self.record.count_events(event for _, event in events)
            yield opening + b"".join(self.chunk(index, event, answers[index]) for index, event in events)
            opening = b""
        if self.fields.includes_usage:
            yield sse_event({**self.head.to_json(), "choices": [], "usage": usage(answers, self.fields.n)})
        yield DONE

    def opening(self, n_answers: int) -> bytes:
        """The first chunk of each answer; the very first has the ids of the prompt, where they were asked for."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        first = self.prompt_ids()
        return b"".join(
            self.encoded(index, delta, **({} if index else first)) for index in range(n_answers)
        )

    def chunk(self, index: int, event: TextEvent, answer: GeneratedText) -> bytes:
        """The chunks of one event: its text, if there is something to send, and the end of the answer."""
        answer.add(event)
        sent = b""
        if event.text or self.fields.logprobs or self.fields.return_token_ids:
            logprobs = self.logprobs([(event.token, event.bytes)])
            extras = {"token_ids": [event.token.id]} if self.fields.return_token_ids else {}
            sent = self.encoded(index, {"content": event.text}, logprobs, extras=extras)
        if event.finish is None:
            return sent
        measured = {"bits_per_byte": bits_per_byte(answer.tokens)} if self.fields.bits_per_byte else {}
        return sent + self.encoded(index, {}, finish=event.finish, extras=measured)
