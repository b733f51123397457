"""Walkthrough of one forward pass: every quantity on the way from a text to its next token.

tokens ─► residual stream after each layer ─► one layer and head opened ─► logits ─► probabilities

All of a Transformer's quantities are of the same pass. `walkthrough` serves every family; those without a residual
stream are in `walkthrough_families`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import transformer_stacks
from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_parts,
    attention_sites,
    kv_head,
)
from clearstory.lens.hooks.installation import attention_scores
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import final_hidden, output_stack
from clearstory.lens.probes.attention_head import normed_summand, residual_names
from clearstory.lens.probes.contribution_lengths import (
    attention_output,
    contribution_lengths,
    head_clarity,
    values_in_stream,
)
from clearstory.lens.probes.logit_summary import summary_arrays
from clearstory.lens.probes.recorded_pass import RecordedPass, record_pass
from clearstory.lens.probes.token_groups import TokenGroups, pair_maxima, token_groups
from clearstory.lens.probes.walkthrough_families import count_walkthrough, recurrent_walkthrough
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import PromptOptions
from clearstory.models.transformer.stack import Stack
from clearstory.text.tokenizers import Tokenizer

MAX_TOKENS, MAX_CELLS, MAX_DIMENSIONS, LENS_TOKENS = 400, 40, 32, 3
"""The longest text, the most rows of tokens, and of each token the dimensions and predictions."""

CLARITY_TOKENS = 64
"""In causal attention heads are chosen by the first tokens of a long text: measuring all takes longer than the pass."""

ARCHITECTURE_FIELDS = (
    "norm", "norm_first", "positions", "embed_scale", "activation", "gated", "intermediate_size", "kv_heads",
    "attention_scale", "logit_scale",
)  # fmt: skip
"""Settings of a Transformer on which the equations of its quantities depend."""


def walkthrough(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    row: int | None = None,
    rows: tuple[int, ...] = (),
    columns: tuple[int, ...] = (),
    cells: int = 14,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """Tensors by name, and plain data, of one forward pass over a text: `docs/lens.md`, "Walkthrough", lists them.

    `layer` and `head` of `part` are opened, without them the head with the largest `head_clarity`; `row` is the token
    whose prediction is shown, the last one or an encoder's first [MASK]. `rows` and `columns` are windows (start, stop)
    of the queries and keys, all by default; more than `cells` are shown as groups. Raises BadSetting for what does not
    exist, BadInput for more than `MAX_TOKENS` tokens.
    """
    if not 1 <= cells <= MAX_CELLS:
        raise BadSetting(f"cells is {cells}; give from 1 to {MAX_CELLS}")
    passage = encode_passage(model, tokenizer, text, target=target, prompt=prompt)
    longest = max(len(passage.ids), len(passage.source))
    if longest > MAX_TOKENS:
        raise BadInput(f"the text has {longest:,} tokens; a walkthrough shows at most {MAX_TOKENS}")
    result = describe_tokens(passage)
    if Capability.RECURRENT_STATE in model.capabilities:
        result |= recurrent_walkthrough(model, passage, layer, token_groups(len(passage.ids), rows, cells))
        return result | {"pieces": predicted_pieces(tokenizer, result)}
    if model.capabilities & {Capability.HMM_STATES, Capability.NGRAM_COUNTS, Capability.EXPERTS}:
        result |= count_walkthrough(model, passage, token_groups(len(passage.ids), rows, cells))
        return result | {"pieces": predicted_pieces(tokenizer, result)}
    require(model, Capability.HIDDEN_STATES)
    row = predicted_row(model, tokenizer, passage, row)
    chosen = {each: attention_sites(model, each) for each in attention_parts(model)}
    opened: AttentionPart = next(iter(chosen)) if part is None else part
    sites = attention_sites(model, opened)
    if layer is not None and not -len(sites) <= layer < len(sites):
        raise BadSetting(f"layer is {layer}, and the model has {len(sites)}; give 0 to {len(sites) - 1}")
    if head is not None:
        sites[0].check_head(head)
    groups = {
        "encoder": token_groups(len(passage.text_ids), () if passage.source else rows, cells),
        "decoder": token_groups(len(passage.ids), rows, cells),
    }
    keys = {
        "encoder": token_groups(len(passage.text_ids), () if passage.source else columns, cells),
        "decoder": token_groups(len(passage.ids), columns, cells),
    }
    keys["cross"], groups["cross"] = keys["encoder"], groups["decoder"]
    recorded = record_pass(model, passage, groups)
    with inference_mode(model):
        clarity: dict[AttentionPart, Tensor] = {}
        for name, all_sites in chosen.items():
            arrays, clarity[name] = attention_quantities(passage, all_sites, recorded, groups[name], keys[name])
            result |= {f"{name}.{key}": value for key, value in arrays.items()}
        for prefix, stack in transformer_stacks(model):
            stream = prefix.rstrip(".") or next(iter(chosen))
            arrays = stream_quantities(prefix, stack, recorded, groups[stream])
            result |= {f"{stream}.{key}": value for key, value in arrays.items()}
        site, head = open_head(sites, clarity[opened], layer, head)
        arrays = head_tensors(site, head, recorded, groups[opened], keys[opened])
        result |= {f"head.{key}": value for key, value in arrays.items()}
        if row is not None:
            result |= prediction_quantities(model, passage, recorded, row)
    config = sites[0].stack.config
    return result | {
        "kind": "transformer",
        "architecture": {name: getattr(config, name) for name in ARCHITECTURE_FIELDS},
        "pieces": predicted_pieces(tokenizer, result),
        "parts": list(chosen),
        "opened": {"part": opened, "layer": site.layer, "head": head, "head_dim": site.head_dim},
        "row": row,
        "dimensions": shown_dimensions(config.width),
        "width": config.width,
        "groups": {name: [list(span) for span in groups[name].spans] for name in chosen},
        "key_groups": {name: [list(span) for span in keys[name].spans] for name in chosen},
    }


def describe_tokens(passage: Passage) -> dict[str, Any]:
    """The tokens, and those of the source: id, display text, whether special, and the code points start:stop."""

    def describe(
        ids: Sequence[int], pieces: Sequence[str], special: Sequence[bool], spans: Sequence[tuple[int, int] | None]
    ) -> list[dict[str, Any]]:
        special, spans = special or [False] * len(ids), spans or [None] * len(ids)
        return [
            {"id": id, "piece": piece, "special": flag, "start": span and span[0], "stop": span and span[1]}
            for id, piece, flag, span in zip(ids, pieces, special, spans, strict=True)
        ]

    sides = {"tokens": describe(passage.ids, passage.pieces, passage.special, passage.spans)}
    if passage.source:
        sides["source_tokens"] = describe(
            passage.source, passage.source_pieces, passage.source_special, passage.source_spans
        )
    return dict(sides)


def predicted_pieces(tokenizer: Tokenizer, result: Mapping[str, Any]) -> dict[str, str]:
    """Display text of the tokens in `lens.ids` and `next.ids`, by id as a string."""
    ids = {int(id) for name in ("lens.ids", "next.ids") if name in result for id in result[name].flatten()}
    return {str(id): tokenizer.display_token(id) for id in sorted(ids)}


def predicted_row(model: LanguageModel, tokenizer: Tokenizer, passage: Passage, row: int | None) -> int | None:
    """The token whose prediction is shown; None for an encoder without a [MASK] or without a head for it."""
    if row is not None and not 0 <= row < len(passage.ids):
        raise BadSetting(f"row is {row}, and the text has {len(passage.ids)} tokens; give 0 to {len(passage.ids) - 1}")
    if Capability.BIDIRECTIONAL not in model.capabilities:
        return len(passage.ids) - 1 if row is None else row
    if Capability.MLM_HEAD not in model.capabilities:
        return None
    masks = [position for position, id in enumerate(passage.ids) if id == tokenizer.mask_token_id]
    return row if row is not None or not masks else masks[0]


def shown_dimensions(width: int) -> list[int]:
    """The dimensions that stand for a vector: evenly spaced, the same for all texts, layers and checkpoints.

    >>> shown_dimensions(576)[:3], len(shown_dimensions(576)), shown_dimensions(3)
    ([0, 18, 36], 32, [0, 1, 2])
    """
    count = min(width, MAX_DIMENSIONS)
    return [width * index // count for index in range(count)]


def attention_weights_of(site: AttentionSite, recorded: RecordedPass) -> tuple[Tensor, Tensor]:
    """The scores and the weights of all heads of a layer, (H, T, S), from its queries and keys."""
    query, key = recorded[f"{site.name}.query"][None], recorded[f"{site.name}.key"][None]
    relative = None if site.part == "cross" else site.stack.relative_position_bias
    bias = None if relative is None else relative(query.shape[2], key.shape[2]).to(query.dtype)
    scores = attention_scores(site.attention, query, key, bias)
    return scores[0], scores.softmax(-1)[0]


def attention_quantities(
    passage: Passage,
    sites: Sequence[AttentionSite],
    recorded: RecordedPass,
    rows: TokenGroups,
    columns: TokenGroups,
) -> tuple[dict[str, Tensor], Float[Tensor, "N H"]]:
    """Of one kind of attention: `patterns` (N, H, R, C) uint8, 255 a weight of 1; `contributions` (N, R, C), the length
    of what all heads carry over the length of the stream that it is added to; `attention_lengths` (N, R). And the
    clarity of each head.
    """
    patterns, shares, lengths, clarity = [], [], [], []
    for site in sites:
        _, pattern = attention_weights_of(site, recorded)
        carried = values_in_stream(site, recorded[f"{site.name}.value"])
        stream = recorded[residual_names(site)[0]].double().norm(dim=-1).clamp(min=1e-30)
        share = contribution_lengths(site, pattern, carried) / stream[:, None]
        patterns.append((pair_maxima(pattern.float(), rows, columns) * 255).round().to(torch.uint8))
        shares.append(pair_maxima(share, rows, columns))
        lengths.append(recorded[site.name][rows.last].double().norm(dim=-1))
        measured, special = pattern, site.special_keys(passage)
        if site.attention.causal:  # a corner of a causal pattern is the pattern of a shorter text
            measured, special = pattern[:, :CLARITY_TOKENS, :CLARITY_TOKENS], special[:CLARITY_TOKENS]
        clarity.append(head_clarity(site, measured, special))
    arrays = {
        "patterns": torch.stack(patterns),
        "contributions": torch.stack(shares),
        "attention_lengths": torch.stack(lengths),
    }
    return arrays, torch.stack(clarity)


def stream_quantities(prefix: str, stack: Stack, recorded: RecordedPass, rows: TokenGroups) -> dict[str, Tensor]:
    """Of one stack of N layers: `stream` (N + 1, R, K) in the shown dimensions, its `lengths` and `rms` (N + 1, R);
    `feed_forward_lengths` (N, R); `final` (R, K), after the final norm.
    """
    names = [f"{prefix}embedding_output", *(f"{prefix}blocks.{layer}" for layer in range(len(stack.blocks)))]
    dimensions = shown_dimensions(stack.config.width)
    stages = torch.stack([recorded[name][rows.last] for name in names])
    lengths = stages.double().norm(dim=-1)
    feed_forward = [recorded[f"{name}.feed_forward"][rows.last].double().norm(dim=-1) for name in names[1:]]
    final = recorded[f"{prefix}norm" if stack.norm is not None else names[-1]]
    return {
        "stream": stages[..., dimensions],
        "lengths": lengths,
        "rms": lengths / stack.config.width**0.5,
        "feed_forward_lengths": torch.stack(feed_forward),
        "final": final[rows.last][:, dimensions],
    }


def open_head(
    sites: Sequence[AttentionSite], clarity: Float[Tensor, "N H"], layer: int | None, head: int | None
) -> tuple[AttentionSite, int]:
    """The given layer and head; of what is not given, the clearest head (of the layer, or of all layers)."""
    if layer is None:
        layer = int((clarity.amax(-1) if head is None else clarity[:, head]).argmax())
    site = sites[layer]
    return site, int(clarity[site.layer].argmax()) if head is None else head


def head_tensors(
    site: AttentionSite, head: int, recorded: RecordedPass, rows: TokenGroups, columns: TokenGroups
) -> dict[str, Tensor]:
    """One head from its queries to what it adds, and what its layer adds.

    `query`, `output` (R, D); `key`, `value` (C, D); `dots`, `scores`, `pattern` (R, C); in the shown dimensions (R, K)
    `before`, `added` by the head, `attention_added` by all heads and the bias, `after_attention`, `feed_forward_added`
    and `after`; `added_lengths` (R,); `neuron_ids`, `neuron_values` (R, N) and `active_neurons` (R,).
    """
    all_scores, patterns = attention_weights_of(site, recorded)
    query, pattern = recorded[f"{site.name}.query"][head], patterns[head]
    keys, values = recorded[f"{site.name}.key"], recorded[f"{site.name}.value"]
    shared = kv_head(site.heads, len(keys), head)
    carried = values_in_stream(site, values)
    added = pattern @ carried[head]
    if site.attention.output_norm is not None:
        added = normed_summand(site.attention.output_norm, added, attention_output(site, patterns, carried))
    before, _ = residual_names(site)
    block = site.name.rpartition(".")[0]
    step = "after_cross_attention" if site.part == "cross" else "after_attention"
    dimensions = shown_dimensions(site.stack.config.width)

    def shown(value: Tensor) -> Tensor:
        return value[rows.last][:, dimensions]

    numbers, neurons, active = recorded.neurons[f"{block}.feed_forward.neurons"]
    return {
        "query": query[rows.last],
        "key": keys[shared][columns.last],
        "value": values[shared][columns.last],
        "dots": pair_maxima(query @ keys[shared].mT, rows, columns),
        "scores": pair_maxima(all_scores[head], rows, columns),
        "pattern": pair_maxima(pattern, rows, columns),
        "output": (pattern @ values[shared])[rows.last],
        "before": shown(recorded[before]),
        "added": shown(added),
        "added_lengths": added[rows.last].double().norm(dim=-1),
        "attention_added": shown(recorded[site.name]),
        "after_attention": shown(recorded[f"{block}.{step}"]),
        "feed_forward_added": shown(recorded[f"{block}.feed_forward"]),
        "after": shown(recorded[block]),
        "neuron_ids": numbers.int(),
        "neuron_values": neurons,
        "active_neurons": active[:, 0].int(),
    }


def prediction_quantities(model: LanguageModel, passage: Passage, recorded: RecordedPass, row: int) -> dict[str, Any]:
    """Predictions at one token: the logit lens after each layer (`lens.ids`, `lens.probabilities`, (N + 1, 3)), and the
    summary of the last one's logits.
    """
    prefix, stack = output_stack(model)
    names = [f"{prefix}embedding_output", *(f"{prefix}blocks.{layer}" for layer in range(len(stack.blocks)))]
    hidden = torch.stack([final_hidden(model, recorded[name][None], passage.ids)[0, row] for name in names])
    logits = model.logits(hidden).double()
    top, ids = logits.topk(min(LENS_TOKENS, logits.shape[-1]))
    probabilities = (top - logits.logsumexp(-1, keepdim=True)).exp()
    return {"lens.ids": ids.int(), "lens.probabilities": probabilities, **summary_arrays(logits[-1])}
