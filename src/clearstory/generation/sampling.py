"""Sampling: one token for each row of logits, by biases, penalties, temperature, top-k, top-p and min-p.

Letters in shapes: R rows, V vocabulary, K tokens that remain after the cuts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from clearstory.errors import Diverged
from clearstory.generation.settings import Sampling


@dataclass(frozen=True)
class NextTokenScores:
    """The model's own distribution over the next token of each row, before biases, penalties and cuts.

    Args:
        logits: logits in fp32 or float64.
        log_totals: logarithm of the sum of their exponentials.

    >>> scores = NextTokenScores.of(torch.tensor([[0.0, 2.0]]))  # e² / (e⁰ + e²) = 0.8808
    >>> round(scores.logprobs(torch.tensor([1])).exp().item(), 4), scores.likeliest([1])[0][0][0]
    (0.8808, 1)
    """

    logits: Float[Tensor, "R V"]
    log_totals: Float[Tensor, "R"]

    @classmethod
    def of(cls, logits: Float[Tensor, "R V"]) -> NextTokenScores:
        """The distribution with these logits. Raises Diverged when a row is not finite."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        log_totals = wide.logsumexp(-1)
        if not bool(log_totals.isfinite().all()):
            raise Diverged("the model's logits are not finite; its weights are damaged or its training diverged")
        return cls(wide, log_totals)

    def first(self, count: int) -> NextTokenScores:
        """The distributions of the first rows."""
        return NextTokenScores(self.logits[:count], self.log_totals[:count])

    def logprobs(self, ids: Int[Tensor, "R"]) -> Float[Tensor, "R"]:
        """Log-probability of one id of each row."""
        return self.logits.gather(1, ids[:, None]).squeeze(1) - self.log_totals

    def likeliest(self, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
        """The likeliest tokens of each row, so many of each, likeliest first: ids and log-probabilities, which are
        bit for bit those of `logprobs`.
        """
        found: list[tuple[tuple[int, float], ...]] = [()] * len(counts)
        rows = [row for row, count in enumerate(counts) if count]
        if rows:
            at = slice(None) if len(rows) == len(counts) else rows
            values, ids = self.logits[at].topk(min(max(counts), self.logits.shape[1]))
            logprobs = values - self.log_totals[at, None]
            for row, *pairs in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
                found[row] = tuple(zip(*pairs, strict=True))[: counts[row]]
        return found


def sample_tokens(
    logits: Float[Tensor, "R V"],
    samplings: Sequence[Sampling],
    generators: Sequence[Generator | None],
    penalized: Sequence[Sequence[int]],
    suppress_tokens: Sequence[int] = (),
    constrain: Callable[[Tensor], Tensor] | None = None,
    generated: Sequence[Sequence[int]] = (),
) -> tuple[Int[Tensor, "R"], Float[Tensor, "R"]]:
    """One id for each row, and its log-probability under the model's own distribution; see `choose_tokens`.

    Raises Diverged when a row is not finite.

    >>> ids, logprobs = sample_tokens(torch.tensor([[0.0, 2.0]]), [Sampling(temperature=0)], [None], [[]])
    >>> ids.tolist(), round(logprobs.exp().item(), 4)  # e² / (e⁰ + e²)
    ([1], 0.8808)
    """
    scores = NextTokenScores.of(logits)
    ids = choose_tokens(scores.logits, samplings, generators, penalized, suppress_tokens, constrain, generated)
    return ids, scores.logprobs(ids)


def choose_tokens(
    logits: Float[Tensor, "R V"],
    samplings: Sequence[Sampling],
    generators: Sequence[Generator | None],
    penalized: Sequence[Sequence[int]],
    suppress_tokens: Sequence[int] = (),
    constrain: Callable[[Tensor], Tensor] | None = None,
    generated: Sequence[Sequence[int]] = (),
) -> Int[Tensor, "R"]:
    """One id for each row. Each row has its own settings and generator, so its result does not depend on the others.

    `penalized` are the ids that each row's repetition penalty applies to, `generated` those of its presence and
    frequency penalties, `suppress_tokens` those that are never chosen; `constrain` returns the logits without tokens
    that must not be chosen.
    """
    if constrain is not None:
        logits = constrain(logits)
    if suppress_tokens:
        logits = logits.index_fill(-1, torch.tensor(suppress_tokens, device=logits.device), -torch.inf)
    ids = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for sampling, rows in rows_to_sample(samplings, logits.device):
        first, last = rows[0], rows[-1]
        at = slice(first, last + 1) if last - first + 1 == len(rows) else rows
        ids[at] = sample_rows(
            logits[at],
            sampling,
            [generators[i] for i in rows],
            [penalized[i] for i in rows],
            [generated[i] for i in rows] if generated else (),
        )
    return ids


def rows_to_sample(samplings: Sequence[Sampling], device: torch.device) -> list[tuple[Sampling, list[int]]]:
    """Settings and the rows that are sampled with them at once: all that differ in seed and length only. On a CPU a
    single row, which stays in its cache (0.2 ms for a row of 50,257 tokens, and 0.8 for each of eight).
    """
    if device.type == "cpu" and any(each.temperature > 0 for each in samplings):
        return [(sampling, [row]) for row, sampling in enumerate(samplings)]
    found: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        found.setdefault(replace(sampling, seed=None, max_tokens=1, stop=()), []).append(row)
    return list(found.items())


def sample_rows(
    logits: Float[Tensor, "R V"],
    sampling: Sampling,
    generators: Sequence[Generator | None],
    penalized: Sequence[Sequence[int]],
    generated: Sequence[Sequence[int]] = (),
) -> Int[Tensor, "R"]:
    """One id for each row: biases, penalties, temperature, cuts, and a random draw from what remains."""
    if sampling.logit_bias:
        ids, biases = zip(*sampling.logit_bias, strict=True)
        logits = logits.index_add(
            1, torch.tensor(ids, device=logits.device), logits.new_tensor(biases).expand(len(logits), -1)
        )
    if sampling.repetition_penalty != 1:
        pairs = zip(logits, penalized, strict=True)
        logits = torch.stack([apply_repetition_penalty(row, ids, sampling.repetition_penalty) for row, ids in pairs])
    if sampling.changes_generated and any(generated):
        pairs = zip(logits, generated, strict=True)
        logits = torch.stack([apply_generated_penalties(row, ids, sampling) for row, ids in pairs])
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # The maximum is subtracted first, so that a temperature near 0 cannot overflow.
    scaled = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    kept, probabilities, n_kept = filter_rows(scaled, sampling)
    # Inverse of the cumulative distribution, in float64: one random number a token, where torch.multinomial takes V.
    cumulative = probabilities.double().cumsum(-1)
    random = torch.stack([torch.rand((), dtype=torch.float64, generator=generator) for generator in generators])
    thresholds = random.to(logits.device)[:, None] * cumulative[:, -1:]
    indices = torch.minimum(torch.searchsorted(cumulative, thresholds, right=True), n_kept - 1)
    return (indices if kept is None else kept.gather(1, indices)).squeeze(1)


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


def apply_generated_penalties(
    logits: Float[Tensor, "V"], generated: Sequence[int], sampling: Sampling
) -> Float[Tensor, "V"]:
    """Logits minus, for each id that was generated n times, n · frequency_penalty + presence_penalty: the formula of
    OpenAI's API.
    """
    if not generated:
        return logits
    ids, counts = zip(*Counter(generated).items(), strict=True)
    lowered = logits.new_tensor(counts) * sampling.frequency_penalty + sampling.presence_penalty
    return logits.index_add(0, torch.tensor(ids, device=logits.device), -lowered)


def filtered_probabilities(
    logits: Float[Tensor, "V"], sampling: Sampling
) -> tuple[Int[Tensor, "K"] | None, Float[Tensor, "K"]]:
    """What remains after top-k, top-p and min-p, in this order: ids (None for all) and probabilities, likeliest first.

    Each cut sees the renormalised result of the one before. The likeliest token always remains. Probabilities are not
    renormalised at the end.
    """
    ids, probabilities, n_kept = filter_rows(logits[None], sampling)
    return None if ids is None else ids[0, : int(n_kept)], probabilities[0, : int(n_kept)]


def filter_rows(
    logits: Float[Tensor, "R V"], sampling: Sampling
) -> tuple[Int[Tensor, "R K"] | None, Float[Tensor, "R K"], Int[Tensor, "R 1"]]:
    """The same for each row: ids, probabilities with 0 for tokens that are cut, and the number of those that remain,
    which are the first.
    """
    ids: Tensor | None = None
    if 0 < sampling.top_k < logits.shape[1]:
        logits, ids = logits.topk(sampling.top_k)
    elif sampling.top_p < 1 or sampling.min_p > 0:
        logits, ids = logits.sort(descending=True, stable=True)
    probabilities = logits.softmax(-1)
    if sampling.top_p == 1 and sampling.min_p == 0:
        return ids, probabilities, torch.full((len(logits), 1), logits.shape[1], device=logits.device)
    # A token remains while those before it have not reached p: the fewest that together hold at least p.
    cut = probabilities.cumsum(-1) - probabilities >= sampling.top_p
    cut |= probabilities < sampling.min_p * probabilities[:, :1]
    cut[:, 0] = False
    keep = cut.cumsum(-1) == 0  # rounded sums need not rise
    return ids, probabilities * keep, keep.sum(-1, keepdim=True)
