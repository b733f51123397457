"""Label attribution: how much each token of a text moved the logit of a label. Sundararajan et al. 2017.

Integrated gradients: token embeddings move in a straight line from their mean over the vocabulary to those of the text,
and each token is credited with its gradient along the way, eq. 1:

    a_t = (x_t − x̄) · ∫ ∂F/∂x_t (x̄ + α (x − x̄)) dα          Σ_t a_t = F(x) − F(x̄)

Special tokens keep their embeddings. The integral is Gauss and Legendre's, with more points until the sum is
right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, UnknownName, nearest
from clearstory.lens.hooks.activations import embedding_module, model_device
from clearstory.lens.views import HighlightedText, Span
from clearstory.models.base import LanguageModel, TokenBatch
from clearstory.models.capabilities import Capability, require
from clearstory.models.heads import ClassificationHead
from clearstory.text.encoding import EncodedText, encode_text
from clearstory.text.special_tokens import cls_and_sep_ids
from clearstory.text.tokenizers import Tokenizer

POINTS = (8, 32, 128)
"""Numbers of points of the integral, tried in order."""

TOLERANCE = 1e-3
"""Largest difference between the sum of the attributions and that of the logits, as a share of the latter."""

POINTS_AT_ONCE = 16


class Attribution(NamedTuple):
    """The attribution of each token (T,), the logit of the text, and that of the baseline."""

    tokens: Float[Tensor, "T"]
    logit: float
    baseline: float


def attribution(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, words: str | Sequence[str] = ()
) -> HighlightedText:
    """The attribution of a label's logit to each token of a text, by integrated gradients; they sum to the logit minus
    that of a text of average tokens.

    `words` names the label, by default the most likely; of two, the difference of their logits is attributed. Raises
    CannotDo for a model without a head for labels of texts, UnknownName for a label that it does not have.
    """
    require(model, Capability.CLASSIFIER)
    network: Any = model
    if not isinstance(network, ClassificationHead) or network.config.label_level != "text":
        raise CannotDo(
            "this model labels tokens, and attribution is of one logit of a text; use a model that labels texts"
        )
    encoded = encode_for_labels(network, tokenizer, text)
    if all(encoded.special):
        raise BadInput("the text has no tokens; give some words to attribute the label to")
    direction, name = label_direction(network, encoded, [words] if isinstance(words, str) else words)
    found = integrated_gradients(network, encoded, direction)
    moved = found.tokens.tolist()
    largest = max(max(map(abs, moved)), 1e-9)
    most = max(range(len(moved)), key=lambda index: abs(moved[index]))
    token = tokenizer.display_token(encoded.ids[most])
    return HighlightedText(
        title=f"Attribution of the logit of {name} to each token",
        spans=attribution_spans(tokenizer, text, encoded, moved),
        unit="logits",
        columns=("token", "id"),
        thresholds=tuple(largest * share for share in (0.1, 0.25, 0.5, 0.75, 0.95)),
        signed=True,
        totals=(
            ("logit", found.logit),
            ("logit of average tokens", found.baseline),
            ("difference", found.logit - found.baseline),
            ("sum of attributions", sum(moved)),
        ),
        caption="Integrated gradients from the mean of all token embeddings to those of the text. Most: "
        f"‘{token}’ with {moved[most]:+.3g} of {found.logit - found.baseline:+.3g}.",
    )


def encode_for_labels(network: ClassificationHead, tokenizer: Tokenizer, text: str) -> EncodedText:
    """The ids of a text as `classify` reads it, special tokens included."""
    if Capability.BIDIRECTIONAL not in network.capabilities:
        return encode_text(tokenizer, text)
    first, last = cls_and_sep_ids(tokenizer)
    return encode_text(tokenizer, text, add_special_tokens=False).surrounded((first,), (last,))


@torch.no_grad()
def label_direction(
    network: ClassificationHead, encoded: EncodedText, words: Sequence[str]
) -> tuple[Float[Tensor, "labels"], str]:
    """The weights of the labels' logits in the attributed number, and its name."""
    labels = network.config.labels
    for word in words:
        if word not in labels:
            raise UnknownName(f"the model has no label {word[:60]!r}; {nearest(word, labels)}")
    if len(words) > 2:
        raise BadInput(f"words names {len(words)} labels; give one, or two whose difference is attributed")
    weights = torch.zeros(len(labels), dtype=network.classifier.weight.dtype, device=network.classifier.weight.device)
    if not words:
        tokens = TokenBatch.from_sequences([encoded.ids], weights.device)
        words = [labels[int(network.class_logits(tokens)[0].argmax())]]
    for word, sign in zip(words, (1.0, -1.0), strict=False):
        weights[labels.index(word)] += sign
    return weights, " minus ".join(f"‘{word}’" for word in words)


def integrated_gradients(
    network: ClassificationHead, encoded: EncodedText, direction: Float[Tensor, "labels"]
) -> Attribution:
    """The attribution of a sum of logits to each token; special tokens have none."""
    own = ~torch.tensor(encoded.special, device=direction.device)
    ends = path_gradients(network, encoded, direction, own, torch.tensor([0.0, 1.0]))[1]
    baseline, logit = ends.tolist()
    tokens = torch.zeros(len(own))
    for count in POINTS:
        points, weights = np.polynomial.legendre.leggauss(count)
        tokens, _ = path_gradients(
            network, encoded, direction, own, torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
        )
        if abs(float(tokens.sum()) - (logit - baseline)) <= TOLERANCE * max(abs(logit - baseline), 1e-3):
            return Attribution(tokens, logit, baseline)
    raise CannotDo(
        f"the integral of the gradients did not converge in {POINTS[-1]} points: the attributions sum to "
        f"{float(tokens.sum()):.4g}, and the logits differ by {logit - baseline:.4g}; this model changes too fast "
        "between average tokens and the text, so its label has no attribution by integrated gradients"
    )


def path_gradients(
    network: ClassificationHead,
    encoded: EncodedText,
    direction: Float[Tensor, "labels"],
    own: Tensor,
    points: Float[Tensor, "N"],
    weights: Float[Tensor, "N"] | None = None,
) -> tuple[Float[Tensor, "T"], Float[Tensor, "N"]]:
    """The weighted sum over points of each token's gradient times its way, (T,), and the logit at each point, (N,)."""
    embedding: Any = embedding_module(network)
    mean = embedding.weight.mean(0)
    time_first = Capability.RECURRENT_STATE in network.capabilities
    total = torch.zeros(len(own), dtype=torch.float64)
    logits = []
    trained = [each for each in network.parameters() if each.requires_grad]
    modules = [module for module in network.modules() if module.training]
    state: dict[str, Tensor] = {}

    def move(_: Any, __: Any, out: Tensor) -> Tensor:
        x = (out.transpose(0, 1) if time_first else out).detach()
        way = torch.where(own[:, None], x - mean.detach(), 0)
        state["way"], state["inputs"] = way, (x - (1 - state["points"]) * way).requires_grad_()
        return state["inputs"].transpose(0, 1) if time_first else state["inputs"]

    handle = embedding.register_forward_hook(move)
    try:
        network.eval()
        for weight in trained:
            weight.requires_grad_(False)
        for start in range(0, len(points), POINTS_AT_ONCE):
            part = points[start : start + POINTS_AT_ONCE].to(mean)
            state["points"] = part[:, None, None]
            tokens = TokenBatch.from_sequences([encoded.ids] * len(part), model_device(network))
            with torch.enable_grad():
                scores = network.class_logits(tokens) @ direction
                [gradients] = torch.autograd.grad(scores.sum(), state["inputs"])
            logits.append(scores.detach().double().cpu())
            if weights is not None:
                credit = (gradients * state["way"]).sum(-1).double().cpu()
                total += (weights[start : start + POINTS_AT_ONCE, None] * credit).sum(0)
    finally:
        handle.remove()
        for module in modules:
            module.training = True
        for weight in trained:
            weight.requires_grad_(True)
    return total, torch.cat(logits)


def attribution_spans(
    tokenizer: Tokenizer, text: str, encoded: EncodedText, moved: Sequence[float]
) -> tuple[Span, ...]:
    """The text as one span for each token with its attribution; text between tokens, and special tokens, have none."""
    spans, done = [], 0
    for id, span, value in zip(encoded.ids, encoded.spans, moved, strict=True):
        name = tokenizer.display_token(id)
        if span is None:
            spans.append(Span(name, None))
            continue
        start, stop = max(span[0], done), max(span[1], done)
        if start > done:
            spans.append(Span(text[done:start], None))
        spans.append(Span(text[start:stop], value, f"{value:+.3g}", (name, id)))
        done = stop
    if done < len(text):
        spans.append(Span(text[done:], None))
    return tuple(spans)
