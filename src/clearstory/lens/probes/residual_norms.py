"""Residual norms: the length of the residual stream after each sublayer, and of each sublayer's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import output_stack, sublayers
from clearstory.lens.views import Curve, Grid, Line, Report
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import Truncation
from clearstory.text.tokenizers import Tokenizer

MASSIVE = 4.0
"""A token whose vector is this many times as long as the median is mentioned (Sun et al. 2024, "Massive
Activations")."""


@dataclass(frozen=True)
class StreamNorms:
    """Euclidean norms for T tokens: `residual` of the embedding output and after each of R sublayers, `output` of each
    sublayer's output.
    """

    names: tuple[str, ...]
    residual: Float[Tensor, "N T"]
    output: Float[Tensor, "R T"]


def residual_norms(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    truncate: Truncation | None = None,
) -> Report:
    """The norm of the residual stream after each sublayer, and the share that each sublayer adds."""
    target = target if Capability.SOURCE in model.capabilities else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    seen = measure_norms(model, passage)
    steps = tuple(float(index) for index in range(len(seen.residual)))
    lines = [Line(f"last: {passage.labels[-1]}", steps, tuple(seen.residual[:, -1].tolist()))]
    if len(passage.ids) > 1:
        lines.append(Line(f"first: {passage.labels[0]}", steps, tuple(seen.residual[:, 0].tolist())))
    if len(passage.ids) > 2:
        lines.append(Line("median of all", steps, tuple(seen.residual.median(1).values.tolist()), dashed=True))
    curve = Curve(
        title="Norm of the residual stream after each sublayer",
        lines=tuple(lines),
        x_label=f"sublayer, 0 the embedding, {len(steps) - 1} the last",
        y_label="norm",
        log_y=True,
    )
    shares = seen.output / (seen.residual[:-1] + seen.output).clamp(min=1e-30)
    grid = Grid(
        title="Share of each sublayer's output: ‖ΔE‖ / (‖E‖ + ‖ΔE‖)",
        row_labels=seen.names,
        column_labels=passage.labels,
        values=tuple(map(tuple, shares.tolist())),
        unit="share",
    )
    return Report(
        title="Norms of the residual stream and of what is added to it",
        panels=(curve, grid),
        caption=norms_caption(seen, passage),
    )


def measure_norms(model: LanguageModel, passage: Passage) -> StreamNorms:
    """Norms in the stack that the logits are computed from."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    with (
        inference_mode(model),
        record_activations(model, f"{prefix}embedding_output", f"{prefix}blocks.**") as recorded,
    ):
        passage.forward(model)
        names = [f"{prefix}embedding_output", *(step.residual for step in steps)]
        residual = torch.stack([recorded[name][0].double().norm(dim=-1).cpu() for name in names])
        output = torch.stack([recorded[step.output][0].double().norm(dim=-1).cpu() for step in steps])
    return StreamNorms(tuple(step.title for step in steps), residual, output)


def norms_caption(seen: StreamNorms, passage: Passage) -> str:
    """The growth of the last token's norm, the sublayer that adds most to it, and a token of much larger norm."""
    first, last = float(seen.residual[0, -1]), float(seen.residual[-1, -1])
    most = int(seen.output[:, -1].argmax())
    text = (
        f"At ‘{passage.labels[-1]}’ the norm goes from {first:,.1f} to {last:,.1f}; the largest output, "
        f"{float(seen.output[most, -1]):,.1f}, is that of “{seen.names[most]}”."
    )
    share = seen.residual / seen.residual.median(1, keepdim=True).values.clamp(min=1e-12)
    row, column = divmod(int(share.argmax()), share.shape[1])
    if len(passage.ids) > 2 and float(share[row, column]) >= MASSIVE:
        text += (
            f" ‘{passage.labels[column]}’ reaches {float(share[row, column]):,.0f} times the median norm: heads "
            "without a relevant key often attend to such tokens (attention sinks)."
        )
    return text
