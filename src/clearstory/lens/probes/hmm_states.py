"""Trellis: a hidden Markov model's states over a text: forward, backward, both together, and the likeliest path.

Rabiner 1989, equations 19-20 (forward), 24-25 (backward), 27 (posterior), 32-35 (Viterbi), scaled as in equation 91.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.passage import number_duplicates
from clearstory.lens.probes.x_states import MAX_TOKENS
from clearstory.lens.views import Grid, Table, Report
from clearstory.models.hmm.chain import HMMProbabilities, token_probs
from clearstory.models.hmm.decoding import emission_likelihoods, viterbi
from clearstory.models.base import inference_mode
from clearstory.text.tokenizers import Tokenizer

WORDS = 4
"""Tokens of each state that are shown among what the states speak."""


@dataclass(frozen=True)
class HMMTrellis:
    """T tokens, S states.

    Args:
        forward: (T, S) how likely each state is given the tokens up to it.
        backward: (T, S) how many times likelier what follows is from this state than from what was known.
        posterior: (T, S) how likely each state is given all tokens: the product of the two.
        path: (T,) the states of the likeliest path.
        nats: of the whole text: −log of the sum over all paths.
        path_nats: of the text and the likeliest path together.
    """

    forward: Float[Tensor, "T S"]
    backward: Float[Tensor, "T S"]
    posterior: Float[Tensor, "T S"]
    path: Int[Tensor, "T"]
    nats: float
    path_nats: float


def forward_backward(chain: HMMProbabilities, ids: Int[Tensor, "T"]) -> HMMTrellis:
    """All of a trellis over a text.

    >>> chain = Chain(torch.tensor([0.5, 0.5]), torch.eye(2), torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    >>> walk_trellis(chain, torch.tensor([0, 0])).posterior[0].tolist()  # 0.75² to 0.25²
    [0.9..., 0.1...]
    """
    seen = emission_likelihoods(chain, ids[None])[0]
    belief, forward, scales = chain.initial, [], []
    for spoken in seen:
        both = belief * spoken
        scales.append(both.sum())
        forward.append(both / scales[-1].clamp_min(torch.finfo(both.dtype).tiny))
        belief = forward[-1] @ chain.transition
    behind = torch.ones_like(chain.initial)
    backward = [behind]
    for spoken, scale in zip(seen[1:].flip(0), reversed(scales[1:]), strict=True):
        behind = chain.transition @ (spoken * behind) / scale.clamp_min(torch.finfo(behind.dtype).tiny)
        backward.append(behind)
    path, best = viterbi(chain.initial.log()[None], chain.transition.log()[None], seen.log()[None])
    ahead, after = torch.stack(forward), torch.stack(backward[::-1])
    nats = -float(torch.stack(scales).log().sum())
    return HMMTrellis(ahead, after, ahead * after, path[0], nats, -float(best[0]))


def posteriors(model: Any, tokenizer: Tokenizer, text: str, *, top: int = 8) -> Report:
    """The states of a text one grid after another: forward, backward, posterior, the likeliest path; then the model's
    own tables: from state to state, and what each speaks.

    The `top` states that are likeliest over the text are shown. Raises BadInput for a text without tokens, or with too
    many.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 state")
    ids = tokenizer.encode(text)
    if not 0 < len(ids) <= MAX_TOKENS:
        raise BadInput(f"the text has {len(ids):,} tokens; give from 1 to {MAX_TOKENS:,}")
    with inference_mode(model):
        chain: HMMProbabilities = model.probabilities()
        found = forward_backward(chain, torch.tensor(ids, device=chain.initial.device))
        mass = found.posterior.sum(0)
        states = sorted(mass.argsort(descending=True, stable=True)[:top].tolist())
        told = token_probs(chain, torch.eye(len(mass), device=mass.device, dtype=mass.dtype)[states])
    names = names_of(model.config, len(mass))
    labels = tuple(names[state] for state in states)
    pieces = number_duplicates([tokenizer.display_token(id) for id in ids])

    def grid(title: str, values: Tensor, unit: str) -> Grid:
        chosen = values[:, states].T.double().tolist()
        return Grid(title=title, row_labels=labels, column_labels=pieces, values=rows(chosen), unit=unit, dots=True)

    often = list(dict.fromkeys(id for row in told for id in row.topk(min(WORDS, model.vocab)).indices.tolist()))
    share = float(mass[states].sum() / mass.sum())
    steps = (
        grid("Forward: each state given the tokens up to it", found.forward, "probability"),
        grid("Backward: how many times likelier the rest is from it", found.backward, "times"),
        grid("Both: each state given all tokens", found.posterior, "probability"),
        path_table(found, names, pieces),
        Grid(
            title="From state (row) to state",
            row_labels=labels,
            column_labels=labels,
            values=rows(chain.transition[states][:, states].double().tolist()),
            unit="probability",
            dots=True,
        ),
        Grid(
            title="What each state speaks",
            row_labels=labels,
            column_labels=tuple(tokenizer.display_token(id) for id in often),
            values=rows(told[:, often].double().tolist()),
            unit="probability",
            dots=True,
            caption=f"The {min(WORDS, model.vocab)} likeliest tokens of each state shown; the table has {model.vocab:,}.",
        ),
    )
    shown = "All" if len(states) == len(mass) else f"The likeliest {len(states):,} of"
    return Report(
        title=f"Trellis: {len(ids):,} tokens over {len(mass):,} states",
        panels=steps,
        caption=f"{shown} {len(mass):,} states are shown; they hold {share:.0%} of the belief. The text takes "
        f"{found.nats:.2f} nats over all paths, {found.path_nats:.2f} along the likeliest: it alone is "
        f"{min(1.0, float(torch.tensor(found.nats - found.path_nats).exp())):.2g} of the text's probability.",
    )


def names_of(config: Any, count: int) -> list[str]:
    """What states are called: tags, pairs of tags, or numbers."""
    if not config.tags:
        return [f"state {state}" for state in range(count)]
    tags = [*config.tags, "line's end"]
    if count == len(tags):
        return tags
    return [f"{before} {tag}" for before in tags for tag in tags]


def path_table(found: HMMTrellis, names: list[str], pieces: tuple[str, ...]) -> Table:
    """The likeliest path, token by token, and where the likeliest state at a place is another."""
    alone = found.posterior.argmax(1).tolist()
    sure = found.posterior.gather(1, found.path[:, None])[:, 0].tolist()
    path = [names[state] for state in found.path.tolist()]
    others = ["" if names[one] == own else names[one] for one, own in zip(alone, path, strict=True)]
    parted = sum(map(bool, others))
    return Table(
        title="The likeliest path (Viterbi)",
        columns=("token", "state", "probability", "likelier at this place"),
        rows=tuple(zip(pieces, path, sure, others, strict=True)),
        bar="probability",
        caption=f"At {parted:,} of {len(path):,} tokens the state that is likeliest there is not the path's."
        if parted
        else "At every token the path's state is the likeliest there, too.",
    )


def rows(values: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    """Lists as a grid has them."""
    return tuple(map(tuple, values))
