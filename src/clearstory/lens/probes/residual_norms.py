"""Norms: how long the stream's vector is after every step, and how much each step adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import sublayers, output_stack
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.views import Curve, Grid, Line, Report
from clearstory.models.prompts import Truncation, reads_source, inference_mode
from clearstory.text.tokenizers import Tokenizer

SINK = 4.0
"""A token whose vector is so many times as long as the median one is worth a word (Sun et al. 2024, "Massive
Activations")."""


@dataclass(frozen=True)
class StreamNorms:
    """Euclidean lengths for T tokens: `stream` at the foot and after each of R steps, `added` by each step."""

    names: tuple[str, ...]
    stream: Float[Tensor, "N T"]
    added: Float[Tensor, "R T"]


def measure_norms(model: Any, read: Passage) -> StreamNorms:
    """The lengths of the stream that the answer comes from."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    with inference_mode(model), record_activations(model, f"{prefix}embedding_output", f"{prefix}blocks.**") as seen:
        read.hidden(model)
        taps = [f"{prefix}embedding_output", *(step.after for step in steps)]
        stream = torch.stack([seen[tap][0].double().norm(dim=-1).cpu() for tap in taps])
        added = torch.stack([seen[step.added][0].double().norm(dim=-1).cpu() for step in steps])
    return StreamNorms(tuple(step.name for step in steps), stream, added)


def residual_norms(
    model: Any, tokenizer: Tokenizer, text: str, *, target: str | None = None, truncate: Truncation | None = None
) -> Report:
    """The length of the stream after every step, and of what each step adds beside what it is added to."""
    target = target if reads_source(model) else None
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    seen = measure_norms(model, read)
    places = tuple(float(place) for place in range(len(seen.stream)))
    lines = [Line(f"last: {read.labels[-1]}", places, tuple(seen.stream[:, -1].tolist()))]
    if len(read.ids) > 1:
        lines.append(Line(f"first: {read.labels[0]}", places, tuple(seen.stream[:, 0].tolist())))
    if len(read.ids) > 2:
        lines.append(Line("median of all", places, tuple(seen.stream.median(1).values.tolist()), dashed=True))
    curve = Curve(
        title="Length of the stream after each step",
        lines=tuple(lines),
        x_label=f"step, 0 the embedding, {len(places) - 1} the last",
        y_label="length",
        log_y=True,
    )
    shares = seen.added / (seen.stream[:-1] + seen.added).clamp(min=1e-30)
    grid = Grid(
        title="How much each step adds to each token: ‖ΔE‖ / (‖E‖ + ‖ΔE‖)",
        row_labels=seen.names,
        column_labels=read.labels,
        values=tuple(map(tuple, shares.tolist())),
        unit="share",
    )
    return Report(title="Norms: the stream and what is added to it", panels=(curve, grid), caption=look(seen, read))


def look(seen: StreamNorms, read: Passage) -> str:
    """How far the stream grows, which step adds most at the end, and tokens of another size."""
    first, last = float(seen.stream[0, -1]), float(seen.stream[-1, -1])
    most = int(seen.added[:, -1].argmax())
    said = (
        f"At ‘{read.labels[-1]}’ the stream goes from {first:,.1f} to {last:,.1f}; the step “{seen.names[most]}” adds "
        f"most, {float(seen.added[most, -1]):,.1f}."
    )
    share = seen.stream / seen.stream.median(1, keepdim=True).values.clamp(min=1e-12)
    place = int(share.argmax())
    row, column = divmod(place, share.shape[1])
    if len(read.ids) > 2 and float(share[row, column]) >= SINK:
        said += (
            f" ‘{read.labels[column]}’ grows to {float(share[row, column]):,.0f} times the median token: such tokens "
            "hold what heads look at when they have nothing to look for."
        )
    return said
