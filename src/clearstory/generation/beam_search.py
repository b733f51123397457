"""Beam search: the likeliest continuations, found by extending several at once.

Sutskever et al. 2014, with the length normalisation of Wu et al. 2016 (eq. 14) without their constant:
log-probability / length ** length_penalty. Which beams are kept and when a search ends is as in
`generate(num_beams=…)` of transformers; the parity tests compare both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from clearstory.errors import Diverged
from clearstory.generation.sampling import apply_repetition_penalty
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel, State, TokenBatch, inference_mode, initial_state
from clearstory.models.prompts import Truncation, keep_recent_half, prepare_prompt, prepare_source


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


@dataclass
class _Search:
    """The search of one prompt: its beams, and the best finished hypotheses, at most `sampling.beam` of each."""

    prompt: list[int]
    source: list[int]
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
    eos_token_id: int | None = None,
    start_token_id: int | None = None,
    truncate: Truncation | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    suppress_tokens: Sequence[int] = (),
    on_candidate: Callable[[Candidate], object] | None = None,
) -> list[list[Hypothesis]]:
    """For each prompt the `sampling.beam` best continuations, best first.

    A continuation's score is log-probability / length ** `sampling.length_penalty`. At each length the likeliest
    extensions of all of a prompt's beams are kept. One that ends with `eos_token_id` makes room for the next likeliest.
    A search is done when as many have finished as there are beams, and the best beam would not be among them if it
    ended now. One beam is therefore greedy. Temperature and cuts do not apply; the repetition penalty does. Full
    contexts are handled as in `generate`. Prompts are searched in one batch, and each result is that of a search of its
    own. Arguments and errors are those of `generate`.
    """
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    given: Sequence[Sequence[int] | None] = [None] * len(prompts) if sources is None else sources
    source_ids = [prepare_source(model, source, truncate) for source in given]
    prompt_ids = [prepare_prompt(model, prompt, start_token_id, truncate) for prompt in prompts]
    searches = [_Search(*each, on_candidate=on_candidate) for each in zip(prompt_ids, source_ids, strict=True)]
    state: State | None = None
    with inference_mode(model):
        for length in range(1, sampling.max_tokens + 1):
            unfinished = [search for search in searches if not search.done]
            if not unfinished:
                break
            hidden, after = _forward(model, unfinished, state, device)
            logits = model.logits(hidden).double()
            if not bool(logits.logsumexp(-1).isfinite().all()):
                raise Diverged("the model's logits are not finite; its weights are damaged")
            logprobs = logits.log_softmax(-1)
            parents: list[int] = []
            first = 0
            for search in unfinished:
                rows = slice(first, first + len(search.beams))
                last = length == sampling.max_tokens
                own = _extend(search, logits[rows], logprobs[rows], sampling, eos_token_id, suppress_tokens, last)
                parents += [first + parent for parent in own]
                first = rows.stop
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


def _extend(
    search: _Search,
    logits: Tensor,
    logprobs: Tensor,
    sampling: Sampling,
    eos_token_id: int | None,
    suppress_tokens: Sequence[int],
    last: bool,
) -> list[int]:
    """Extend one search's beams by a token, from their logits and log-probabilities, (R, V).

    Updates the search, and returns for each new beam the index of the beam it extends.
    """
    totals = _candidate_totals(search, logits, logprobs, sampling, suppress_tokens)
    width, vocab = sampling.beam, totals.shape[-1]
    # Each beam has one candidate that ends, so that of twice as many at least `width` continue.
    best, flat_indices = totals.flatten().topk(min(2 * width, totals.numel()))
    beams: list[_Beam] = []
    parents: list[int] = []
    for rank, (total, flat_index) in enumerate(zip(best.tolist(), flat_indices.tolist(), strict=True)):
        parent, id = divmod(flat_index, vocab)
        if total == -torch.inf:
            break
        beam = search.beams[parent]
        ends = id == eos_token_id
        # A candidate that ends, but is not among the `width` likeliest, is pruned.
        pruned = (not ends and len(beams) == width) or ((ends or last) and rank >= width)
        if search.on_candidate is not None:
            status: Literal["kept", "finished", "pruned"] = (
                "pruned" if pruned else "finished" if ends or last else "kept"
            )
            search.on_candidate(Candidate((*beam.ids, id), total, status))
        if pruned:
            continue
        extended = _Beam((*beam.ids, id), (*beam.logprobs, float(logprobs[parent, id])), total)
        if ends or last:
            score = total / len(extended.ids) ** sampling.length_penalty
            search.finished.append(Hypothesis(extended.ids, extended.logprobs, score))
        else:
            beams.append(extended)
            parents.append(parent)
    search.finished = sorted(search.finished, key=lambda hypothesis: -hypothesis.score)[:width]
    full = len(search.finished) == width
    best_possible = beams[0].total / len(beams[0].ids) ** sampling.length_penalty if beams else -torch.inf
    search.done = last or not beams or (full and best_possible <= search.finished[-1].score)
    search.beams = [] if search.done else beams
    return [] if search.done else parents


def _candidate_totals(
    search: _Search, logits: Tensor, logprobs: Tensor, sampling: Sampling, suppress_tokens: Sequence[int]
) -> Tensor:
    """The totals of every beam extended by every token, (R, V), repetition penalty included."""
    weighted = logprobs
    if sampling.repetition_penalty != 1:
        penalized = [(*search.prompt, *beam.ids) for beam in search.beams]
        rows = [
            apply_repetition_penalty(row, ids, sampling.repetition_penalty)
            for row, ids in zip(logits, penalized, strict=True)
        ]
        weighted = torch.stack(rows).log_softmax(-1)
    totals = weighted + weighted.new_tensor([[beam.total] for beam in search.beams])
    if suppress_tokens:
        totals = totals.index_fill(-1, torch.tensor(suppress_tokens, device=totals.device), -torch.inf)
    return totals
