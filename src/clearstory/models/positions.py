"""Positions: how a stack knows where each token stands."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn


class Rotary(nn.Module):
    """Turns each pair of a query's or key's numbers by an angle that grows with its place. Su et al. 2021, eq. 34.

    Pairs are (i, i + half), the order in which Llama's published weights come in Hugging Face folders.
    """

    def __init__(self, head_width: int, context: int, theta: float) -> None:
        super().__init__()
        # float64, so that angles of late places are exact to the last bit of fp32.
        wavelengths = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.outer(torch.arange(context, dtype=torch.float64), wavelengths)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def at(self, places: Int[Tensor, "*B T"] | slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of these places, each (..., T, 1, head_width / 2): one a pair, alike in every head."""
        return self.cos[places].to(dtype).unsqueeze(-2), self.sin[places].to(dtype).unsqueeze(-2)
