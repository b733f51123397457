"""Sampling: from one row of logits to one token.

Letters in shapes: R rows, V vocabulary, K tokens that survive the cuts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from clearstory.errors import Diverged
from clearstory.generation.settings import Sampling


def sample_tokens(
    logits: Float[Tensor, "R V"],
    samplings: Sequence[Sampling],
    generators: Sequence[Generator | None],
    seen: Sequence[Sequence[int]],
    never: Sequence[int] = (),
) -> tuple[Int[Tensor, "R"], Float[Tensor, "R"]]:
    """One token for each row, and its log-probability under the model's own distribution, before any cut or penalty.

    Each row is drawn by its own settings and its own generator, so its result does not depend on its company.
    `seen` holds the tokens each row's repetition penalty falls on, `never` those that no row may be given. Raises
    Diverged when a row holds no numbers.

    >>> ids, logprobs = choose(torch.tensor([[0.0, 2.0]]), [Sampling(temperature=0)], [None], [[]])
    >>> ids.tolist(), round(logprobs.exp().item(), 4)  # e² / (e⁰ + e²)
    ([1], 0.8808)
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    totals = wide.logsumexp(-1)
    if not bool(totals.isfinite().all()):
        raise Diverged("the model's logits are not finite numbers; its weights are damaged or its training diverged")
    if never:
        wide = wide.index_fill(-1, torch.tensor(never, device=wide.device), -torch.inf)
    greedy = all(sampling.temperature == 0 and sampling.repetition_penalty == 1 for sampling in samplings)
    if greedy:
        ids = wide.argmax(-1)
    else:
        drawn = [draw(*row) for row in zip(wide, samplings, generators, seen, strict=True)]
        ids = torch.tensor(drawn, device=wide.device)
    return ids, wide.gather(1, ids[:, None]).squeeze(1) - totals


def draw(logits: Float[Tensor, "V"], sampling: Sampling, generator: Generator | None, seen: Sequence[int]) -> int:
    """One row's token: penalty, temperature, then a draw among what the cuts keep."""
    logits = apply_repetition_penalty(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    # The largest first becomes 0, so that a temperature near 0 cannot overflow.
    ids, probabilities = filtered_probabilities((logits - logits.max()) / sampling.temperature, sampling)
    # Inverse of the cumulative distribution, in float64: one number drawn a token, where torch.multinomial draws V.
    edges = probabilities.double().cumsum(0)
    place = torch.rand((), dtype=torch.float64, generator=generator).to(edges.device) * edges[-1]
    index = min(int(torch.searchsorted(edges, place, right=True)), len(edges) - 1)
    return index if ids is None else int(ids[index])


def apply_repetition_penalty(logits: Float[Tensor, "V"], seen: Sequence[int], penalty: float) -> Float[Tensor, "V"]:
    """Tokens already there made less likely: positive logits divided, negative ones multiplied. Keskar et al. 2019."""
    if penalty == 1 or not seen:
        return logits
    places = torch.tensor(sorted(set(seen)), device=logits.device)
    values = logits[places]
    return logits.scatter(0, places, torch.where(values > 0, values / penalty, values * penalty))


def filtered_probabilities(logits: Float[Tensor, "V"], sampling: Sampling) -> tuple[Int[Tensor, "K"] | None, Float[Tensor, "K"]]:
    """What top-k, top-p and min-p leave, in this order: ids (None for all) and their probabilities, likeliest first.

    Each cut sees the renormalised leavings of the one before. The likeliest token always stays. Probabilities are
    not renormalised at the end.
    """
    ids: Tensor | None = None
    if 0 < sampling.top_k < len(logits):
        logits, ids = logits.topk(sampling.top_k)
    elif sampling.top_p < 1 or sampling.min_p > 0:
        logits, ids = logits.sort(descending=True, stable=True)
    probabilities = logits.softmax(-1)
    if ids is None:
        return None, probabilities
    stays = torch.ones_like(probabilities, dtype=torch.bool)
    if sampling.top_p < 1:
        # A token stays while those before it have not reached p: the fewest that together hold at least p.
        stays &= probabilities.cumsum(0) - probabilities < sampling.top_p
    stays &= probabilities >= sampling.min_p * probabilities[0]
    stays[0] = True
    return ids[stays], probabilities[stays]
