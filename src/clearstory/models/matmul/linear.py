"""Linear layers and matrix products with the backend of this process, and their gradients.

In fp32 on a CPU, oneDNN computes x Wᵀ + b, g W and gᵀ x where it is the backend (see backend.py). Everything else is
PyTorch's own: other dtypes and devices, a few rows, compiled code, functorch's transforms and gradients of gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models.matmul import backend, kernels

MIN_ROWS = 16
"""Minimum number of rows for oneDNN: with fewer rows, reading the weight takes longer than multiplying."""


def linear(
    x: Float[Tensor, "*D I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None = None
) -> Float[Tensor, "*D O"]:
    """x Wᵀ + b in the dtype of x, (..., O): fp32 weights are cast, for a bf16 residual stream."""
    if not uses_onednn(x, weight):
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        out: Tensor = _Linear.apply(x, bias, weight)  # type: ignore[no-untyped-call]  # torch's
        return out
    return kernels.onednn_linear(x, weight, bias)


def linear_of_joined(x: Float[Tensor, "*D I"], weights: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, (..., O), for the rows of all weights.

    In fp32 the joined weights are not kept for the backward pass, which joins them again.
    """
    if not is_plain_fp32(x, weights[0]):
        return linear(x, torch.cat(list(weights)), bias)
    out: Tensor = _Linear.apply(x, bias, *weights)  # type: ignore[no-untyped-call]  # torch's
    return out


def matmul(a: Float[Tensor, "N K"], b: Float[Tensor, "K M"]) -> Float[Tensor, "N M"]:
    """a b for two matrices, without a gradient."""
    return kernels.onednn_linear(a, b.t()) if uses_onednn(a, b) else torch.mm(a, b)


def weight_gradient(grad: Float[Tensor, "N O"], x: Float[Tensor, "N I"]) -> Float[Tensor, "O I"]:
    """gᵀ x, the gradient of a weight, without a gradient of its own."""
    if backend.matmul_backend() == "onednn" and uses_onednn(grad, x):
        return kernels.onednn_linear(grad.t(), x.t())
    return torch.mm(grad.t(), x)


def add_weight_gradient(
    total: Float[Tensor, "O I"], grad: Float[Tensor, "N O"], x: Float[Tensor, "N I"], *, first: bool = False
) -> None:
    """Add gᵀ x to `total`; with `first`, `total` holds nothing yet."""
    if not (backend.matmul_backend() == "onednn" and uses_onednn(grad, x)):
        total.addmm_(grad.t(), x, beta=0 if first else 1)
        return
    if first:
        total.zero_()
    # oneDNN adds nothing to what is there; in blocks, the product is still in cache when it is added.
    for start in range(0, len(total), ADDED_ROWS):
        rows = slice(start, start + ADDED_ROWS)
        total[rows] += kernels.onednn_linear(grad[:, rows].t(), x.t())


ADDED_ROWS = 1024


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies these: plain fp32 tensors on a CPU, of enough rows, outside any transformation."""
    if backend.matmul_backend() == "mkl" or not is_plain_fp32(x, weight):
        return False
    return x.numel() >= MIN_ROWS * x.shape[-1] > 0


def is_plain_fp32(x: Tensor, weight: Tensor) -> bool:
    """Whether these are plain fp32 tensors on a CPU, outside any transformation."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and type(x) in PLAIN
        and type(weight) in PLAIN
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not kernels.is_transformed()
    )


PLAIN = (Tensor, nn.Parameter)
"""Classes of tensors that hold their numbers themselves; a sharded or a fake tensor has another."""


class _Linear(torch.autograd.Function):
    """x Wᵀ + b and its gradients by the backend; gradients of gradients by PyTorch's own products. W has the rows of
    one weight or several.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        return linear(x, join(weights), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, *weights = ctx.saved_tensors
        flat, flat_x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        want_x, want_bias, *want_weights = ctx.needs_input_grad
        x_grad: Tensor | None
        weight_grad: Tensor | None
        if torch.is_grad_enabled():  # create_graph: what is computed here must be differentiable itself
            x_grad, weight_grad = flat @ join(weights), flat.t() @ flat_x
        else:
            x_grad = matmul(flat, join(weights)) if want_x else None
            weight_grad = weight_gradient(flat, flat_x) if any(want_weights) else None
        weight_grads: Sequence[Tensor | None] = [None] * len(weights)
        if weight_grad is not None:
            weight_grads = torch.split(weight_grad, [len(weight) for weight in weights])
        return None if x_grad is None else x_grad.view_as(x), flat.sum(0) if want_bias else None, *weight_grads


def join(weights: Sequence[Tensor]) -> Tensor:
    """The rows of all weights."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))
