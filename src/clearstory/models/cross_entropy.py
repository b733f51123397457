"""Unembed: from vectors to nats without ever holding all the logits.

At a vocabulary of 50,257, the logits of one batch of 2 x 512 tokens are 206 MB, and their gradient as much again.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.base import IGNORE_INDEX

CHUNK_NUMBERS = 2**22
"""Logits held at a time, 16 MB in fp32: they stay in the last-level cache while softmax walks over them."""

GPU_CHUNK_NUMBERS = 2**27
"""The same on a GPU, 512 MB: no cache holds them there, and small products leave most of it idle."""


class LinearCrossEntropy(torch.autograd.Function):
    """-log softmax(hidden Wᵀ)[target] for each token, its gradient computed on the way while the logits are warm.

    The forward pass assumes what nearly always holds, that every token's nats will be weighted alike (a sum); if the
    backward pass is handed unequal weights it computes the logits a second time. Smoothed as `walk` says.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Nats of each token: hidden (N, W), weight (V, W), targets (N,) -> (N,)."""
        want = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        nats, hidden_grad, weight_grad = chunked_cross_entropy(hidden, weight, targets, None, want, smoothing)
        ctx.smoothing = smoothing
        ctx.save_for_backward(hidden, weight, targets, hidden_grad, weight_grad)
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of hidden and weight."""
        (grad,) = grads
        hidden, weight, targets, hidden_grad, weight_grad = ctx.saved_tensors
        scale = grad.flatten()[0] if grad.numel() else grad.sum()
        if not torch.equal(grad, scale.expand_as(grad)):
            _, hidden_grad, weight_grad = chunked_cross_entropy(hidden, weight, targets, grad, True, ctx.smoothing)
            return hidden_grad, weight_grad, None, None
        # In place: these buffers were made for this, and the weight's is as large as the embedding.
        return hidden_grad.mul_(scale), weight_grad.mul_(scale), None, None


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor | None, want_grad: bool, smoothing: float = 0.0
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Chunk by chunk over the tokens: nats, and if wanted the gradients of hidden and weight.

    smoothing: this share of each target is spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
    """
    step = max(1, (CHUNK_NUMBERS if hidden.device.type == "cpu" else GPU_CHUNK_NUMBERS) // weight.shape[0])
    # Once: on a GPU every question waits for all that was asked before it.
    alike = not want_grad or (upstream is None and bool((targets != IGNORE_INDEX).all()))
    nats = hidden.new_empty(hidden.shape[0], dtype=torch.float32 if hidden.dtype != torch.float64 else torch.float64)
    hidden_grad = torch.empty_like(hidden) if want_grad else None
    weight_grad = torch.zeros_like(weight) if want_grad else None
    for start in range(0, hidden.shape[0], step):
        part = slice(start, start + step)
        chunk, target = hidden[part], targets[part]
        logits = torch.mm(chunk, weight.t())
        wide = logits if logits.dtype == nats.dtype else logits.to(nats.dtype)
        logs = torch.log_softmax(wide, -1)
        known = target != IGNORE_INDEX
        place = target.clamp(min=0).unsqueeze(1)
        nats[part] = -logs.gather(1, place).squeeze(1) * known
        if smoothing:
            nats[part] = (1 - smoothing) * nats[part] - smoothing * logs.mean(1) * known
        if hidden_grad is None or weight_grad is None:
            continue
        # d nats / d logits = softmax - what is wanted
        slope = logs.exp_()
        slope.scatter_add_(1, place, slope.new_full(place.shape, smoothing - 1.0))
        if smoothing:
            slope -= smoothing / slope.shape[1]
        if not alike:
            weighting = known.to(slope.dtype) if upstream is None else known * upstream[part]
            slope *= weighting.unsqueeze(1)
        slope = slope.to(chunk.dtype)
        torch.mm(slope, weight, out=hidden_grad[part])
        weight_grad.addmm_(slope.t(), chunk)
    return nats, hidden_grad, weight_grad


def linear_cross_entropy(
    hidden: Float[Tensor, "*D W"],
    weight: Float[Tensor, "V W"],
    targets: Int[Tensor, "*D"],
    bias: Float[Tensor, "V"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, "*D"]:
    """Nats of each target under softmax(hidden Wᵀ + bias), 0 where the target is IGNORE_INDEX; differentiable.

    With `smoothing`, of a target that is this share of all words alike: a loss to train by, not a surprise.

    >>> from math import log
    >>> round(linear_cross_entropy(torch.zeros(1, 4), torch.randn(8, 4), torch.tensor([3])).item() - log(8), 5)
    0.0
    """
    flat = hidden.flatten(0, -2)
    if bias is not None:  # one more number in every vector, which is 1 in those of the model
        weight = torch.cat([weight, bias.unsqueeze(1)], 1)
        flat = torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
    if not torch.is_grad_enabled():
        return _nats_only(flat, weight.to(flat.dtype), targets.flatten(), smoothing).view(targets.shape)
    out: Tensor = LinearCrossEntropy.apply(flat, weight.to(flat.dtype), targets.flatten(), smoothing)  # type: ignore[no-untyped-call]  # torch's
    return out.view(targets.shape)


def _nats_only(flat: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Without gradients: autograd's `needs_input_grad` is true of a parameter even where none are wanted, and what is
    not scored needs no logits either. Evaluating takes a third of the time.
    """
    known = (targets != IGNORE_INDEX).nonzero().squeeze(1)
    if len(known) == len(targets):
        return chunked_cross_entropy(flat, weight, targets, None, False, smoothing)[0]
    scored = chunked_cross_entropy(flat[known], weight, targets[known], None, False, smoothing)[0]
    return scored.new_zeros(len(targets)).index_copy_(0, known, scored)


def output_logits(hidden: Float[Tensor, "*D W"], weight: Float[Tensor, "V W"]) -> Float[Tensor, "*D V"]:
    """hidden Wᵀ: how well each word's vector fits."""
    return F.linear(hidden, weight.to(hidden.dtype))
