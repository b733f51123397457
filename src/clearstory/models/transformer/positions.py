"""Positions: how a stack knows where each token stands."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SLOW_TURNS, FAST_TURNS = 1.0, 4.0
"""Llama 3.1: pairs that turn less than once within the original context are slowed, those over four times are not."""


class Rotary(nn.Module):
    """Turns each pair of a query's or key's numbers by an angle that grows with its place. Su et al. 2021, eq. 34.

    Pairs are (i, i + half), the order in which Llama's published weights come in Hugging Face folders.
    """

    def __init__(
        self, head_dim: int, context: int, theta: float, factor: float = 1.0, original: int | None = None
    ) -> None:
        super().__init__()
        # float64, so that angles of late places are exact to the last bit of fp32.
        speeds = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        speeds = speeds / rope_scaling_divisors(speeds, factor, original)
        angles = torch.outer(torch.arange(context, dtype=torch.float64), speeds)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def cos_sin(self, places: Int[Tensor, "*B T"] | slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of these places, each (..., T, 1, head_dim / 2): one a pair, alike in every head."""
        return self.cos[places].to(dtype).unsqueeze(-2), self.sin[places].to(dtype).unsqueeze(-2)


def rope_scaling_divisors(speeds: Float[Tensor, "P"], factor: float, original: int | None) -> Float[Tensor, "P"]:
    """By how much each pair of numbers is slowed, given its speed in radians a token.

    Without `original` all by `factor`, linear interpolation (Chen et al. 2023). With it as in Llama 3.1: by `factor`
    those that turn less than once in `original` tokens, not at all those that turn over four times, and between the
    two the speed itself goes evenly from one to the other (Grattafiori et al. 2024; the published rope_scaling).

    >>> rope_scaling_divisors(torch.tensor([1.0, 1e-2, 1e-6]), 8.0, 1000)
    tensor([1.0000, 3.3609, 8.0000])
    """
    if original is None:
        return torch.full_like(speeds, factor)
    turns = original * speeds / (2 * math.pi)
    kept = ((turns - SLOW_TURNS) / (FAST_TURNS - SLOW_TURNS)).clamp(0, 1)
    return 1 / (kept + (1 - kept) / factor)


def sinusoidal_embedding(context: int, width: int) -> Float[Tensor, "T W"]:
    """Sines and cosines of each place, at wavelengths from 2π to 10,000 · 2π. Vaswani et al. 2017, section 3.5.

    Sines fill the first half and cosines the second, as in Marian and the authors' own code; the paper's text has them
    take turns, which is the same to a network up to the order of its rows.

    >>> sinusoidal_embedding(2, 4)[0].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    pairs = (width + 1) // 2
    wavelengths = 10_000 ** (-2 * torch.arange(pairs, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), wavelengths)
    return torch.cat([angles.sin(), angles[:, : width // 2].cos()], 1).float()


class RelativePositionBias(nn.Module):
    """A learnt bias on each head's scores by how far apart query and key stand: exactly when near, in buckets of
    growing width when far, all alike from 128 on. Raffel et al. 2020, section 2.1.
    """

    NUM_BUCKETS, MAX_DISTANCE = 32, 128

    def __init__(self, heads: int, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.bias = nn.Embedding(self.NUM_BUCKETS, heads)

    def forward(self, new: int, kept: int) -> Float[Tensor, "H new kept"]:
        """Biases of the last `new` of `kept` places towards all of them."""
        places = torch.arange(kept, device=self.bias.weight.device)
        distance = places[None] - places[kept - new :, None]
        out: Tensor = self.bias(self.bucket(distance))
        return out.permute(2, 0, 1)

    def bucket(self, distance: Int[Tensor, "Q K"]) -> Int[Tensor, "Q K"]:
        """The bucket of each distance (key's place minus query's). Both ways: half of the buckets for each."""
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
