"""Assistant tokens: the tokens of a conversation that the assistant generates, on which a chat model is trained.

A turn is found by rendering the messages before it, with the header of the answer, and the messages up to its end: the
assistant's text is the difference. A template can also mark it with {% generation %}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clearstory.errors import BadInput
from clearstory.text.chat_prompt import ChatFormat, RenderedChat
from clearstory.text.chat_template import Message
from clearstory.text.tokenizers import Tokenizer

ASSISTANT = "assistant"

TEMPLATE_DATE = datetime(2025, 1, 1)
"""The date in templates that print today's date, fixed so that a conversation always has the same tokens."""

NOT_TRAINED = "weight"
"""Key of a message that is 0 for an assistant message that is not trained on, as in OpenAI's format."""

Span = tuple[int, int]


@dataclass(frozen=True)
class TrainedSequence:
    """Token ids of a conversation, and a mask of those that the assistant generates."""

    ids: tuple[int, ...]
    predicted: tuple[bool, ...]


def trained_sequences(
    chat: ChatFormat, messages: Sequence[Message], *, assistant_only: bool = True
) -> list[TrainedSequence]:
    """A conversation as the sequences that a model reads: one, unless the template writes earlier turns differently
    from the last one (as Qwen3 leaves out their thinking). Then there is one for each turn so written, and each turn is
    predicted once, as it is generated.

    The end-of-turn token is among the predicted ones; not `assistant_only`: all tokens but the first are. Raises
    BadInput for messages that the template refuses, for a template that does not end turns by a special token, and for
    a conversation in which nothing is predicted.
    """
    shown = [{key: value for key, value in message.items() if key != NOT_TRAINED} for message in messages]
    sequences = []
    for rendered, turns in trained_turns(chat, shown):
        wanted = [span for turn, span in turns if messages[turn].get(NOT_TRAINED, 1) != 0]
        encoded = chat.encode(rendered.located)
        predicted = [
            not assistant_only
            or (span is not None and any(span[0] < stop and span[1] > start for start, stop in wanted))
            for span in encoded.spans
        ]
        predicted[0] = False
        last = max((index for index, each in enumerate(predicted) if each), default=None)
        if last is not None and wanted:
            sequences.append(TrainedSequence(encoded.ids[: last + 1], tuple(predicted[: last + 1])))
    if not sequences:
        raise BadInput("the conversation has no assistant message to train on; give one that follows a user message")
    return sequences


def trained_turns(
    chat: ChatFormat, messages: Sequence[Message]
) -> Iterator[tuple[RenderedChat, list[tuple[int, Span]]]]:
    """The renderings that are trained on, each with the assistant's messages in it and their characters."""
    turns = [index for index, message in enumerate(messages) if message.get("role") == ASSISTANT and index > 0]
    if not turns:
        return
    through_last = chat.render(messages[: turns[-1] + 1], answer=False, today=TEMPLATE_DATE)
    if through_last.generated:
        own = [index for index, message in enumerate(messages) if message.get("role") == ASSISTANT]
        if len(own) != len(through_last.generated):
            raise BadInput(
                f"the chat template marks {len(through_last.generated)} turns as generated, and the assistant has "
                f"{len(own)} messages; use another template"
            )
        ends = [(start, end_of_turn(through_last, start, stop)) for start, stop in through_last.generated]
        yield through_last, [pair for pair in zip(own, ends, strict=True) if pair[0] in turns]
        return
    current, found = through_last, list[tuple[int, Span]]()
    for turn in reversed(turns):
        before = chat.render(messages[:turn], answer=True, today=TEMPLATE_DATE)
        whole = through_last
        if turn < turns[-1]:
            whole = chat.render(messages[: turn + 1], answer=False, today=TEMPLATE_DATE)
        if not whole.text.startswith(before.text):
            raise BadInput(
                f"the chat template renders message {turn + 1} differently from its generation prompt, so the "
                "assistant's tokens are unknown; use a template that marks them with {% generation %}"
            )
        span = turn_span(current, whole, len(before.text))
        if span is None:  # it is written differently where other turns follow
            if found:
                yield current, found
            current, found = whole, []
            span = turn_span(whole, whole, len(before.text))
        if span is None:
            raise BadInput(
                "the chat template does not end the assistant's turn with a special token, so generation would never "
                "stop; add "
                "{{ eos_token }} after its content"
            )
        found = [(turn, span), *found]
    yield current, found


def turn_span(current: RenderedChat, whole: RenderedChat, start: int) -> Span | None:
    """Characters of the turn that begins at `start` and ends `whole`, through its end-of-turn token; None if it is
    not the same in `current`, or has no such token.
    """
    pairs = enumerate(zip(current.text, whole.text, strict=False))
    common = next((at for at, (one, other) in pairs if one != other), min(len(current.text), len(whole.text)))
    ends = [
        piece.start + len(piece.text)
        for piece in whole.located
        if piece.special
        and piece.start is not None
        and start <= piece.start
        and piece.start + len(piece.text) <= common
    ]
    if not ends:
        return None
    rest = [piece for piece in whole.located if (piece.start or 0) >= ends[-1]]
    return (start, ends[-1]) if all(piece.special or not piece.text.strip() for piece in rest) else None


def end_of_turn(rendered: RenderedChat, start: int, stop: int) -> int:
    """The end of a marked turn, including the special token that follows it if the turn does not contain one."""
    inside = [piece for piece in rendered.located if piece.special and start <= (piece.start or 0) < stop]
    after = next((piece for piece in rendered.located if (piece.start or 0) >= stop and piece.text.strip()), None)
    if inside or after is None or not after.special:
        return stop
    return (after.start or 0) + len(after.text)


def end_of_turn_token(tokenizer: Tokenizer) -> int | None:
    """The token with which the chat template ends the assistant's turn; None if there is none."""
    chat = ChatFormat.of(tokenizer)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]
    try:
        ids = trained_sequences(chat, messages)[0].ids
    except BadInput:
        return None
    return ids[-1] if tokenizer.display_token(ids[-1]) in chat.names else None
