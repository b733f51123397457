"""Intervene: read a text with a model that is changed inside, and compare what it says with what it said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.probes.attention import attention_patterns
from clearstory.lens.hooks.interventions import EMBEDDING_LAYER, SetAttentionWeight, Intervention, StackName, PatchResidual, ScaleOutput, AddSteeringVector
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.attention_sites import AttentionSite
from clearstory.lens.hooks.residual_stream import answer_position
from clearstory.lens.hooks.activations import Replacement, replace_activations, unwrap_model, transformer_stacks, record_activations
from clearstory.models.block import Attention, causal_mask
from clearstory.models.prompts import resting
from clearstory.models.stack import Stack
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class InterventionOutcome:
    """The probabilities of all words at one place, without the edits and with them."""

    place: int
    before: Float[Tensor, "V"]
    after: Float[Tensor, "V"]

    @property
    def kl(self) -> float:
        """Kullback-Leibler divergence of what is said from what was, in bits: Σ before log₂(before / after)."""
        return kl_divergence_bits(self.before, self.after)

    def largest_changes(self, top: int) -> list[tuple[int, float, float]]:
        """The words whose probability changed most: id, before, after."""
        size = (self.after - self.before).abs()
        places = size.argsort(descending=True, stable=True)[:top].tolist()
        return [(id, float(self.before[id]), float(self.after[id])) for id in places]


def kl_divergence_bits(before: Float[Tensor, "V"], after: Float[Tensor, "V"]) -> float:
    """Bits that are lost by who expects `after` where `before` is so.

    >>> round(divergence(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])), 5)  # (1 + log₂ 2/3) / 2
    0.20752
    """
    terms = torch.special.xlogy(before, before) - torch.special.xlogy(before, after)
    return max(0.0, float(terms.sum()) / math.log(2))


def run_interventions(model: Any, tokenizer: Tokenizer, read: Passage, edits: Sequence[Intervention]) -> InterventionOutcome:
    """What a model says where the text asks for an answer (see `answering`), before the edits and after them.

    Each edit is made to what those before it have left. Raises BadSetting for an edit of what is not there.
    """
    place = answer_position(model, tokenizer, read)
    every = [replacements_of(model, tokenizer, read, each) for each in edits]
    with resting(model):
        before = model.logits(read.hidden(model)[place]).double().softmax(-1).cpu()
        with ExitStack() as made:
            for each in every:
                made.enter_context(replace_activations(model, each))
            after = model.logits(read.hidden(model)[place]).double().softmax(-1).cpu()
    if not bool(after.isfinite().all()):
        raise BadSetting("with these edits the model's numbers are none any more; make the largest of them smaller")
    return InterventionOutcome(place, before, after)


def pattern_with_interventions(
    model: Any, tokenizer: Tokenizer, read: Passage, at: AttentionSite, edits: Sequence[Intervention]
) -> Float[Tensor, "H T S"]:
    """How much each token takes from each, for all heads of a layer, with the edits inside."""
    every = [replacements_of(model, tokenizer, read, each) for each in edits]
    with resting(model), ExitStack() as made:
        for each in every:
            made.enter_context(replace_activations(model, each))
        [weights] = attention_patterns(model, read, [at])
    return weights


def visible_keys(attention: Attention, rows: int, columns: int) -> Bool[Tensor, "T S"]:
    """Which tokens (columns) each token (row) may look at."""
    if not attention.causal:
        return torch.ones(rows, columns, dtype=torch.bool)
    return causal_mask(rows, columns, attention.sliding_window, torch.device("cpu"))


def replacements_of(model: Any, tokenizer: Tokenizer, read: Passage, wanted: Intervention) -> Mapping[str, Replacement]:
    """An edit as what is put in the place of some taps."""
    prefix, stack = half_of(model, wanted.half)
    layers = len(stack.blocks)
    lowest = 0 if isinstance(wanted, ScaleOutput | SetAttentionWeight) else EMBEDDING_LAYER
    if not lowest <= wanted.layer < layers:
        raise BadSetting(
            f"the edit '{wanted}' is of layer {wanted.layer}, and there are {layers}; give 0 to {layers - 1}"
        )
    own = f"{prefix}blocks.{wanted.layer}"
    block: Any = stack.blocks[max(0, wanted.layer)]
    match wanted:
        case ScaleOutput():
            return scaled_taps(block, own, wanted)
        case SetAttentionWeight():
            return cell_tap(block, own, wanted, read)
        case AddSteeringVector():
            tap = f"{prefix}embedding_output" if wanted.layer == EMBEDDING_LAYER else own
            ends = [streams(model, encode_passage(model, tokenizer, text), tap)[-1] for text in (wanted.toward, wanted.away)]
            return {tap: partial(steered, vector=(ends[0] - ends[1]) * wanted.by, where=wanted.where)}
        case PatchResidual():
            return patch_tap(model, tokenizer, f"{prefix}embedding_output" if wanted.layer == EMBEDDING_LAYER else own, wanted, read)


def half_of(model: Any, half: StackName) -> tuple[str, Stack]:
    """The stack that an edit is made in. Raises CannotDo for the encoder of a model that has no other half."""
    known = transformer_stacks(unwrap_model(model))
    if half == "encoder" and len(known) < 2:
        raise CannotDo("this model has one stack; leave the word 'encoder' out of the edit")
    return known[0] if half == "encoder" else known[-1]


def attention_of(block: Any, cross: bool, wanted: Intervention) -> Attention:
    """The attention that an edit is made in. Raises CannotDo where there is none."""
    found: Attention | None = block.cross_attention if cross else block.attention
    if found is None:
        raise CannotDo(f"the edit '{wanted}' is of attention across at a source, and this stack looks at none")
    return found


def scaled_taps(block: Any, own: str, wanted: ScaleOutput) -> Mapping[str, Replacement]:
    """What a part adds, at its tap; all that a layer adds, at each of its steps."""
    if wanted.part == "layer":
        kinds = ["attention", "cross_attention", "feed_forward"]
        return {f"{own}.{kind}": partial(scale_output, by=wanted.by) for kind in kinds if getattr(block, kind) is not None}
    if wanted.part == "feed-forward":
        return {f"{own}.feed_forward": partial(scale_output, by=wanted.by)}
    cross = wanted.part.startswith("cross")
    attention, tap = attention_of(block, cross, wanted), f"{own}.{'cross_' * cross}attention"
    if wanted.head is None:
        return {tap: partial(scale_output, by=wanted.by)}
    check_head(attention, wanted.head, wanted)
    return {f"{tap}.head_outputs": partial(scaled_head, head=wanted.head, by=wanted.by)}


def check_head(attention: Attention, head: int, wanted: Intervention) -> None:
    """Raises BadSetting for a head that is not there."""
    heads = attention.query.out_features // attention.head_dim
    if not 0 <= head < heads:
        raise BadSetting(f"the edit '{wanted}' is of head {head}, and the layer has {heads}; give 0 to {heads - 1}")


def scale_output(value: Tensor, by: float | str) -> Tensor:
    """What a step adds, (B, T, W), less or more of it; or its mean over the tokens."""
    return value.mean(1, keepdim=True).expand_as(value) if isinstance(by, str) else value * by


def scaled_head(value: Float[Tensor, "B H T D"], head: int, by: float | str) -> Float[Tensor, "B H T D"]:
    """The same of one head's answer."""
    out = value.clone()
    out[:, head] = scale_output(value[:, head], by)
    return out


def cell_tap(block: Any, own: str, wanted: SetAttentionWeight, read: Passage) -> Mapping[str, Replacement]:
    """One weight of a pattern. Raises BadSetting where the token cannot look there, or has nowhere else to look."""
    attention = attention_of(block, wanted.cross, wanted)
    check_head(attention, wanted.head, wanted)
    written, source = len(read.ids), len(read.source)
    rows = source if wanted.half == "encoder" else written
    columns = source if wanted.cross or wanted.half == "encoder" else written
    if not (0 <= wanted.row < rows and 0 <= wanted.column < columns):
        raise BadSetting(
            f"the edit '{wanted}' is of a token that is not there; rows go to {rows - 1}, columns to {columns - 1}"
        )
    if not 0 <= wanted.weight <= 1:
        raise BadSetting(f"the edit '{wanted}' gives a weight of {wanted.weight:g}; weights lie between 0 and 1")
    seen = visible_keys(attention, rows, columns)[wanted.row]
    if not bool(seen[wanted.column]):
        near = seen.nonzero().squeeze(1)
        raise BadSetting(
            f"the edit '{wanted}' has token {wanted.row} look at {wanted.column}, and it sees {int(near[0])} to "
            f"{int(near[-1])}; choose one of those"
        )
    if int(seen.sum()) == 1 and wanted.weight != 1:
        raise BadSetting(f"the edit '{wanted}' takes from the only token that {wanted.row} can see; choose another row")
    tap = f"{own}.{'cross_' * wanted.cross}attention.pattern"
    return {tap: partial(set_weight, wanted=wanted, seen=seen)}


def set_weight(pattern: Float[Tensor, "B H T S"], wanted: SetAttentionWeight, seen: Tensor) -> Float[Tensor, "B H T S"]:
    """A pattern with one weight set; the others of its row share the rest as before, evenly if they had nothing."""
    out = pattern.clone()
    row = out[:, wanted.head, wanted.row]  # a view: what is written here is written there
    weight = row.new_tensor(wanted.weight)
    rest = 1 - row[:, wanted.column : wanted.column + 1]
    others = (seen.to(row.device) & (torch.arange(row.shape[1], device=row.device) != wanted.column)).to(row)
    even = others * (1 - weight) / others.sum().clamp(min=1)
    row.copy_(torch.where(rest > 0, row * ((1 - weight) / rest.clamp(min=torch.finfo(row.dtype).tiny)), even))
    row[:, wanted.column] = weight
    return out


def streams(model: Any, read: Passage, tap: str) -> Float[Tensor, "T W"]:
    """The stream of a text at a tap, one vector a token, in the model as it is."""
    with resting(model), record_activations(model, tap) as seen:
        read.hidden(model)
    return seen[tap][0]


def steered(value: Float[Tensor, "B T W"], vector: Float[Tensor, "W"], where: str) -> Float[Tensor, "B T W"]:
    """A vector added at all tokens, or at the last."""
    out = value.clone()
    out[:, 0 if where == "all" else -1 :] += vector
    return out


def patch_tap(model: Any, tokenizer: Tokenizer, tap: str, wanted: PatchResidual, read: Passage) -> Mapping[str, Replacement]:
    """One token's vector from another text. Raises BadSetting for texts of different lengths."""
    encoder = tap.startswith("encoder.")
    other = encode_counterpart(model, tokenizer, wanted.other, read)
    ours, theirs = (len(each.source) if encoder else len(each.ids) for each in (read, other))
    check_equal_lengths(ours, theirs)
    if not 0 <= wanted.place < ours:
        raise BadSetting(f"the edit '{wanted}' is of token {wanted.place}, and there are {ours}; give 0 to {ours - 1}")
    return {tap: partial(patched, place=wanted.place, vector=streams(model, other, tap)[wanted.place])}


def encode_counterpart(model: Any, tokenizer: Tokenizer, text: str, read: Passage) -> Passage:
    """Another text as this one is read; another source, after which the same has been written."""
    other = encode_passage(model, tokenizer, text)
    return replace(read, source=other.source, source_pieces=other.source_pieces) if read.source else other


def check_equal_lengths(ours: int, theirs: int) -> None:
    """Raises BadSetting for two texts whose tokens do not stand opposite each other."""
    if ours != theirs:
        raise BadSetting(
            f"the text has {ours} tokens and the other {theirs}; give two of as many, so that each token has its "
            "counterpart (--view tokens shows them)"
        )


def patched(value: Float[Tensor, "B T W"], place: int, vector: Float[Tensor, "W"]) -> Float[Tensor, "B T W"]:
    """One token's vector replaced."""
    out = value.clone()
    out[:, place] = vector
    return out
