"""Beam search: the most likely continuations, found by extending several hypotheses together.

Sutskever et al. 2014, with the length normalisation of Wu et al. 2016 (eq. 14) without their constant:
log-probability / length ** length_penalty. Which beams are kept and when a search ends is as in
`generate(num_beams=…)` of transformers; the parity tests compare both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from clearstory.errors import Diverged
from clearstory.generation.constraints import EndTokens, TokenConstraints, end_token_ids
from clearstory.generation.sampling import apply_repetition_penalty
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel, State, TokenBatch, inference_mode, initial_state
from clearstory.models.prompts import Truncation, keep_recent_half, prepare_prompt, prepare_source
from clearstory.models.top_tokens import top_tokens


@dataclass(frozen=True)
class Hypothesis:
    """A finished continuation: its ids (the end token included if it came), their log-probabilities, and its score."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class Candidate:
    """A continuation considered in the search: its ids, the total that candidates are ranked by, and its status."""

    ids: tuple[int, ...]
    total: float
    status: Literal["kept", "finished", "pruned"]


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    total: float  # what candidates are ranked by: the sum of log-probabilities, penalties included


EarlyStopping = bool | Literal["never"]
"""When a search with as many finished hypotheses as beams ends: True, at once; False, when the best beam is no better
at its present length; "never", when it could not be at any length.
"""


@dataclass(frozen=True)
class _Rules:
    """The settings of all searches of a batch."""

    sampling: Sampling
    ends: tuple[int, ...]
    suppress_tokens: tuple[int, ...]
    constraints: TokenConstraints | None
    early_stopping: EarlyStopping

    @property
    def n_candidates(self) -> int:
        """Extensions that are considered: each beam has one for each end token, and as many as beams must continue."""
        return max(2, 1 + len(self.ends)) * self.sampling.beam

    def longest(self, prompt: Sequence[int]) -> int:
        """Maximum number of tokens to generate after a prompt."""
        limit = None if self.constraints is None else self.constraints.max_length
        own = self.sampling.max_tokens
        return own if limit is None else max(1, min(own, limit - len(prompt)))


class _Extension(NamedTuple):
    """A beam of a search with one more token: what it is ranked by, the beam's index, the token's id and
    log-probability.
    """

    total: float
    parent: int
    id: int
    logprob: float


@dataclass
class _Search:
    """The search of one prompt: its beams, and the best finished hypotheses, at most `sampling.beam` of each."""

    prompt: list[int]
    source: list[int]
    longest: int
    beams: list[_Beam] = field(default_factory=lambda: [_Beam((), (), 0.0)])
    finished: list[Hypothesis] = field(default_factory=list)
    done: bool = False
    on_candidate: Callable[[Candidate], object] | None = None


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    source: Sequence[int] | None = None,
    on_candidate: Callable[[Candidate], object] | None = None,
    **options: Any,
) -> list[Hypothesis]:
    """The `sampling.beam` best continuations of one prompt, best first; `options` are those of `beam_search_batch`.

    `on_candidate` is called with every candidate, the likeliest of each length first: the whole search tree.
    """
    sources = None if source is None else [source]
    return beam_search_batch(model, [prompt], sampling, sources=sources, on_candidate=on_candidate, **options)[0]


def beam_search_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_token_id: EndTokens = None,
    start_token_id: int | None = None,
    truncate: Truncation | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    suppress_tokens: Sequence[int] = (),
    constraints: TokenConstraints | None = None,
    early_stopping: EarlyStopping = False,
    max_tokens: Sequence[int] | None = None,
    on_candidate: Callable[[Candidate], object] | None = None,
) -> list[list[Hypothesis]]:
    """For each prompt the `sampling.beam` best continuations, best first.

    A continuation's score is log-probability / length ** `sampling.length_penalty`. At each length the likeliest
    extensions of all of a prompt's beams are kept. One that ends with an end token makes room for the next likeliest.
    A search is done when as many have finished as there are beams, and the best beam would not be among them if it
    ended now (see EarlyStopping). One beam is therefore greedy. Temperature and cuts do not apply; the repetition
    penalty and the constraints do, on log-probabilities. Full contexts are handled as in `generate`. Prompts are
    searched in one batch, and each result is that of a search of its own; `max_tokens` are the limits of each, up to
    that of `sampling`. Arguments and errors are those of `generate`.
    """
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    given: Sequence[Sequence[int] | None] = [None] * len(prompts) if sources is None else sources
    source_ids = [prepare_source(model, source, truncate) for source in given]
    prompt_ids = [prepare_prompt(model, prompt, start_token_id, truncate) for prompt in prompts]
    rules = _Rules(sampling, end_token_ids(eos_token_id), tuple(suppress_tokens), constraints, early_stopping)
    limits = [sampling.max_tokens] * len(prompts) if max_tokens is None else max_tokens
    searches = [
        _Search(prompt, source, min(rules.longest(prompt), limit), on_candidate=on_candidate)
        for prompt, source, limit in zip(prompt_ids, source_ids, limits, strict=True)
    ]
    state: State | None = None
    with inference_mode(model):
        for length in range(1, sampling.max_tokens + 1):
            unfinished = [search for search in searches if not search.done]
            if not unfinished:
                break
            hidden, after = _forward(model, unfinished, state, device)
            extensions = _extensions(model, unfinished, hidden, rules, length)
            parents: list[int] = []
            first = 0
            for search, own in zip(unfinished, extensions, strict=True):
                rows = len(search.beams)
                parents += [first + parent for parent in _extend(search, own, rules, last=length == search.longest)]
                first += rows
            state = after.select(parents)
    return [search.finished for search in searches]


def _forward(
    model: LanguageModel, searches: Sequence[_Search], state: State | None, device: torch.device
) -> tuple[Tensor, State]:
    """Let every beam's last token be read: hidden states after it, (R, W), and the states of all R beams."""
    beams = [(search, beam) for search in searches for beam in search.beams]
    lengths = [0] * len(beams) if state is None else state.lengths
    full = [state is None or (model.context is not None and length >= model.context) for length in lengths]
    order: list[int] = []
    vectors: list[Tensor] = []
    states: list[State] = []
    continuing = [index for index, restart in enumerate(full) if not restart]
    if continuing:
        assert state is not None
        ids = torch.tensor([[beams[index][1].ids[-1]] for index in continuing], device=device)
        hidden, after = model.forward(
            TokenBatch(ids), state if len(continuing) == len(beams) else state.select(continuing)
        )
        assert after is not None
        vectors, states, order = [hidden[:, -1]], [after], continuing
    restarting = [index for index, restart in enumerate(full) if restart]
    if restarting:
        sources = [beams[index][0].source for index in restarting]
        texts = [(*beams[index][0].prompt, *beams[index][1].ids) for index in restarting]
        if state is not None and model.context is not None:
            texts = [tuple(keep_recent_half(text, model.context)) for text in texts]
        tokens = TokenBatch.from_sequences(texts, device)
        hidden, after = model.forward(tokens, initial_state(model, len(restarting), sources, device))
        assert after is not None
        vectors.append(hidden[torch.arange(len(restarting), device=device), tokens.last_positions()])
        states.append(after)
        order = order + restarting
    if len(states) == 1:
        return vectors[0], states[0]
    restored = [order.index(index) for index in range(len(beams))]
    return torch.cat(vectors)[restored], type(states[0]).join(states).select(restored)


def _extensions(
    model: LanguageModel, searches: Sequence[_Search], hidden: Tensor, rules: _Rules, length: int
) -> list[list[_Extension]]:
    """The most likely extensions of each search's beams by a token, best first, from hidden states of all, (R, W)."""
    sizes = [len(search.beams) for search in searches]
    if rules.sampling.repetition_penalty == 1 and rules.constraints is None:
        count = rules.n_candidates + len(rules.suppress_tokens)
        # A view may find them without writing the logits down.
        find = getattr(model, "top_tokens", None)
        logprobs, ids = top_tokens(model.logits(hidden), count) if find is None else find(hidden, count)
        _check_finite(not bool(logprobs.isnan().any()))
        rows = zip(logprobs.tolist(), ids.tolist(), strict=True)
        return [
            _best_of_rows(search, list(islice(rows, size)), rules) for search, size in zip(searches, sizes, strict=True)
        ]
    wide = model.logits(hidden).double()
    _check_finite(bool(wide.logsumexp(-1).isfinite().all()))
    every = torch.split(wide.log_softmax(-1), sizes)
    return [
        _best_of_all(search, own, rules, last=length == search.longest)
        for search, own in zip(searches, every, strict=True)
    ]


def _check_finite(finite: bool) -> None:
    if not finite:
        raise Diverged("the model's logits are not finite; its weights are damaged")


def _best_of_rows(search: _Search, rows: Sequence[tuple[list[float], list[int]]], rules: _Rules) -> list[_Extension]:
    """The best extensions of a search's beams, from the log-probabilities and ids of each beam's likeliest tokens."""
    every = [
        _Extension(beam.total + logprob, parent, id, logprob)
        for parent, (beam, (logprobs, ids)) in enumerate(zip(search.beams, rows, strict=True))
        for logprob, id in zip(logprobs, ids, strict=True)
        if id not in rules.suppress_tokens and logprob > -torch.inf
    ]
    return sorted(every, key=lambda each: -each.total)[: rules.n_candidates]


def _best_of_all(search: _Search, logprobs: Tensor, rules: _Rules, last: bool) -> list[_Extension]:
    """The best extensions of a search's beams by any token, penalty and constraints included."""
    totals = _candidate_totals(search, logprobs, rules, last)
    best, flat_indices = totals.flatten().topk(min(rules.n_candidates, totals.numel()))
    found = []
    for total, flat_index in zip(best.tolist(), flat_indices.tolist(), strict=True):
        if total == -torch.inf:
            break
        parent, id = divmod(flat_index, totals.shape[-1])
        found.append(_Extension(total, parent, id, float(logprobs[parent, id])))
    return found


def _extend(search: _Search, extensions: Sequence[_Extension], rules: _Rules, last: bool) -> list[int]:
    """Extend one search's beams by a token, most likely first.

    Updates the search, and returns for each new beam the index of the beam it extends.
    """
    width = rules.sampling.beam
    beams: list[_Beam] = []
    parents: list[int] = []
    for rank, (total, parent, id, logprob) in enumerate(extensions):
        beam = search.beams[parent]
        ends = id in rules.ends
        # A candidate that ends, but is not among the `width` likeliest, is pruned.
        pruned = (not ends and len(beams) == width) or ((ends or last) and rank >= width)
        if search.on_candidate is not None:
            status: Literal["kept", "finished", "pruned"] = (
                "pruned" if pruned else "finished" if ends or last else "kept"
            )
            search.on_candidate(Candidate((*beam.ids, id), total, status))
        if pruned:
            continue
        extended = _Beam((*beam.ids, id), (*beam.logprobs, logprob), total)
        if ends or last:
            score = total / len(extended.ids) ** rules.sampling.length_penalty
            search.finished.append(Hypothesis(extended.ids, extended.logprobs, score))
        else:
            beams.append(extended)
            parents.append(parent)
    search.finished = sorted(search.finished, key=lambda hypothesis: -hypothesis.score)[:width]
    search.done = last or not beams or (len(search.finished) == width and _is_settled(search, beams[0], rules))
    search.beams = [] if search.done else beams
    return [] if search.done else parents


def _is_settled(search: _Search, best: _Beam, rules: _Rules) -> bool:
    """Whether a search with enough finished hypotheses is done, by its best beam."""
    if rules.early_stopping is True:
        return True
    penalty = rules.sampling.length_penalty
    length = search.longest if rules.early_stopping == "never" and penalty > 0 else len(best.ids)
    return bool(best.total / length**penalty <= search.finished[-1].score)


def _candidate_totals(search: _Search, logprobs: Tensor, rules: _Rules, last: bool) -> Tensor:
    """The totals of every beam extended by every token, (R, V), penalty and constraints included."""
    weighted = logprobs
    penalty, constraints = rules.sampling.repetition_penalty, rules.constraints
    if penalty != 1 or constraints is not None:
        rows = []
        for row, beam in zip(logprobs, search.beams, strict=True):
            ids = (*search.prompt, *beam.ids)
            row = apply_repetition_penalty(row, ids, penalty)
            rows.append(row if constraints is None else constraints.apply(row, ids, len(beam.ids), last, rules.ends))
        weighted = torch.stack(rows)
    totals = weighted + weighted.new_tensor([[beam.total] for beam in search.beams])
    if rules.suppress_tokens:
        totals = totals.index_fill(-1, torch.tensor(rules.suppress_tokens, device=totals.device), -torch.inf)
    return totals
