"""Stream: the vectors that a Transformer's steps add to, and what it would say if it ended at any of them.

foot ─► + attention ─► (+ cross-attention) ─► + feed-forward ─► ... ─► last norm ─► logits
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.errors import BadInput, CannotDo
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.trace import unwrap_model, transformer_stacks
from clearstory.models.base import TokenBatch
from clearstory.models.encoder import Encoder
from clearstory.models.encoder_decoder import EncoderDecoder
from clearstory.models.prompts import reads_source
from clearstory.models.stack import Stack
from clearstory.models.transformer import Transformer
from clearstory.text.tokenizers import Tokenizer

Kind = Literal["attention", "cross-attention", "feed-forward"]


@dataclass(frozen=True)
class Sublayer:
    """One step of a block: the taps of what it adds and of the stream after it, and the norm that stands at it."""

    layer: int
    kind: Kind
    added: str
    after: str
    module: Any
    norm: nn.Module

    @property
    def name(self) -> str:
        """For people to read."""
        return f"{self.layer} {self.kind}"


def output_stack(model: Any) -> tuple[str, Stack]:
    """The stack that the answer comes from, and what the names of its taps begin with."""
    return transformer_stacks(model)[-1]


def sublayers(prefix: str, stack: Stack) -> list[Sublayer]:
    """All steps of a stack, from its foot up."""
    steps = []
    for layer, each in enumerate(stack.blocks):
        block, own = cast(Any, each), f"{prefix}blocks.{layer}"
        attend = (block.attention, block.attention_norm)
        steps.append(Sublayer(layer, "attention", f"{own}.attention", f"{own}.middle", *attend))
        if block.cross_attention is not None:
            look = (block.cross_attention, block.cross_attention_norm)
            steps.append(Sublayer(layer, "cross-attention", f"{own}.cross_attention", f"{own}.across", *look))
        think = (block.feed_forward, block.feed_forward_norm)
        steps.append(Sublayer(layer, "feed-forward", f"{own}.feed_forward", own, *think))
    return steps


def final_hidden(model: Any, x: Float[Tensor, "B T W"], ids: Sequence[int]) -> Float[Tensor, "B T K"]:
    """What the model would know if its stream ended with x: the last norm, computed of x itself, and all behind it.

    `ids` are the tokens, for a model that recalls n-grams. Of the last block's stream this is what `read` gives.
    """
    model, (_, stack) = unwrap_model(model), output_stack(model)
    x = x if stack.norm is None else stack.norm(x)
    if isinstance(model, EncoderDecoder):
        return model.finish(x)
    if isinstance(model, Transformer):
        known = None if model.recall is None else model.recall(torch.tensor([list(ids)], device=x.device))
        return model.finish(x, known)
    return x


def forward_copies(model: Any, read: Passage, rows: int) -> Float[Tensor, "B T W"]:
    """The passage read `rows` times side by side, so that each row can be changed in a way of its own."""
    device = next(model.parameters()).device
    tokens = TokenBatch.from_sequences([read.ids] * rows, device)
    if read.source:
        return cast(Tensor, model.forward(tokens, source=TokenBatch.from_sequences([read.source] * rows, device))[0])
    if read.segments is not None:
        return cast(Tensor, model.encode(tokens, torch.tensor([read.segments] * rows, device=device)))
    return cast(Tensor, model.forward(tokens)[0])


def answer_position(model: Any, tokenizer: Tokenizer, read: Passage) -> int:
    """The place whose answer is looked at: the last token's, whose answer is the next; of an encoder its first [MASK].

    Raises BadInput for an encoder's text without one, CannotDo for an encoder that has no head for words.
    """
    if not isinstance(unwrap_model(model), Encoder):
        return len(read.ids) - 1
    require_mlm_head(model)
    if tokenizer.mask_token_id is None or tokenizer.mask_token_id not in read.ids:
        raise BadInput("an encoder answers where a [MASK] stands, and the text has none; put one in place of a word")
    return read.ids.index(tokenizer.mask_token_id)


def require_mlm_head(model: Any) -> None:
    """Raises CannotDo for an encoder that cannot say which word stands at a place."""
    if isinstance(unwrap_model(model), Encoder) and unwrap_model(model).transform is None:
        raise CannotDo(
            "this encoder has no head for words: it gives vectors, and they mean no word; one that tells a [MASK] is "
            "made by: clearstory train TEXT --model bert-mini"
        )


def single_token(tokenizer: Tokenizer, word: str) -> int:
    """The one token that a word is, after a space where it can be. Raises BadInput for a word of several."""
    forms = [ids for form in (f" {word}", word) if len(ids := tokenizer.encode(form)) == 1]
    if not forms:
        pieces = " · ".join(tokenizer.display_token(id) for id in tokenizer.encode(word))
        raise BadInput(f"'{word}' is not one token but {pieces or 'none'}; choose a shorter or more frequent word")
    return forms[0][0]


def split_target_and_words(model: Any, target: str | None, words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """What has been written already, and the words asked about: `target` is the first of an encoder-decoder and the
    second of any other model.
    """
    if reads_source(model) or target is None:
        return target, tuple(words)
    return None, (target, *words)
