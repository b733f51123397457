"""Answers of a chat in the formats of OpenAI's API: one object, or chunks of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clearstory.server.generated_text import CollectedText, check_grammar, response_head, usage
from clearstory.server.logprobs import TextToken, TokenTexts, bits_per_byte, chat_logprobs
from clearstory.server.streaming import DONE, sse_event
from clearstory.server.tool_answers import check_calls, deltas, finish_reason, message_fields, parse_answer
from clearstory.serving.tool_calls import ToolCallParser

if TYPE_CHECKING:
    from clearstory.server.chat_completions import ChatCompletionRequest
    from clearstory.server.context import RequestRecord
    from clearstory.server.streaming import TextStream
    from clearstory.server.text_requests import PromptIds
    from clearstory.serving.requests import TextEvent
    from clearstory.serving.tools import ToolUse
    from clearstory.text.tokenizers import Tokenizer


@dataclass
class ChatAnswers:
    """The answers to one conversation.

    Args:
        fields: the request.
        prompt: the conversation as ids.
        texts: bytes and names of tokens.
        record: counts tokens for the log and the metrics.
        tokenizer: the tokenizer of the model.
        use: the functions that answers may call, or None.
        head: common first fields of all chunks.
    """

    fields: ChatCompletionRequest
    prompt: PromptIds
    texts: TokenTexts
    record: RequestRecord
    tokenizer: Tokenizer
    use: ToolUse | None = None
    parsers: dict[int, ToolCallParser] = field(default_factory=dict)
    head: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        kind = "chat.completion.chunk" if self.fields.stream else "chat.completion"
        self.head = response_head("chatcmpl", kind, self.fields.model)

    def response(self, answers: Sequence[CollectedText]) -> dict[str, Any]:
        """The response that is not streamed."""
        choices = [self.choice(index, answer) for index, answer in enumerate(answers)]
        return {**self.head, "choices": choices, "usage": usage(answers, self.fields.n), **self.prompt_ids()}

    def choice(self, index: int, answer: CollectedText) -> dict[str, Any]:
        """One complete answer."""
        message: dict[str, Any] = {"content": answer.text}
        finish: str | None = answer.finish
        if self.use is not None:
            parser = parse_answer(self.tokenizer, self.use, answer)
            message, finish = message_fields(parser), finish_reason(parser, answer)
        return {
            "index": index,
            "message": {"role": "assistant", **message, "refusal": None, "annotations": []},
            "logprobs": self.logprobs(answer.tokens),
            "finish_reason": finish,
            **self.ids(answer.tokens),
            **self.measure(answer),
        }

    async def chunks(self, stream: TextStream) -> AsyncIterator[bytes]:
        """The events of the stream: role, text and finish reason of each answer; the token counts; [DONE]."""
        answers = [CollectedText() for _ in stream.requests]
        opening = b"".join(self.opening(index) for index in range(len(answers)))
        async for events in stream:
            self.record.count_events(event for _, event in events)
            for index, event in events:
                answers[index].add(event)
                check_grammar(stream.requests[index], answers[index])
            yield opening + b"".join(self.chunk(index, event, answers[index]) for index, event in events)
            opening = b""
        if self.fields.includes_usage:
            yield sse_event({**self.head, "choices": [], "usage": usage(answers, self.fields.n)})
        yield DONE

    def opening(self, index: int) -> bytes:
        """The first chunk of an answer; that of the first answer has the prompt's ids if requested."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self.encode(index, delta, **({} if index else self.prompt_ids()))

    def chunk(self, index: int, event: TextEvent, answer: CollectedText) -> bytes:
        """The chunks of one event: its text, if not empty, and the end of the answer."""
        if self.use is not None:
            return self.tool_chunk(index, event, answer, self.use)
        new = [(event.token, event.bytes)]
        sent = b""
        if event.text or self.fields.logprobs or self.fields.return_token_ids:
            sent = self.encode(index, {"content": event.text}, logprobs=self.logprobs(new), choice=self.ids(new))
        if event.finish is not None:
            sent += self.encode(index, {}, finish=event.finish, choice=self.measure(answer))
        return sent

    def tool_chunk(self, index: int, event: TextEvent, answer: CollectedText, use: ToolUse) -> bytes:
        """The chunks of one event of an answer that may call functions."""
        if index not in self.parsers:
            self.parsers[index] = ToolCallParser(self.tokenizer, use.format, use.schemas)
        parser = self.parsers[index]
        pieces = parser.push(event.token.id)
        if event.finish is not None:
            pieces += parser.flush()
            check_calls(parser, use, answer)
        new = [(event.token, event.bytes)]
        named = self.fields.logprobs or self.fields.return_token_ids
        sent = b""
        for number, delta in enumerate(deltas(pieces) or [{}] * bool(named)):
            if number:  # the token was described with its first delta
                sent += self.encode(index, delta)
            else:
                sent += self.encode(index, delta, logprobs=self.logprobs(new), choice=self.ids(new))
        if event.finish is not None:
            sent += self.encode(index, {}, finish=finish_reason(parser, answer), choice=self.measure(answer))
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
        """A chunk of one answer; `choice`: additional fields of its choice, `others`: those of the chunk."""
        found = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish, **choice}
        if self.fields.includes_usage:
            others["usage"] = None
        return sse_event({**self.head, "choices": [found], **others})

    def logprobs(self, tokens: Sequence[TextToken]) -> dict[str, Any] | None:
        """The log-probabilities of tokens, if requested."""
        if not self.fields.logprobs:
            return None
        top, with_ids = self.fields.top_logprobs or 0, self.fields.return_token_ids
        return chat_logprobs(tokens, self.texts, top=top, with_ids=with_ids)

    def prompt_ids(self) -> dict[str, Any]:
        """The ids of the prompt, if requested."""
        return {"prompt_token_ids": list(self.prompt.ids)} if self.fields.return_token_ids else {}

    def ids(self, tokens: Sequence[TextToken]) -> dict[str, Any]:
        """The ids of generated tokens, if requested."""
        return {"token_ids": [token.id for token, _ in tokens]} if self.fields.return_token_ids else {}

    def measure(self, answer: CollectedText) -> dict[str, Any]:
        """The bits per byte of a complete answer, if requested."""
        return {"bits_per_byte": bits_per_byte(answer.tokens)} if self.fields.bits_per_byte else {}
