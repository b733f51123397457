"""Chat: a conversation with a model, which is opened locally or by a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Unpack

from clearstory import durable
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting
from clearstory.generation.settings import Sampling, SamplingOverrides, TokenSampling
from clearstory.models.precision import Precision
from clearstory.models.prompts import check_unicode
from clearstory.recipes.inference.chat_answer import ChatAnswer, ChatText
from clearstory.recipes.inference.chat_model import open_chat_model
from clearstory.recipes.inference.chat_server import connect_chat_server
from clearstory.recipes.inference.loading import ModelWithTokenizer
from clearstory.recipes.settings.chat import check_chat_source
from clearstory.recipes.settings.keywords import SamplingKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.text.assistant_tokens import ASSISTANT
from clearstory.text.messages import check_messages, messages_of


class AnswerEvents(Protocol):
    """An answer as it is generated: its pieces, and at last the whole."""

    text: str

    def __iter__(self) -> Iterator[ChatText]: ...

    def interrupt(self) -> None: ...

    def answer(self) -> ChatAnswer: ...


class ChatPartner(Protocol):
    """What answers a conversation: a model (`ChatModel`), or a server (`ChatServer`)."""

    @property
    def context(self) -> int | None: ...

    def check_system(self, text: str) -> None: ...

    def reply(self, messages: Sequence[dict[str, Any]], sampling: Any) -> AnswerEvents: ...

    def keep(self, events: Any) -> None: ...

    def forget(self) -> None: ...


class ChatSession:
    """A conversation.

    Args:
        partner: what answers it.
        sampling: how tokens are chosen; None: chosen by the server.
    """

    def __init__(self, partner: ChatPartner, sampling: Sampling | TokenSampling) -> None:
        self.partner, self.sampling = partner, sampling
        self.messages: list[dict[str, Any]] = []
        self.answers: list[ChatAnswer] = []
        self._events: AnswerEvents | None = None
        self._own_files: set[Path] = set()

    @property
    def system(self) -> str | None:
        """The system message."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        check_unicode(text or "")
        rest = self.messages[self.system is not None :]
        if text is not None:
            self.partner.check_system(text)
        self.messages = [*([] if text is None else [{"role": "system", "content": text}]), *rest]

    def send(self, text: str) -> Iterator[ChatText | ChatAnswer]:
        """Generate the answer to a message: yields pieces of text, and finally the ChatAnswer.

        Raises ContextOverflow for a conversation that exceeds the context, unless `truncate` is "left"; BadInput for an
        empty message, or if the template refuses it. After an error the message is not part of the conversation.
        """
        check_unicode(text)
        if not text.strip():
            raise BadInput("the message is empty")
        self.messages.append({"role": "user", "content": text})
        yield from self._answer()

    def ask(self, text: str) -> ChatAnswer:
        """The complete answer to a message."""
        *_, answer = self.send(text)
        assert isinstance(answer, ChatAnswer)
        return answer

    def retry(self) -> Iterator[ChatText | ChatAnswer]:
        """Generate another answer to the last message."""
        if not any(each["role"] == "user" for each in self.messages):
            raise BadInput("there is no message to answer; write one first")
        while self.messages[-1]["role"] != "user":
            self.messages.pop()
        yield from self._answer()

    def edit(self, text: str) -> Iterator[ChatText | ChatAnswer]:
        """Replace the last message and generate its answer."""
        self.undo()
        yield from self.send(text)

    def undo(self) -> str:
        """Remove the last user message with its answer; returns its text."""
        index = next((at for at in reversed(range(len(self.messages))) if self.messages[at]["role"] == "user"), None)
        if index is None:
            raise BadInput("there is no message to remove; write one first")
        text: str = self.messages[index]["content"]
        del self.messages[index:]
        return text

    def clear(self) -> None:
        """Clear the conversation; the system message is kept."""
        del self.messages[self.system is not None :]
        self.partner.forget()

    def interrupt(self) -> None:
        """End the answer after the next token; the text generated so far is kept."""
        if self._events is not None:
            self._events.interrupt()

    def set(self, name: str, value: str) -> None:
        """Change a sampling setting, such as temperature. Raises BadSetting."""
        names = [each.name for each in fields(TokenSampling)]
        if name not in names:
            raise BadSetting(f"the setting {name[:40]!r} does not exist; supported: {', '.join(names)}")
        given = build_settings(TokenSampling, {name: (value,) if name == "stop" else value})
        self.sampling = replace(self.sampling, **{name: getattr(given, name)})

    def save(self, file: str | Path) -> Path:
        """Write the messages as JSON in OpenAI's format. Only a file saved by this session is overwritten."""
        path = expand_home(file)
        if path.exists() and path.resolve() not in self._own_files:
            raise BadSetting(f"{path} exists; save to another file, or remove it first")
        durable.write_json(path, {"messages": self.messages})
        self._own_files.add(path.resolve())
        return path

    def load(self, file: str | Path) -> None:
        """Continue the conversation in a file in OpenAI's or ShareGPT's format. Raises BadInput for other formats."""
        path = expand_home(file)
        self.messages = read_messages(path)
        self.partner.forget()
        self._own_files.add(path.resolve())

    def stats(self) -> dict[str, Any]:
        """Statistics of the conversation: number of messages and tokens, and speed of the answers."""
        tokens = sum(each.generated_tokens for each in self.answers)
        seconds = sum(each.seconds for each in self.answers)
        last = self.answers[-1] if self.answers else None
        return {
            "messages": len(self.messages),
            "context_tokens": 0 if last is None else last.prompt_tokens + last.generated_tokens,
            "context": self.partner.context,
            "answers": len(self.answers),
            "generated_tokens": tokens,
            "read_tokens": sum(each.read_tokens for each in self.answers),
            "prompt_tokens": sum(each.prompt_tokens for each in self.answers),
            "tokens_per_second": 0.0 if last is None else last.tokens_per_second,
            "seconds": seconds,
        }

    def _answer(self) -> Iterator[ChatText | ChatAnswer]:
        """The answer to the messages; it is appended to them, or the last of them is removed where there is none."""
        events: AnswerEvents | None = None
        try:
            seed = None if self.sampling.seed is None else self.sampling.seed + len(self.answers)
            self._events = events = self.partner.reply(self.messages, replace(self.sampling, seed=seed))
            yield from events
        finally:
            if events is not None and events.text:
                self.messages.append({"role": ASSISTANT, "content": events.text})
                self.partner.keep(events)
            else:
                self.messages.pop()
        self.answers.append(events.answer())
        yield self.answers[-1]


def chat(
    model: str | Path | ModelWithTokenizer = "",
    *,
    url: str | None = None,
    api_key_file: str | Path | None = None,
    system: str | None = None,
    load: str | Path | None = None,
    chat_template: str | None = None,
    truncate: Literal["left"] | None = None,
    precision: Precision = "auto",
    int8: bool = False,
    device: str | None = None,
    **settings: Unpack[SamplingKeywords],
) -> ChatSession:
    """A conversation with a chat model, which caches its state from turn to turn.

    The defaults of sampling settings are those of the model's generation config, if it has one.

    Args:
        model: a model folder, run folder, checkpoint or .gguf file, or a loaded model; with `url` the name of a model
            there, which may be left out where the server has only one.
        url: address of a server with OpenAI's API, such as http://127.0.0.1:8000/v1.
        api_key_file: file with the API key that the server requires.
        system: system message.
        load: file with a conversation to continue, as `ChatSession.save` writes it.
        chat_template: chatml, or a file with a Jinja template, for a model that has none.
        truncate: "left" drops the first turns of a conversation that is longer than the context; None raises
            ContextOverflow.
        precision: of the weights: fp32, fp16, bf16, int8, int4, or auto, the faster of fp32 and fp16 here.
        int8: another spelling of the precision int8.
        device: cpu, cuda, mps or auto.
        settings: fields of Sampling, such as `max_tokens` and `temperature`.

    Raises CannotDo for a model that is no decoder, and for one without a chat template; RemoteServerError for a server
    that does not answer.

    >>> import clearstory
    >>> session = clearstory.chat("models/smollm2", system="Be brief.")  # doctest: +SKIP
    >>> session.ask("What is the capital of France?").text  # doctest: +SKIP
    'Paris.'
    """
    given = build_settings(SamplingOverrides, settings).given()
    for name in ("beam", "length_penalty"):
        if given.pop(name, 1) != 1:
            raise BadSetting(f"{name} is for beam search, which cannot stream answers; omit it")
    local = {"chat_template": chat_template, "precision": precision, "int8": int8, "device": device}
    check_chat_source(model, url, api_key_file, local)
    session = (
        ChatSession(*open_chat_model(model, given, chat_template, truncate, precision, int8, device))
        if url is None
        else ChatSession(connect_chat_server(url, str(model), api_key_file, truncate), TokenSampling(**given))
    )
    if load is not None:
        session.load(load)
    if system is not None:
        session.system = system
    return session


def read_messages(path: Path) -> list[dict[str, Any]]:
    """The messages of a JSON file: a list, or an object in one of the forms of `messages_of`."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist; use a file with the messages of a conversation")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8; use a file written by /save") from None
    value = durable.parse_json(text, path, error=BadInput)
    if isinstance(value, list):
        return list(check_messages(value, str(path)))
    if isinstance(value, Mapping) and value.get("messages") == []:
        return []
    if not isinstance(value, Mapping):
        raise BadInput(f"{path} has no messages; use a file written by /save")
    if isinstance(value.get("messages"), list):  # a conversation may have no answer yet
        return list(check_messages(value["messages"], str(path)))
    return list(messages_of(value, str(path)))
