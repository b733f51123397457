"""Position embeddings: rotary, sinusoidal, and relative bias. (Learned ones are an `nn.Embedding` of the stack.)"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LOW_FREQUENCY, HIGH_FREQUENCY = 1.0, 4.0
"""Llama 3.1: turns within the original context below which a pair's frequency is scaled fully, and above which not at
all."""


class Rotary(nn.Module):
    """Rotary position embedding: pairs of query and key elements rotate by position. Su et al. 2021, eq. 34.

    Pairs are (i, i + half), the order of Llama's weights in Hugging Face folders. `factor` divides the frequencies, so
    that a model processes longer texts than it was trained on; see `rope_scaling_divisors`.
    """

    def __init__(
        self, head_dim: int, context: int, theta: float, factor: float = 1.0, original_context: int | None = None
    ) -> None:
        super().__init__()
        # float64, so that angles of late positions are exact to the last bit of fp32.
        inverse_frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        inverse_frequencies = inverse_frequencies / rope_scaling_divisors(inverse_frequencies, factor, original_context)
        angles = torch.outer(torch.arange(context, dtype=torch.float64), inverse_frequencies)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def cos_sin(self, positions: Int[Tensor, "*B T"] | slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of these positions' angles, each (..., T, 1, head_dim / 2): one a pair, for all heads."""
        return self.cos[positions].to(dtype).unsqueeze(-2), self.sin[positions].to(dtype).unsqueeze(-2)


def rope_scaling_divisors(
    inverse_frequencies: Float[Tensor, "P"], factor: float, original_context: int | None
) -> Float[Tensor, "P"]:
    """What each pair's inverse frequency (radians per token) is divided by to extend the context, (P,).

    Without `original_context`, `factor` for all pairs: linear interpolation (Chen et al. 2023). With it, as in Llama
    3.1: `factor` for pairs that turn less than once in the original context, 1 for those that turn more than four
    times, and between the two the frequency itself is interpolated (Grattafiori et al. 2024; the published
    rope_scaling).

    >>> rope_scaling_divisors(torch.tensor([1.0, 1e-2, 1e-6]), 8.0, 1000)
    tensor([1.0000, 3.3609, 8.0000])
    """
    if original_context is None:
        return torch.full_like(inverse_frequencies, factor)
    turns = original_context * inverse_frequencies / (2 * math.pi)
    kept = ((turns - LOW_FREQUENCY) / (HIGH_FREQUENCY - LOW_FREQUENCY)).clamp(0, 1)
    return 1 / (kept + (1 - kept) / factor)


def sinusoidal_embedding(context: int, width: int) -> Float[Tensor, "T W"]:
    """Sinusoidal position embeddings, (context, width), wavelengths 2π to 10,000 · 2π. Vaswani et al. 2017, section
    3.5.

    Sines fill the first half and cosines the second, as in Marian and the authors' own code; the paper's text
    alternates them, which to a network is the same up to a permutation.

    >>> sinusoidal_embedding(2, 4)[0].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    pairs = (width + 1) // 2
    inverse_frequencies = 10_000 ** (-2 * torch.arange(pairs, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), inverse_frequencies)
    return torch.cat([angles.sin(), angles[:, : width // 2].cos()], 1).float()


class RelativePositionBias(nn.Module):
    """A learned bias of each head's attention scores by the distance of query and key. Raffel et al. 2020, section 2.1.

    Short distances have a bucket each, longer ones share buckets of growing width, all from 128 on the last.
    """

    NUM_BUCKETS, MAX_DISTANCE = 32, 128

    def __init__(self, heads: int, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.bias = nn.Embedding(self.NUM_BUCKETS, heads)

    def forward(self, new: int, kept: int) -> Float[Tensor, "H new kept"]:
        """Biases of the last `new` of `kept` positions as queries to all of them as keys, (heads, new, kept)."""
        positions = torch.arange(kept, device=self.bias.weight.device)
        distance = positions[None] - positions[kept - new :, None]
        out: Tensor = self.bias(self.bucket(distance))
        return out.permute(2, 0, 1)

    def bucket(self, distance: Int[Tensor, "Q K"]) -> Int[Tensor, "Q K"]:
        """The bucket of each distance (key position minus query position); bidirectional: half for each sign."""
        count, offset = self.NUM_BUCKETS, torch.zeros_like(distance)
        if self.bidirectional:
            count //= 2
            offset = (distance > 0) * count
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = count // 2
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.MAX_DISTANCE / exact)
        far = (exact + (growth * (count - exact)).long()).clamp(max=count - 1)
        return offset + torch.where(distance < exact, distance, far)
