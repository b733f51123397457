"""Passage: a text as the token ids that a model reads, with the source text of an encoder-decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, ContextOverflow
from clearstory.lens.hooks.activations import model_device
from clearstory.models.base import LanguageModel, TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import (
    Truncation,
    bos_or_eos_token_id,
    find_start_token_id,
    prepare_prompt,
    prepare_source,
)
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.special_tokens import build_inputs, encode_with_mask
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Passage:
    """One sequence of tokens, and the source sequence of an encoder-decoder.

    Args:
        ids: token ids.
        pieces: the tokens as display text.
        source: token ids of the source.
        source_pieces: the source's tokens as display text.
        token_types: the segment (0 or 1) of each token of an encoder's text pair.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    source: tuple[int, ...] = ()
    source_pieces: tuple[str, ...] = ()
    token_types: tuple[int, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The pieces, with their positions where a piece occurs more than once."""
        return number_duplicates(self.pieces)

    @property
    def source_labels(self) -> tuple[str, ...]:
        """The same for the source."""
        return number_duplicates(self.source_pieces)

    def forward(self, model: LanguageModel) -> Float[Tensor, "T W"]:
        """The final hidden state of each token, from one forward pass that can be recorded and changed."""
        return self.forward_copies(model, 1)[0]

    def forward_copies(self, model: LanguageModel, copies: int) -> Float[Tensor, "B T W"]:
        """The final hidden states of a batch of identical copies, each of which can be changed in another way."""
        device = model_device(model)
        tokens = TokenBatch.from_sequences([self.ids] * copies, device)
        if self.source:
            source = TokenBatch.from_sequences([self.source] * copies, device)
            return cast(EncoderDecoder, model).forward(tokens, source=source)[0]
        if self.token_types is not None:
            return cast(Encoder, model).encode(tokens, torch.tensor([self.token_types] * copies, device=device))
        return model.forward(tokens)[0]


def encode_passage(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    truncate: Truncation | None = None,
) -> Passage:
    """Tokenize a text as the model expects it.

    Decoder: a prompt. Encoder: [CLS] text [SEP]; a [MASK] in the text is that token, and ` ||| ` separates two
    segments. Encoder-decoder: the text is the source, and the decoder's input is its start token and `target`.
    Raises BadInput for an empty text, ContextOverflow for one that is too long unless `truncate` is given, CannotDo for
    a target and a model without a source.
    """
    if not text:
        raise BadInput("the text is empty; give at least one word")
    if target is not None and Capability.SOURCE not in model.capabilities:
        raise CannotDo(
            "target is the text that an encoder-decoder has generated, and this model reads no source; leave target out"
        )

    def pieces(ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(tokenizer.display_token(id) for id in ids)

    if Capability.BIDIRECTIONAL in model.capabilities:
        encode = encode_with_mask if tokenizer.mask_token_id is not None else Tokenizer.encode
        ids, token_types = build_inputs(tokenizer, *(encode(tokenizer, part) for part in text.split(" ||| ", 1)))
        kept = prepare_prompt(model, ids, None, truncate)
        types = tuple(token_types[len(ids) - len(kept) :]) if len(set(token_types)) > 1 else None
        return Passage(tuple(kept), pieces(kept), token_types=types)
    if Capability.SOURCE not in model.capabilities:
        ids = prepare_prompt(model, tokenizer.encode(text), bos_or_eos_token_id(tokenizer), truncate)
        return Passage(tuple(ids), pieces(ids))
    sentinels = SentinelTokenizer(tokenizer)
    source = prepare_source(model, sentinels.source(text), truncate)
    start = find_start_token_id(cast(EncoderDecoder, model).config, tokenizer)
    written = [*(() if start is None else (start,)), *(sentinels.encode(target) if target else ())]
    written = prepare_prompt(model, written, start, truncate)
    return Passage(tuple(written), pieces(written), tuple(source), pieces(source))


def number_duplicates(pieces: Sequence[str]) -> tuple[str, ...]:
    """Labels in which a piece that occurs more than once is followed by its position.

    >>> number_duplicates(["the", "king", "the"])
    ('the·0', 'king', 'the·2')
    """
    return tuple(f"{piece}·{position}" if pieces.count(piece) > 1 else piece for position, piece in enumerate(pieces))


@dataclass(frozen=True)
class SourceTarget:
    """The source and the target of an encoder-decoder.

    Args:
        source: token ids of the source, its end token included.
        start: the decoder's start token.
        ids: token ids of the target.
        offsets: the characters start:stop of the target that each token was made from.
    """

    source: list[int]
    start: int
    ids: list[int]
    offsets: list[tuple[int, int]]


def encode_source_target(
    model: LanguageModel, tokenizer: Tokenizer, source: str, target: str | None, truncate: Truncation | None = None
) -> SourceTarget | None:
    """Source and target as an encoder-decoder was trained on them; None for a model without a source.

    Raises CannotDo for a target and a model without a source, BadInput for an empty source, ContextOverflow where one
    of the two is longer than the context.
    """
    if Capability.SOURCE not in model.capabilities:
        if target is not None:
            raise CannotDo("this model continues a text and reads no source, so there is no target; leave --target out")
        return None
    if not source:
        raise BadInput("this model needs a source text, and it is empty; give the text to be rewritten")
    start = find_start_token_id(cast(EncoderDecoder, model).config, tokenizer)
    if start is None:
        raise BadInput(
            "neither this model nor its tokenizer names a decoder start token; set model.decoder_start_token_id"
        )
    sentinels = SentinelTokenizer(tokenizer)
    ids, offsets = sentinels.encode_with_offsets(target or "")
    if model.context is not None and len(ids) >= model.context:
        raise ContextOverflow(
            f"the target has {len(ids):,} tokens and the model's context holds {model.context - 1:,} after the start "
            "token; shorten it"
        )
    return SourceTarget(prepare_source(model, sentinels.source(source), truncate), start, ids, offsets)
