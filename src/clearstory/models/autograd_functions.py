"""Autograd functions and layers for the operations that eager PyTorch does slowly on a CPU, with hand-written
gradients.

Each is the plain formula in fewer passes over memory; tests compare it with PyTorch's own, forward and backward.
Milliseconds below: one thread of an AVX-512 machine with bf16, tokens x width of a small model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models.matmul.kernels import is_transformed, scale_kept
from clearstory.models.matmul.linear import PLAIN, linear, linear_of_joined


class Linear(nn.Linear):
    """x Wᵀ + b in the dtype of x; see `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


def joined_linear(x: Float[Tensor, "*D I"], layers: Sequence[nn.Module]) -> Sequence[Tensor]:
    """Outputs of several linear layers of the same input; in training on a CPU, computed as one product with
    concatenated weights.
    """
    if not can_train_joined(x, layers):
        return [layer(x) for layer in layers]
    plain = cast("Sequence[Linear]", layers)
    bias = None if plain[0].bias is None else torch.cat([layer.bias for layer in plain])
    out = linear_of_joined(x, [layer.weight for layer in plain], bias)
    return torch.split(out, [layer.out_features for layer in plain], -1)


def can_train_joined(x: Tensor, layers: Sequence[nn.Module]) -> bool:
    """Whether layers can be computed as one product: none is wrapped, sharded, frozen or has hooks."""
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and all(
            type(layer) is Linear
            and type(layer.weight) is nn.Parameter
            and layer.weight.requires_grad
            and not (layer._forward_hooks or layer._forward_pre_hooks)
            for layer in layers
        )
    )


class _RMS(torch.autograd.Function):
    """x / rms(x) · gain in three passes, where PyTorch's composite takes six and saves more for the backward pass.

    In fp32 for a bf16 x too: with vectors of 16, a factor for each takes 0.01 ms in fp32 and 0.18 in bf16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        wide = x.float() if x.dtype == torch.bfloat16 else x
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, scale)
        out: Tensor = (wide * scale).mul_(gain.to(wide.dtype)).to(x.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, scale = ctx.saved_tensors
        grad = grads[0].to(scale.dtype)
        unit = x * scale  # in the dtype of the scale
        product = grad * unit
        gain_grad = product.flatten(0, -2).sum(0).to(gain.dtype)
        # d/dx of x / rms(x): the part of the gradient along x is taken out.
        gain = gain.to(scale.dtype)
        along = (product @ gain).div_(-x.shape[-1]).unsqueeze(-1)
        return unit.mul_(along).addcmul_(grad, gain).mul_(scale).to(x.dtype), gain_grad, None


class RMSNorm(nn.Module):
    """x divided by its root mean square, times a learned gain. Zhang and Sennrich 2019, eq. 4.

    The gain is the weight, or with `unit_offset` 1 + weight (Gemma).
    """

    def __init__(self, width: int, eps: float, *, unit_offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if unit_offset else torch.ones(width))
        self.eps, self.unit_offset = eps, unit_offset

    @property
    def gain(self) -> Float[Tensor, "W"]:
        """The factors of the normalised vector; those of a weight in bf16 are fp32."""
        if not self.unit_offset:
            return self.weight
        return 1 + (self.weight.float() if self.weight.dtype == torch.bfloat16 else self.weight)

    def forward(self, x: Float[Tensor, "*D W"]) -> Float[Tensor, "*D W"]:
        """Over the last dimension."""
        if (
            torch.compiler.is_compiling() or x.device.type != "cpu"
        ):  # on a GPU it is one kernel, and this would be seven
            return F.rms_norm(x, self.weight.shape, self.gain.to(x.dtype), self.eps)
        out: Tensor = _RMS.apply(x, self.gain, self.eps)  # type: ignore[no-untyped-call]  # torch's
        return out


class LayerNorm(nn.LayerNorm):
    """(x - mean) / deviation · gain + bias, in the dtype of x. Ba et al. 2016, eq. 3."""

    def forward(self, x: Tensor) -> Tensor:
        """Over the last dimension."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), bias, self.eps)


class _Dropout(torch.autograd.Function):
    """x / (1 - rate), or 0 where 16 random bits are below the rate; 64 random bits serve four numbers.

    In 0.7 ms for 704 tokens of width 384, where PyTorch's draws of single numbers take 1.7.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        dropped = round(rate * 2**16)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        kept = (bits.view(torch.int16)[: x.numel()] >= dropped - 2**15).view(x.shape)
        ctx.scale = 2**16 / (2**16 - dropped)
        ctx.save_for_backward(kept)
        return scale_kept(x, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return scale_kept(grads[0], kept, ctx.scale), None


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """x with elements set to 0 at this rate in training and the others divided by 1 - rate. Srivastava et al. 2014."""
    plain = x.device.type == "cpu" and type(x) in PLAIN and not (torch.compiler.is_compiling() or is_transformed())
    if not training or not plain or not 0 < rate < 1:
        return F.dropout(x, rate, training)
    out: Tensor = _Dropout.apply(x, rate)  # type: ignore[no-untyped-call]  # torch's
    return out


class _Rotate(torch.autograd.Function):
    """Rotation by halves, its backward pass the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate_halves(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate_halves(grads[0], cos, -sin), None, None


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the halves a and b of the last dimension."""
    # Tables for all heads, so that one loop runs over heads and their elements: loops over the 8 elements of half a
    # head of 16 take 4 times as long.
    heads = *cos.shape[:-2], *x.shape[-2:]
    cos, sin = (table.expand(heads).contiguous() for table in whole_head_angles(cos, sin))
    return rotate_whole_heads(x, cos, sin)


def whole_head_angles(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines for both halves of a head, (..., D), from those of its pairs, (..., D/2)."""
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate_whole_heads(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x rotated by `whole_head_angles`; without a gradient."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)


def rotate(x: Float[Tensor, "B T H D"], rotary: tuple[Tensor, Tensor]) -> Float[Tensor, "B T H D"]:
    """x rotated by angles given as cosines and sines (..., T, 1, D/2), see `Rotary.cos_sin`, or, where no gradient is
    needed, as `whole_head_angles`; (B, T, H, D).
    """
    cos, sin = rotary
    if cos.shape[-1] == x.shape[-1]:
        return rotate_whole_heads(x, cos, sin)
    if torch.compiler.is_compiling():
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    out: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]  # torch's
    return out


class _Attend(torch.autograd.Function):
    """softmax(Q Kᵀ / √d + mask) V, its weights saved for the backward pass. In bf16 on a CPU PyTorch's fused kernel is
    2.5 to 5 times slower backward (13.5 against 2.1 ms at 48 heads of 64 tokens); in fp32 the two are equal.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scale = 1 / math.sqrt(q.shape[-1])
        weights = torch.softmax(torch.baddbmm(mask, q, k.mT, alpha=scale), -1)
        ctx.save_for_backward(q, k, v, weights)
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        (grad,) = grads
        q, k, v, weights = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        weights_grad = torch.bmm(grad, v.mT)
        scores_grad = torch._softmax_backward_data(weights_grad, weights, -1, weights.dtype)
        return (
            torch.bmm(scores_grad, k).mul_(scale),
            torch.bmm(scores_grad.mT, q).mul_(scale),
            torch.bmm(weights.mT, grad),
            scores_grad if ctx.needs_input_grad[3] else None,
        )


def attend(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H S D"], v: Float[Tensor, "B H S D"], mask: Float[Tensor, "..."]
) -> Float[Tensor, "B H T D"]:
    """Attention for training in bf16 on a CPU, (B, H, T, D). `mask` is 0 where attention is allowed and -inf elsewhere:
    (T, S); or (B, 1, 1, S) where sequences differ, as with padding; or (H, T, S) with learned biases.
    """
    batch = q.shape[:2]
    mask = mask.expand(*batch, -1, -1).flatten(0, 1) if mask.ndim > 2 else mask
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    out: Tensor = _Attend.apply(*flat, mask)  # type: ignore[no-untyped-call]  # torch's
    return out.view(*batch, *out.shape[1:])


class _GELU(torch.autograd.Function):
    """x σ(2u) with u = √(2/π) (x + 0.044715 x³): the tanh form exactly, since (1 + tanh u) / 2 = σ(2u).

    A vectorised sigmoid costs a quarter of PyTorch's fused tanh form.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate = _gate(x)
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        x, gate = ctx.saved_tensors
        # gate + x gate (1 - gate) (b + 3 a x²)
        slope = (x * x).mul_(3 * _GELU_A).add_(_GELU_B).mul_(x)
        slope.mul_(1 - gate).add_(1).mul_(gate)
        out: Tensor = slope.mul_(grad)
        return out


def _gate(x: Tensor) -> Tensor:
    return (x * x).mul_(_GELU_A).add_(_GELU_B).mul_(x).sigmoid_()


_GELU_B = 2 * math.sqrt(2 / math.pi)
_GELU_A = 0.044715 * _GELU_B


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of the Gaussian error linear unit. Hendrycks and Gimpel 2016, section 2."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    if not torch.is_grad_enabled():
        return x * _gate(x)  # autograd would cost 60 µs a call, a tenth of a decoding step
    out: Tensor = _GELU.apply(x)  # type: ignore[no-untyped-call]  # torch's
    return out
