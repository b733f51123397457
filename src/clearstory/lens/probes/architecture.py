"""Architecture: this model drawn as papers draw theirs, from below upwards, with the shape and the learnt numbers of
each part. Vaswani et al. 2017, figure 1; Elman 1990; Rabiner 1989; Katz 1987.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from clearstory.lens.views.figure import Arrow, Box, Figure
from clearstory.lens.views.figure_layout import FigureColumn, layout_figure
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.build import count_parameters
from clearstory.models.hmm.model import HMM
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.config import NAMES
from clearstory.models.recurrent.model import Recurrent

LEFT, WIDE, BETWEEN, SIDE = 2, 34, 9, 26
"""Letters: before a column, across it, between two, and across what stands beside one."""

NORMS = {"rms": "root-mean-square norm", "layer": "layer norm"}

ATTENTION = {"rotary": "rotary attention", "relative_bias": "attention biased by distance"}
"""What attention is called where it, and not the stream, is told of places."""


def architecture(model: Any, tokenizer: Any, text: str) -> Figure:
    """The parts of a model as a figure; the text plays no part in it.

    Every learnt number is in one box: those of a box, times how often it is repeated, add up to the model's.
    """
    model = unwrap_model(model)
    columns, arrows = model_columns(model)
    kind = getattr(model.config, "architecture", model.config.family)
    title = f"Architecture: {kind}, {model.config.summary}"
    seen = layout_figure(title, None, columns, arrows)
    parts = {box.name: 0 for box in seen.boxes if box.parameters}
    for box in seen.boxes:
        if box.parameters:
            parts[box.name] += box.parameters * seen.repeats(box)
    return layout_figure(title, look(parts, count_parameters(model)), columns, arrows)


def look(parts: dict[str, int], whole: int) -> str:
    """Where most of the learnt numbers are.

    >>> look({"embedding": 25, "feed-forward": 75}, 100)
    '100 numbers are learnt; 75% of them in ‘feed-forward’ and 25% in ‘embedding’.'
    """
    most = sorted(parts.items(), key=lambda item: -item[1])[:2]
    said = " and ".join(
        f"{size / whole:.0%}{' of them' * (not at)} in ‘{name}’" for at, (name, size) in enumerate(most)
    )
    return f"{whole:,} numbers are learnt; {said}."


def model_columns(model: Any) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """The columns of a model's figure, and the arrows between them."""
    if isinstance(model, EncoderDecoder):
        return encoder_decoder_columns(model)
    if isinstance(model, Recurrent):
        return [recurrent_column(model)], ()
    if isinstance(model, HMM):
        return [hmm_column(model)], ()
    if isinstance(model, NGram):
        return [ngram_column(model)], ()
    column = FigureColumn(LEFT, WIDE)
    tokens(column, model)
    if getattr(model, "recall", None) is not None:
        return recalling(column, model)
    climb(column, model)
    if isinstance(model, Encoder):
        return encoder_top(column, model)
    leave(column, model)
    return [column], ()


def size(*modules: nn.Module | nn.Parameter | None) -> int:
    """Learnt numbers in some parts."""
    return sum(
        each.numel() if isinstance(each, nn.Parameter) else sum(one.numel() for one in each.parameters())
        for each in modules
        if each is not None
    )


def tokens(column: FigureColumn, model: Any, *, stack: Any = None, of: str = "tokens", own: bool = True) -> None:
    """From ids to the vectors that the first block reads."""
    stack, c = model if stack is None else stack, model.config
    if stack.relative_position_bias is not None:
        column.add_detached_box("biases by distance", "added to scores in every block", size(stack.relative_position_bias))
    column.add_box(of, f"ids of {model.vocab:,}, up to {c.context:,}", role="embedding")
    scaled = f", times √{c.width}" if c.embed_scale else ""
    column.add_box("embedding", f"{model.vocab:,} × {c.width:,}{scaled}", size(model.embedding) if own else 0, "embedding")
    if stack.position_embedding is not None:
        column.add_box("+ places", f"learnt, {c.context:,} × {c.width:,}", size(stack.position_embedding), "position")
    if stack.sinusoidal_positions is not None:
        column.add_box("+ places", "sines and cosines", role="position")
    if stack.token_type_embedding is not None:
        column.add_box("+ segments", f"{c.token_types} × {c.width:,}", size(stack.token_type_embedding), "position")
    if stack.embedding_norm is not None:
        column.add_box(NORMS[c.norm], "", size(stack.embedding_norm), "norm")


def climb(column: FigureColumn, stack: Any) -> Box | None:
    """The block that is repeated and the last norm; gives the box that looks across, where there is one."""
    c, block, bottom = stack.config, stack.blocks[0], column.top
    across = None
    column.extend_stream()

    def step(name: str, shape: str, part: nn.Module, norm: nn.Module) -> Box:
        column.start_branch()
        if c.norm_first:
            column.add_box(NORMS[c.norm], "", size(norm), "norm")
        role = "mlp" if name == "feed-forward" else "attention"
        box = column.add_box(name, shape, size(part), role)  # type: ignore[arg-type]  # two of the tones
        column.join_branch()
        if not c.norm_first:
            column.add_box(NORMS[c.norm], "", size(norm), "norm")
        return box

    heads = f"{c.heads} heads of {c.head_dim}"
    shared = f", {c.kv_heads} for keys" if c.kv_heads != c.heads else ""
    sees = "sees all" if not block.attention.causal else f"{c.sliding_window:,} back" if c.sliding_window else "looks back"
    step(ATTENTION.get(c.positions, "attention"), f"{heads}{shared}, {sees}", block.attention, block.attention_norm)
    if block.cross_attention is not None:
        across = step("cross-attention", f"{heads}, at source", block.cross_attention, block.cross_attention_norm)
    middle = f"{c.width:,} → {c.intermediate_size:,} → {c.width:,}"
    bend = c.activation.partition("_")[0]
    step("feed-forward", f"{middle}, {'gated ' * c.gated}{bend}", block.feed_forward, block.feed_forward_norm)
    column.add_frame(len(stack.blocks), bottom)
    column.extend_stream()
    if stack.norm is not None:
        column.add_box(f"last {NORMS[c.norm]}", "", size(stack.norm), "norm")
    return across


def leave(column: FigureColumn, model: Any, *, last: bool = True) -> None:
    """From vectors to logits, and unless something is added to these, to probabilities."""
    c = model.config
    tied = model.unembedding is None
    bias = getattr(model, "unembedding_bias", None)
    scaled = f" / √{c.width}" if getattr(c, "logit_scale", False) else ""
    which = "embedding's transpose" if tied else f"{c.width:,} × {model.vocab:,}"
    column.add_box(
        "unembedding", f"{which}{scaled}{', biases' * (bias is not None)}", size(model.unembedding, bias), "output"
    )
    if last:
        column.add_box("softmax", f"{model.vocab:,} probabilities", role="output")


def recalling(column: FigureColumn, model: Any) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """A decoder that recalls n-grams: their rows are added to the stream at its foot, and to the logits."""
    first = column.boxes[0]
    foot = column.add_sum()
    climb(column, model)
    leave(column, model, last=False)
    logits = column.add_sum()
    column.add_box("softmax", f"{model.vocab:,} probabilities", role="output")
    side = FigureColumn(column.x + WIDE + BETWEEN, SIDE)
    side.top = foot + 3
    orders = ", ".join(map(str, model.config.recall))
    box = side.add_box("recall", f"n-grams of {orders} tokens", size(model.recall), "state")
    ways = (
        ((first.x + WIDE - 1, first.y + 1), (side.middle, first.y + 1), (side.middle, box.y + box.height)),
        ((box.x, foot), (column.middle + 2, foot)),
        ((side.middle, box.y), (side.middle, logits), (column.middle + 2, logits)),
    )
    return [column, side], tuple(map(Arrow, ways))


def encoder_top(column: FigureColumn, model: Encoder) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """What an encoder's vectors are for: words that are hidden, and a word on the whole."""
    c, side = model.config, FigureColumn(column.x + WIDE + BETWEEN, SIDE)
    arrows = []
    if model.pooler is not None:
        column.start_branch()
        side.top = column.top - 1
        arrows.append(Arrow(((column.middle, column.top), (side.middle, column.top), (side.middle, side.top))))
        side.add_box("pooler", f"first vector, {c.width:,} × {c.width:,}", size(model.pooler), "output")
        if model.nsp_head is not None:
            side.add_box("is it the next sentence?", f"{c.width:,} × 2", size(model.nsp_head), "output")
    if model.mlm_transform is None:
        column.add_box("vectors", f"{c.width:,} numbers for each token", role="output")
    else:
        shape = f"{c.width:,} × {c.width:,}, {c.activation.partition('_')[0]}, norm"
        column.add_box("before words", shape, size(model.mlm_transform, model.mlm_transform_norm), "mlp")
        leave(column, model)
    return [column, *([side] if side.boxes else [])], tuple(arrows)


def encoder_decoder_columns(model: EncoderDecoder) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """A reader on the left, and a writer on the right that looks across at it."""
    left, right = FigureColumn(LEFT, WIDE - 4), FigureColumn(LEFT + WIDE - 4 + BETWEEN, WIDE - 4)
    tokens(left, model, stack=model.encoder, of="source tokens")
    climb(left, model.encoder)
    tokens(right, model, stack=model.decoder, of="tokens written so far", own=False)
    across = climb(right, model.decoder)
    assert across is not None
    leave(right, model)
    lane, row, top = left.x + left.width + 5, across.y + across.height // 2, left.top - 1
    way = ((left.middle, left.top), (left.middle, top), (lane, top), (lane, row), (right.x - 1, row))
    return [left, right], (Arrow(way),)


def recurrent_column(model: Recurrent) -> FigureColumn:
    """Cells one above the other, each with a way back to itself."""
    c, column = model.config, FigureColumn(LEFT, WIDE)
    column.add_box("tokens", f"ids of {model.vocab:,}, one at a time", role="embedding")
    column.add_box("embedding", f"{model.vocab:,} × {c.width:,}", size(model.embedding), "embedding")
    below = c.width
    for number, (layer, units) in enumerate(zip(model.layers, c.units, strict=True)):
        box = column.add_box(f"{NAMES[c.cell]} layer {number}", f"{below:,} → {units:,} units", size(layer), "state")
        right = box.x + box.width
        column.arrows.append(
            Arrow(((right - 1, box.y + 1), (right + 3, box.y + 1), (right + 3, box.y + 3), (right, box.y + 3)))
        )
        below = units
    which = "embedding's transpose" if model.unembedding is None else f"{below:,} × {model.vocab:,}"
    parts = f", in {len(c.cutoffs) + 1} parts" if c.cutoffs else ""
    column.add_box("unembedding", which + parts, size(model.unembedding, model.names), "output")
    column.add_box("softmax", f"{model.vocab:,} probabilities", role="output")
    return column


def hmm_column(model: HMM) -> FigureColumn:
    """A state that goes over into the next, and what it speaks."""
    c, column = model.config, FigureColumn(LEFT, WIDE)
    column.add_box("first state", f"{c.states:,} chances", size(model.initial), "state")
    pairs = " × ".join([f"{c.states:,}"] * c.order)
    box = column.add_box("state", f"goes over into the next: {pairs}", size(model.transition), "state")
    right = box.x + box.width
    column.arrows.append(
        Arrow(((right - 1, box.y + 1), (right + 3, box.y + 1), (right + 3, box.y + 3), (right, box.y + 3)))
    )
    column.add_box("what it speaks", f"{c.speakers:,} states × {model.vocab:,} tokens", size(model.emission), "embedding")
    column.add_box("probabilities", f"of {model.vocab:,} tokens", role="output")
    return column


def ngram_column(model: NGram) -> FigureColumn:
    """The longest n-grams first; what they have not seen is asked of shorter ones."""
    column, order = FigureColumn(LEFT, WIDE), model.config.order
    column.add_box("last tokens", f"up to {order - 1}" if order > 1 else "none are looked at", role="embedding")
    for length in range(order, 0, -1):
        table = model.table(length)
        kept = table.log_probs.numel() + (0 if table.log_backoffs is None else table.log_backoffs.numel())
        name = f"{length}-grams" if length > 1 else "single tokens"
        left = "; else a shorter one" if length > 1 else ""
        column.add_box(name, f"{table.log_probs.numel():,} rows{left}", kept, "state")
    column.add_box("probabilities", f"of {model.vocab:,} tokens", role="output")
    return column
