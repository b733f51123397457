"""Chat server: a server with OpenAI's API that answers a conversation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clearstory.errors import BadSetting, RemoteServerError
from clearstory.generation.settings import TokenSampling
from clearstory.recipes.inference.chat_answer import ChatAnswer, ChatText, Ending
from clearstory.recipes.inference.chat_client import ChatClient, ServerEvents, read_key

ENDINGS: Mapping[str, Ending] = {"stop": "stop", "length": "length"}
"""How an answer ended, by the server's `finish_reason`."""


@dataclass(frozen=True)
class ChatServer:
    """A model of a server.

    Args:
        client: the server.
        model: the model's name there.
        context: its context in tokens, if the server returns it.
        truncate: "left" requests that the server drops the first turns of a conversation longer than the context.
    """

    client: ChatClient
    model: str
    context: int | None = None
    truncate: Literal["left"] | None = None

    def check_system(self, text: str) -> None:
        """Nothing: the server checks it with the next message."""

    def reply(self, messages: Sequence[dict[str, Any]], sampling: TokenSampling) -> ServerAnswerStream:
        """The answer to these messages. Raises RemoteServerError if the server refuses them."""
        body = {
            "model": self.model,
            "messages": [{"role": each["role"], "content": each["content"]} for each in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **({} if self.truncate is None else {"truncate": self.truncate}),
            **sampling.given(),
        }
        return ServerAnswerStream(self.client, body)

    def keep(self, events: ServerAnswerStream) -> None:
        """Nothing: the server keeps what it has read."""

    def forget(self) -> None:
        """Nothing: each request has the whole conversation."""


class ServerAnswerStream:
    """One answer of a server: an iterator of its pieces.

    Args:
        client: the server.
        body: the request.
    """

    def __init__(self, client: ChatClient, body: Mapping[str, Any]) -> None:
        self.text = ""
        self.finished: Ending = "interrupted"
        self.max_tokens: int | None = body.get("max_tokens")
        self.pieces, self.usage = 0, dict[str, Any]()
        self.started, self.prompt_seconds = time.perf_counter(), 0.0
        self.events: ServerEvents = client.stream(body)

    def __iter__(self) -> Iterator[ChatText]:
        try:
            for event in self.events:
                if isinstance(event.get("usage"), dict):
                    self.usage = event["usage"]
                if text := self.read(event):
                    self.text += text
                    self.pieces += 1
                    if self.pieces == 1:
                        self.prompt_seconds = time.perf_counter() - self.started
                    yield ChatText(text)
        except RemoteServerError as error:
            kept = "; the text so far is kept, and /retry generates another answer" if self.text else ""
            raise RemoteServerError(f"{error}{kept}") from None

    def read(self, event: Mapping[str, Any]) -> str:
        """The text of an event; how the answer ended is kept."""
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        if (reason := choice.get("finish_reason")) is not None:
            self.finished = ENDINGS.get(reason, "stop")
        delta = choice.get("delta")
        text = (delta.get("content") or delta.get("refusal")) if isinstance(delta, dict) else None
        return text if isinstance(text, str) else ""

    def interrupt(self) -> None:
        """End the answer at once: the connection is closed."""
        self.finished = "interrupted"
        self.events.cancel()

    def answer(self) -> ChatAnswer:
        """The answer so far. Tokens are those that the server counts, else the pieces that it sent."""
        generated, prompt = self.count("completion_tokens", self.pieces), self.count("prompt_tokens", 0)
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        full = self.finished == "length" and self.max_tokens is not None and generated < self.max_tokens
        return ChatAnswer(
            text=self.text,
            ids=(),
            finished="context" if full else self.finished,
            generated_tokens=generated,
            prompt_tokens=prompt,
            read_tokens=prompt - (cached if isinstance(cached, int) else 0),
            left_out=0,
            seconds=time.perf_counter() - self.started,
            prompt_seconds=self.prompt_seconds,
        )

    def count(self, name: str, default: int) -> int:
        """A number of the server's usage."""
        found = self.usage.get(name)
        return found if isinstance(found, int) else default


def connect_chat_server(
    url: str, model: str, api_key_file: str | Path | None, truncate: Literal["left"] | None
) -> ChatServer:
    """A model of a server: the named one, or its only one.

    Raises RemoteServerError if the server does not respond, BadSetting if it has several models and none is named.
    """
    client = ChatClient(url, None if api_key_file is None else read_key(api_key_file))
    listed = {each["id"]: each for each in client.models()}
    if not model:
        if len(listed) != 1:
            known = ", ".join(list(listed)[:20]) or "none"
            raise BadSetting(f"{url} has {len(listed)} models ({known}); choose one with --model")
        [model] = listed
    context = listed.get(model, {}).get("max_model_len")
    return ChatServer(client, model, context if isinstance(context, int) else None, truncate)
