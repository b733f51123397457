"""Chat model: a model that answers a conversation and, at each turn, reads only the tokens that are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from clearstory.errors import CannotDo, ContextOverflow
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling, sampling_of
from clearstory.models.base import State
from clearstory.models.inference_model import inference_model
from clearstory.models.precision import Precision, resolve_precision
from clearstory.recipes.inference.chat_answer import AnswerStream
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.tasks.chat import check_decoder, without_first_turn
from clearstory.text.added_template import with_chat_template
from clearstory.text.assistant_tokens import end_of_turn_token
from clearstory.text.chat_prompt import encode_chat, has_chat_template
from clearstory.text.messages import SYSTEM_ROLES
from clearstory.text.tokenizers import Tokenizer

MAX_TOKENS = 1024
"""Maximum number of tokens of an answer if neither the user nor the model's generation config sets it."""

KEPT_STATES = 4
"""States that are kept, two for each turn: the last two turns can be answered again without being read again."""


class ChatModel:
    """A model that answers a conversation, with the states of what it has read.

    Args:
        prompt_format: the model, and what ends and constrains its answers.
        tokenizer: its tokenizer, with a chat template.
        truncate: "left" drops the first turns of a conversation that is longer than the context; None refuses it.
    """

    def __init__(
        self, prompt_format: PromptFormat, tokenizer: Tokenizer, truncate: Literal["left"] | None = None
    ) -> None:
        self.prompt_format, self.tokenizer, self.truncate = prompt_format, tokenizer, truncate
        self.today = datetime.now()  # a template that prints the date prints the same one in all turns
        self._states: list[tuple[tuple[int, ...], State]] = []  # with the ids that each has read
        self._first = 0  # messages before it are left out, those of the system aside

    @property
    def context(self) -> int | None:
        """The model's context in tokens; None for one without a limit."""
        return self.prompt_format.model.context

    def check_system(self, text: str) -> None:
        """Raises BadInput for a system message that the template refuses."""
        encode_chat(self.tokenizer, [{"role": "system", "content": text}, {"role": "user", "content": "a"}])

    def reply(self, messages: Sequence[dict[str, Any]], sampling: Sampling) -> AnswerStream:
        """The answer to these messages. Raises ContextOverflow if they are longer than the context."""
        ids, left_out = self._prompt(messages)
        return AnswerStream(self.prompt_format, self.tokenizer, sampling, ids, self._state_for(ids), left_out)

    def keep(self, events: AnswerStream) -> None:
        """Keep the states of an answer for the next one."""
        self._states = [*self._states, *events.states][-KEPT_STATES:]

    def forget(self) -> None:
        """Forget the conversation."""
        self._states, self._first = [], 0

    def _prompt(self, messages: Sequence[dict[str, Any]]) -> tuple[list[int], int]:
        """The ids of the conversation with the header of the answer, and the number of messages that are left out."""
        context, left_out = self.context, self.truncate == "left"
        dropping = False
        while True:
            shown = [each for at, each in enumerate(messages) if at >= self._first or each["role"] in SYSTEM_ROLES]
            ids = list(encode_chat(self.tokenizer, shown, today=self.today).ids)
            # Where turns are left out, an answer has a quarter of the context, and several turns go at a time.
            most = context and (context // 2 if dropping else context - left_out * (context // 4))
            if most is None or len(ids) <= most:
                return ids, len(messages) - len(shown)
            shorter = without_first_turn(shown) if left_out else ()
            if not shorter and len(ids) > (context or 0):
                raise too_long(len(ids), context, left_out=left_out)
            if not shorter:
                return ids, len(messages) - len(shown)
            dropping = True
            self._first = len(messages) - sum(each["role"] not in SYSTEM_ROLES for each in shorter)

    def _state_for(self, ids: Sequence[int]) -> State | None:
        """The state that has read the most of the first tokens of a prompt; None where none has read a part of it."""
        known = [pair for pair in self._states if len(pair[0]) < len(ids) and tuple(ids[: len(pair[0])]) == pair[0]]
        return max(known, key=lambda pair: len(pair[0]))[1] if known else None


def too_long(tokens: int, context: int | None, *, left_out: bool) -> ContextOverflow:
    """The error for a conversation that is longer than the context; `left_out`: even without its first turns."""
    if left_out:
        return ContextOverflow(
            f"the last message has {tokens:,} tokens and the model's context holds {context:,}; shorten it"
        )
    return ContextOverflow(
        f"the conversation has {tokens:,} tokens and the model's context holds {context:,}; remove turns (/undo), "
        "clear the conversation (/clear), or restart with --truncate left, which drops its first turns"
    )


def open_chat_model(
    model: str | Path | ModelWithTokenizer,
    given: Mapping[str, Any],
    chat_template: str | None,
    truncate: Literal["left"] | None,
    precision: Precision,
    int8: bool,
    device: str | None,
) -> tuple[ChatModel, Sampling]:
    """A chat model, and its settings of sampling with those that are given. Arguments as of `chat`."""
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
    longest = given.get("max_tokens") or config.max_new_tokens or MAX_TOKENS
    config = replace(config, max_new_tokens=None, max_length=None)
    sampling = replace(sampling_of(config, {**given, "max_tokens": longest}), beam=1)
    prompt_format = PromptFormat.of(network, tokenizer, None, generation_config=config)
    end = end_of_turn_token(tokenizer)
    ends = tuple(dict.fromkeys([*prompt_format.eos_token_ids, *([] if end is None else [end])]))
    prompt_format = replace(prompt_format, model=inference_model(network, precision), eos_token_ids=ends)
    return ChatModel(prompt_format, tokenizer, truncate), sampling
