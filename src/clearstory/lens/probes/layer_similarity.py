"""Layer by layer: how much each layer of a model changes the hidden states, and which layers fine-tuning changed.

Hidden states on a text are compared, those before and after a layer, or those of two models after the same layer: by
the mean cosine of a token's two vectors, and by linear centred kernel alignment (Kornblith et al. 2019, eq. 5), which
is 1 for states that differ by a rotation and a scale only:

    CKA(X, Y) = ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖)      columns of X and Y centred, norms of Frobenius

Weights are compared by the norm of their difference over the norm of the first model's.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.lens.hooks.activations import activation_names, record_activations, unwrap_model
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.views import Cell, Curve, Line, Report, Table
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.capabilities import Capability, family_name
from clearstory.models.heads import hidden_states
from clearstory.models.prompts import PromptOptions
from clearstory.text.tokenizers import Tokenizer


class StateSimilarity(NamedTuple):
    """How similar pairs of hidden states are, one pair for each layer; nan for the cosine of different widths."""

    cosine: tuple[float, ...]
    cka: tuple[float, ...]


def layer_similarity(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, prompt: PromptOptions = PromptOptions()
) -> Curve:
    """The similarity of the hidden states before and after each layer on a text: a layer that changes little has a
    cosine near 1.

    With a second model, which layers fine-tuning changed: `layer_changes`.
    """
    require_one_stack(model)
    passage = encode_passage(model, tokenizer, text, prompt=prompt)
    states = layer_states(model, passage)
    similarity = state_similarity(states[:-1], states[1:])
    least = min(range(len(similarity.cka)), key=lambda layer: similarity.cka[layer])
    return similarity_curve(
        similarity,
        f"Similarity of the hidden states of {len(passage.ids):,} tokens before and after each layer",
        "layer",
        f"Layer {least} changes the hidden states most, to a CKA of {similarity.cka[least]:.3f}.",
    )


def layer_changes(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    other_model: LanguageModel,
    other_tokenizer: Tokenizer,
    *,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """The similarity of the two models' hidden states on a text, and the relative change of the weights, for each
    layer; heads are left out.

    Raises CannotDo for models of different layers or widths, and for different tokens of the text.
    """
    require_one_stack(model)
    passages = [
        encode_passage(each, read_by, text, prompt=prompt)
        for each, read_by in ((model, tokenizer), (other_model, other_tokenizer))
    ]
    if passages[0].ids != passages[1].ids:
        raise CannotDo(
            f"the first model has {len(passages[0].ids):,} tokens and the second {len(passages[1].ids):,}, or "
            "different ones; compare models with the same tokenizer, such as a base model and one fine-tuned from it"
        )
    first, second = layer_states(model, passages[0]), layer_states(other_model, passages[1])
    shapes = [(len(states) - 1, states[0].shape[-1]) for states in (first, second)]
    if shapes[0] != shapes[1]:
        raise CannotDo(
            "the first model has {:,} layers of width {:,} and the second {:,} of width {:,}; compare a base model and "
            "one fine-tuned from it".format(*shapes[0], *shapes[1])
        )
    similarity = state_similarity(first, second)
    rows = weight_changes(unwrap_model(model), unwrap_model(other_model))
    curve = similarity_curve(
        similarity,
        f"Similarity of the two models' hidden states of {len(passages[0].ids):,} tokens",
        f"layers, 0 the embedding, {len(first) - 1} the last",
        "CKA is higher for few tokens than for many; give a longer text to compare layers."
        if len(passages[0].ids) < 100
        else None,
    )
    return Report(
        title="What differs between the two models, layer by layer",
        panels=(curve, change_table(rows)),
        caption=describe_changes(similarity, rows),
    )


def require_one_stack(model: LanguageModel) -> None:
    """Raise CannotDo for an encoder-decoder."""
    if Capability.SOURCE in model.capabilities:
        raise CannotDo(
            f"this model ({family_name(model)}) has two stacks of layers, but layer-similarity shows one; use a "
            "decoder or an encoder"
        )


def layer_states(model: LanguageModel, passage: Passage) -> list[Float[Tensor, "T W"]]:
    """The hidden states of a text after the embedding and after each layer."""
    network = unwrap_model(model)
    names = [name for name in activation_names(model) if re.fullmatch(r"embedding_output|(blocks|layers)\.\d+", name)]
    if Capability.RECURRENT_STATE in model.capabilities:
        names = ["embedding", *names]
    device = next(network.parameters()).device
    with inference_mode(network), record_activations(model, *names) as recorded:
        hidden_states(network, TokenBatch.from_sequences([passage.ids], device))
    return [recorded[name].double().cpu().reshape(len(passage.ids), -1) for name in names]


def state_similarity(first: list[Float[Tensor, "T _"]], second: list[Float[Tensor, "T _"]]) -> StateSimilarity:
    """The mean cosine of each token's two vectors, and the linear CKA, of each pair."""
    pairs = list(zip(first, second, strict=True))
    return StateSimilarity(
        tuple(float(F.cosine_similarity(x, y, dim=-1).mean()) if x.shape == y.shape else math.nan for x, y in pairs),
        tuple(linear_cka(x, y) for x, y in pairs),
    )


def linear_cka(x: Float[Tensor, "T W"], y: Float[Tensor, "T V"]) -> float:
    """Linear centred kernel alignment of two sets of vectors, from 0 to 1; 1 where neither varies.

    >>> import torch
    >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
    >>> round(linear_cka(x, 2 * x.flip(1)), 6)
    1.0
    """
    x, y = x - x.mean(0), y - y.mean(0)
    # Of T × T matrices, which are smaller than W × W for short texts: ‖YᵀX‖² is the sum of XXᵀ ∘ YYᵀ.
    gram_x, gram_y = x @ x.T, y @ y.T
    size = float(gram_x.norm() * gram_y.norm())
    return float((gram_x * gram_y).sum()) / size if size else 1.0


class WeightChange(NamedTuple):
    """The relative change of the weights of a part of a model, and that of its attention and its feed-forward; None
    where it has none.
    """

    part: str
    change: float
    attention: float | None
    feed_forward: float | None
    weights: int


def weight_changes(first: nn.Module, second: nn.Module) -> list[WeightChange]:
    """The changes of the embeddings, of each layer, and of what follows them. Tensors that only one model has, such as
    those of heads, are left out.
    """
    others = dict(second.named_parameters())
    groups: dict[str, dict[str, tuple[float, float, int]]] = defaultdict(dict)
    for name, weight in first.named_parameters():
        other = others.get(name)
        if other is None or other.shape != weight.shape:
            continue
        before, after = weight.detach().double().cpu(), other.detach().double().cpu()
        sizes = float((after - before).square().sum()), float(before.square().sum()), weight.numel()
        groups[group_of(name)][name] = sizes

    def change(parts: dict[str, tuple[float, float, int]], word: str = "") -> float | None:
        sizes = [each for name, each in parts.items() if word in name]
        moved, size = (sum(each[index] for each in sizes) for index in (0, 1))
        return (moved / size) ** 0.5 if size else None

    rows = [
        WeightChange(
            group,
            change(parts) or 0.0,
            change(parts, ".attention."),
            change(parts, ".feed_forward."),
            sum(each[2] for each in parts.values()),
        )
        for group, parts in groups.items()
    ]
    order = {"embeddings": -1.0, "after the layers": float("inf")}
    return sorted(rows, key=lambda row: order.get(row.part, float(re.sub(r"\D", "", row.part) or 0)))


def group_of(name: str) -> str:
    """The group of a parameter: the embeddings, its layer, or what follows the layers.

    >>> group_of("blocks.3.attention.qkv.weight"), group_of("position_embedding.weight"), group_of("norm.weight")
    ('layer 3', 'embeddings', 'after the layers')
    """
    layer = re.match(r"(?:blocks|layers)\.(\d+)\.", name)
    if layer:
        return f"layer {layer[1]}"
    return "embeddings" if "embedding" in name and not name.startswith("unembedding") else "after the layers"


def similarity_curve(similarity: StateSimilarity, title: str, x_label: str, caption: str | None) -> Curve:
    """Both similarities over the layers."""
    lines = []
    for name, values in (("mean cosine", similarity.cosine), ("linear CKA", similarity.cka)):
        points = [(float(layer), value) for layer, value in enumerate(values) if not math.isnan(value)]
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(name, x, y, dashed=name == "linear CKA"))
    return Curve(title=title, lines=tuple(lines), x_label=x_label, y_label="similarity", caption=caption)


def change_table(rows: list[WeightChange]) -> Table:
    """The changes of the weights as bars."""
    cells: tuple[tuple[Cell, ...], ...] = tuple(tuple(row) for row in rows)
    return Table(
        title="Change of the weights: ‖B − A‖ / ‖A‖",
        columns=("part", "relative change", "attention", "feed-forward", "weights"),
        rows=cells,
        bar="relative change",
    )


def describe_changes(similarity: StateSimilarity, rows: list[WeightChange]) -> str:
    """A sentence with the layer where states differ most, and the part whose weights do."""
    lowest = min(range(len(similarity.cosine)), key=lambda layer: similarity.cosine[layer])
    where = f"after layer {lowest - 1}" if lowest else "in the embedding"
    states = f"Hidden states differ most {where}, with a mean cosine of {similarity.cosine[lowest]:.3f}"
    if not any(row.change for row in rows):
        return f"{states}; all weights that both models have are equal."
    most = max(rows, key=lambda row: row.change)
    return f"{states}; the weights of {most.part} changed most, by {most.change:.2%}."
