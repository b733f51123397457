"""Pseudo-likelihood: the probability of each token given all others under an encoder. Salazar et al. 2020, eq. 1.

PLL(W) = Σ ln p(w_t | W without w_t): one forward pass for each token, with that token masked. It is not the probability
of the text: each token is predicted from its future as well, so it is far higher than a causal model can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from clearstory.metrics import Floats
from clearstory.models.base import IGNORE_INDEX, TokenBatch, TokenSequences
from clearstory.models.transformer.encoder import Encoder
from clearstory.text.special_tokens import cls_and_sep_ids, require_mask_token
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer

MAX_BATCH_TOKENS = 8192
"""Maximum number of tokens of all masked copies of a window in one forward pass."""


@dataclass(frozen=True)
class MaskingTokens:
    """The special tokens of an encoder's input: [CLS], [SEP] and [MASK]."""

    cls_token_id: int
    sep_token_id: int
    mask_token_id: int


class DocumentBlock(NamedTuple):
    """Ids start:stop of a dataset, processed in one window."""

    start: int
    stop: int


def iter_blocks(dataset: TokenSequences, length: int) -> Iterator[DocumentBlock]:
    """Documents in adjacent blocks of at most `length` tokens; none holds tokens of two documents."""
    for first, stop in zip(dataset.starts[:-1], dataset.starts[1:], strict=True):
        for start in range(int(first), int(stop), length):
            yield DocumentBlock(start, min(start + length, int(stop)))


@torch.no_grad()
def pseudo_nll(
    model: Encoder, ids: Sequence[int], special: MaskingTokens, positions: Sequence[int]
) -> Float[torch.Tensor, "N"]:
    """−ln p(token | all others) of the tokens at `positions` of `ids` in nats, (N,); [CLS] and [SEP] are added here."""
    device = model.embedding.weight.device
    whole = torch.tensor([special.cls_token_id, *ids, special.sep_token_id], device=device)
    if len(whole) > model.config.context:
        model.check_ids(whole, len(whole))
    masked = torch.tensor(positions, device=device) + 1
    parts = [torch.zeros(0)]
    for some in torch.split(masked, max(1, MAX_BATCH_TOKENS // len(whole))):
        copies = whole.repeat(len(some), 1)
        targets = torch.full((len(some), len(whole)), IGNORE_INDEX, device=device)
        row = torch.arange(len(some), device=device)
        targets[row, some] = copies[row, some]
        copies[row, some] = special.mask_token_id
        nats, _ = model.token_nll(TokenBatch(copies), targets)
        parts.append(nats.sum(1).cpu())
    return torch.cat(parts)


def pseudo_token_nll(
    model: Encoder,
    tokenizer: Tokenizer,
    dataset: TokenDataset,
    positions: Sequence[int],
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[int], Floats]:
    """The `positions` of a dataset that are not special tokens, and −ln p of their tokens given all others, (N,).

    Each document is read in adjacent blocks. `on_progress` is called with tokens done and tokens in all.
    """
    special = MaskingTokens(*cls_and_sep_ids(tokenizer), require_mask_token(tokenizer))
    scored = np.asarray(positions, np.int64)
    scored = scored[~tokenizer.special_tokens_mask[np.asarray(dataset.ids[scored])]]
    nats: list[float] = []
    for block in iter_blocks(dataset, model.config.context - 2):
        first, last = np.searchsorted(scored, [block.start, block.stop])
        if first == last:
            continue
        ids = [int(id) for id in dataset.ids[block.start : block.stop]]
        nats += pseudo_nll(model, ids, special, (scored[first:last] - block.start).tolist()).tolist()
        if on_progress is not None:
            on_progress(len(nats), len(scored))
    return scored.tolist(), np.asarray(nats, np.float64)


def spread_positions(dataset: TokenDataset, limit: int) -> list[int]:
    """Positions of about `limit` tokens, in evenly spread runs of 16; all positions of a shorter dataset."""
    if limit >= len(dataset):
        return list(range(len(dataset)))
    runs = np.linspace(0, len(dataset) - 16, max(1, limit // 16)).astype(np.int64)
    return [int(position) for position in np.unique(runs[:, None] + np.arange(16))]
