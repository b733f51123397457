"""Passage: a text as the token ids that a model reads, with the source text of an encoder-decoder.

Every token is there, special ones included, as `generate` reads them: `models.prompts.encode_prompt` makes them.
Positions count all of them, from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, ContextOverflow
from clearstory.lens.hooks.activations import model_device
from clearstory.models.base import LanguageModel, State, TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import (
    EncodedPrompt,
    PromptOptions,
    Truncation,
    bos_or_eos_token_id,
    encode_prompt,
    find_start_token_id,
    prepare_prompt,
    prepare_source,
)
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.encoding import EncodedText, TokenOrigins
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer

Spans = tuple[tuple[int, int] | None, ...]
"""For each token, its characters [start, stop) in the user's text; None for a token that is not of it."""

SEGMENTS = " ||| "
"""Separates the two segments of an encoder's text."""


@dataclass(frozen=True)
class Passage:
    """One sequence of tokens, and the source sequence of an encoder-decoder.

    Args:
        ids: token ids.
        pieces: the tokens as display text.
        source: token ids of the source.
        source_pieces: the source's tokens as display text.
        token_types: the segment (0 or 1) of each token of an encoder's text pair.
        special: for each token, whether it is special or of the chat template; empty if none is.
        spans: for each token, its characters in the text, or in the target of an encoder-decoder; empty if unknown.
        source_special: the same as `special` for the source.
        source_spans: for each token of the source, its characters in the text.
        prompt: how the text became a prompt.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    source: tuple[int, ...] = ()
    source_pieces: tuple[str, ...] = ()
    token_types: tuple[int, ...] | None = None
    special: tuple[bool, ...] = ()
    spans: Spans = ()
    source_special: tuple[bool, ...] = ()
    source_spans: Spans = ()
    prompt: PromptOptions = PromptOptions()

    @property
    def text_ids(self) -> tuple[int, ...]:
        """The tokens of the user's text and the special tokens around it: the source's, where there is a source."""
        return self.source or self.ids

    @property
    def text_pieces(self) -> tuple[str, ...]:
        """The display text of each of `text_ids`."""
        return self.source_pieces if self.source else self.pieces

    @property
    def text_spans(self) -> Spans:
        """For each of `text_ids`, its characters in the user's text."""
        return self.source_spans if self.source else self.spans

    @property
    def text_special(self) -> tuple[bool, ...]:
        """For each of `text_ids`, whether it is special or of the chat template."""
        return self.source_special if self.source else self.special

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

    def forward_copies(
        self, model: LanguageModel, copies: int, start: int = 0, cache: State | None = None
    ) -> Float[Tensor, "B T W"]:
        """The final hidden states of a batch of identical copies, each of which can be changed in another way.

        With `start`, of the tokens from there on, after `cache_before`.
        """
        device = model_device(model)
        tokens = TokenBatch.from_sequences([self.ids[start:]] * copies, device)
        if cache is not None:
            return model.forward(tokens, cache.select([0] * copies))[0]
        if self.source:
            source = TokenBatch.from_sequences([self.source] * copies, device)
            return cast(EncoderDecoder, model).forward(tokens, source=source)[0]
        if self.token_types is not None:
            return cast(Encoder, model).encode(tokens, torch.tensor([self.token_types] * copies, device=device))
        return model.forward(tokens)[0]

    def cache_before(self, model: LanguageModel, start: int) -> State:
        """The state of a causal model after the tokens before position `start`."""
        tokens = TokenBatch.from_sequences([self.ids[:start]], model_device(model))
        state = model.forward(tokens, model.init_state(1))[1]
        assert state is not None
        return state


def encode_passage(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Passage:
    """Tokenize a text as the model expects it, with the ids that `generate` reads.

    Decoder: with the special tokens that the tokenizer adds, and in the chat template of a model that has one.
    Encoder: [CLS] text [SEP]; a [MASK] in the text is that token, and ` ||| ` separates two segments. Encoder-decoder:
    the text is the source, and the decoder's input is its start token and `target`. Raises BadInput for an empty text,
    ContextOverflow for one that is too long unless `truncate` is given, CannotDo for a target and a model without a
    source.
    """
    if not text and not prompt.ids:
        raise BadInput("the text is empty; give at least one word")
    if target is not None and Capability.SOURCE not in model.capabilities:
        raise CannotDo(
            "target is the text generated by an encoder-decoder, but this model has no source; leave target out"
        )
    encoded, token_types = encode_segments(model, tokenizer, text, prompt)
    if Capability.SOURCE not in model.capabilities:
        passage = as_passage(tokenizer, encoded, prepare_prompt(model, encoded.ids, None, truncate), prompt)
        return replace(passage, token_types=token_types and token_types[-len(passage.ids) :])
    kept = prepare_source(model, encoded.ids, truncate)
    source = as_passage(tokenizer, encoded, kept, prompt)
    start = find_start_token_id(cast(EncoderDecoder, model).config, tokenizer)
    first = () if start is None else (start,)
    ids, offsets = SentinelTokenizer(tokenizer).encode_with_offsets(target or "")
    written = EncodedPrompt(EncodedText(ids, TokenOrigins((False,) * len(ids), tuple(offsets))).surrounded(first, ()))
    passage = as_passage(tokenizer, written, prepare_prompt(model, written.ids, start, truncate), prompt)
    return replace(
        passage,
        source=source.ids,
        source_pieces=source.pieces,
        source_special=source.special,
        source_spans=source.spans,
    )


def as_passage(tokenizer: Tokenizer, encoded: EncodedPrompt, kept: Sequence[int], prompt: PromptOptions) -> Passage:
    """The passage of an encoded text of which the tokens `kept` are left, all or the last of them."""
    ids, special, spans = tuple(kept), encoded.special[-len(kept) :], encoded.spans[-len(kept) :]
    if len(special) < len(ids):  # the start token in place of an empty text
        special, spans = (True,) * len(ids), (None,) * len(ids)
    pieces = tuple(tokenizer.display_token(id) for id in ids)
    return Passage(ids, pieces, special=special, spans=spans, prompt=prompt)


def encode_segments(
    model: LanguageModel, tokenizer: Tokenizer, text: str, prompt: PromptOptions = PromptOptions()
) -> tuple[EncodedPrompt, tuple[int, ...] | None]:
    """A text as the model reads it, and the token types of an encoder's text in two segments, None for any other text.

    [CLS] first segment [SEP] second segment [SEP], with token types 0 and 1.
    """
    first, mark, second = text.partition(SEGMENTS)
    if Capability.BIDIRECTIONAL not in model.capabilities or not mark or prompt.ids is not None:
        return encode_prompt(model, tokenizer, text, prompt), None
    one, two = (encode_prompt(model, tokenizer, part, prompt) for part in (first, second))
    dropped = int(prompt.add_special_tokens)  # the second [CLS]
    moved = len(first) + len(mark)
    spans = (span and (span[0] + moved, span[1] + moved) for span in two.spans[dropped:])
    origins = TokenOrigins((*one.special, *two.special[dropped:]), (*one.spans, *spans))
    both = EncodedPrompt(EncodedText((*one.ids, *two.ids[dropped:]), origins))
    return both, (*(0 for _ in one.ids), *(1 for _ in two.ids[dropped:]))


def start_before(tokenizer: Tokenizer, encoded: EncodedPrompt) -> tuple[int, ...]:
    """The token that a text is scored after; nothing where the text begins with a special token itself."""
    start = bos_or_eos_token_id(tokenizer)
    return () if start is None or (encoded.special and encoded.special[0]) else (start,)


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
    model: LanguageModel,
    tokenizer: Tokenizer,
    source: str,
    target: str | None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> SourceTarget | None:
    """Source and target as an encoder-decoder was trained on them; None for a model without a source.

    Raises CannotDo for a target and a model without a source, BadInput for an empty source, ContextOverflow where one
    of the two is longer than the context.
    """
    if Capability.SOURCE not in model.capabilities:
        if target is not None:
            raise CannotDo("this model continues a text and has no source, so there is no target; leave --target out")
        return None
    if not source:
        raise BadInput("this model needs a source text, but it is empty; give the source text")
    start = find_start_token_id(cast(EncoderDecoder, model).config, tokenizer)
    if start is None:
        raise BadInput(
            "neither this model nor its tokenizer defines a decoder start token; set model.decoder_start_token_id"
        )
    sentinels = SentinelTokenizer(tokenizer)
    ids, offsets = sentinels.encode_with_offsets(target or "")
    if model.context is not None and len(ids) >= model.context:
        raise ContextOverflow(
            f"the target has {len(ids):,} tokens but the model's context holds {model.context - 1:,} after the start "
            "token; shorten it"
        )
    encoded = encode_prompt(model, tokenizer, source, prompt)
    return SourceTarget(prepare_source(model, encoded.ids, truncate), start, ids, offsets)
