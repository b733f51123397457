"""Chat: a conversation with a chat model, in which each turn reads only the tokens that are new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Unpack

from clearstory import durable
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling, SamplingOverrides, TokenSampling, sampling_of
from clearstory.models.base import State
from clearstory.models.inference_model import inference_model
from clearstory.models.precision import Precision, resolve_precision
from clearstory.models.prompts import check_unicode
from clearstory.recipes.inference.chat_answer import AnswerStream, ChatAnswer, ChatText
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.recipes.settings.keywords import SamplingKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.tasks.chat import check_decoder, without_first_turn
from clearstory.text.added_template import with_chat_template
from clearstory.text.assistant_tokens import ASSISTANT, end_of_turn_token
from clearstory.text.chat_prompt import encode_chat, has_chat_template
from clearstory.text.messages import SYSTEM_ROLES, check_messages, messages_of
from clearstory.text.tokenizers import Tokenizer

MAX_TOKENS = 1024
"""Largest number of tokens of an answer, where neither the user nor the model's generation config gives one."""

KEPT_STATES = 4
"""States that are kept, two for each turn: the last two turns can be answered again without being read again."""


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

    def reply(self, messages: Sequence[Mapping[str, Any]], sampling: TokenSampling | Sampling) -> AnswerEvents: ...

    def keep(self, events: AnswerEvents) -> None: ...

    def forget(self) -> None: ...


class ChatSession:
    """A conversation.

    Args:
        partner: what answers it.
        sampling: how tokens are chosen; where a setting is None, a server chooses.
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
        """The answer to a message, piece by piece, and at last as a ChatAnswer.

        Raises ContextOverflow for a conversation that is longer than the context, unless its first turns may be left
        out; BadInput for an empty message and for a template that refuses it. The message then is not kept.
        """
        check_unicode(text)
        if not text.strip():
            raise BadInput("the message is empty; write one")
        self.messages.append({"role": "user", "content": text})
        yield from self._answer()

    def ask(self, text: str) -> ChatAnswer:
        """The whole answer to a message."""
        *_, answer = self.send(text)
        assert isinstance(answer, ChatAnswer)
        return answer

    def retry(self) -> Iterator[ChatText | ChatAnswer]:
        """Another answer to the last message."""
        if not any(each["role"] == "user" for each in self.messages):
            raise BadInput("there is no message to answer; write one first")
        while self.messages[-1]["role"] != "user":
            self.messages.pop()
        yield from self._answer()

    def edit(self, text: str) -> Iterator[ChatText | ChatAnswer]:
        """The answer to another text in place of the last message."""
        self.undo()
        yield from self.send(text)

    def undo(self) -> str:
        """Remove the last message of the user with its answer; its text."""
        index = next((at for at in reversed(range(len(self.messages))) if self.messages[at]["role"] == "user"), None)
        if index is None:
            raise BadInput("there is no message to take back; write one first")
        text: str = self.messages[index]["content"]
        del self.messages[index:]
        return text

    def clear(self) -> None:
        """Begin anew, with the same system message."""
        del self.messages[self.system is not None :]
        self.partner.forget()

    def interrupt(self) -> None:
        """End the answer after the next token; what was said is kept."""
        if self._events is not None:
            self._events.interrupt()

    def set(self, name: str, value: str) -> None:
        """Change a setting of sampling, such as temperature. Raises BadSetting."""
        names = [each.name for each in fields(TokenSampling)]
        if name not in names:
            raise BadSetting(f"there is no setting {name[:40]!r}; supported: {', '.join(names)}")
        given = build_settings(TokenSampling, {name: (value,) if name == "stop" else value})
        self.sampling = replace(self.sampling, **{name: getattr(given, name)})

    def save(self, file: str | Path) -> Path:
        """Write the messages as JSON, in OpenAI's form. A file that is not of this conversation is not overwritten."""
        path = expand_home(file)
        if path.exists() and path.resolve() not in self._own_files:
            raise BadSetting(f"{path} exists; save to another file, or remove it first")
        durable.write_json(path, {"messages": self.messages})
        self._own_files.add(path.resolve())
        return path

    def load(self, file: str | Path) -> None:
        """Continue the conversation in a file, in OpenAI's or ShareGPT's form. Raises BadInput for another."""
        path = expand_home(file)
        self.messages = read_messages(path)
        self.partner.forget()
        self._own_files.add(path.resolve())

    def stats(self) -> dict[str, Any]:
        """Numbers of the conversation: its messages and tokens, and the speed of its answers."""
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
    model: str | Path | ModelWithTokenizer,
    *,
    system: str | None = None,
    load: str | Path | None = None,
    chat_template: str | None = None,
    truncate: Literal["left"] | None = None,
    precision: Precision = "auto",
    int8: bool = False,
    device: str | None = None,
    **settings: Unpack[SamplingKeywords],
) -> ChatSession:
    """A conversation with a chat model, which keeps what it has read from turn to turn.

    Settings of sampling that are not given are those of the model's generation config, if it has one.

    Args:
        model: a model folder, run folder, checkpoint or .gguf file, or a loaded model.
        system: system message.
        load: file with a conversation to continue, as `ChatSession.save` writes it.
        chat_template: chatml, or a file with a Jinja template, for a model that has none.
        truncate: "left" leaves out the first turns of a conversation that is longer than the context; None raises
            ContextOverflow.
        precision: of the weights: fp32, fp16, bf16, int8, int4, or auto, the faster of fp32 and fp16 here.
        int8: another spelling of the precision int8.
        device: cpu, cuda, mps or auto.
        settings: fields of Sampling, such as `max_tokens` and `temperature`.

    Raises CannotDo for a model that is no decoder, and for one without a chat template.

    >>> import clearstory
    >>> session = clearstory.chat("models/smollm2", system="Be brief.")  # doctest: +SKIP
    >>> session.ask("What is the capital of France?").text  # doctest: +SKIP
    'Paris.'
    """
    given = build_settings(SamplingOverrides, settings).given()
    precision = resolve_precision(precision, int8)
    network, tokenizer, config = load_generator(model, device, keep_blocks=precision in ("auto", "int8", "int4"))
    check_decoder(network)
    if chat_template is not None:
        tokenizer, _ = with_chat_template(tokenizer, chat_template)
    elif not has_chat_template(tokenizer):
        raise CannotDo(
            "this model has no chat template, so it is not a chat model; use clearstory generate to continue a text, "
            "or pass --chat-template chatml"
        )
    for name in ("beam", "length_penalty"):
        if given.pop(name, 1) != 1:
            raise BadSetting(f"{name} is for beam search, whose answers cannot be shown as they come; leave it out")
    longest = given.get("max_tokens") or config.max_new_tokens or MAX_TOKENS
    config = replace(config, max_new_tokens=None, max_length=None)
    sampling = replace(sampling_of(config, {**given, "max_tokens": longest}), beam=1)
    prompt_format = PromptFormat.of(network, tokenizer, None, generation_config=config)
    end = end_of_turn_token(tokenizer)
    ends = tuple(dict.fromkeys([*prompt_format.eos_token_ids, *([] if end is None else [end])]))
    prompt_format = replace(prompt_format, model=inference_model(network, precision), eos_token_ids=ends)
    session = ChatSession(prompt_format, tokenizer, sampling, truncate)
    if load is not None:
        session.load(load)
    if system is not None:
        session.system = system
    return session


def read_messages(path: Path) -> list[dict[str, Any]]:
    """The messages of a JSON file: a list, or an object in one of the forms of `messages_of`."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist; give a file with the messages of a conversation")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8; give a file that /save has written") from None
    value = durable.parse_json(text, path, error=BadInput)
    if isinstance(value, list):
        return list(check_messages(value, str(path)))
    if isinstance(value, Mapping) and value.get("messages") == []:
        return []
    if not isinstance(value, Mapping):
        raise BadInput(f"{path} has no messages; give a file that /save has written")
    if isinstance(value.get("messages"), list):  # a conversation may have no answer yet
        return list(check_messages(value["messages"], str(path)))
    return list(messages_of(value, str(path)))
