"""The prompt of a row: the examples shown before it and the row itself, as text or as turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clearstory.errors import ContextOverflow
from clearstory.evaluation.continuation_requests import ContinuationRequest
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.prompts import bos_or_eos_token_id, encode_source
from clearstory.recipes.prompting.examples import PromptExample
from clearstory.recipes.prompting.template import PromptTemplate
from clearstory.text.chat_prompt import ChatFormat, as_messages
from clearstory.text.chat_template import ChatTemplate
from clearstory.text.continuation_encoding import encode_continuation
from clearstory.text.encoding import TextPiece, encode_text
from clearstory.text.tokenizers import Tokenizer

ROW = "row"
"""Placeholder for the row while the turns before it are rendered."""


@dataclass(frozen=True)
class PromptMaker:
    """Makes prompts for one model.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        template: the text of an example.
        separator: text between two examples.
        chat: whether each example is a turn of the user and one of the assistant in the model's chat template.
        system: system message of a chat.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    template: PromptTemplate
    separator: str = "\n\n"
    chat: bool = False
    system: str | None = None

    def text(self, shots: Sequence[PromptExample], row: PromptExample) -> str:
        """The whole prompt as text, special tokens of a chat template included."""
        if self.chat:
            return ChatTemplate.from_tokenizer(self.tokenizer).render(self.messages(shots, self.question(row)))
        shown = "".join(self.template.whole(each.fields, each.label) + self.separator for each in shots)
        return shown + self.template.before_label(row.fields)

    def question(self, row: PromptExample) -> str:
        """The text of a row up to its answer, as a turn of a chat."""
        return self.template.before_label(row.fields).strip()

    def messages(self, shots: Sequence[PromptExample], question: str) -> list[dict[str, Any]]:
        """The turns of a chat, with each example as one of the user and its answer as one of the assistant."""
        turns = [
            {"role": role, "content": text}
            for each in shots
            for role, text in (("user", self.question(each)), ("assistant", each.label))
        ]
        first, last = as_messages(question, self.system)[:-1], as_messages(question, self.system)[-1:]
        return [*first, *turns, *last]

    def requests(
        self, shots: Sequence[PromptExample], rows: Sequence[PromptExample]
    ) -> list[list[ContinuationRequest]]:
        """For each row, a request for each of its candidates. Raises ContextOverflow for a prompt that is too long."""
        found = self.chat_requests(shots, rows) if self.chat else self.text_requests(shots, rows)
        context = self.model.context
        longest = max((len(each.context) + len(each.continuation) - 1 for row in found for each in row), default=0)
        if context is not None and longest > context and not reads_source(self.model):
            raise ContextOverflow(
                f"{len(shots)} examples make a prompt of {longest:,} tokens, and the model's context holds "
                f"{context:,}; give fewer with --shots, or shorter ones"
            )
        return found

    def text_requests(
        self, shots: Sequence[PromptExample], rows: Sequence[PromptExample]
    ) -> list[list[ContinuationRequest]]:
        """Requests after the prompt as text."""
        tokenizer = self.tokenizer
        source = reads_source(self.model)
        start = bos_or_eos_token_id(tokenizer)

        @lru_cache(2)
        def encode(text: str) -> tuple[int, ...]:
            return encode_text(tokenizer, text).ids

        found = []
        for row in rows:
            text = self.text(shots, row)
            requests = []
            for candidate in row.candidates:
                if source:
                    ids = encode_source(tokenizer, text.rstrip()).ids
                    requests.append(ContinuationRequest(ids, tuple(tokenizer.encode(candidate))))
                    continue
                first, rest = encode_continuation(text, candidate, encode, tokenizer.encode, start)
                requests.append(ContinuationRequest(tuple(first), tuple(rest)))
            found.append(requests)
        return found

    def chat_requests(
        self, shots: Sequence[PromptExample], rows: Sequence[PromptExample]
    ) -> list[list[ContinuationRequest]]:
        """Requests after the header of the assistant's turn; the turns before the row are rendered once."""
        chat = ChatFormat.of(self.tokenizer)
        pieces = chat.render(self.messages(shots, ROW), answer=True, find_last=True).pieces
        at = [index for index, piece in enumerate(pieces) if piece.start is not None]
        found = []
        for row in rows:
            if len(at) == 1:
                own = self.question(row)
                ids = chat.encode([*pieces[: at[0]], TextPiece(own, start=0), *pieces[at[0] + 1 :]]).ids
            else:  # a template that changes its messages
                ids = chat.encode(chat.render(self.messages(shots, self.question(row)), answer=True).pieces).ids
            found.append(
                [ContinuationRequest(ids, tuple(self.tokenizer.encode(candidate))) for candidate in row.candidates]
            )
        return found
