"""Ablation: every head and feed-forward knocked out in turn, and what the answer loses.

Michel et al. 2019, "Are Sixteen Heads Really Better than One?": the effect of one part with all others in place. Parts
that stand in for each other both look idle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.apply_interventions import kl_divergence_bits, scale_output
from clearstory.lens.probes.logit_lens import LensMetric
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import answer_position, split_target_and_words, forward_copies, sublayers, single_token, output_stack
from clearstory.lens.hooks.activations import Replacement, replace_activations
from clearstory.lens.views import Grid
from clearstory.models.prompts import Truncate, resting
from clearstory.text.tokenizers import Tokenizer

Ablate = Literal["zero", "mean"]

MATTERS = 0.1
"""Bits of the answer from which on a part is said to matter."""


@dataclass(frozen=True)
class AblationEffects:
    """L layers by C parts (`columns`: heads h, heads that look across x, the feed-forward ff). `change` is that of the
    answer's log₂-probability without the part, `kl` how far all that is said moves, both in bits.
    """

    columns: tuple[str, ...]
    answer: int
    before: float
    change: Float[Tensor, "L C"]
    kl: Float[Tensor, "L C"]


def ablate_every_part(model: Any, read: Passage, place: int, *, ablate: Ablate = "zero", answer: int | None = None) -> AblationEffects:
    """Each part of the writing stack taken away alone: nothing in its place, or its mean over the text's tokens.

    The parts of a layer are taken away in rows side by side, so the text is read as often as there are layers.
    """
    prefix, stack = output_stack(model)
    steps, heads = sublayers(prefix, stack), stack.config.heads
    columns: list[str] = []
    changes, kls = [], []
    with resting(model):
        before = model.logits(read.hidden(model)[place]).double().softmax(-1).cpu()
        answer = int(before.argmax()) if answer is None else answer
        for layer in range(len(stack.blocks)):
            columns, made = [], dict[str, Replacement]()
            for step in (each for each in steps if each.layer == layer):
                first = len(columns)
                if step.kind == "feed-forward":
                    columns.append("ff")
                    made[step.added] = Without([(first, None)], ablate)
                    continue
                columns += [f"{'h' if step.kind == 'attention' else 'x'}{head}" for head in range(heads)]
                rows = [(first + head, head) for head in range(heads)]
                made[f"{step.added}.head_outputs"] = Without(rows, ablate)
            after = rows_of(model, read, place, len(columns), made)
            # In the logarithm: a probability may be too small for a number.
            changes.append((after[:, answer] - before[answer].log()) / math.log(2))
            kls.append(torch.tensor([kl_divergence_bits(before, row.exp()) for row in after], dtype=torch.float64))
    return AblationEffects(tuple(columns), answer, float(before[answer]), torch.stack(changes), torch.stack(kls))


def rows_of(model: Any, read: Passage, place: int, rows: int, made: Mapping[str, Replacement]) -> Float[Tensor, "R V"]:
    """What the model says in each row, as logarithms of probabilities."""
    with replace_activations(model, made):
        hidden = forward_copies(model, read, rows)[:, place]
    return model.logits(hidden).double().log_softmax(-1).cpu()  # type: ignore[no-any-return]  # any model's


@dataclass(frozen=True)
class Without:
    """A change: in each of these rows one head, or the whole, is taken away."""

    rows: Sequence[tuple[int, int | None]]
    ablate: Ablate

    def __call__(self, value: Tensor) -> Tensor:
        """(B, H, T, D) where heads are taken away, else (B, T, W)."""
        out, by = value.clone(), "mean" if self.ablate == "mean" else 0.0
        for row, head in self.rows:
            part = value[row] if head is None else value[row, head]
            out[row, ... if head is None else head] = scale_output(part[None], by)[0]
        return out


def ablation(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    metric: LensMetric = "answer",
    ablate: Ablate = "zero",
    target: str | None = None,
    words: tuple[str, ...] = (),
    truncate: Truncate | None = None,
) -> Grid:
    """What the answer loses without each head and each feed-forward, layer by layer.

    The answer is the likeliest word, or the one of `words`; an encoder's stands at its [MASK]. `metric` kl: how far all
    words' probabilities move. `ablate`: zero, or the mean over the text's tokens.
    """
    if metric not in ("answer", "kl"):
        raise BadSetting(f"metric is '{metric}'; an ablation shows answer or kl")
    if ablate not in ("zero", "mean"):
        raise BadSetting(f"ablate is '{ablate}'; put zero in a part's place, or its mean")
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}; give one, or none for the likeliest")
    answer = single_token(tokenizer, words[0]) if words else None
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    seen = ablate_every_part(model, read, answer_position(model, tokenizer, read), ablate=ablate, answer=answer)
    piece = f"‘{tokenizer.display_token(seen.answer)}’"
    numbers = seen.change if metric == "answer" else seen.kl
    what = piece if metric == "answer" else "all that is said"
    return Grid(
        title=f"Ablation: {what} without each head (h) and feed-forward (ff)",
        row_labels=tuple(f"layer {layer}" for layer in range(len(numbers))),
        column_labels=seen.columns,
        values=tuple(map(tuple, numbers.tolist())),
        unit="bits",
        dots=True,
        caption=look(seen, piece),
    )


def look(seen: AblationEffects, piece: str) -> str:
    """The part that the answer needs most, and how many matter at all."""
    layer, column = divmod(int(seen.change.argmin()), len(seen.columns))
    worst = float(seen.change[layer, column])
    matter = int((seen.change.abs() >= MATTERS).sum())
    said = f"{matter} of {seen.change.numel()} parts, each missing alone, change {piece} by {MATTERS:g} bits or more"
    if worst > -MATTERS:
        return said + "."
    return (
        f"{said}; it needs {seen.columns[column]} of layer {layer} most: without it, its probability goes from "
        f"{seen.before:.3g} to {seen.before * 2**worst:.2g}."
    )
