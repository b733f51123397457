"""Pseudo-likelihood: how well an encoder tells each token from all the others. Salazar et al. 2020, eq. 1.

PLL(W) = Σ ln p(w_t | W without w_t): one reading for each token, with that token masked. It is no probability of the
text: each token is told from its future as well, so it is far above what a model that reads left to right can reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from clearstory.models.base import IGNORE_INDEX, TokenSequences, TokenBatch
from clearstory.models.transformer.encoder import Encoder

MAX_BATCH_TOKENS = 8192
"""Of all copies of a window that are read together."""


@dataclass(frozen=True)
class Frame:
    """What stands around a window, and what hides a token."""

    first: int
    last: int
    mask: int


@dataclass(frozen=True)
class Stretch:
    """Ids begin:end of a text, read in one window."""

    begin: int
    end: int


def stretches(rows: TokenSequences, room: int) -> Iterator[Stretch]:
    """Documents in windows of `room` tokens side by side; none sees another's."""
    for start, stop in zip(rows.starts[:-1], rows.starts[1:], strict=True):
        for begin in range(int(start), int(stop), room):
            yield Stretch(begin, min(begin + room, int(stop)))


@torch.no_grad()
def pseudo_nll(model: Encoder, ids: Sequence[int], frame: Frame, places: Sequence[int]) -> Float[torch.Tensor, "N"]:
    """−ln p(token | all the others of the window) of the tokens at `places` of `ids`, which are framed here."""
    device = model.embedding.weight.device
    whole = torch.tensor([frame.first, *ids, frame.last], device=device)
    if len(whole) > model.config.context:
        model.check(whole, len(whole))
    wanted = torch.tensor(places, device=device) + 1
    found = [torch.zeros(0)]
    for some in torch.split(wanted, max(1, MAX_BATCH_TOKENS // len(whole))):
        copies, told = whole.repeat(len(some), 1), torch.full((len(some), len(whole)), IGNORE_INDEX, device=device)
        row = torch.arange(len(some), device=device)
        told[row, some] = copies[row, some]
        copies[row, some] = frame.mask
        nats, _ = model.token_nll(TokenBatch(copies), told)
        found.append(nats.sum(1).cpu())
    return torch.cat(found)
