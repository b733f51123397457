"""Interventions: predictions with chosen interventions, and the effect of ablating each part of the model in turn.

Ablation: Michel et al. 2019, "Are Sixteen Heads Really Better than One?". Each head and each feed-forward layer is
removed alone: parts that can replace each other both have a small effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.activations import record_activations, replace_activations
from clearstory.lens.hooks.apply_interventions import (
    InterventionOutcome,
    kl_divergence_bits,
    run_interventions,
    scale_output,
)
from clearstory.lens.hooks.installation import Replacement
from clearstory.lens.hooks.interventions import Intervention, parse_intervention
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import (
    answer_position,
    output_stack,
    single_token,
    split_target_and_words,
    sublayers,
)
from clearstory.lens.hooks.resumed_passes import block_streams, resumed_after
from clearstory.lens.probes.residual_stream import LensMetric
from clearstory.lens.views import Grid, Table
from clearstory.lens.views.formatting import text_ending
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.tokenizers import Tokenizer

MIN_KL = 0.01
"""Bits of divergence from which on a change is described in the caption."""


def interventions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    edit: tuple[str, ...] = (),
    target: str | None = None,
    top: int = 12,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Table:
    """The tokens whose probability changes most with interventions such as “head 5.3 off” or “layer 5 x0.5”.

    The syntax is described in `clearstory.lens.hooks.interventions`. Raises BadSetting without an intervention.
    """
    if not edit:
        raise BadSetting('there is no intervention; give one as "edit", such as "head 0.0 off"')
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    applied = [parse_intervention(each) for each in edit]
    target = target if Capability.SOURCE in model.capabilities else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    outcome = run_interventions(model, tokenizer, passage, applied)
    # Most likely first.
    rows = sorted(
        (
            (tokenizer.display_token(id), before, after, after - before)
            for id, before, after in outcome.largest_changes(top)
        ),
        key=lambda row: -max(row[1], row[2]),
    )
    return Table(
        title=f"Next token after “{text_ending(text, 30)}” with {', '.join(map(str, applied))}",
        columns=("token", "before", "change", "after"),
        rows=tuple((token, before, change, after) for token, before, after, change in rows),
        bar="after",
        caption=outcome_caption(outcome, applied, tokenizer),
    )


def outcome_caption(outcome: InterventionOutcome, applied: Sequence[Intervention], tokenizer: Tokenizer) -> str:
    """The divergence, the change of the most likely token, and the new most likely token."""
    first, now = int(outcome.before.argmax()), int(outcome.after.argmax())
    what = "the intervention" if len(applied) == 1 else f"{len(applied)} interventions"
    text = f"KL {outcome.kl:.3g} bits: "
    if outcome.kl < MIN_KL:
        return text + f"almost no effect; ‘{tokenizer.display_token(first)}’ is still most likely."
    before, after = float(outcome.before[first]), float(outcome.after[first])
    text += f"with {what} ‘{tokenizer.display_token(first)}’ goes from {before:.1%} to {after:.1%}"
    if now == first:
        return text + " and is still most likely."
    return text + f", and ‘{tokenizer.display_token(now)}’ is most likely with {float(outcome.after[now]):.1%}."


AblationMethod = Literal["zero", "mean"]

MIN_EFFECT = 0.1
"""Bits of the answer from which on an effect is counted in the caption."""


@dataclass(frozen=True)
class AblationEffects:
    """Effects of removing each of L layers by C parts (`columns`: heads h, cross-attention heads x, feed-forward ff).

    `change` is the change of the answer's log₂-probability, `kl` the divergence of all tokens' probabilities, in bits.
    """

    columns: tuple[str, ...]
    answer: int
    before: float
    change: Float[Tensor, "L C"]
    kl: Float[Tensor, "L C"]


def ablation(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    metric: LensMetric = "answer",
    ablate: AblationMethod = "zero",
    target: str | None = None,
    words: tuple[str, ...] = (),
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """The effect of removing each head and each feed-forward layer, layer by layer, in bits.

    `metric` answer: the change of the log₂-probability of the answer, which is the most likely token or the one of
    `words`, at the [MASK] in an encoder; kl: the divergence of all probabilities. `ablate`: replace the part's output
    by zero, or by its mean over the text's tokens.
    """
    if metric not in ("answer", "kl"):
        raise BadSetting(f"metric is '{metric}'; an ablation shows answer or kl")
    if ablate not in ("zero", "mean"):
        raise BadSetting(f"ablate is '{ablate}'; give zero or mean")
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}; give one, or none for the most likely token")
    answer = single_token(tokenizer, words[0]) if words else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    position = answer_position(model, tokenizer, passage)
    effects = ablate_every_part(model, passage, position, ablate=ablate, answer=answer)
    piece = f"‘{tokenizer.display_token(effects.answer)}’"
    values = effects.change if metric == "answer" else effects.kl
    quantity = f"log₂-probability of {piece}" if metric == "answer" else "KL divergence"
    return Grid(
        title=f"Ablation: {quantity} without each head (h) and feed-forward (ff)",
        row_labels=tuple(f"layer {layer}" for layer in range(len(values))),
        column_labels=effects.columns,
        values=tuple(map(tuple, values.tolist())),
        unit="bits",
        dots=True,
        caption=ablation_caption(effects, piece),
    )


def ablate_every_part(
    model: LanguageModel, passage: Passage, position: int, *, ablate: AblationMethod = "zero", answer: int | None = None
) -> AblationEffects:
    """The effect of removing each part of the output stack alone, on the prediction at one position.

    All parts of a layer are removed in the rows of one batch, in a forward pass that starts at that layer.
    """
    prefix, stack = output_stack(model)
    steps, heads = sublayers(prefix, stack), stack.config.heads
    columns: list[str] = []
    changes, kls = [], []
    with inference_mode(model):
        with record_activations(model, *block_streams(model)) as streams:
            before = model.logits(passage.forward(model)[position]).double().softmax(-1).cpu()
        answer = int(before.argmax()) if answer is None else answer
        for layer in range(len(stack.blocks)):
            columns, replacements = [], dict[str, Replacement]()
            for step in (each for each in steps if each.layer == layer):
                first = len(columns)
                if step.kind == "feed-forward":
                    columns.append("ff")
                    replacements[step.output] = RowAblation([(first, None)], ablate)
                    continue
                columns += [f"{'h' if step.kind == 'attention' else 'x'}{head}" for head in range(heads)]
                rows = [(first + head, head) for head in range(heads)]
                replacements[f"{step.output}.head_outputs"] = RowAblation(rows, ablate)
            with resumed_after(model, prefix, layer - 1, streams):
                after = row_predictions(model, passage, position, len(columns), replacements)
            # From logarithms: a probability may underflow.
            changes.append((after[:, answer] - before[answer].log()) / math.log(2))
            kls.append(torch.tensor([kl_divergence_bits(before, row.exp()) for row in after], dtype=torch.float64))
    return AblationEffects(tuple(columns), answer, float(before[answer]), torch.stack(changes), torch.stack(kls))


def row_predictions(
    model: LanguageModel, passage: Passage, position: int, rows: int, replacements: Mapping[str, Replacement]
) -> Float[Tensor, "R V"]:
    """Log-probabilities at one position in each row of a batch of copies."""
    with replace_activations(model, replacements):
        hidden = passage.forward_copies(model, rows)[:, position]
    return model.logits(hidden).double().log_softmax(-1).cpu()


@dataclass(frozen=True)
class RowAblation:
    """A replacement that removes one head, or the whole output (None), in each of these rows of a batch."""

    rows: Sequence[tuple[int, int | None]]
    ablate: AblationMethod

    def __call__(self, value: Tensor) -> Tensor:
        """(B, H, T, D) where heads are removed, else (B, T, W)."""
        out, factor = value.clone(), "mean" if self.ablate == "mean" else 0.0
        for row, head in self.rows:
            part = value[row] if head is None else value[row, head]
            out[row, ... if head is None else head] = scale_output(part[None], factor)[0]
        return out


def ablation_caption(effects: AblationEffects, piece: str) -> str:
    """The number of parts with an effect, and the part with the largest one."""
    layer, column = divmod(int(effects.change.argmin()), len(effects.columns))
    worst = float(effects.change[layer, column])
    count = int((effects.change.abs() >= MIN_EFFECT).sum())
    total = effects.change.numel()
    text = f"Removing {count} of {total} components individually changes {piece} by {MIN_EFFECT:g} bits or more"
    if worst > -MIN_EFFECT:
        return text + "."
    return (
        f"{text}; the largest loss is without {effects.columns[column]} of layer {layer}: its probability falls from "
        f"{effects.before:.3g} to {effects.before * 2**worst:.2g}."
    )
