"""Gradient reach: the norm of the gradient of a token's loss by the input k tokens back, against k.

d loss(t) / d embedding(t − k). Where it vanishes, nothing can be learned from that distance. Bengio et al. 1994;
Pascanu et al. 2013, eq. 3-5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, CannotDo
from clearstory.lens.hooks.activations import embedding_module, model_device
from clearstory.lens.views import Band, Curve, Line
from clearstory.metrics import CONFIDENCE, RESAMPLES, percentile_interval, resample_counts
from clearstory.models.base import LanguageModel, TokenBatch
from clearstory.models.capabilities import Capability, family_name, require
from clearstory.models.prompts import PromptOptions, encode_prompt
from clearstory.text.tokenizers import Tokenizer

TARGETS = 16
"""Tokens whose losses are differentiated, in a text of one passage."""

PASSAGES, PASSAGE_TOKENS, PASSAGE_TARGETS = 8, 512, 4
"""Maximum number of passages of a longer text, of tokens in each, and of targets in each."""

FAR = 16
"""The distance whose share of the gradient the caption states."""


def gradient_reach(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, prompt: PromptOptions = PromptOptions()
) -> Curve:
    """Mean norm of the gradient of a token's loss by the embedding k tokens back, over positions of a text.

    A long text is read in passages, and the 95 % interval is a bootstrap over them; over positions in a text of one
    passage. Raises CannotDo for a model without gradients or embeddings, BadInput for a text of fewer than 32 tokens.
    """
    for needed in (Capability.CAUSAL, Capability.GRADIENTS, Capability.EMBEDDINGS):
        require(model, needed)
    ids = list(encode_prompt(model, tokenizer, text, prompt).ids)
    longest = min(model.context or PASSAGE_TOKENS, PASSAGE_TOKENS)
    least = min(2 * TARGETS, longest + 1)
    if len(ids) < least:
        raise BadInput(
            f"the text has {len(ids)} tokens, but the gradient is a mean over the last {least // 2}; give at least "
            f"{least}"
        )
    passages = split_passages(ids, longest)
    targets = least // 2 if len(passages) == 1 else min(PASSAGE_TARGETS, least // 2)
    norms = torch.stack([gradient_norms(model, passage, targets) for passage in passages])
    sampled = norms.mean(1) if len(passages) > 1 else norms[0]
    distances = tuple(float(k) for k in range(1, norms.shape[-1] + 1))
    low, high = bootstrap_means(sampled)
    return Curve(
        title="Gradient of a token's loss by the input k tokens back",
        lines=(Line(family_name(model), distances, tuple(sampled.mean(0).tolist())),),
        x_label="k, tokens back",
        y_label="norm of the gradient",
        log_x=True,
        band=Band(f"{CONFIDENCE:.0%} interval of the mean", distances, low, high),
        caption=" ".join((measured_caption(norms), share_caption(sampled), reach_caption(sampled.mean(0)), CLAIM)),
    )


CLAIM = "These values are for this trained model and this text; another run or text may rank models differently."


def split_passages(ids: list[int], longest: int) -> list[list[int]]:
    """Passages that do not overlap, spread evenly over the ids: each has `longest` inputs and the targets after them.

    >>> split_passages([0, 1, 2, 3, 4, 5, 6], 3), split_passages([0, 1, 2], 3)
    ([[0, 1, 2, 3], [3, 4, 5, 6]], [[0, 1, 2]])
    """
    inputs = len(ids) - 1
    count = max(1, min(PASSAGES, inputs // longest))
    gap = max(0, inputs - longest) / max(1, count - 1)
    starts = [round(index * gap) for index in range(count)]
    return [ids[start : start + longest + 1] for start in starts]


def gradient_norms_by_distance(model: LanguageModel, ids: list[int], targets: int = TARGETS) -> Float[Tensor, "K"]:
    """Mean norm of the gradient of a token's loss by the embedding k tokens back, for k = 1 to K."""
    return gradient_norms(model, ids, targets).mean(0)


def gradient_norms(model: LanguageModel, ids: list[int], targets: int) -> Float[Tensor, "P K"]:
    """Norm of the gradient of each of the last `targets` losses by the embedding k tokens back, for k = 1 to K.

    `ids` are read in one window, and K is the number of tokens that all targets have before them.
    """
    network: Any = model
    recorded: dict[str, Tensor] = {}

    def record_embedding(_: Any, __: Any, out: Tensor) -> Tensor:
        recorded["x"] = out.detach().requires_grad_()
        return recorded["x"]

    was_training, trained = network.training, [each for each in network.parameters() if each.requires_grad]
    network.eval()
    handle = embedding_module(model).register_forward_hook(record_embedding)
    try:
        with torch.enable_grad():
            for weight in trained:
                weight.requires_grad_(False)  # only the gradient of the input is computed
            hidden, _ = model.forward(TokenBatch.from_sequences([ids[:-1]], model_device(model)))
            logits = model.logits(hidden[0, -targets:])
            if "x" not in recorded or not logits.requires_grad:
                raise CannotDo(
                    f"this model ({family_name(model)}) computes its losses without its module `embedding`, or without "
                    "gradients, so there is no gradient with respect to the input; use a model of another family"
                )
            wanted = torch.tensor(ids[-targets:], device=logits.device)
            nats = F.cross_entropy(
                logits.to(torch.promote_types(logits.dtype, torch.float32)), wanted, reduction="none"
            )
            length = len(ids) - 1 - targets + 1
            rows = []
            for position, loss in zip(range(len(ids) - 1 - targets, len(ids) - 1), nats, strict=True):
                (gradient,) = torch.autograd.grad(loss, recorded["x"], retain_graph=True)
                # One sequence: (1, T, W), or (T, 1, W) where time is first.
                norms = gradient.reshape(-1, gradient.shape[-1]).norm(dim=-1).double().cpu()
                rows.append(norms[position - length + 1 : position + 1].flip(0))
    finally:
        for weight in trained:
            weight.requires_grad_()
        handle.remove()
        network.train(was_training)
    return torch.stack(rows)


def bootstrap_means(rows: Float[Tensor, "N K"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Ends of the 95 % interval of the mean over rows at each distance, by percentile bootstrap (Efron 1979)."""
    counts = resample_counts(len(rows), RESAMPLES, seed=0)
    means = counts @ rows.numpy() / len(rows)
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tails, 1 - tails], axis=0)
    return tuple(low.tolist()), tuple(high.tolist())


def measured_caption(norms: Float[Tensor, "M P K"]) -> str:
    """Number of positions and passages in the mean, and the kind of the interval."""
    passages, targets, length = norms.shape
    inputs = length + targets - 1
    if passages > 1:
        return (
            f"Mean over {passages * targets} positions: {targets} in each of {passages} passages of {inputs:,} tokens "
            "of one text; the interval is a bootstrap over passages."
        )
    return (
        f"Mean over the last {targets} positions of one passage of {inputs:,} tokens; the interval is a bootstrap over "
        "these positions, which depend on each other: a longer text gives more passages."
    )


def share_caption(rows: Float[Tensor, "N K"]) -> str:
    """The gradient at distance 16 (or the largest there is) as a share of that at distance 1, with its interval."""
    far = min(FAR, rows.shape[1])
    values = rows.numpy()
    counts = resample_counts(len(rows), RESAMPLES, seed=0)
    low, high = percentile_interval((counts @ values[:, far - 1]) / (counts @ values[:, 0]), CONFIDENCE)
    share = values[:, far - 1].sum() / values[:, 0].sum()
    return f"At {far} tokens back the gradient is {share:.2g} of the nearest input's ({low:.2g} to {high:.2g})."


def reach_caption(norms: Float[Tensor, "K"]) -> str:
    """The distance from which on the gradient is below 1% of the nearest input's.

    >>> reach_caption(torch.tensor([1.0, 0.5, 0.25, 0.005, 0.004]))
    "From 4 tokens back on, the gradient is below 1% of the nearest input's."
    """
    large = (norms >= 0.01 * norms[0]).nonzero().flatten()
    last = int(large[-1]) + 1 if len(large) else 0
    if last == len(norms):
        return f"At {last:,} tokens back it is {float(norms[-1] / norms[0]):.2g}."
    return f"From {last + 1:,} tokens back on, the gradient is below 1% of the nearest input's."
