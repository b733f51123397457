"""SentenceInputs: ids of a text as a model reads it for its vector: prompt, special tokens, the longest length."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any, Literal, TypeVar

from clearstory.errors import BadInput, ContextOverflow, ModelWarning
from clearstory.formats.sentence_folder import SentencePipeline
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.tokenizers import Tokenizer

TruncationSide = Literal["left", "right"]
"""Which end of a text that is longer than the context is dropped."""

T = TypeVar("T")


@dataclass(frozen=True)
class SentenceInputs:
    """How texts become inputs of a model that gives them vectors.

    Args:
        windows: the special tokens of the model, and its context.
        pipeline: the modules of the model's folder; None without them.
        prompt: text that is put before each text.
        truncate: which end of a text that is too long is dropped; None raises an error, unless the folder sets a
            length, to which texts are cut on the right.
    """

    windows: TextWindows
    pipeline: SentencePipeline | None = None
    prompt: str = ""
    truncate: TruncationSide | None = None

    @classmethod
    def of_model(
        cls,
        model: Any,
        tokenizer: Tokenizer,
        pipeline: SentencePipeline | None = None,
        prompt: str = "",
        truncate: TruncationSide | None = None,
    ) -> SentenceInputs:
        """Inputs of this model."""
        return cls(TextWindows.of_model(model, tokenizer), pipeline, prompt, truncate)

    def __call__(self, texts: Sequence[str], locations: Sequence[str] = ()) -> list[tuple[int, ...]]:
        """The ids of each text; `locations` are for messages. Warns of texts that are truncated to the folder's limit.

        Raises ContextOverflow for a text that is too long, BadInput for one without a token.
        """
        before, _, after = self.windows.special_ids
        limit = None if self.longest is None else max(0, self.longest - len(before) - len(after))
        folder_cuts = self.pipeline is not None and self.pipeline.max_length is not None
        default: TruncationSide | None = "right" if folder_cuts else None
        rows: list[tuple[int, ...]] = []
        n_cut = 0
        for text, location in zip_longest(texts, locations, fillvalue=""):
            own = self.windows.tokenizer.encode(self.cased(self.prompt + text))
            if limit is not None and len(own) > limit:
                n_cut += folder_cuts
                own = truncate_tokens(own, limit, self.truncate or default, location)
            if not (before or own or after):
                raise BadInput(f"{location or 'a text'} is empty, and this model needs at least one token")
            rows.append((*before, *own, *after))
        if n_cut:
            warnings.warn(
                f"{n_cut:,} of {len(rows):,} texts are longer than the {self.longest:,} tokens that the model's "
                "folder sets, and were truncated",
                ModelWarning,
                stacklevel=3,
            )
        return rows

    def cased(self, text: str) -> str:
        """The text, in lower case if the folder requires it."""
        return text.lower() if self.pipeline is not None and self.pipeline.lowercase else text

    @cached_property
    def longest(self) -> int | None:
        """Tokens of the longest text, special ones included; None for unlimited."""
        lengths = (self.windows.context, None if self.pipeline is None else self.pipeline.max_length)
        return min((length for length in lengths if length is not None), default=None)

    @cached_property
    def skipped(self) -> int:
        """Number of first tokens that are not pooled: those of a prompt that the folder leaves out."""
        if not self.prompt or self.pipeline is None or self.pipeline.include_prompt:
            return 0
        return len(self.windows.special_ids[0]) + len(self.windows.tokenizer.encode(self.cased(self.prompt)))


def truncate_tokens(tokens: Sequence[T], limit: int, side: TruncationSide | None, location: str = "") -> list[T]:
    """At most `limit` of a text's tokens. Raises ContextOverflow for more of them where no side is given."""
    if len(tokens) <= limit:
        return list(tokens)
    if side is None:
        raise ContextOverflow(
            f"{location or 'a text'} has {len(tokens):,} tokens, but {limit:,} fit in addition to the special tokens; "
            "shorten it, or pass --truncate right to drop its end"
        )
    return list(tokens[:limit]) if side == "right" else list(tokens[len(tokens) - limit :])
