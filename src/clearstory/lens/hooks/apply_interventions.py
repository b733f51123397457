"""Apply interventions: run a model with interventions and compare its prediction with the unchanged one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.activations import record_activations, replace_activations, transformer_stacks
from clearstory.lens.hooks.attention_sites import AttentionSite, attention_weights
from clearstory.lens.hooks.installation import Replacement
from clearstory.lens.hooks.interventions import (
    EMBEDDING_LAYER,
    AddSteeringVector,
    Intervention,
    PatchResidual,
    ScaleOutput,
    SetAttentionWeight,
    StackName,
)
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import answer_position
from clearstory.lens.hooks.resumed_passes import block_streams, last_unchanged, resumed_after
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.prompts import RAW
from clearstory.models.transformer.attention import Attention, causal_mask
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.stack import Stack
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class InterventionOutcome:
    """The probabilities of all tokens at one position, without the interventions and with them."""

    position: int
    before: Float[Tensor, "V"]
    after: Float[Tensor, "V"]

    @property
    def kl(self) -> float:
        """Kullback-Leibler divergence in bits: Σ before · log₂(before / after)."""
        return kl_divergence_bits(self.before, self.after)

    def largest_changes(self, top: int) -> list[tuple[int, float, float]]:
        """The tokens whose probability changed most: id, before, after."""
        size = (self.after - self.before).abs()
        ids = size.argsort(descending=True, stable=True)[:top].tolist()
        return [(id, float(self.before[id]), float(self.after[id])) for id in ids]


def kl_divergence_bits(p: Float[Tensor, "V"], q: Float[Tensor, "V"]) -> float:
    """KL(p ‖ q) in bits.

    >>> round(kl_divergence_bits(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])), 5)  # (1 + log₂ 2/3) / 2
    0.20752
    """
    terms = torch.special.xlogy(p, p) - torch.special.xlogy(p, q)
    return max(0.0, float(terms.sum()) / math.log(2))


def run_interventions(
    model: LanguageModel, tokenizer: Tokenizer, passage: Passage, interventions: Sequence[Intervention]
) -> InterventionOutcome:
    """A model's prediction at `answer_position`, without the interventions and with them.

    Each intervention is applied to the result of those before it. Raises BadSetting for one of a part that does not
    exist.
    """
    position = answer_position(model, tokenizer, passage)
    replacements = [intervention_replacements(model, tokenizer, passage, each) for each in interventions]
    with inference_mode(model):
        with record_activations(model, *block_streams(model)) as streams:
            before = model.logits(passage.forward(model)[position]).double().softmax(-1).cpu()
        unchanged = last_unchanged(model, {name for each in replacements for name in each})
        with resumed_after(model, *unchanged, streams), replace_in_order(model, replacements):
            after = model.logits(passage.forward(model)[position]).double().softmax(-1).cpu()
    if not bool(after.isfinite().all()):
        raise BadSetting("with these interventions the logits are not finite; reduce the largest intervention")
    return InterventionOutcome(position, before, after)


@contextmanager
def replace_in_order(model: LanguageModel, replacements: Sequence[Mapping[str, Replacement]]) -> Iterator[None]:
    """Several sets of replacements, each applied to the result of those before it."""
    with ExitStack() as active:
        for each in replacements:
            active.enter_context(replace_activations(model, each))
        yield


def pattern_with_interventions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    passage: Passage,
    site: AttentionSite,
    interventions: Sequence[Intervention],
) -> Float[Tensor, "H T S"]:
    """Attention weights of all heads of one layer, with interventions."""
    replacements = [intervention_replacements(model, tokenizer, passage, each) for each in interventions]
    with inference_mode(model), replace_in_order(model, replacements):
        return attention_weights(model, passage, site)


def visible_keys(attention: Attention, rows: int, columns: int) -> Bool[Tensor, "T S"]:
    """Which keys (columns) the mask leaves to each query (row)."""
    if not attention.causal:
        return torch.ones(rows, columns, dtype=torch.bool)
    return causal_mask(rows, columns, attention.sliding_window, torch.device("cpu"))


def intervention_replacements(
    model: LanguageModel, tokenizer: Tokenizer, passage: Passage, wanted: Intervention
) -> Mapping[str, Replacement]:
    """An intervention as replacements of activations. Raises BadSetting for a layer or head that does not exist."""
    prefix, stack = select_stack(model, wanted.stack)
    layers = len(stack.blocks)
    lowest = 0 if isinstance(wanted, ScaleOutput | SetAttentionWeight) else EMBEDDING_LAYER
    if not lowest <= wanted.layer < layers:
        raise BadSetting(f"'{wanted}' names layer {wanted.layer}, and there are {layers}; give 0 to {layers - 1}")
    name = f"{prefix}blocks.{wanted.layer}"
    residual = f"{prefix}embedding_output" if wanted.layer == EMBEDDING_LAYER else name
    block = cast(Block, stack.blocks[max(0, wanted.layer)])
    match wanted:
        case ScaleOutput():
            return scale_replacements(block, name, wanted)
        case SetAttentionWeight():
            return weight_replacement(block, name, wanted, passage)
        case AddSteeringVector():
            toward, away = (
                record_residual(model, encode_passage(model, tokenizer, text, prompt=RAW), residual)[-1]
                for text in (wanted.toward, wanted.away)
            )
            return {residual: partial(add_vector, vector=(toward - away) * wanted.factor, tokens=wanted.tokens)}
        case PatchResidual():
            return patch_replacement(model, tokenizer, residual, wanted, passage)


def select_stack(model: LanguageModel, name: StackName) -> tuple[str, Stack]:
    """The stack that an intervention changes. Raises CannotDo for the encoder of a model with one stack."""
    stacks = transformer_stacks(model)
    if name == "encoder" and len(stacks) < 2:
        raise CannotDo("this model has one stack; leave the word 'encoder' out of the intervention")
    return stacks[0] if name == "encoder" else stacks[-1]


def select_attention(block: Block, cross: bool, wanted: Intervention) -> Attention:
    """The attention that an intervention changes. Raises CannotDo if there is no cross-attention."""
    found: Attention | None = block.cross_attention if cross else block.self_attention
    if found is None:
        raise CannotDo(f"'{wanted}' names cross-attention, and this stack has none")
    return found


def scale_replacements(block: Block, block_name: str, wanted: ScaleOutput) -> Mapping[str, Replacement]:
    """Replacements that scale the output of a part; for a layer, the output of each of its sublayers."""
    if wanted.part == "layer":
        kinds = ["attention", "cross_attention", "feed_forward"]
        return {
            f"{block_name}.{kind}": partial(scale_output, factor=wanted.factor)
            for kind in kinds
            if getattr(block, kind) is not None
        }
    if wanted.part == "feed-forward":
        return {f"{block_name}.feed_forward": partial(scale_output, factor=wanted.factor)}
    cross = wanted.part.startswith("cross")
    attention, name = select_attention(block, cross, wanted), f"{block_name}.{'cross_' * cross}attention"
    if wanted.head is None:
        return {name: partial(scale_output, factor=wanted.factor)}
    check_head(attention, wanted.head, wanted)
    return {f"{name}.head_outputs": partial(scale_head, head=wanted.head, factor=wanted.factor)}


def check_head(attention: Attention, head: int, wanted: Intervention) -> None:
    """Raises BadSetting for a head that does not exist."""
    heads = attention.query.out_features // attention.head_dim
    if not 0 <= head < heads:
        raise BadSetting(f"'{wanted}' names head {head}, and the layer has {heads}; give 0 to {heads - 1}")


def scale_output(value: Float[Tensor, "B T W"], factor: float | str) -> Float[Tensor, "B T W"]:
    """A sublayer's output times a factor, or replaced by its mean over the tokens."""
    return value.mean(1, keepdim=True).expand_as(value) if isinstance(factor, str) else value * factor


def scale_head(value: Float[Tensor, "B H T D"], head: int, factor: float | str) -> Float[Tensor, "B H T D"]:
    """The same for one head's output."""
    out = value.clone()
    out[:, head] = scale_output(value[:, head], factor)
    return out


def weight_replacement(
    block: Block, block_name: str, wanted: SetAttentionWeight, passage: Passage
) -> Mapping[str, Replacement]:
    """Replacement of one attention weight. Raises BadSetting for a masked weight and for a row of a single key."""
    attention = select_attention(block, wanted.cross, wanted)
    check_head(attention, wanted.head, wanted)
    in_encoder = wanted.stack == "encoder"
    rows = len(passage.source) if in_encoder else len(passage.ids)
    columns = len(passage.source) if wanted.cross or in_encoder else len(passage.ids)
    if not (0 <= wanted.row < rows and 0 <= wanted.column < columns):
        raise BadSetting(
            f"'{wanted}' names a token that does not exist; rows go to {rows - 1}, columns to {columns - 1}"
        )
    if not 0 <= wanted.weight <= 1:
        raise BadSetting(f"'{wanted}' sets a weight of {wanted.weight:g}; weights lie between 0 and 1")
    visible = visible_keys(attention, rows, columns)[wanted.row]
    if not bool(visible[wanted.column]):
        near = visible.nonzero().squeeze(1)
        raise BadSetting(
            f"'{wanted}' sets a weight from token {wanted.row} to token {wanted.column}, which is masked; token "
            f"{wanted.row} attends to {int(near[0])} to {int(near[-1])}"
        )
    if int(visible.sum()) == 1 and wanted.weight != 1:
        raise BadSetting(
            f"'{wanted}' changes the only weight of token {wanted.row}, which is always 1; choose another row"
        )
    name = f"{block_name}.{'cross_' * wanted.cross}attention.pattern"
    return {name: partial(set_weight, wanted=wanted, visible=visible)}


def set_weight(
    pattern: Float[Tensor, "B H T S"], wanted: SetAttentionWeight, visible: Bool[Tensor, "S"]
) -> Float[Tensor, "B H T S"]:
    """A pattern with one weight set; the rest of its row is rescaled to sum to 1, evenly if it was zero."""
    out = pattern.clone()
    row = out[:, wanted.head, wanted.row]  # a view: writing to it writes to `out`
    weight = row.new_tensor(wanted.weight)
    rest = 1 - row[:, wanted.column : wanted.column + 1]
    others = (visible.to(row.device) & (torch.arange(row.shape[1], device=row.device) != wanted.column)).to(row)
    even = others * (1 - weight) / others.sum().clamp(min=1)
    row.copy_(torch.where(rest > 0, row * ((1 - weight) / rest.clamp(min=torch.finfo(row.dtype).tiny)), even))
    row[:, wanted.column] = weight
    return out


def record_residual(model: LanguageModel, passage: Passage, name: str) -> Float[Tensor, "T W"]:
    """One activation of an unchanged forward pass, one vector per token."""
    with inference_mode(model), record_activations(model, name) as recorded:
        passage.forward(model)
    return recorded[name][0]


def add_vector(value: Float[Tensor, "B T W"], vector: Float[Tensor, "W"], tokens: str) -> Float[Tensor, "B T W"]:
    """A vector added to all tokens, or to the last."""
    out = value.clone()
    out[:, 0 if tokens == "all" else -1 :] += vector
    return out


def patch_replacement(
    model: LanguageModel, tokenizer: Tokenizer, name: str, wanted: PatchResidual, passage: Passage
) -> Mapping[str, Replacement]:
    """Replacement of one token's vector. Raises BadSetting for texts of different lengths."""
    in_encoder = name.startswith("encoder.")
    other = encode_counterpart(model, tokenizer, wanted.other_text, passage)
    length, other_length = (len(each.source) if in_encoder else len(each.ids) for each in (passage, other))
    check_equal_lengths(length, other_length)
    if not 0 <= wanted.position < length:
        raise BadSetting(f"'{wanted}' names token {wanted.position}, and there are {length}; give 0 to {length - 1}")
    vector = record_residual(model, other, name)[wanted.position]
    return {name: partial(set_vector, position=wanted.position, vector=vector)}


def encode_counterpart(model: LanguageModel, tokenizer: Tokenizer, text: str, passage: Passage) -> Passage:
    """Another text tokenized like this one; for an encoder-decoder another source with the same target."""
    other = encode_passage(model, tokenizer, text, prompt=replace(passage.prompt, ids=None))
    if not passage.source:
        return other
    return replace(
        passage,
        source=other.source,
        source_pieces=other.source_pieces,
        source_special=other.source_special,
        source_spans=other.source_spans,
    )


def check_equal_lengths(length: int, other_length: int) -> None:
    """Raises BadSetting for two texts of different numbers of tokens."""
    if length != other_length:
        raise BadSetting(
            f"the text has {length} tokens and the other {other_length}; give two texts of the same number of tokens, "
            "so that positions correspond (--view tokens shows them)"
        )


def set_vector(value: Float[Tensor, "B T W"], position: int, vector: Float[Tensor, "W"]) -> Float[Tensor, "B T W"]:
    """One token's vector replaced."""
    out = value.clone()
    out[:, position] = vector
    return out
