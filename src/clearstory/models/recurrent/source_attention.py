"""Attention of a recurrent decoder to its source: additive (Bahdanau et al. 2015) or dot (Luong et al. 2015)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clearstory.models.autograd_functions import Linear
from clearstory.models.recurrent.recurrence import attention_weights
from clearstory.models.recurrent.seq2seq_config import RecurrentSeq2SeqConfig


class SourceAttention(nn.Module):
    """Weights of the source's tokens, from a query and their keys.

    additive: vᵀ tanh(W_a s_{i-1} + U_a h_j), Bahdanau et al. 2015, appendix A.1.2, where s_{i-1} is the state before;
    queries and keys have the width of the embeddings.
    dot: s_iᵀ W_a h_j, Luong et al. 2015, eq. 8 (general), where s_i is the decoder's output.
    """

    causal = False
    sliding_window: int | None = None

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        units, size, additive = config.hidden_size, config.head_dim, config.attention == "additive"
        self.head_dim = size
        self.key = Linear(units, size, bias=False)
        self.query = Linear(units, size, bias=False) if additive else None
        self.energy = nn.Parameter(torch.empty(size)) if additive else None

    def forward(
        self, states: Float[Tensor, "B T U"], keys: Float[Tensor, "B S A"], padding: Bool[Tensor, "B S"] | None
    ) -> Float[Tensor, "B T S"]:
        """Attention weights of each state, (B, T, S); with additive attention, of one state for each sequence."""
        if self.query is not None and self.energy is not None:
            query = self.query(states[:, 0])
            return attention_weights(query, keys.to(query.dtype), self.energy.to(query.dtype), padding)[:, None]
        scores = torch.bmm(states, keys.to(states.dtype).mT)
        return (scores if padding is None else scores.masked_fill(padding[:, None], -torch.inf)).softmax(-1)

    def pattern(self, weights: Float[Tensor, "B T S"]) -> Float[Tensor, "B T S"]:
        """The attention weights of a forward pass, unchanged: the point at which they are recorded."""
        return weights
