"""Positions: what is added to a token, or turned, by where it stands; and that all of it is what the first block reads.

Sines and cosines: Vaswani et al. 2017, section 3.5. Learnt rows and segments: Devlin et al. 2019, figure 2. Angles: Su
et al. 2021, eq. 34. Buckets of distances: Raffel et al. 2020, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.probes.embeddings import most_varying_columns
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.activations import unwrap_model, transformer_stacks, record_activations
from clearstory.lens.views import Curve, Grid, Line, Panel, Table, Report
from clearstory.models.base import inference_mode
from clearstory.models.prompts import Truncation
from clearstory.text.tokenizers import Tokenizer


def input_parts(
    model: Any, stack: Any, ids: Sequence[int], segments: Sequence[int] | None
) -> dict[str, Float[Tensor, "T W"]]:
    """What is added up to make what the first block of a stack reads, by name, each token's: its own vector, those of
    its place and its segment, and what n-grams recall.
    """
    c, count = stack.config, len(ids)
    model = unwrap_model(model)
    row = torch.tensor([ids], device=model.embedding.weight.device)
    own = model.embedding(row)[0]
    parts = {"token": own * math.sqrt(c.width) if c.embed_scale else own}
    if stack.position_embedding is not None:
        parts["place"] = stack.position_embedding.weight[:count]
    if stack.sinusoidal_positions is not None:
        parts["place"] = stack.sinusoidal_positions[:count].to(own.dtype)
    if stack.token_type_embedding is not None:
        kinds = torch.zeros_like(row[0]) if segments is None else torch.tensor(segments, device=row.device)
        parts["segment"] = stack.token_type_embedding(kinds)
    if getattr(model, "recall", None) is not None:
        parts["recalled"] = model.recall.input_vectors(model.recall(row), own.dtype)[0]
    return parts


def positions(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    top: int = 48,
    truncate: Truncation | None = None,
) -> Report:
    """What is added, turned or weighed at each place of a text, as this model does it; and the sum, held against what
    its first block really reads.

    `top`: numbers of a vector that are shown at most.
    """
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    with inference_mode(model), record_activations(model, "**embedding_output" if len(transformer_stacks(model)) > 1 else "embedding_output") as seen:
        read.hidden(model)
        steps = [step for prefix, stack in transformer_stacks(model) for step in side(model, stack, prefix, read, seen, top)]
    return Report(title="Positions: what the first block knows of places", panels=tuple(steps))


def side(model: Any, stack: Any, prefix: str, read: Passage, seen: dict[str, Tensor], top: int) -> list[Panel]:
    """The views of one stack."""
    source = prefix == "encoder."
    ids, labels = (read.source, read.source_labels) if source else (read.ids, read.labels)
    named = f" ({prefix.removesuffix('.')})" if prefix else ""
    parts = input_parts(model, stack, ids, read.segments)
    steps: list[Panel] = [sums(parts, stack, seen[f"{prefix}embedding_output"][0], labels, named)]
    for name, title in (("place", "Each place's vector"), ("segment", "Each token's segment's vector")):
        if name in parts:
            steps.append(vectors(f"{title}{named}", parts[name].float().cpu(), labels, top))
    if stack.rotary is not None:
        steps.append(rotation_angles(stack.rotary, labels, top))
    if stack.relative_position_bias is not None:
        steps += [bias_by_distance(stack.relative_position_bias, len(ids), named), bucket_table(stack.relative_position_bias, len(ids), named)]
    return steps


def sums(
    parts: dict[str, Float[Tensor, "T W"]], stack: Any, foot: Float[Tensor, "T W"], labels: tuple[str, ...], named: str
) -> Table:
    """The length of each part, of their sum, and how far that is from what the first block reads."""
    total = torch.stack(list(parts.values())).sum(0)
    columns, lengths = [*parts, "sum"], [part.norm(dim=-1) for part in (*parts.values(), total)]
    if stack.embedding_norm is not None:
        total = stack.embedding_norm(total)
        columns, lengths = [*columns, "after the norm"], [*lengths, total.norm(dim=-1)]
    off = (total - foot).abs().amax(-1)
    rows = zip(labels, *(each.double().tolist() for each in lengths), off.double().tolist(), strict=True)
    kind = stack.config.positions
    turned = {
        "rotary": " Places are not added here: queries and keys are turned by them in every block.",
        "relative_bias": " Places are not added here: distances are weighed in every block.",
        "none": " Places are not added here, nor is anything else done by them.",
    }.get(kind, "")
    return Table(
        title=f"What is added up, by length{named}",
        columns=("token", *columns, "off what is read"),
        rows=tuple(rows),
        caption=f"The first block reads {' + '.join(parts)}{', normed' if stack.embedding_norm is not None else ''}: the "
        f"sum is at most {float(off.max()):.2g} off what it was seen to read.{turned}",
    )


def vectors(title: str, rows: Float[Tensor, "T W"], labels: tuple[str, ...], top: int) -> Grid:
    """Vectors as a field of numbers."""
    shown, said = most_varying_columns(rows, top)
    values = tuple(tuple(row) for row in rows[:, shown].double().tolist())
    columns = tuple(map(str, shown))
    return Grid(title=title, row_labels=labels, column_labels=columns, values=values, dots=True, caption=said)


def rotation_angles(rotary: Any, labels: tuple[str, ...], top: int) -> Grid:
    """By how much each pair of a query's or key's numbers is turned at each place, from -π to π."""
    count, pairs = len(labels), rotary.cos.shape[1]
    turned = torch.atan2(rotary.sin[:count], rotary.cos[:count]).double()
    chosen = list(range(pairs)) if pairs <= top else [round(at * (pairs - 1) / max(1, top - 1)) for at in range(top)]
    chosen = list(dict.fromkeys(chosen))
    # The angle of place 1 is the speed: no pair turns by half a circle or more in one token.
    speeds = torch.atan2(rotary.sin[1], rotary.cos[1]).double().abs() if len(rotary.cos) > 1 else turned[0]
    slow, fast = (2 * math.pi / max(float(speeds[at]), 1e-12) for at in (-1, 0))
    said = f"The first pair turns once in {fast:,.1f} tokens, the last in {slow:,.0f}."
    if len(chosen) < pairs:
        said += f" Of {pairs:,} pairs {len(chosen):,} are shown, evenly spaced."
    return Grid(
        title="By how much queries and keys are turned: places by pairs of numbers",
        row_labels=labels,
        column_labels=tuple(map(str, chosen)),
        values=tuple(tuple(row) for row in turned[:, chosen].tolist()),
        unit="radians",
        dots=True,
        caption=said,
    )


def bias_by_distance(buckets: Any, count: int, named: str) -> Curve:
    """What is added to each head's scores, by how far the key stands behind the query (negative: before it)."""
    first, last = -(count - 1), count - 1 if buckets.bidirectional else 0
    distances = torch.arange(first, last + 1, device=buckets.bias.weight.device)
    biases = buckets.bias(buckets.bucket(distances[None])[0]).T.double().tolist()
    places = tuple(map(float, distances.tolist()))
    return Curve(
        title=f"What is added to scores, by distance{named}",
        lines=tuple(Line(f"head {head}", places, tuple(row)) for head, row in enumerate(biases)),
        x_label="key's place minus query's",
        y_label="added to the score",
    )


def bucket_table(buckets: Any, count: int, named: str) -> Table:
    """Which distances share a bucket."""
    first, last = -(count - 1), count - 1 if buckets.bidirectional else 0
    found: dict[int, list[int]] = {}
    for distance in range(first, last + 1):
        number = int(buckets.bucket(torch.tensor([[distance]], device=buckets.bias.weight.device)))
        found.setdefault(number, []).append(distance)
    rows = tuple((number, low[0], low[-1]) for number, low in sorted(found.items()))
    return Table(
        title=f"Buckets of distances{named}",
        columns=("bucket", "from", "to"),
        rows=rows,
        caption=f"{len(rows):,} of {buckets.NUM_BUCKETS} buckets occur in {count:,} tokens; beyond {buckets.MAX_DISTANCE} one serves.",
    )
