"""One attention head, step by step, from its input to its output in the residual stream.

    E ─► q, k, v ─► q·k ─► ÷ √d (+ bias) ─► mask ─► softmax ─► weights · v ─► output matrix ─► ΔE ─► E + ΔE

Vaswani et al. 2017, section 3.2; the output matrix split by head as in Elhage et al. 2021, so that the output of
attention is the sum of its heads' outputs and its bias. Colours: queries yellow, keys teal, values red.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.lens.hooks.activations import record_activations, unwrap_model
from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_site,
    choose_head,
    head_rows,
    kv_head,
    linear_weight,
)
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import require_linear_outputs
from clearstory.lens.probes.attention import attention_caption
from clearstory.lens.views import Cell, Grid, GridPalette, Panel, Report, Table
from clearstory.models.autograd_functions import RMSNorm
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.tokenizers import Tokenizer

MAX_DIMENSIONS = 64
"""Components of a vector that are shown; of a longer vector those that are largest in this text."""

LOGIT_ROWS = 32
"""Tokens whose logits are computed at a time: of 512 tokens over a vocabulary of 49,152 they were 100 MB."""


@dataclass(frozen=True)
class HeadQuantities:
    """Every tensor of one head: T queries, S keys, head dimension D, model width W.

    `input` is what queries are computed from and `source_input` what keys and values are, the same unless it is
    cross-attention. `bias` is the relative position bias, where the model has one. `residual` is the stream that
    `added` is added to. `normed` is `added` after the final norm at its scale: see `normed_output`.
    """

    site: AttentionSite
    head: int
    input: Float[Tensor, "T W"]
    source_input: Float[Tensor, "S W"]
    query: Float[Tensor, "T D"]
    key: Float[Tensor, "S D"]
    value: Float[Tensor, "S D"]
    dots: Float[Tensor, "T S"]
    scaled: Float[Tensor, "T S"]
    bias: Float[Tensor, "T S"] | None
    scores: Float[Tensor, "T S"]
    pattern: Float[Tensor, "T S"]
    output: Float[Tensor, "T D"]
    added: Float[Tensor, "T W"]
    residual: Float[Tensor, "T W"]
    after: Float[Tensor, "T W"]
    normed: Float[Tensor, "T W"] | None


def attention_head(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """All steps of one head, from its input to its output; by default of the head, of a layer or of all, that
    concentrates most on some of the words (`AttentionSite.selectivity`).

    For an encoder-decoder, the encoder's self-attention by default; `part` selects the decoder's self-attention, or
    cross-attention, after it has generated `target`.
    """
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    site, head, _ = choose_head(model, passage, layer, head, part)
    quantities = head_quantities(model, passage, site.layer, head, part)
    rows, columns = quantities.site.labels(passage)
    panels: list[Panel] = [
        *query_key_panels(quantities, rows, columns),
        *score_panels(quantities, rows, columns),
        *output_panels(quantities, rows, columns),
        output_table(model, tokenizer, quantities, rows, columns),
        vector_grid("E + ΔE of this head alone", rows, quantities.after, "sequential"),
    ]
    return Report(
        title=f"Head {quantities.head} of {quantities.site.title}, step by step",
        panels=tuple(panels),
        caption=attention_caption(quantities.site, quantities.pattern, columns),
    )


def head_quantities(
    model: LanguageModel,
    passage: Passage,
    layer: int,
    head: int,
    part: AttentionPart | None = None,
) -> HeadQuantities:
    """Every tensor of one head, from one forward pass.

    Raises BadSetting for a layer or head that does not exist, CannotDo for a part that the model does not have.
    """
    site = attention_site(model, layer, part)
    site.check_head(head)
    before, last = residual_names(site)
    names = [f"{site.name}.{each}" for each in ("input", "query", "key", "value", "scores", "pattern", "head_outputs")]
    source = [source_name(model)] if site.part == "cross" else []
    with inference_mode(model), record_activations(model, *names, before, last, *source) as recorded:
        passage.forward(model)
        head_input, query, key, value, scores, pattern, output = (recorded[name][0] for name in names)
        shared = kv_head(site.heads, key.shape[0], head)
        query, key, value, output = query[head], key[shared], value[shared], output[head]
        dots = query @ key.mT
        added = head_output_in_stream(site, output, head)
        relative = None if site.part == "cross" else site.stack.relative_position_bias
        return HeadQuantities(
            site=site,
            head=head,
            input=head_input,
            source_input=recorded[source[0]][0] if source else head_input,
            query=query,
            key=key,
            value=value,
            dots=dots,
            scaled=dots / math.sqrt(site.head_dim),
            bias=None if relative is None else relative(*dots.shape)[head],
            scores=scores[head],
            pattern=pattern[head],
            output=output,
            added=added,
            residual=recorded[before][0],
            after=recorded[before][0] + added,
            normed=normed_output(model, site, added, recorded[last][0]),
        )


def residual_names(site: AttentionSite) -> tuple[str, str]:
    """The activations of the residual stream before an attention, and after the last block."""
    prefix, _, _ = site.name.rpartition("blocks.")
    if site.part == "cross":
        before = f"{prefix}blocks.{site.layer}.after_attention"
    else:
        before = f"{prefix}blocks.{site.layer - 1}" if site.layer else f"{prefix}embedding_output"
    return before, f"{prefix}blocks.{len(site.stack.blocks) - 1}"


def source_name(model: LanguageModel) -> str:
    """The activation that cross-attention takes keys and values from: the encoder's output."""
    encoder = unwrap_model(model).encoder
    return "encoder.norm" if encoder.norm is not None else f"encoder.blocks.{len(encoder.blocks) - 1}"


def head_output_in_stream(site: AttentionSite, output: Float[Tensor, "T D"], head: int) -> Float[Tensor, "T W"]:
    """One head's output times its columns of the output matrix, without the bias.

    The output of attention is the sum over its heads, plus the bias. Raises CannotDo if that sum is normalised.
    """
    require_linear_outputs(site.stack)
    weight, _ = linear_weight(site.attention.output)
    return F.linear(output, head_rows(weight.mT, head, site.head_dim).mT.to(output.dtype))


def normed_output(
    model: LanguageModel, site: AttentionSite, added: Float[Tensor, "T W"], last: Float[Tensor, "T W"]
) -> Float[Tensor, "T W"] | None:
    """A head's output as the unembedding receives it, so that its product with a token's output vector is in logits.

    The effect through later blocks is left out, and the final norm has the scale of its actual input `last`, which
    makes it linear. Post-norm models have no final norm, and nothing is changed. None for the encoder of an
    encoder-decoder, from which no logits are computed.
    """
    reads_source = Capability.SOURCE in model.capabilities
    if reads_source and site.part == "encoder":
        return None
    normed = added if site.stack.norm is None else normed_summand(site.stack.norm, added, last)
    return cast(Tensor, unwrap_model(model).scale_hidden(normed[None])[0]) if reads_source else normed


def normed_summand(norm: nn.Module, added: Float[Tensor, "T W"], x: Float[Tensor, "T W"]) -> Float[Tensor, "T W"]:
    """A summand of a norm's input x, normed with the scale of x; all summands add up to norm(x) minus the norm's bias.

    >>> import torch
    >>> norm, x = RMSNorm(4, eps=1e-6), torch.ones(1, 4)
    >>> torch.allclose(normed_summand(norm, 0.25 * x, x) + normed_summand(norm, 0.75 * x, x), norm(x))
    True
    """
    if isinstance(norm, RMSNorm):
        scale = (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
        return added * scale * norm.gain.detach()
    assert isinstance(norm, nn.LayerNorm)
    scale = (x.var(-1, correction=0, keepdim=True) + norm.eps).rsqrt()
    return (added - added.mean(-1, keepdim=True)) * scale * norm.weight.detach()


def logit_changes(
    model: LanguageModel, normed: Float[Tensor, "T W"], top: int = 3
) -> Iterable[tuple[list[tuple[int, float]], list[tuple[int, float]]]]:
    """For each position, the ids whose logits rise most and fall most, each with the change."""
    weight = unwrap_model(model).output_weight.detach().to(normed.dtype)
    for start in range(0, len(normed), LOGIT_ROWS):
        logits = normed[start : start + LOGIT_ROWS] @ weight.mT
        both = []
        for largest in (True, False):
            values, ids = logits.topk(min(top, logits.shape[-1]), largest=largest)
            rows = zip(ids.tolist(), values.tolist(), strict=True)
            both.append([list(zip(*row, strict=True)) for row in rows])
        yield from zip(*both, strict=True)


def query_key_panels(quantities: HeadQuantities, rows: Sequence[str], columns: Sequence[str]) -> list[Grid]:
    """Input, queries and keys."""
    site = quantities.site
    rotary = ": after rotary embedding" if site.stack.rotary is not None and site.part != "cross" else ""
    panels = [
        vector_grid(
            f"Input of the head: E{' after the norm' if site.stack.config.norm_first else ''}",
            rows,
            quantities.input,
            "sequential",
        )
    ]
    if site.part == "cross":
        panels.append(vector_grid("Its input from the source", columns, quantities.source_input, "sequential"))
    scale = site.attention.scale
    scaling = "" if scale == 1 else f"{',' if rotary else ':'} times {scale:.4g} (this model's attention scale)"
    return [
        *panels,
        vector_grid(f"Queries{rotary}{scaling}", rows, quantities.query, "query"),
        vector_grid(f"Keys{rotary}", columns, quantities.key, "key"),
    ]


def score_panels(quantities: HeadQuantities, rows: Sequence[str], columns: Sequence[str]) -> list[Grid]:
    """From dot products to weights."""

    def square_grid(title: str, values: Tensor, palette: GridPalette = "key", **settings: Any) -> Grid:
        return Grid(
            title=title,
            row_labels=tuple(rows),
            column_labels=tuple(columns),
            values=to_tuples(values),
            palette=palette,
            **{"dots": True, **settings},
        )

    dim = quantities.site.head_dim
    panels = [
        square_grid("Query · key", quantities.dots),
        square_grid(f"÷ √d, which is √{dim} = {dim**0.5:.4g}", quantities.scaled),
    ]
    if quantities.bias is not None:
        panels.append(square_grid("Relative position bias", quantities.bias))
    masked = float((quantities.scores == -torch.inf).double().mean())
    title = "Causal mask" if quantities.site.attention.causal else "No mask: bidirectional attention"
    window = quantities.site.attention.sliding_window
    if quantities.site.attention.causal and window is not None:
        title += f", sliding window of {window} tokens"
    sums = quantities.pattern.double().sum(-1)
    return [
        *panels,
        square_grid(title, quantities.scores, caption=f"{masked:.0%} of the scores are −∞." if masked else None),
        square_grid(
            "Softmax: attention weights, each row sums to 1",
            quantities.pattern,
            "query",
            dots=False,
            unit="weight",
            caption=f"Computed row sums: {float(sums.min()):.6f} to {float(sums.max()):.6f}.",
        ),
    ]


def output_panels(quantities: HeadQuantities, rows: Sequence[str], columns: Sequence[str]) -> list[Grid]:
    """From values to the head's output in the residual stream."""
    return [
        vector_grid("Values", columns, quantities.value, "value"),
        vector_grid("Weights · values: the head's output", rows, quantities.output, "value"),
        vector_grid("ΔE: the head's output times W_O", rows, quantities.added, "value"),
    ]


def output_table(
    model: LanguageModel, tokenizer: Tokenizer, quantities: HeadQuantities, rows: Sequence[str], sources: Sequence[str]
) -> Table:
    """The size of each token's ΔE, the key it attends to most, and the tokens whose logits it changes most."""
    length = quantities.added.double().norm(dim=-1)
    share = length / quantities.residual.double().norm(dim=-1).clamp(min=1e-30)
    attended = quantities.pattern.argmax(-1)
    columns = ["token", "‖ΔE‖", "of ‖E‖", "attends most to"]
    cells: list[list[Cell]] = []
    for position, label in enumerate(rows):
        cells.append([label, float(length[position]), float(share[position]), sources[int(attended[position])]])
    if quantities.normed is not None:
        columns += ["promotes", "suppresses"]
        for row, both in zip(cells, logit_changes(model, quantities.normed), strict=True):
            row += [" ".join(tokenizer.display_token(id) for id, _ in side) for side in both]
    largest = int(length.argmax())
    norm = "" if quantities.site.stack.norm is None else "the final norm and "
    return Table(
        title="Effect of ΔE on the logits" + ("" if quantities.normed is None else f", through {norm}the unembedding"),
        columns=tuple(columns),
        rows=tuple(map(tuple, cells)),
        caption=f"‘{rows[largest]}’ has the largest ΔE: {float(share[largest]):.1%} of the length of its E."
        + (" The scale of the final norm is held constant." if norm and quantities.normed is not None else ""),
    )


def vector_grid(title: str, labels: Sequence[str], values: Float[Tensor, "T W"], palette: GridPalette) -> Grid:
    """One row per token; of more than `MAX_DIMENSIONS` dimensions those with the largest mean square."""
    width = values.shape[-1]
    kept = torch.arange(width)
    if width > MAX_DIMENSIONS:
        kept = values.double().square().mean(0).topk(MAX_DIMENSIONS).indices.sort().values.cpu()
        title += f" (the {MAX_DIMENSIONS} largest of {width:,} dimensions)"
    return Grid(
        title=title,
        row_labels=tuple(labels),
        column_labels=tuple(str(int(i)) for i in kept),
        values=to_tuples(values[:, kept]),
        palette=palette,
        dots=True,
    )


def to_tuples(values: Tensor) -> tuple[tuple[float, ...], ...]:
    """A matrix as tuples."""
    return tuple(map(tuple, values.tolist()))
