"""Architecture: a diagram of a model from input to output, with shapes and numbers of parameters of its components.

Transformers: `architecture_transformer`. Elman 1990; Rabiner 1989; Katz 1987.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from clearstory.errors import CannotDo
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.probes.architecture_layout import COLUMN_WIDTH, GAP, LEFT, add_loop, parameter_count
from clearstory.lens.probes.architecture_transformer import (
    add_blocks,
    add_embeddings,
    encoder_decoder_columns,
    transformer_columns,
)
from clearstory.lens.views.diagrams import Arrow, Box, Figure, FigureColumn, layout_figure
from clearstory.models.base import LanguageModel
from clearstory.models.build import count_parameters
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.heads import ClassificationHead
from clearstory.models.hmm.model import HMM
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.config import CELL_NAMES
from clearstory.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.stack import Stack
from clearstory.text.tokenizers import Tokenizer


def architecture(model: LanguageModel, tokenizer: Tokenizer, text: str) -> Figure:
    """The components of a model as a figure, with shapes and numbers of parameters; the text is not used.

    Each box's parameters, times its repetitions, add up to the model's. For a family without its own figure, the
    modules are shown in the order of their definition. Raises CannotDo for a model that is not an `nn.Module`.
    """
    network = model if isinstance(model, ClassificationHead) else unwrap_model(model)
    columns, arrows = model_columns(network)
    summary = getattr(getattr(network, "config", None), "summary", None)
    title = f"Architecture: {family_name(model)}{f', {summary}' if summary else ''}"
    figure = layout_figure(title, None, columns, arrows)
    parameters = {box.name: 0 for box in figure.boxes if box.parameters}
    for box in figure.boxes:
        if box.parameters:
            parameters[box.name] += box.parameters * figure.repeats(box)
    return layout_figure(title, parameters_caption(parameters, count_parameters(network)), columns, arrows)


def parameters_caption(parameters: dict[str, int], total: int) -> str:
    """The total number of parameters, and the two components with most of them.

    >>> parameters_caption({"embedding": 25, "feed-forward": 75}, 100)
    '100 parameters; 75% of them in ‘feed-forward’ and 25% in ‘embedding’.'
    """
    if not parameters or not total:
        return f"{total:,} parameters."
    most = sorted(parameters.items(), key=lambda item: -item[1])[:2]
    shares = " and ".join(
        f"{size / total:.0%}{' of them' * (not index)} in ‘{name}’" for index, (name, size) in enumerate(most)
    )
    return f"{total:,} parameters; {shares}."


def model_columns(network: Any) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """The columns of a model's figure, and the arrows between them."""
    match network:
        case Recurrent():
            return [recurrent_column(network)], ()
        case HMM():
            return [hmm_column(network)], ()
        case NGram():
            return [ngram_column(network)], ()
        case RecurrentEncoderDecoder():
            return recurrent_encoder_decoder_columns(network)
        case EncoderDecoder():
            return encoder_decoder_columns(network)
        case Transformer() | Encoder():
            return transformer_columns(network)
        case ClassificationHead():
            return [classifier_column(network)], ()
        case nn.Module():
            return [module_column(network)], ()
    raise CannotDo(f"this model ({family_name(network)}) is not an nn.Module, so its components are unknown")


def classifier_column(network: ClassificationHead) -> FigureColumn:
    """A backbone and its classification head."""
    c, backbone = network.config, network.backbone
    column = FigureColumn(LEFT, COLUMN_WIDTH)
    if isinstance(backbone, Stack) and not has_capability(backbone, Capability.HASHED_NGRAMS):
        add_embeddings(column, cast("Transformer | Encoder", backbone), backbone)
        add_blocks(column, backbone)
    else:
        column.add_box("tokens", f"ids of {network.vocab:,}", role="embedding")
        column.add_box("backbone", backbone.config.summary[: COLUMN_WIDTH - 4], parameter_count(backbone))
    if network.pooler is not None:
        column.add_box("pooler", f"first token, {c.width:,} × {c.width:,}", parameter_count(network.pooler), "output")
    elif c.pooling is not None:
        column.add_box("pooling", {"mean": "mean of all tokens", "last": "last token"}[c.pooling], role="output")
    shape = f"{c.width:,} × {len(c.labels):,}{', biases' * c.classifier_bias}"
    column.add_box("classifier", shape, parameter_count(network.classifier), "output")
    column.add_box("labels", f"{len(c.labels):,} of each {c.label_level}", role="output")
    return column


def module_column(network: nn.Module) -> FigureColumn:
    """The direct submodules and parameters of any module, in the order in which they are defined."""
    column, vocab, seen = FigureColumn(LEFT, COLUMN_WIDTH), getattr(network, "vocab", None), set[int]()

    def count(tensors: Iterator[Tensor]) -> int:
        """Number of elements of those tensors that no earlier box has."""
        new = [tensor for tensor in tensors if id(tensor) not in seen]
        seen.update(map(id, new))
        return sum(tensor.numel() for tensor in new)

    column.add_box("tokens", "" if vocab is None else f"ids of {vocab:,}", role="embedding")
    for name, module in network.named_children():
        repeats = f"{len(module)} × " if isinstance(module, nn.ModuleList) and len(module) else ""
        kind = type(module[0] if repeats and isinstance(module, nn.ModuleList) else module).__name__
        column.add_box(name, f"{repeats}{kind}"[: COLUMN_WIDTH - 4], count(module.parameters()))
    for name, tensor in network.named_parameters(recurse=False):
        column.add_box(name, " × ".join(f"{size:,}" for size in tensor.shape), count(iter([tensor])), "state")
    column.add_box("probabilities", "" if vocab is None else f"of {vocab:,} tokens", role="output")
    return column


def recurrent_column(model: Recurrent) -> FigureColumn:
    """Recurrent layers, each with an arrow back into itself."""
    c, column = model.config, FigureColumn(LEFT, COLUMN_WIDTH)
    column.add_box("tokens", f"ids of {model.vocab:,}, one at a time", role="embedding")
    column.add_box("embedding", f"{model.vocab:,} × {c.width:,}", parameter_count(model.embedding), "embedding")
    width = c.width
    for number, (layer, units) in enumerate(zip(model.layers, c.units, strict=True)):
        name = f"{CELL_NAMES[c.cell]} layer {number}"
        add_loop(column, column.add_box(name, f"{width:,} → {units:,} units", parameter_count(layer), "state"))
        width = units
    shape = "embedding, transposed" if model.unembedding is None else f"{width:,} × {model.vocab:,}"
    clusters = f", {len(c.cutoffs) + 1} clusters" if c.cutoffs else ""
    count = parameter_count(model.unembedding, model.cluster_embeddings)
    column.add_box("unembedding", shape + clusters, count, "output")
    column.add_box("softmax", f"{model.vocab:,} probabilities", role="output")
    return column


def recurrent_encoder_decoder_columns(
    model: RecurrentEncoderDecoder,
) -> tuple[list[FigureColumn], tuple[Arrow, ...]]:
    """The encoder on the left, and the decoder on the right with an arrow into what reads the source: attention, or the
    first layer, whose first state is the encoder's last.
    """
    c, width = model.config, COLUMN_WIDTH - 4
    left, right = FigureColumn(LEFT, width), FigureColumn(LEFT + width + GAP, width)
    kind, shape = CELL_NAMES[c.cell], f"{model.vocab:,} × {c.width:,}"
    for column, side in ((left, "source"), (right, "target")):
        column.add_box(f"{side} tokens", f"ids of {model.vocab:,}", role="embedding")
        shared = 0 if column is right else parameter_count(model.embedding)
        column.add_box("embedding", "the same" if column is right else shape, shared, "embedding")
    for number, layer in enumerate(model.encoder.layers):
        both = ", two directions" if c.bidirectional else ", from its end" if c.reverse_source else ""
        add_loop(
            left,
            left.add_box(f"{kind} layer {number}", f"{c.hidden_size:,} units{both}", parameter_count(layer), "state"),
        )
    attention = model.decoder.cross_attention

    def add_attention() -> Box:
        assert attention is not None
        return right.add_box("attention", f"{c.attention}, to source", parameter_count(attention), "attention")

    into = add_attention() if c.attention == "additive" else None
    for number, layer in enumerate(model.decoder.layers):
        box = right.add_box(f"{kind} layer {number}", f"{c.hidden_size:,} units", parameter_count(layer), "state")
        add_loop(right, box)
        into = into or (None if c.attention == "dot" else box)
    into = into or add_attention()
    right.add_box("readout", f"to {c.width:,}, tanh", parameter_count(model.decoder.readout), "output")
    shape = "embedding, transposed" if model.unembedding is None else shape
    right.add_box("unembedding", shape, parameter_count(model.unembedding), "output")
    right.add_box("softmax", f"{model.vocab:,} probabilities", role="output")
    lane, row, top = left.x + left.width + 5, into.y + into.height // 2, left.top - 1
    path = ((left.middle, left.top), (left.middle, top), (lane, top), (lane, row), (right.x - 1, row))
    return [left, right], (Arrow(path),)


def hmm_column(model: HMM) -> FigureColumn:
    """Initial, transition and emission probabilities."""
    c, column = model.config, FigureColumn(LEFT, COLUMN_WIDTH)
    column.add_box("initial state", f"{c.states:,} probabilities", parameter_count(model.initial), "state")
    shape = " × ".join([f"{c.states:,}"] * c.order)
    add_loop(column, column.add_box("state", f"transitions {shape}", parameter_count(model.transition), "state"))
    shape = f"{c.states_per_block:,} states × {model.vocab:,} tokens"
    column.add_box("emission", shape, parameter_count(model.emission), "embedding")
    column.add_box("probabilities", f"of {model.vocab:,} tokens", role="output")
    return column


def ngram_column(model: NGram) -> FigureColumn:
    """The tables of n-grams, longest first, with backoff to shorter ones."""
    column, order = FigureColumn(LEFT, COLUMN_WIDTH), model.config.order
    column.add_box("last tokens", f"up to {order - 1}" if order > 1 else "not used", role="embedding")
    for length in range(order, 0, -1):
        table = model.table(length)
        size = table.log_probs.numel() + (0 if table.log_backoffs is None else table.log_backoffs.numel())
        name = f"{length}-grams" if length > 1 else "single tokens"
        backoff = "; else backoff" if length > 1 else ""
        column.add_box(name, f"{table.log_probs.numel():,} rows{backoff}", size, "state")
    column.add_box("probabilities", f"of {model.vocab:,} tokens", role="output")
    return column
