"""Activation patching: which tokens' vectors, after which layer, carry the difference between two texts.

In the forward pass of one text, the residual stream of one token after one layer is replaced by that of another text;
the prediction moves from the one text's answer towards the other's. Meng et al. 2022, section 2 (causal tracing). The
effect is the difference of two tokens' logits (Wang et al. 2022, "Interpretability in the Wild"), scaled so that 0 is
no effect and 1 the other text's difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import record_activations, replace_activations, transformer_stacks
from clearstory.lens.hooks.apply_interventions import check_equal_lengths, encode_counterpart
from clearstory.lens.hooks.passage import Passage, encode_passage, number_duplicates
from clearstory.lens.hooks.residual_stream import answer_position, single_token, split_target_and_words
from clearstory.lens.hooks.resumed_passes import resumed_after
from clearstory.lens.views import Grid
from clearstory.models.base import LanguageModel, State, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.tokenizers import Tokenizer

BATCH_TOKENS = 2048
"""Tokens in a batch of patched copies."""

MIN_DIFFERENCE = 1e-3
"""The smallest difference between the two texts' logits that is worth explaining."""


@dataclass(frozen=True)
class PatchingEffects:
    """`recovered` for N layers (embedding output and each block) by T tokens: 0 no effect, 1 the other text's answer.

    `difference` and `other_difference` are the two texts' differences of the two tokens' logits.
    """

    words: tuple[int, int]
    difference: float
    other_difference: float
    recovered: Float[Tensor, "N T"]


def activation_patching(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    other_text: str = "",
    target: str | None = None,
    words: tuple[str, ...] = (),
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """The share of the logit difference between two texts that each token's vector carries, after each layer.

    The two words are the most likely token of `other_text` and that of the text, or those of `words` in this order.
    Raises BadSetting without another text, or for one with another number of tokens.
    """
    if not other_text:
        raise BadSetting(
            'activation patching needs a second text with the same number of tokens; give it as "other_text"'
        )
    target, words = split_target_and_words(model, target, words)
    if len(words) not in (0, 2):
        raise BadSetting(
            f"words are {', '.join(words)}; give two, the other text's answer and then this one's, or none"
        )
    chosen = (single_token(tokenizer, words[0]), single_token(tokenizer, words[1])) if words else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    other = encode_counterpart(model, tokenizer, other_text, passage)
    check_equal_lengths(*(len(each.source or each.ids) for each in (passage, other)))
    positions = (answer_position(model, tokenizer, passage), answer_position(model, tokenizer, other))
    effects = patch_every_position(model, passage, other, positions, chosen)
    pieces = (passage.source_pieces or passage.pieces, other.source_pieces or other.pieces)
    labels = tuple(a if a == b else f"{a}/{b}" for a, b in zip(*pieces, strict=True))
    names = ("embedding", *(f"layer {layer}" for layer in range(len(effects.recovered) - 1)))
    answers = f"‘{tokenizer.display_token(effects.words[1])}’", f"‘{tokenizer.display_token(effects.words[0])}’"
    return Grid(
        title=f"Activation patching: fraction of the logit difference from {answers[0]} to {answers[1]}",
        row_labels=names,
        column_labels=number_duplicates(labels),
        values=tuple(map(tuple, effects.recovered.tolist())),
        unit="of the difference",
        dots=True,
        caption=patching_caption(effects, labels, names, answers),
    )


def patch_every_position(
    model: LanguageModel,
    passage: Passage,
    other: Passage,
    positions: tuple[int, int],
    words: tuple[int, int] | None = None,
) -> PatchingEffects:
    """Patch every token's vector alone, after every layer. `positions` are where the two texts' predictions are read;
    `words` the other text's answer and this one's, by default their most likely tokens.

    In an encoder-decoder the encoder's stream is patched, where the two sources are read. Where both texts have the
    same vector nothing is computed. Raises BadInput for two texts with the same prediction.
    """
    prefix, stack = transformer_stacks(model)[0]
    names = [f"{prefix}embedding_output", *(f"{prefix}blocks.{layer}" for layer in range(len(stack.blocks)))]
    with inference_mode(model):
        with record_activations(model, *names) as recorded:
            other_logits = model.logits(other.forward(model)[positions[1]]).double()
            vectors = {name: recorded[name][0] for name in names}
            logits = model.logits(passage.forward(model)[positions[0]]).double()
            before = {name: recorded[name] for name in names}
        words = (int(other_logits.argmax()), int(logits.argmax())) if words is None else words
        if words[0] == words[1]:
            raise BadInput("both texts have the same most likely token; give the two tokens to compare in words")

        def difference(logits: Tensor) -> Tensor:
            return logits[..., words[0]] - logits[..., words[1]]

        near, far = float(difference(logits)), float(difference(other_logits))
        if abs(far - near) < MIN_DIFFERENCE:
            raise BadInput("both texts give these two tokens the same logit difference, so there is nothing to explain")
        recovered = torch.zeros(len(names), len(vectors[names[0]]), dtype=torch.float64)
        # In a causal model nothing before a patched token changes: passes continue a cache of what is before it.
        causal = Capability.CAUSAL in model.capabilities and not passage.source
        caches: dict[int, State | None] = {0: None}
        for row, name in enumerate(names):
            changed = (before[name][0] != vectors[name]).any(-1).nonzero().squeeze(1).tolist()
            for tokens in token_batches(changed, len(vectors[name]), causal):
                start = tokens[0] if causal else 0
                if start not in caches:
                    caches[start] = passage.cache_before(model, start)
                patch = RowPatch([token - start for token in tokens], vectors[name][start:])
                with (
                    resumed_after(model, prefix, row - 1, before),
                    replace_activations(model, {names[0]: patch}),
                ):
                    hidden = passage.forward_copies(model, len(tokens), start, caches[start])
                patched = model.logits(hidden[:, positions[0] - start]).double()
                recovered[row, tokens] = ((difference(patched) - near) / (far - near)).cpu()
    return PatchingEffects(words, near, far, recovered)


def token_batches(tokens: list[int], length: int, causal: bool) -> Iterator[list[int]]:
    """Ascending positions in groups that are patched in one batch each; in a causal model a batch starts at its first.

    >>> [len(each) for each in token_batches(list(range(64)), 64, True)]
    [32, 32]
    """
    while tokens:
        size = max(1, BATCH_TOKENS // (length - tokens[0] if causal else length))
        yield tokens[:size]
        tokens = tokens[size:]


@dataclass(frozen=True)
class RowPatch:
    """A replacement that gives each row of a batch one token's vector from the other text."""

    tokens: list[int]
    vectors: Float[Tensor, "T W"]

    def __call__(self, value: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Row i with the vector of token `tokens[i]` replaced."""
        out = value.clone()
        out[range(len(self.tokens)), self.tokens] = self.vectors[self.tokens]
        return out


def patching_caption(
    effects: PatchingEffects, labels: Sequence[str], names: Sequence[str], answers: tuple[str, str]
) -> str:
    """The two logit differences, the token that carries most at the embedding, and the layer where that changes."""
    best = effects.recovered.max(1)
    positions = best.indices.tolist()
    moved = next((row for row, position in enumerate(positions) if position != positions[0]), None)
    text = (
        f"The logit of {answers[1]} minus that of {answers[0]} is {effects.difference:+.2f} here and "
        f"{effects.other_difference:+.2f} in the other text. At the embedding ‘{labels[positions[0]]}’ carries "
        f"{float(best.values[0]):.0%} of the difference"
    )
    if moved is None:
        return text + ", and the most in every layer."
    return text + (
        f"; from {names[moved]} on ‘{labels[positions[moved]]}’ carries most ({float(best.values[moved]):.0%})."
    )
