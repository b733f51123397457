"""Messages: conversations in the formats that files have.

| form | a record |
|---|---|
| OpenAI | {"messages": [{"role": "user", "content": "..."}, ...]} |
| ShareGPT | {"conversations": [{"from": "human", "value": "..."}, ...]} |
| prompt and completion (trl) | {"prompt": "...", "completion": "..."}, texts or lists of messages |
| Alpaca | {"instruction": "...", "input": "...", "output": "..."} |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearstory.errors import BadInput
from clearstory.text.assistant_tokens import ASSISTANT, NOT_TRAINED

ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("developer",), "developer"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys((ASSISTANT, "gpt", "chatgpt", "bot", "model"), ASSISTANT),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
"""Roles by their names in files."""

SYSTEM_ROLES = ("system", "developer")
"""Roles of messages that are kept when the first turns of a long conversation are dropped."""

LISTS = ("messages", "conversations", "conversation", "chat", "dialogue")
"""Names of the list of messages."""

PROMPTS = ("prompt", "question", "query")
"""Names of the first text of a pair of a prompt and a completion."""

COMPLETIONS = ("completion", "response", "answer")
"""Names of its second text."""

FORMS = (
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}, ShareGPT\'s '
    '{"conversations": [{"from": "human", "value": "..."}, ...]}, {"prompt": "...", "completion": "..."}, or '
    '{"instruction": "...", "input": "...", "output": "..."}'
)

Messages = tuple[dict[str, Any], ...]


def messages_of(record: Mapping[str, Any], location: str) -> Messages:
    """The messages of a record in any of the formats, each with role and content, and weight 0 for assistant messages
    that are not trained on.

    Raises BadInput, with the location, for another format, an unknown role, a message without text, and a conversation
    without an assistant message.

    >>> messages_of({"instruction": "Add.", "input": "1 1", "output": "2"}, "a.jsonl, line 1")
    ({'role': 'user', 'content': 'Add.\\n\\n1 1'}, {'role': 'assistant', 'content': '2'})
    """
    values = {name: value for name, value in record.items() if value is not None and value != ""}
    messages = _listed(values, location) or _pair(values, location) or _instruction(values, location)
    if messages is None:
        columns = ", ".join(repr(name[:40]) for name in list(record)[:8])
        raise BadInput(
            f"{location} has {columns or 'nothing'}, which is not a supported conversation format; supported: {FORMS}"
        )
    if not any(message["role"] == ASSISTANT for message in messages):
        raise BadInput(f"{location}: this conversation has no assistant message; add one, or remove the conversation")
    return messages


def check_messages(value: Any, location: str) -> Messages:
    """A list of messages, checked, with the roles that templates know."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise BadInput(f"{location}: the messages are {str(value)[:60]!r}; give a list of them, at least one")
    return tuple(_message(each, number, location) for number, each in enumerate(value, start=1))


def _listed(values: Mapping[str, Any], location: str) -> Messages | None:
    """The conversation in a list of messages."""
    name = next((each for each in LISTS if isinstance(values.get(each), Sequence)), None)
    if name is None:
        return None
    messages = check_messages(values[name], location)
    system = values.get("system")
    if isinstance(system, str) and messages[0]["role"] != "system":
        return ({"role": "system", "content": system}, *messages)
    return messages


def _pair(values: Mapping[str, Any], location: str) -> Messages | None:
    """A prompt and its completion, of which only the completion is trained on."""
    names = [next((each for each in known if each in values), None) for known in (PROMPTS, COMPLETIONS)]
    if names[0] is None or names[1] is None:
        return None
    prompt, completion = values[names[0]], values[names[1]]
    if isinstance(prompt, str) and isinstance(completion, str):
        system = values.get("system")
        first = ({"role": "system", "content": system},) if isinstance(system, str) else ()
        return (*first, _text("user", prompt, names[0], location), _text(ASSISTANT, completion, names[1], location))
    if isinstance(prompt, str) or isinstance(completion, str):
        raise BadInput(f"{location}: {names[0]!r} and {names[1]!r} are a text and a list; give two texts or two lists")
    read = [
        {**each, NOT_TRAINED: 0} if each["role"] == ASSISTANT else each for each in check_messages(prompt, location)
    ]
    return (*read, *check_messages(completion, location))


def _instruction(values: Mapping[str, Any], location: str) -> Messages | None:
    """An instruction with its input, and the output."""
    instruction, more, output = (values.get(name, "") for name in ("instruction", "input", "output"))
    output = output or next((values[name] for name in COMPLETIONS if name in values), "")
    if not (instruction and output) or not all(isinstance(each, str) for each in (instruction, more, output)):
        return None
    question = f"{instruction}\n\n{more}" if more.strip() else instruction
    system = values.get("system")
    first = ({"role": "system", "content": system},) if isinstance(system, str) else ()
    return (*first, _text("user", question, "instruction", location), _text(ASSISTANT, output, "output", location))


def _text(role: str, text: str, column: str, location: str) -> dict[str, Any]:
    """A message of a text. Raises BadInput for white space alone."""
    if not text.strip():
        raise BadInput(f"{location}: {column!r} is empty; complete it, or remove the conversation")
    return {"role": role, "content": text}


def _message(value: Any, number: int, location: str) -> dict[str, Any]:
    """A message with its role as templates know it, and its content as one text."""
    where = f"{location}: message {number}"
    if not isinstance(value, Mapping):
        raise BadInput(f'{where} is {str(value)[:60]!r}; give {{"role": "user", "content": "..."}}')
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    known = ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise BadInput(f"{where} has the role {str(role)[:40]!r}; known roles: {', '.join(name for name in ROLES)}")
    if isinstance(content, list):
        content = _joined(content, where)
    if value.get("tool_calls"):
        raise BadInput(f"{where} has tool calls, which are not supported; remove the conversation")
    if not isinstance(content, str) or not content.strip():
        raise BadInput(f"{where} ({known}) has no text; complete it, or remove the conversation")
    others = {
        key: each
        for key, each in value.items()
        if key not in ("role", "from", "content", "value", "tool_calls") and each is not None
    }
    if NOT_TRAINED in others and others[NOT_TRAINED] not in (0, 1):
        raise BadInput(f"{where} has the weight {str(others[NOT_TRAINED])[:40]!r}; it must be 0 (not trained on) or 1")
    return {"role": known, "content": content, **others}


def _joined(parts: Sequence[Any], where: str) -> str:
    """The text of a content in parts. Raises BadInput for a part that is not text."""
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise BadInput(f"{where} has a part of the type {str(kind)[:40]!r}; only text is supported")
        texts.append(text)
    return "".join(texts)
