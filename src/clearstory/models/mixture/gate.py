"""The gate: weights of the experts as a function of context features, fitted on held-out text.

Mixture weights that depend on the context: Jelinek and Mercer 1980 (by the context's count); Mahoney 2005 and Jacobs et
al. 1991 (by a small network). Here its input is how much of the context each table has seen.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

HIDDEN = 16
"""Units of the hidden layer. With 16 3.500 nats per token on held-out chapters of the King James Bible, for an n-gram
model and a Transformer; linear 3.516; one weight for all tokens 3.535.
"""


class Gate(nn.Module):
    """Log-weights of E components from F features, by one hidden layer; before it is fitted, all weigh the same."""

    shift: Tensor  # (F,) mean of each feature in the held-out text
    scale: Tensor  # (F,) its standard deviation

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, HIDDEN)
        self.output = nn.Linear(HIDDEN, components)
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise: equal weights."""
        if self.hidden.weight.is_meta:
            return
        generator = torch.Generator(self.hidden.weight.device).manual_seed(0)
        nn.init.normal_(self.hidden.weight, std=max(1, self.hidden.in_features) ** -0.5, generator=generator)
        for zero in (self.hidden.bias, self.output.weight, self.output.bias):
            nn.init.zeros_(zero)

    def forward(self, features: Float[Tensor, "*D F"], possible: Bool[Tensor, "*D E"]) -> Float[Tensor, "*D E"]:
        """Log-weights, (..., E); −∞ for a component that has no distribution here."""
        scaled = (features.to(self.shift.dtype) - self.shift) / self.scale
        scores: Tensor = self.output(torch.tanh(self.hidden(scaled)))
        return scores.masked_fill(~possible, -torch.inf).log_softmax(-1)
