"""Search: the likeliest continuations found by following several at once.

Beam search as in Sutskever et al. 2014, lengths weighed as in Wu et al. 2016 without their constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clearstory.errors import Diverged
from clearstory.generation.sampling import penalised
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel, Padded
from clearstory.models.prompts import Truncate, fit_prompt, renewed, resting


@dataclass(frozen=True)
class Found:
    """A continuation: its ids (the end token included if it came), each one's log-probability, and its score."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    total: float  # what candidates are compared by: the sum of log-probabilities, penalties included


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    eos: int | None = None,
    begin: int | None = None,
    truncate: Truncate | None = None,
) -> list[Found]:
    """The `sampling.beam` best continuations, best first: log-probability / length ** `sampling.length_penalty`.

    Each step goes on with the likeliest continuations of all beams together; one that ends with `eos` keeps its place
    and leaves the others one fewer, so a beam of width 1 is greedy. Temperature and cuts play no part; the repetition
    penalty does. Contexts that are full begin anew as in `generate`. Raises as `generate` does.
    """
    first = fit_prompt(model, prompt, begin, truncate)
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    beams = [_Beam((), (), 0.0)]
    ended: list[_Beam] = []
    with resting(model):
        state = model.begin(1)
        unread = torch.tensor([first], device=device)
        for step in range(sampling.max_tokens):
            if model.context is not None and step and state.lengths[0] >= model.context:
                again = [renewed((*first, *beam.ids), model.context) for beam in beams]
                state, unread = model.begin(len(beams)), torch.tensor(again, device=device)
            hidden, after = model.read(Padded(unread), state)
            assert after is not None
            logits = model.predict(hidden[:, -1]).double()
            if not bool(logits.logsumexp(-1).isfinite().all()):
                raise Diverged("the model's logits are not finite numbers; its weights are damaged")
            own = logits.log_softmax(-1)
            if sampling.repetition_penalty != 1:
                seen = [(*first, *beam.ids) for beam in beams]
                rows = zip(logits, seen, strict=True)
                logits = torch.stack([penalised(row, ids, sampling.repetition_penalty) for row, ids in rows])
            sofar = torch.tensor([[beam.total] for beam in beams], dtype=torch.float64, device=device)
            totals = logits.log_softmax(-1) + sofar
            best, places = totals.flatten().topk(min(sampling.beam - len(ended), totals.numel()))
            going: list[_Beam] = []
            parents: list[int] = []
            for total, place in zip(best.tolist(), places.tolist(), strict=True):
                parent, id = divmod(place, model.vocab)
                beam = beams[parent]
                grown = _Beam((*beam.ids, id), (*beam.logprobs, float(own[parent, id])), total)
                if eos is not None and id == eos:
                    ended.append(grown)
                else:
                    going.append(grown)
                    parents.append(parent)
            beams = going
            if not beams:
                break
            state = after.select(parents)
            unread = torch.tensor([[beam.ids[-1]] for beam in beams], device=device)
    scored = [
        Found(beam.ids, beam.logprobs, beam.total / len(beam.ids) ** sampling.length_penalty) for beam in ended + beams
    ]
    return sorted(scored, key=lambda found: -found.score)
