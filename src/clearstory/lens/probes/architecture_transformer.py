"""Architecture figures of Transformers: decoders, encoders and encoder-decoders.

Vaswani et al. 2017, figure 1.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import nn

from clearstory.lens.probes.architecture_layout import COLUMN_WIDTH, GAP, LEFT, SIDE_WIDTH, parameter_count
from clearstory.lens.views.diagrams import Arrow, Box, FigureColumn
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.attention import Attention
from clearstory.models.transformer.block import Block, FeedForward
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.ssru import SSRU
from clearstory.models.transformer.stack import Stack

NORMS = {"rms": "RMSNorm", "rms_unit_offset": "RMSNorm", "layer": "LayerNorm"}

ATTENTION = {"rotary": "rotary attention", "relative_bias": "attention with relative bias"}
"""Names of attention that encodes positions itself."""


def transformer_columns(network: Transformer | Encoder) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """A decoder or an encoder, and a second column if it has one."""
    column = FigureColumn(LEFT, COLUMN_WIDTH)
    add_embeddings(column, network, network)
    if isinstance(network, Transformer) and Capability.HASHED_NGRAMS in network.capabilities:
        return hashed_ngram_columns(column, network)
    add_blocks(column, network)
    if isinstance(network, Encoder):
        return encoder_columns(column, network)
    add_unembedding(column, network)
    return [column], ()


def add_embeddings(
    column: FigureColumn,
    model: Transformer | Encoder | EncoderDecoder,
    stack: Stack,
    *,
    name: str = "tokens",
    shared: bool = False,
) -> None:
    """From token ids to the input of the first block; a `shared` embedding is counted in another column."""
    c, bias = model.config, stack.relative_position_bias
    if bias is not None:
        column.add_detached_box("relative position bias", "added to scores in every block", parameter_count(bias))
    column.add_box(name, f"ids of {model.vocab:,}, up to {c.context:,}", role="embedding")
    scaled = f", times √{c.width}" if c.embed_scale else ""
    count = 0 if shared else parameter_count(model.embedding)
    column.add_box("embedding", f"{model.vocab:,} × {c.width:,}{scaled}", count, "embedding")
    learned, segments = stack.position_embedding, stack.token_type_embedding
    if learned is not None:
        shape = f"learned, {c.context:,} × {c.width:,}"
        column.add_box("+ position embedding", shape, parameter_count(learned), "position")
    if stack.sinusoidal_positions is not None:
        column.add_box("+ position embedding", "sinusoidal", role="position")
    if segments is not None:
        shape = f"{c.token_types} × {c.width:,}"
        column.add_box("+ segment embedding", shape, parameter_count(segments), "position")
    if stack.embedding_norm is not None:
        column.add_box(NORMS[c.norm], "", parameter_count(stack.embedding_norm), "norm")


def add_blocks(column: FigureColumn, stack: Stack) -> Box | None:
    """The repeated block and the final norm; returns the box of cross-attention, where there is one."""
    c, block, bottom = stack.config, cast(Block, stack.blocks[0]), column.top
    cross = None
    column.extend_stream()

    def add_sublayer(
        name: str,
        shape: str,
        module: Attention | FeedForward | SSRU,
        norm: nn.Module,
        role: Literal["attention", "mlp"] = "attention",
    ) -> Box:
        column.start_branch()
        if c.norm_first:
            column.add_box(NORMS[c.norm], "", parameter_count(norm), "norm")
        output_norm = None if isinstance(module, SSRU) else module.output_norm
        own = 0 if output_norm is None else parameter_count(output_norm)
        box = column.add_box(name, shape, parameter_count(module) - own, role)
        if output_norm is not None:
            column.add_box(NORMS[c.norm], "", own, "norm")
        column.join_branch()
        if not c.norm_first:
            column.add_box(NORMS[c.norm], "", parameter_count(norm), "norm")
        return box

    heads = f"{c.heads} heads of {c.head_dim}"
    kv_heads = f", {c.kv_heads} for keys" if c.kv_heads != c.heads else ""
    mask = "bidirectional"
    if isinstance(block.attention, SSRU):
        add_sublayer("SSRU", f"cells of {c.width:,}", block.attention, block.attention_norm)
    else:
        if block.attention.causal:
            mask = f"window {c.sliding_window:,}" if c.sliding_window else "causal"
            mask += f", causal every {c.global_interval} layers" if c.global_interval else ""
        name = ATTENTION.get(c.positions, "attention")
        add_sublayer(name, f"{heads}{kv_heads}, {mask}", block.attention, block.attention_norm)
    if block.cross_attention is not None and block.cross_attention_norm is not None:
        cross = add_sublayer(
            "cross-attention", f"{heads}, to source", block.cross_attention, block.cross_attention_norm
        )
    shape = f"{c.width:,} → {c.intermediate_size:,} → {c.width:,}"
    activation = c.activation.partition("_")[0]
    shape += f", {'gated ' * c.gated}{activation}"
    add_sublayer("feed-forward", shape, block.feed_forward, block.feed_forward_norm, "mlp")
    column.add_frame(len(stack.blocks), bottom)
    column.extend_stream()
    if stack.norm is not None:
        column.add_box(f"final {NORMS[c.norm]}", "", parameter_count(stack.norm), "norm")
    return cross


def add_unembedding(
    column: FigureColumn, model: Transformer | Encoder | EncoderDecoder, *, softmax: bool = True
) -> None:
    """From hidden states to logits, and with `softmax` to probabilities."""
    c = model.config
    bias = getattr(model, "unembedding_bias", None)
    scaled = f" / √{c.width}" if getattr(c, "logit_scale", False) else ""
    shape = "embedding, transposed" if model.unembedding is None else f"{c.width:,} × {model.vocab:,}"
    shape += f"{scaled}{', biases' * (bias is not None)}"
    column.add_box("unembedding", shape, parameter_count(model.unembedding, bias), "output")
    if softmax:
        column.add_box("softmax", f"{model.vocab:,} probabilities", role="output")


def hashed_ngram_columns(column: FigureColumn, model: Transformer) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """A decoder with hashed n-grams, which are added to the embedding output and to the logits or hidden states."""
    first = column.boxes[0]
    inputs = column.add_sum()
    add_blocks(column, model)
    if model.has_hashed_logits:
        add_unembedding(column, model, softmax=False)
        output = column.add_sum()
        column.add_box("softmax", f"{model.vocab:,} probabilities", role="output")
    else:
        output = column.add_sum()
        add_unembedding(column, model)
    side = FigureColumn(column.x + COLUMN_WIDTH + GAP, SIDE_WIDTH)
    side.top = inputs + 3
    orders = ", ".join(map(str, model.config.recall))
    box = side.add_box("hashed n-grams", f"of {orders} tokens", parameter_count(model.recall), "state")
    paths = (
        ((first.x + COLUMN_WIDTH - 1, first.y + 1), (side.middle, first.y + 1), (side.middle, box.y + box.height)),
        ((box.x, inputs), (column.middle + 2, inputs)),
        ((side.middle, box.y), (side.middle, output), (column.middle + 2, output)),
    )
    return [column, side], tuple(map(Arrow, paths))


def encoder_columns(column: FigureColumn, model: Encoder) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """An encoder's heads: for masked tokens, and for the whole text."""
    c, side = model.config, FigureColumn(column.x + COLUMN_WIDTH + GAP, SIDE_WIDTH)
    arrows = []
    if model.pooler is not None:
        column.start_branch()
        side.top = column.top - 1
        arrows.append(Arrow(((column.middle, column.top), (side.middle, column.top), (side.middle, side.top))))
        side.add_box("pooler", f"first token, {c.width:,} × {c.width:,}", parameter_count(model.pooler), "output")
        if model.nsp_head is not None:
            side.add_box("next-sentence head", f"{c.width:,} × 2", parameter_count(model.nsp_head), "output")
    if model.mlm_transform is None:
        column.add_box("hidden states", f"{c.width:,} per token", role="output")
    else:
        shape = f"{c.width:,} × {c.width:,}, {c.activation.partition('_')[0]}, norm"
        column.add_box("MLM transform", shape, parameter_count(model.mlm_transform, model.mlm_transform_norm), "mlp")
        add_unembedding(column, model)
    return [column, *([side] if side.boxes else [])], tuple(arrows)


def encoder_decoder_columns(model: EncoderDecoder) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """The encoder on the left, and the decoder on the right with an arrow into its cross-attention."""
    width = COLUMN_WIDTH - 4
    left, right = FigureColumn(LEFT, width), FigureColumn(LEFT + width + GAP, width)
    add_embeddings(left, model, model.encoder, name="source tokens")
    add_blocks(left, model.encoder)
    add_embeddings(right, model, model.decoder, name="target tokens", shared=True)
    cross = add_blocks(right, model.decoder)
    assert cross is not None
    add_unembedding(right, model)
    lane, row, top = left.x + left.width + 5, cross.y + cross.height // 2, left.top - 1
    path = ((left.middle, left.top), (left.middle, top), (lane, top), (lane, row), (right.x - 1, row))
    return [left, right], (Arrow(path),)
