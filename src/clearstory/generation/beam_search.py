"""Search: the likeliest continuations found by following several at once.

Beam search as in Sutskever et al. 2014, lengths weighed as in Wu et al. 2016 (eq. 14) without their constant:
log-probability / length ** penalty. What is followed and when it ends is what `generate(num_beams=…)` of transformers
does, which the parity tests hold it to.
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
from clearstory.models.base import LanguageModel, TokenBatch, State
from clearstory.models.base import inference_mode, initial_state
from clearstory.models.prompts import Truncation, keep_recent_half, prepare_prompt, prepare_source


@dataclass(frozen=True)
class Hypothesis:
    """A continuation: its ids (the end token included if it came), each one's log-probability, and its score."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class Candidate:
    """A continuation that a step has weighed: its ids, what it was compared by, and what became of it."""

    ids: tuple[int, ...]
    total: float
    status: Literal["kept", "finished", "pruned"]


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    total: float  # what candidates are compared by: the sum of log-probabilities, penalties included


@dataclass
class _Search:
    """One prompt's search: what is followed, and the best that has ended, at most `sampling.beam` of each."""

    first: list[int]
    source: list[int]
    beams: list[_Beam] = field(default_factory=lambda: [_Beam((), (), 0.0)])
    ended: list[Hypothesis] = field(default_factory=list)
    over: bool = False
    told: Callable[[Candidate], object] | None = None


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    source: Sequence[int] | None = None,
    told: Callable[[Candidate], object] | None = None,
    **reading: Any,
) -> list[Hypothesis]:
    """The `sampling.beam` best continuations of one prompt, best first; see `beam_search_batch`.

    `told` is called with every candidate that a step weighs, the likeliest of a step first: the whole tree.
    """
    sources = None if source is None else [source]
    return beam_search_batch(model, [prompt], sampling, sources=sources, told=told, **reading)[0]


def beam_search_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos: int | None = None,
    begin: int | None = None,
    truncate: Truncation | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    never: Sequence[int] = (),
    told: Callable[[Candidate], object] | None = None,
) -> list[list[Hypothesis]]:
    """For each prompt the `sampling.beam` best continuations, best first: log-probability / length **
    `sampling.length_penalty`.

    Each step goes on with the likeliest continuations of all of a prompt's beams together. One that ends with `eos`
    makes room for the next likeliest; a search is over when as many have ended as there are beams, and the best that
    is still followed would not be among them if it ended now. A beam of width 1 is therefore greedy. Temperature and
    cuts play no part; the repetition penalty does. Contexts that are full begin anew as in `generate`. Prompts are
    searched side by side, and each finds what it would find alone. Raises as `generate` does.
    """
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    given: Sequence[Sequence[int] | None] = [None] * len(prompts) if sources is None else sources
    read = [prepare_source(model, source, truncate) for source in given]
    first = [prepare_prompt(model, prompt, begin, truncate) for prompt in prompts]
    searches = [_Search(*each, told=told) for each in zip(first, read, strict=True)]
    state: State | None = None
    with inference_mode(model):
        for step in range(sampling.max_tokens):
            going = [search for search in searches if not search.over]
            if not going:
                break
            hidden, after = advance(model, going, state, device)
            logits = model.logits(hidden).double()
            if not bool(logits.logsumexp(-1).isfinite().all()):
                raise Diverged("the model's logits are not finite numbers; its weights are damaged")
            own = logits.log_softmax(-1)
            parents: list[int] = []
            place = 0
            for search in going:
                rows = slice(place, place + len(search.beams))
                last = step == sampling.max_tokens - 1
                kept = grow(search, logits[rows], own[rows], sampling, eos, never, last)
                parents += [place + parent for parent in kept]
                place = rows.stop
            state = after.select(parents)
    return [search.ended for search in searches]


def advance(
    model: LanguageModel, searches: Sequence[_Search], state: State | None, device: torch.device
) -> tuple[Tensor, State]:
    """Have every beam's last token read: what the model knows after it, (R, W), and its memory of all R beams."""
    beams = [(search, beam) for search in searches for beam in search.beams]
    lengths = [0] * len(beams) if state is None else state.lengths
    full = [state is None or (model.context is not None and length >= model.context) for length in lengths]
    order: list[int] = []
    vectors: list[Tensor] = []
    states: list[State] = []
    old = [place for place, anew in enumerate(full) if not anew]
    if old:
        assert state is not None
        ids = torch.tensor([[beams[place][1].ids[-1]] for place in old], device=device)
        hidden, after = model.forward(TokenBatch(ids), state if len(old) == len(beams) else state.select(old))
        assert after is not None
        vectors, states, order = [hidden[:, -1]], [after], old
    new = [place for place, anew in enumerate(full) if anew]
    if new:
        sources = [beams[place][0].source for place in new]
        texts = [(*beams[place][0].first, *beams[place][1].ids) for place in new]
        if state is not None and model.context is not None:
            texts = [tuple(keep_recent_half(text, model.context)) for text in texts]
        tokens = TokenBatch.from_sequences(texts, device)
        hidden, after = model.forward(tokens, initial_state(model, len(new), sources, device))
        assert after is not None
        vectors.append(hidden[torch.arange(len(new), device=device), tokens.last_positions()])
        states.append(after)
        order = order + new
    if len(states) == 1:
        return vectors[0], states[0]
    back = [order.index(place) for place in range(len(beams))]
    return torch.cat(vectors)[back], type(states[0]).join(states).select(back)


def grow(
    search: _Search,
    logits: Tensor,
    own: Tensor,
    sampling: Sampling,
    eos: int | None,
    never: Sequence[int],
    last: bool,
) -> list[int]:
    """One step of one search over the logits and log-probabilities of its beams, (R, V): what was ended, what is
    followed further, and of the latter which beam each came from.
    """
    weighed = own
    if sampling.repetition_penalty != 1:
        seen = [(*search.first, *beam.ids) for beam in search.beams]
        pairs = zip(logits, seen, strict=True)
        weighed = torch.stack([apply_repetition_penalty(row, ids, sampling.repetition_penalty) for row, ids in pairs]).log_softmax(-1)
    totals = weighed + weighed.new_tensor([[beam.total] for beam in search.beams])
    if never:
        totals = totals.index_fill(-1, torch.tensor(never, device=totals.device), -torch.inf)
    width, vocab = sampling.beam, totals.shape[-1]
    # Of each beam only one candidate ends, so that of twice as many at least `width` go on.
    best, places = totals.flatten().topk(min(2 * width, totals.numel()))
    followed: list[_Beam] = []
    parents: list[int] = []
    for rank, (total, place) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
        parent, id = divmod(place, vocab)
        if total == -torch.inf:
            break
        beam = search.beams[parent]
        ends = id == eos
        # What would end, but is not among the likeliest, is dropped.
        dropped = (not ends and len(followed) == width) or ((ends or last) and rank >= width)
        if search.told is not None:
            status: Any = "pruned" if dropped else "finished" if ends or last else "kept"
            search.told(Candidate((*beam.ids, id), total, status))
        if dropped:
            continue
        grown = _Beam((*beam.ids, id), (*beam.logprobs, float(own[parent, id])), total)
        if ends or last:
            score = total / len(grown.ids) ** sampling.length_penalty
            search.ended.append(Hypothesis(grown.ids, grown.logprobs, score))
        else:
            followed.append(grown)
            parents.append(parent)
    search.ended = sorted(search.ended, key=lambda found: -found.score)[:width]
    full = len(search.ended) == width
    hope = followed[0].total / len(followed[0].ids) ** sampling.length_penalty if followed else -torch.inf
    search.over = last or not followed or (full and hope <= search.ended[-1].score)
    search.beams = [] if search.over else followed
    return [] if search.over else parents
