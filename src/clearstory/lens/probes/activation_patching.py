"""Patching: which tokens' vectors, at which layer, carry the difference between two texts.

Into the reading of one text the stream of another is put, at one token after one layer; what is said moves from the one
text's answer towards the other's. Meng et al. 2022, section 2 (causal tracing). It is measured by the difference of two
words' logits (Wang et al. 2022, "Interpretability in the Wild"), scaled so that 0 is unpatched and 1 the other text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.apply_interventions import encode_counterpart, check_equal_lengths
from clearstory.lens.hooks.passage import Passage, number_duplicates, encode_passage
from clearstory.lens.hooks.residual_stream import answer_position, split_target_and_words, forward_copies, single_token
from clearstory.lens.hooks.activations import replace_activations, transformer_stacks, record_activations
from clearstory.lens.views import Grid
from clearstory.models.prompts import Truncate, resting
from clearstory.text.tokenizers import Tokenizer

ROWS = 2048
"""Tokens that are read side by side at a time."""

LEAST = 1e-3
"""A smaller difference between the two texts' logits is none to be recovered."""


@dataclass(frozen=True)
class PatchingEffects:
    """`recovered` by N places in the stream (the foot, and after each layer) and T tokens: 0 leaves the answer as it
    is, 1 makes it the other text's. `own` and `other` are the two texts' differences of the words' logits.
    """

    words: tuple[int, int]
    own: float
    other: float
    recovered: Float[Tensor, "N T"]


def patch_every_position(
    model: Any, read: Passage, other: Passage, places: tuple[int, int], words: tuple[int, int] | None = None
) -> PatchingEffects:
    """Every token's vector patched alone, after every layer. `places` are where the two texts ask for an answer;
    `words` the other text's answer and this one's, the likeliest when not given.

    Of an encoder-decoder it is the encoder's stream, where the two sources are read. Where both texts have the same
    vector nothing can change, and nothing is computed. Raises BadInput where the two cannot be told apart.
    """
    prefix, stack = transformer_stacks(model)[0]
    taps = [f"{prefix}embedding_output", *(f"{prefix}blocks.{layer}" for layer in range(len(stack.blocks)))]
    with resting(model):
        with record_activations(model, *taps) as seen:
            theirs = model.logits(other.hidden(model)[places[1]]).double()
            vectors = {tap: seen[tap][0] for tap in taps}
            ours = model.logits(read.hidden(model)[places[0]]).double()
            before = {tap: seen[tap][0] for tap in taps}
        words = (int(theirs.argmax()), int(ours.argmax())) if words is None else words
        if words[0] == words[1]:
            raise BadInput("both texts have the same likeliest word; name the two to compare in words")

        def difference(logits: Tensor) -> Tensor:
            return logits[..., words[0]] - logits[..., words[1]]

        own, far = float(difference(ours)), float(difference(theirs))
        if abs(far - own) < LEAST:
            raise BadInput("both texts say the same of these two words, so nothing moves from one to the other")
        recovered = torch.zeros(len(taps), len(vectors[taps[0]]), dtype=torch.float64)
        for number, tap in enumerate(taps):
            changed = (before[tap] != vectors[tap]).any(-1).nonzero().squeeze(1).tolist()
            size = max(1, ROWS // len(read.ids))
            for at in range(0, len(changed), size):
                tokens = changed[at : at + size]
                with replace_activations(model, {tap: Swapped(tokens, vectors[tap])}):
                    logits = model.logits(forward_copies(model, read, len(tokens))[:, places[0]]).double()
                recovered[number, tokens] = ((difference(logits) - own) / (far - own)).cpu()
    return PatchingEffects(words, own, far, recovered)


@dataclass(frozen=True)
class Swapped:
    """A change: each row has another token's vector from the other text."""

    tokens: list[int]
    vectors: Float[Tensor, "T W"]

    def __call__(self, value: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Row i with token `tokens[i]` swapped."""
        out = value.clone()
        out[range(len(self.tokens)), self.tokens] = self.vectors[self.tokens]
        return out


def activation_patching(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    other_text: str = "",
    target: str | None = None,
    words: tuple[str, ...] = (),
    truncate: Truncate | None = None,
) -> Grid:
    """How far each token's vector, after each layer, carries the answer from one text's to the `other_text`'s.

    The two words are the likeliest of the other text and of this one, or those of `words` in this order. Raises
    BadSetting without another text, or for one of another number of tokens.
    """
    if not other_text:
        raise BadSetting('patching needs a second text; give one of as many tokens as "other_text"')
    target, words = split_target_and_words(model, target, words)
    if len(words) not in (0, 2):
        raise BadSetting(
            f"words are {', '.join(words)}; give two, the other text's answer and then this one's, or none"
        )
    chosen = (single_token(tokenizer, words[0]), single_token(tokenizer, words[1])) if words else None
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    second = encode_counterpart(model, tokenizer, other_text, read)
    check_equal_lengths(*(len(each.source or each.ids) for each in (read, second)))
    places = (answer_position(model, tokenizer, read), answer_position(model, tokenizer, second))
    seen = patch_every_position(model, read, second, places, chosen)
    pieces = (read.source_pieces or read.pieces, second.source_pieces or second.pieces)
    labels = tuple(a if a == b else f"{a}/{b}" for a, b in zip(*pieces, strict=True))
    names = ("embedding", *(f"layer {layer}" for layer in range(len(seen.recovered) - 1)))
    said = f"‘{tokenizer.display_token(seen.words[1])}’", f"‘{tokenizer.display_token(seen.words[0])}’"
    return Grid(
        title=f"Patching: how far one vector moves {said[0]} to {said[1]}",
        row_labels=names,
        column_labels=number_duplicates(labels),
        values=tuple(map(tuple, seen.recovered.tolist())),
        unit="of the difference",
        dots=True,
        caption=look(seen, labels, names, said),
    )


def look(seen: PatchingEffects, labels: Sequence[str], names: Sequence[str], said: tuple[str, str]) -> str:
    """The token that carries most at each end of the stream, and where the difference changes hands."""
    best = seen.recovered.max(1)
    places = best.indices.tolist()
    moved = next((row for row, place in enumerate(places) if place != places[0]), None)
    text = (
        f"The logit of {said[1]} less that of {said[0]} is {seen.own:+.2f} here, {seen.other:+.2f} in the other text. "
        f"At the foot ‘{labels[places[0]]}’ carries {float(best.values[0]):.0%} of the difference"
    )
    if moved is None:
        return text + ", and it does so in every layer."
    return text + f"; from {names[moved]} on ‘{labels[places[moved]]}’ carries most ({float(best.values[moved]):.0%})."
