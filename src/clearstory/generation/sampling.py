"""Sampling: one token for each row of logits, by temperature, top-k, top-p, min-p and repetition penalty.

Letters in shapes: R rows, V vocabulary, K tokens that remain after the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from clearstory.errors import Diverged
from clearstory.generation.settings import Sampling


def sample_tokens(
    logits: Float[Tensor, "R V"],
    samplings: Sequence[Sampling],
    generators: Sequence[Generator | None],
    penalized: Sequence[Sequence[int]],
    suppress_tokens: Sequence[int] = (),
    constrain: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Int[Tensor, "R"], Float[Tensor, "R"]]:
    """One id for each row, and its log-probability under the model's own distribution, before any cut or penalty.

    Each row is sampled with its own settings and generator, so its result does not depend on the other rows.
    `penalized` are the ids that each row's repetition penalty applies to, `suppress_tokens` those that are never
    chosen; `constrain` returns the logits without tokens that must not be chosen. Raises Diverged when a row is not
    finite.

    >>> ids, logprobs = sample_tokens(torch.tensor([[0.0, 2.0]]), [Sampling(temperature=0)], [None], [[]])
    >>> ids.tolist(), round(logprobs.exp().item(), 4)  # e² / (e⁰ + e²)
    ([1], 0.8808)
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_totals = wide.logsumexp(-1)
    if not bool(log_totals.isfinite().all()):
        raise Diverged("the model's logits are not finite; its weights are damaged or its training diverged")
    own = wide
    if constrain is not None:
        wide = constrain(wide)
    if suppress_tokens:
        wide = wide.index_fill(-1, torch.tensor(suppress_tokens, device=wide.device), -torch.inf)
    greedy = all(sampling.temperature == 0 and sampling.repetition_penalty == 1 for sampling in samplings)
    if greedy:
        ids = wide.argmax(-1)
    else:
        sampled = [sample_token(*row) for row in zip(wide, samplings, generators, penalized, strict=True)]
        ids = torch.tensor(sampled, device=wide.device)
    return ids, own.gather(1, ids[:, None]).squeeze(1) - log_totals


def sample_token(
    logits: Float[Tensor, "V"], sampling: Sampling, generator: Generator | None, penalized: Sequence[int]
) -> int:
    """The id for one row: repetition penalty, temperature, cuts, and a random draw from what remains."""
    logits = apply_repetition_penalty(logits, penalized, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    # The maximum is subtracted first, so that a temperature near 0 cannot overflow.
    ids, probabilities = filtered_probabilities((logits - logits.max()) / sampling.temperature, sampling)
    # Inverse of the cumulative distribution, in float64: one random number a token, where torch.multinomial takes V.
    cumulative = probabilities.double().cumsum(0)
    threshold = torch.rand((), dtype=torch.float64, generator=generator).to(cumulative.device) * cumulative[-1]
    index = min(int(torch.searchsorted(cumulative, threshold, right=True)), len(cumulative) - 1)
    return index if ids is None else int(ids[index])


def apply_repetition_penalty(
    logits: Float[Tensor, "V"], penalized: Sequence[int], penalty: float
) -> Float[Tensor, "V"]:
    """Logits with those of `penalized` ids lowered: positive ones divided, negative ones multiplied by `penalty`.

    Keskar et al. 2019.
    """
    if penalty == 1 or not penalized:
        return logits
    ids = torch.tensor(sorted(set(penalized)), device=logits.device)
    values = logits[ids]
    return logits.scatter(0, ids, torch.where(values > 0, values / penalty, values * penalty))


def filtered_probabilities(
    logits: Float[Tensor, "V"], sampling: Sampling
) -> tuple[Int[Tensor, "K"] | None, Float[Tensor, "K"]]:
    """What remains after top-k, top-p and min-p, in this order: ids (None for all) and probabilities, likeliest first.

    Each cut sees the renormalised result of the one before. The likeliest token always remains. Probabilities are not
    renormalised at the end.
    """
    ids: Tensor | None = None
    if 0 < sampling.top_k < len(logits):
        logits, ids = logits.topk(sampling.top_k)
    elif sampling.top_p < 1 or sampling.min_p > 0:
        logits, ids = logits.sort(descending=True, stable=True)
    probabilities = logits.softmax(-1)
    if ids is None:
        return None, probabilities
    keep = torch.ones_like(probabilities, dtype=torch.bool)
    if sampling.top_p < 1:
        # A token remains while those before it have not reached p: the fewest that together hold at least p.
        keep &= probabilities.cumsum(0) - probabilities < sampling.top_p
    keep &= probabilities >= sampling.min_p * probabilities[0]
    keep[0] = True
    return ids[keep], probabilities[keep]
