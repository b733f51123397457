"""Prompts: texts and conversations, encoded as token ids."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from clearstory.models.base import reads_source
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.prompts import PromptOptions, encode_prompt
from clearstory.server.chat_messages import ChatMessage, calls_tools, template_messages
from clearstory.server.text_requests import PromptIds, too_long
from clearstory.text.chat_prompt import encode_chat
from clearstory.text.chat_template import ChatTemplate
from clearstory.text.encoding import encode_parsing
from clearstory.text.messages import SYSTEM_ROLES
from clearstory.text.tool_format import takes_text_arguments

if TYPE_CHECKING:
    from clearstory.serving.served_model import ServedModel

TemplateMessages = Sequence[dict[str, Any]]


def encode_text_prompt(
    served: ServedModel, text: str, *, add_special_tokens: bool = True, parse_special: bool = True
) -> PromptIds:
    """The ids of a text, without a chat template.

    Args:
        served: the model.
        text: the text.
        add_special_tokens: whether the tokenizer's special tokens are added; not if the text starts with the bos
            token.
        parse_special: whether strings of special tokens in the text are encoded as special tokens.
    """
    model, tokenizer = served.model, served.tokenizer
    if reads_source(model) or has_capability(model, Capability.BIDIRECTIONAL):
        options = PromptOptions(raw=True, add_special_tokens=add_special_tokens)
        return PromptIds(ids=encode_prompt(model, tokenizer, text, options).ids, text=text)
    names = [name for name in tokenizer.special_names if name in text] if parse_special else []
    start = None if tokenizer.bos_token_id is None else tokenizer.display_token(tokenizer.bos_token_id)
    begun = start in names and start is not None and text.startswith(start)
    return PromptIds(
        ids=encode_parsing(tokenizer, text, names, add_special_tokens=add_special_tokens and not begun).ids, text=text
    )


def encode_conversation(
    served: ServedModel,
    messages: Sequence[ChatMessage],
    *,
    answer: bool = True,
    continue_last: bool = False,
    truncate: bool = False,
    reserved_tokens: int = 0,
    limited: bool = True,
    tools: Sequence[dict[str, Any]] = (),
) -> PromptIds:
    """The ids of a conversation, formatted with the model's chat template.

    Args:
        served: the model.
        messages: the conversation.
        answer: whether the header of the assistant's turn is added.
        continue_last: whether the ids end with the text of the last message, the start of an answer.
        truncate: whether the first turns of a conversation that is longer than the context are dropped; system
            messages are never dropped.
        reserved_tokens: tokens of the context that are then kept for the answer; at most a quarter of it.
        limited: whether a conversation longer than the context is refused.
        tools: functions that the assistant may call.

    Raises RequestError for a conversation that is too long, BadInput for one that the template rejects.
    """
    template = ChatTemplate.from_tokenizer(served.tokenizer, tools=bool(tools)).source
    context, today = served.model.context, datetime.now()

    def encode(shown: TemplateMessages) -> tuple[int, ...]:
        return encode_chat(
            served.tokenizer, shown, answer=answer, continue_last=continue_last, today=today, tools=tools
        ).ids

    whole = template_messages(
        messages, template, text_arguments=calls_tools(messages) and takes_text_arguments(served.tokenizer)
    )
    ids = encode(whole)
    if context is not None and truncate and len(ids) > context - min(reserved_tokens, context // 4):
        ids = encode_last_turns(whole, context - min(reserved_tokens, context // 4), encode)
    if context is not None and len(ids) > context and limited:
        raise too_long(len(ids), context, "messages")
    return PromptIds(ids=ids, continues_prompt=continue_last)


def encode_last_turns(
    messages: TemplateMessages, most: int, encode: Callable[[TemplateMessages], tuple[int, ...]]
) -> tuple[int, ...]:
    """The ids of the system messages and of as many last turns as fit into `most` tokens, at least one.

    A turn starts with a user message. The number of dropped turns is found by bisection, with few renderings.
    """
    system = [each for each in messages if each["role"] in SYSTEM_ROLES]
    turns = [at for at, each in enumerate(messages) if each["role"] == "user"] or [0]

    def without(n_turns: int) -> tuple[int, ...]:
        rest = [each for each in messages[turns[n_turns] :] if each["role"] not in SYSTEM_ROLES]
        return encode([*system, *rest])

    least = bisect_left(range(len(turns) - 1), True, key=lambda n_turns: len(without(n_turns)) <= most)
    return without(least)
