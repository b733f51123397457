"""Positions: how a Transformer encodes token positions, and the sum of embeddings that its first block receives.

Sinusoidal: Vaswani et al. 2017, section 3.5. Learned, and segments: Devlin et al. 2019, figure 2. Rotary: Su et al.
2021, eq. 34. Relative position bias: Raffel et al. 2020, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.hooks.activations import record_activations, transformer_stacks, unwrap_model
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.embeddings import most_varying_columns
from clearstory.lens.views import Curve, Grid, Line, Panel, Report, Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.models.transformer.positions import RelativePositionBias, Rotary
from clearstory.models.transformer.stack import Stack
from clearstory.text.tokenizers import Tokenizer

POSITION_NOTES = {
    "rotary": " No position embedding is added: queries and keys are rotated in every block.",
    "relative_bias": " No position embedding is added: a relative position bias is added to the scores in every block.",
    "none": " No position embedding is added, and positions are not encoded in any other way.",
}


def positions(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    top: int = 48,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """The position encoding of a model over a text, and the summands of the embedding output, checked against the
    recorded one.

    `top`: maximum number of dimensions shown of a vector.
    """
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    stacks = transformer_stacks(model)
    names = [f"{prefix}embedding_output" for prefix, _ in stacks]
    with inference_mode(model), record_activations(model, *names) as recorded:
        passage.forward(model)
        panels = [
            panel
            for prefix, stack in stacks
            for panel in stack_panels(model, stack, prefix, passage, recorded[f"{prefix}embedding_output"][0], top)
        ]
    return Report(title="Position encoding", panels=tuple(panels))


def input_parts(
    model: LanguageModel, stack: Stack, ids: Sequence[int], token_types: Sequence[int] | None
) -> dict[str, Float[Tensor, "T W"]]:
    """The summands of a stack's embedding output by name: token, position and segment embeddings, hashed n-grams."""
    c, count = stack.config, len(ids)
    network = unwrap_model(model)
    row = torch.tensor([ids], device=network.embedding.weight.device)
    vectors = network.embedding(row)[0]
    parts = {"token": vectors * math.sqrt(c.width) if c.embed_scale else vectors}
    if stack.position_embedding is not None:
        parts["position"] = stack.position_embedding.weight[:count]
    if stack.sinusoidal_positions is not None:
        parts["position"] = stack.sinusoidal_positions[:count].to(vectors.dtype)
    if stack.token_type_embedding is not None:
        types = torch.zeros_like(row[0]) if token_types is None else torch.tensor(token_types, device=row.device)
        parts["segment"] = stack.token_type_embedding(types)
    if Capability.HASHED_NGRAMS in model.capabilities:
        parts["hashed n-grams"] = network.recall.input_vectors(network.recall(row), vectors.dtype)[0]
    return parts


def stack_panels(
    model: LanguageModel, stack: Stack, prefix: str, passage: Passage, recorded: Float[Tensor, "T W"], top: int
) -> list[Panel]:
    """The panels of one stack."""
    in_encoder = prefix == "encoder."
    ids, labels = (passage.source, passage.source_labels) if in_encoder else (passage.ids, passage.labels)
    suffix = f" ({prefix.removesuffix('.')})" if prefix else ""
    parts = input_parts(model, stack, ids, passage.token_types)
    panels: list[Panel] = [sum_table(parts, stack, recorded, labels, suffix)]
    for name, title in (("position", "Position embeddings"), ("segment", "Segment embeddings")):
        if name in parts:
            panels.append(vector_grid(f"{title}{suffix}", parts[name].float().cpu(), labels, top))
    if stack.rotary is not None:
        panels.append(rotation_angles(stack.rotary, labels, top))
    if stack.relative_position_bias is not None:
        bias = stack.relative_position_bias
        panels += [bias_by_distance(bias, len(ids), suffix), bucket_table(bias, len(ids), suffix)]
    return panels


def sum_table(
    parts: dict[str, Float[Tensor, "T W"]],
    stack: Stack,
    recorded: Float[Tensor, "T W"],
    labels: tuple[str, ...],
    suffix: str,
) -> Table:
    """The norm of each summand and of the sum, and the largest difference from the recorded embedding output."""
    total = torch.stack(list(parts.values())).sum(0)
    columns, norms = [*parts, "sum"], [part.norm(dim=-1) for part in (*parts.values(), total)]
    if stack.embedding_norm is not None:
        total = stack.embedding_norm(total)
        columns, norms = [*columns, "after the norm"], [*norms, total.norm(dim=-1)]
    error = (total - recorded).abs().amax(-1)
    rows = zip(labels, *(each.double().tolist() for each in norms), error.double().tolist(), strict=True)
    norm = ", normalised" if stack.embedding_norm is not None else ""
    return Table(
        title=f"Norms of the summands of the embedding output{suffix}",
        columns=("token", *columns, "error"),
        rows=tuple(rows),
        caption=f"The embedding output is {' + '.join(parts)}{norm}; the sum differs from the recorded one by at most "
        f"{float(error.max()):.2g}.{POSITION_NOTES.get(stack.config.positions, '')}",
    )


def vector_grid(title: str, rows: Float[Tensor, "T W"], labels: tuple[str, ...], top: int) -> Grid:
    """Vectors in rows, with the dimensions of largest variance."""
    kept, caption = most_varying_columns(rows, top)
    values = tuple(tuple(row) for row in rows[:, kept].double().tolist())
    columns = tuple(map(str, kept))
    return Grid(title=title, row_labels=labels, column_labels=columns, values=values, dots=True, caption=caption)


def rotation_angles(rotary: Rotary, labels: tuple[str, ...], top: int) -> Grid:
    """Rotation angle of each pair of dimensions at each position, from -π to π."""
    count, pairs = len(labels), rotary.cos.shape[1]
    angles = torch.atan2(rotary.sin[:count], rotary.cos[:count]).double()
    kept = list(range(pairs)) if pairs <= top else [round(at * (pairs - 1) / max(1, top - 1)) for at in range(top)]
    kept = list(dict.fromkeys(kept))
    # The angle at position 1 is the frequency: no pair turns by half a circle or more per token.
    frequencies = torch.atan2(rotary.sin[1], rotary.cos[1]).double().abs() if len(rotary.cos) > 1 else angles[0]
    slow, fast = (2 * math.pi / max(float(frequencies[at]), 1e-12) for at in (-1, 0))
    caption = f"The first pair has a period of {fast:,.1f} tokens, the last of {slow:,.0f}."
    if len(kept) < pairs:
        caption += f" {len(kept):,} of {pairs:,} pairs are shown, evenly spaced."
    return Grid(
        title="Rotation of queries and keys: positions by pairs of dimensions",
        row_labels=labels,
        column_labels=tuple(map(str, kept)),
        values=tuple(tuple(row) for row in angles[:, kept].tolist()),
        unit="radians",
        dots=True,
        caption=caption,
    )


def distance_range(bias: RelativePositionBias, count: int) -> range:
    """Distances, key's position minus query's, that occur in a text of `count` tokens."""
    return range(-(count - 1), (count - 1 if bias.bidirectional else 0) + 1)


def bias_by_distance(bias: RelativePositionBias, count: int, suffix: str) -> Curve:
    """Each head's bias against the distance, key's position minus query's."""
    distances = torch.tensor(distance_range(bias, count), device=bias.bias.weight.device)
    biases = bias.bias(bias.bucket(distances[None])[0]).T.double().tolist()
    x = tuple(map(float, distances.tolist()))
    return Curve(
        title=f"Relative position bias by distance{suffix}",
        lines=tuple(Line(f"head {head}", x, tuple(row)) for head, row in enumerate(biases)),
        x_label="key's position minus query's",
        y_label="bias added to the score",
    )


def bucket_table(bias: RelativePositionBias, count: int, suffix: str) -> Table:
    """The range of distances in each bucket."""
    found: dict[int, list[int]] = {}
    for distance in distance_range(bias, count):
        bucket = int(bias.bucket(torch.tensor([[distance]], device=bias.bias.weight.device)))
        found.setdefault(bucket, []).append(distance)
    rows = tuple((bucket, each[0], each[-1]) for bucket, each in sorted(found.items()))
    return Table(
        title=f"Distance buckets{suffix}",
        columns=("bucket", "from", "to"),
        rows=rows,
        caption=f"{len(rows):,} of {bias.NUM_BUCKETS} buckets occur in {count:,} tokens; distances beyond "
        f"{bias.MAX_DISTANCE} share one.",
    )
