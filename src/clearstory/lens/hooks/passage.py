"""Passage: the tokens that a view is about, as the model itself would read the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, CannotDo
from clearstory.models.base import TokenBatch
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import Truncate, first_token, fit_prompt, fit_source, reads_source, writes_after
from clearstory.text.special_tokens import encode_with_mask, build_inputs
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Passage:
    """One row of tokens, and the source beside it where the model reads one.

    `pieces` and `source_pieces` are the tokens for people to read; `segments` says which of two texts each token of an
    encoder's row belongs to.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    source: tuple[int, ...] = ()
    source_pieces: tuple[str, ...] = ()
    segments: tuple[int, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The pieces with their places: words that come twice would look the same."""
        return number_duplicates(self.pieces)

    @property
    def source_labels(self) -> tuple[str, ...]:
        """The same of the source."""
        return number_duplicates(self.source_pieces)

    def hidden(self, model: Any) -> Float[Tensor, "T W"]:
        """What the model knows after each token: one forward pass, which `watch` and `edit` look into."""
        device = next(model.parameters()).device
        tokens = TokenBatch.from_sequences([self.ids], device)
        if self.source:
            return cast(Tensor, model.forward(tokens, source=TokenBatch.from_sequences([self.source], device))[0][0])
        if self.segments is not None:
            return cast(Tensor, model.encode(tokens, torch.tensor([self.segments], device=device))[0])
        return cast(Tensor, model.forward(tokens)[0][0])


def encode_passage(
    model: Any, tokenizer: Tokenizer, text: str, *, target: str | None = None, truncate: Truncate | None = None
) -> Passage:
    """A text as a model reads it.

    A decoder reads it as a prompt. An encoder reads it between its [CLS] and [SEP]; a [MASK] in it is the token, and
    ` ||| ` parts it in two segments. An encoder-decoder reads it as its source, and behind the token that it writes
    after `target`, where one is given. Raises BadInput for an empty text, ContextOverflow for one that is too long
    unless its beginning may be cut off, CannotDo for a target that the model cannot have written.
    """
    if not text:
        raise BadInput("the text is empty; give a few words to look at")
    if target is not None and not reads_source(model):
        raise CannotDo(
            "target is what an encoder-decoder has written, and this model reads no source; leave target out"
        )

    def pieces(ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(tokenizer.display_token(id) for id in ids)

    if isinstance(model, Encoder):
        known = encode_with_mask if tokenizer.mask_token_id is not None else Tokenizer.encode
        ids, segments = build_inputs(tokenizer, *(known(tokenizer, part) for part in text.split(" ||| ", 1)))
        kept = fit_prompt(model, ids, None, truncate)
        cut = len(ids) - len(kept)
        own = tuple(segments[cut:]) if len(set(segments)) > 1 else None
        return Passage(tuple(kept), pieces(kept), segments=own)
    if not reads_source(model):
        ids = fit_prompt(model, tokenizer.encode(text), first_token(tokenizer), truncate)
        return Passage(tuple(ids), pieces(ids))
    gaps = SentinelTokenizer(tokenizer)
    source = fit_source(model, gaps.source(text), truncate)
    begin = writes_after(model.config, tokenizer)
    written = [*(() if begin is None else (begin,)), *(gaps.encode(target) if target else ())]
    written = fit_prompt(model, written, begin, truncate)
    return Passage(tuple(written), pieces(written), tuple(source), pieces(source))


def number_duplicates(pieces: Sequence[str]) -> tuple[str, ...]:
    """Pieces that come more than once get their places.

    >>> numbered(["the", "king", "the"])
    ('the·0', 'king', 'the·2')
    """
    return tuple(f"{piece}·{place}" if pieces.count(piece) > 1 else piece for place, piece in enumerate(pieces))
