"""Fused linear cross-entropy, which computes losses from hidden states without storing all logits; adaptive softmax.

At a vocabulary of 50,257, the logits of one batch of 2 x 512 tokens are 206 MB, and their gradient as much again.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.base import IGNORE_INDEX
from clearstory.models.matmul.linear import add_weight_gradient, linear, matmul

CHUNK_LOGITS = 7 * 2**20
"""Logits held at a time, 29 MB in fp32: at a vocabulary of 50,257 146 rows, which keep matrix products near their full
speed (102 rows less fast by 5 %, 83 by 10 %), and less than the 32 MB from which memory is returned after every use."""

GPU_CHUNK_LOGITS = 2**27
"""The same on a GPU, 512 MB: no cache holds them there, and small matrix products leave most of it idle."""


class LinearCrossEntropy(torch.autograd.Function):
    """-log softmax(hidden Wᵀ)[target] for each token; the gradient is computed in the forward pass, logits in cache.

    The forward pass assumes what nearly always holds, that all tokens' losses have the same weight (a sum); if the
    backward pass gets unequal weights it computes the logits again. `smoothing` as in `chunked_cross_entropy`.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Loss of each token in nats: hidden (N, W), weight (V, W), targets (N,) -> (N,)."""
        wanted = ctx.needs_input_grad[:2]
        loss, hidden_grad, weight_grad = chunked_cross_entropy(hidden, weight, targets, None, wanted, smoothing)
        ctx.wanted, ctx.smoothing = wanted, smoothing
        ctx.save_for_backward(hidden, weight, targets, hidden_grad, weight_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of hidden and weight."""
        (grad,) = grads
        hidden, weight, targets, hidden_grad, weight_grad = ctx.saved_tensors
        scale = grad.flatten()[0] if grad.numel() else grad.sum()
        if not torch.equal(grad, scale.expand_as(grad)):
            _, *grads_of = chunked_cross_entropy(hidden, weight, targets, grad, ctx.wanted, ctx.smoothing)
            return grads_of[0], grads_of[1], None, None
        # In place: these buffers were made for this, and the weight's is as large as the embedding.
        scaled = [None if buffer is None else buffer.mul_(scale) for buffer in (hidden_grad, weight_grad)]
        return scaled[0], scaled[1], None, None


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    upstream: Tensor | None,
    wanted: tuple[bool, bool],
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss of each token in nats, (N,), and if wanted the gradients of hidden and of weight, computed chunk by chunk.

    smoothing: label smoothing, the share of each target spread evenly over the vocabulary (Szegedy et al. 2016, section
    7).
    """
    step = max(1, (CHUNK_LOGITS if hidden.device.type == "cpu" else GPU_CHUNK_LOGITS) // weight.shape[0])
    loss = hidden.new_empty(hidden.shape[0], dtype=torch.float32 if hidden.dtype != torch.float64 else torch.float64)
    hidden_grad = torch.empty_like(hidden) if wanted[0] else None
    weight_grad = torch.empty_like(weight) if wanted[1] else None
    for start in range(0, hidden.shape[0], step):
        chunk_slice = slice(start, start + step)
        chunk, target = hidden[chunk_slice], targets[chunk_slice]
        logits = matmul(chunk, weight.t())
        wide_logits = logits if logits.dtype == loss.dtype else logits.to(loss.dtype)
        log_probs = torch.log_softmax(wide_logits, -1)
        index = target.unsqueeze(1)
        loss[chunk_slice] = -log_probs.gather(1, index).squeeze(1)
        if smoothing:
            loss[chunk_slice] = (1 - smoothing) * loss[chunk_slice] - smoothing * log_probs.mean(1)
        if not any(wanted):
            continue
        # d loss / d logits = softmax - target distribution
        logits_grad = log_probs.exp_()
        logits_grad.scatter_add_(1, index, logits_grad.new_full(index.shape, smoothing - 1.0))
        if smoothing:
            logits_grad -= smoothing / logits_grad.shape[1]
        if upstream is not None:
            logits_grad *= upstream[chunk_slice].unsqueeze(1)
        logits_grad = logits_grad.to(chunk.dtype)
        if hidden_grad is not None:
            hidden_grad[chunk_slice] = matmul(logits_grad, weight)
        if weight_grad is not None:
            add_weight_gradient(weight_grad, logits_grad, chunk, first=start == 0)
    if weight_grad is not None and not len(hidden):
        weight_grad.zero_()
    return loss, hidden_grad, weight_grad


def linear_cross_entropy(
    hidden: Float[Tensor, "*D W"],
    weight: Float[Tensor, "V W"],
    targets: Int[Tensor, "*D"],
    bias: Float[Tensor, "V"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, "*D"]:
    """Cross-entropy of each target under softmax(hidden Wᵀ + bias) in nats, (...); 0 where it is IGNORE_INDEX.

    Differentiable. With label `smoothing` it is a training loss and no longer a negative log-likelihood.

    >>> from math import log
    >>> round(linear_cross_entropy(torch.zeros(1, 4), torch.randn(8, 4), torch.tensor([3])).item() - log(8), 5)
    0.0
    """
    flat = hidden.flatten(0, -2)
    if bias is not None:  # one more element in every vector, which is 1 in hidden states
        weight = torch.cat([weight, bias.unsqueeze(1)], 1)
        flat = torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
    wanted = targets.flatten()
    scored = (wanted != IGNORE_INDEX).nonzero().squeeze(1)
    if len(scored) == len(wanted):
        return _cross_entropy_of(flat, weight, wanted, smoothing).view(targets.shape)
    # Tokens that are not scored need no logits: of the tokens of a chat, many are a user's.
    loss = _cross_entropy_of(flat[scored], weight, wanted[scored], smoothing)
    return loss.new_zeros(len(wanted)).index_copy(0, scored, loss).view(targets.shape)


def _cross_entropy_of(flat: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of each target, (N,). Without gradients apart from autograd, whose `needs_input_grad` is true of a
    parameter even where none are wanted.
    """
    if not torch.is_grad_enabled():
        return chunked_cross_entropy(flat, weight.to(flat.dtype), targets, None, (False, False), smoothing)[0]
    out: Tensor = LinearCrossEntropy.apply(flat, weight.to(flat.dtype), targets, smoothing)  # type: ignore[no-untyped-call]  # torch's
    return out


def output_logits(hidden: Float[Tensor, "*D W"], weight: Float[Tensor, "V W"]) -> Float[Tensor, "*D V"]:
    """hidden Wᵀ, (..., V), in the dtype of hidden."""
    return linear(hidden, weight)


def adaptive_cross_entropy(
    hidden: Float[Tensor, "*D W"],
    weight: Float[Tensor, "V W"],
    targets: Int[Tensor, "*D"],
    cutoffs: tuple[int, ...],
    cluster_embeddings: Float[Tensor, "C W"] | None,
) -> Float[Tensor, "*D"]:
    """Negative log-likelihood of each target in nats, (...); 0 where it is IGNORE_INDEX.

    The head holds the most frequent tokens and one entry for each cluster of rarer ones; for a token in a cluster,
    p(token) = p(cluster) p(token | cluster). Only the clusters that occur are computed. Grave et al. 2017, section 4;
    unlike there, output vectors of rare tokens are as long as the others, so that they can be tied to the embedding
    (Merity et al. 2018b, section 3.3). Without `cluster_embeddings` (one vector for each cluster) this is the plain
    softmax.

    >>> weight, clusters = torch.zeros(8, 4), torch.zeros(1, 4)  # 3 tokens and a cluster: 4 entries; 5 tokens in it
    >>> adaptive_cross_entropy(torch.ones(2, 4), weight, torch.tensor([0, 5]), (3,), clusters).exp()
    tensor([ 4., 20.])
    """
    if cluster_embeddings is None:
        return linear_cross_entropy(hidden, weight, targets)
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.flatten()
    # Split, not sliced: the gradient of a split is one copy of the parts, that of slices a whole table for each.
    head, *clusters = torch.split(weight, cluster_sizes(cutoffs, len(weight)))
    # 0 is the head, of IGNORE_INDEX too.
    cluster = torch.bucketize(wanted, torch.tensor(cutoffs, device=wanted.device), right=True)
    head_targets = torch.where(cluster > 0, cutoffs[0] + cluster - 1, wanted)
    nll = linear_cross_entropy(flat, torch.cat([head, cluster_embeddings]), head_targets)
    for number, (start, vectors) in enumerate(zip(cutoffs, clusters, strict=True), start=1):
        indices = (cluster == number).nonzero().squeeze(1)
        if len(indices):
            own = linear_cross_entropy(flat[indices], vectors, wanted[indices] - start)
            nll = nll.index_add(0, indices, own)
    return nll.view(targets.shape)


def adaptive_log_probs(
    hidden: Float[Tensor, "*D W"],
    weight: Float[Tensor, "V W"],
    cutoffs: tuple[int, ...],
    cluster_embeddings: Float[Tensor, "C W"],
) -> Float[Tensor, "*D V"]:
    """Log-probability of every token under the adaptive softmax, (..., V)."""
    head, *clusters = torch.split(weight.to(hidden.dtype), cluster_sizes(cutoffs, len(weight)))
    first = F.log_softmax(F.linear(hidden, torch.cat([head, cluster_embeddings.to(hidden.dtype)])), -1)
    rest = [
        first[..., cutoffs[0] + number, None] + F.log_softmax(F.linear(hidden, vectors), -1)
        for number, vectors in enumerate(clusters)
    ]
    return torch.cat([first[..., : cutoffs[0]], *rest], -1)


def cluster_sizes(cutoffs: tuple[int, ...], vocab: int) -> list[int]:
    """Number of tokens in the head and in each cluster."""
    ends = (0, *cutoffs, vocab)
    return [high - low for low, high in pairwise(ends)]
