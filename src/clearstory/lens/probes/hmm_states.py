"""Hidden states of a hidden Markov model over a text: Viterbi path, forward and backward probabilities, posteriors.

Rabiner 1989, equations 19-20 (forward), 24-25 (backward), 27 (posterior), 32-35 (Viterbi), scaled as in equation 91.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.views import Grid, Report, Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.hmm import decoding
from clearstory.models.hmm.chain import HMMProbabilities, token_probs
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.hmm.model import HMM
from clearstory.models.prompts import PromptOptions
from clearstory.text.tokenizers import Tokenizer

MAX_TOKENS = 2000
"""Longer texts are refused: each token has a row of probabilities of all states."""

EMITTED_TOKENS = 4
"""Most likely tokens of each state in the emission grid."""


def viterbi(
    model: HMM, tokenizer: Tokenizer, text: str, *, top: int = 5, prompt: PromptOptions = PromptOptions()
) -> Table:
    """The state of each token on the most likely path (Viterbi), its posterior probability given the whole text, and
    the `top` most likely tokens of the state. In a trigram tagger a state is the second of a pair of tags.

    Raises BadInput for an empty text, and for one of more than `MAX_TOKENS` tokens.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    passage = encode_short_passage(model, tokenizer, text, prompt)
    ids = torch.tensor([passage.ids])
    with inference_mode(model):
        chain, tags = model.probabilities(), model.config.tags
        ids = ids.to(chain.initial.device)
        likelihoods = decoding.emission_likelihoods(chain, ids)
        path, _ = decoding.viterbi(chain.initial.log()[None], chain.transition.log()[None], likelihoods.log())
        posterior = decoding.posteriors(chain, ids)[0]
        states = torch.eye(len(chain.initial)).to(chain.initial)[path[0]]
        emitted = token_probs(chain, states).topk(min(top, model.vocab)).indices.tolist()
    names = (*tags, "end of sentence") if tags else ()
    rows = []
    for id, state, probabilities, tokens in zip(ids[0].tolist(), path[0].tolist(), posterior, emitted, strict=True):
        hidden_state = state % model.config.states
        probability = float(probabilities.view(-1, model.config.states).sum(0)[hidden_state])
        words = " ".join(tokenizer.display_token(each) for each in tokens)
        rows.append((tokenizer.display_token(id), names[hidden_state] if names else hidden_state, probability, words))
    least = min(rows, key=lambda row: row[2])
    return Table(
        title="Viterbi path: the state of each token",
        columns=("token", "state", "probability", "most likely tokens"),
        rows=tuple(rows),
        bar="probability",
        caption=f"{len({row[1] for row in rows}):,} states on the path of {len(rows):,} tokens; the least certain is "
        f"that of ‘{least[0]}’, with a posterior probability of {least[2]:.0%}.",
    )


def posteriors(
    model: HMM, tokenizer: Tokenizer, text: str, *, top: int = 8, prompt: PromptOptions = PromptOptions()
) -> Report:
    """Forward, backward and posterior probabilities of the states, the Viterbi path, and the transition and emission
    probabilities, for the `top` states with the largest posterior probability over the text.

    Raises BadInput for an empty text, and for one of more than `MAX_TOKENS` tokens.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 state")
    passage = encode_short_passage(model, tokenizer, text, prompt)
    with inference_mode(model):
        chain = model.probabilities()
        trellis = forward_backward(chain, torch.tensor(passage.ids, device=chain.initial.device))
        mass = trellis.posterior.sum(0)
        states = sorted(mass.argsort(descending=True, stable=True)[:top].tolist())
        emission = token_probs(chain, torch.eye(len(mass), device=mass.device, dtype=mass.dtype)[states])
    names = state_names(model.config, len(mass))
    labels = tuple(names[state] for state in states)
    pieces = passage.labels

    def grid(title: str, values: Tensor, columns: tuple[str, ...], unit: str, caption: str | None = None) -> Grid:
        rows = tuple(map(tuple, values.double().tolist()))
        return Grid(
            title=title,
            row_labels=labels,
            column_labels=columns,
            values=rows,
            unit=unit,
            dots=True,
            caption=caption,
        )

    def over_text(values: Tensor) -> Tensor:
        return values[:, states].T

    count = min(EMITTED_TOKENS, model.vocab)
    emitted = list(dict.fromkeys(id for row in emission for id in row.topk(count).indices.tolist()))
    transition = chain.transition[states][:, states]
    panels = (
        grid("Forward: P(state | tokens up to it)", over_text(trellis.forward), pieces, "probability"),
        grid(
            "Backward: P(later tokens | state) / P(later tokens | earlier)",
            over_text(trellis.backward),
            pieces,
            "times",
        ),
        grid("Posterior: P(state | all tokens)", over_text(trellis.posterior), pieces, "probability"),
        viterbi_table(trellis, names, pieces),
        grid("Transition probabilities from state (row) to state", transition, labels, "probability"),
        grid(
            "Emission probabilities",
            emission[:, emitted],
            tuple(tokenizer.display_token(id) for id in emitted),
            "probability",
            f"The {count} most likely tokens of each state; the vocabulary has {model.vocab:,}.",
        ),
    )
    return Report(
        title=f"State posteriors: {len(passage.ids):,} tokens, {len(mass):,} states",
        panels=panels,
        caption=posteriors_caption(trellis, states),
    )


def posteriors_caption(trellis: HMMTrellis, states: list[int]) -> str:
    """The posterior probability of the shown states, and the text's likelihood over all paths and on the best one."""
    mass = trellis.posterior.sum(0)
    shown = "All" if len(states) == len(mass) else f"The most likely {len(states):,} of"
    share = float(mass[states].sum() / mass.sum())
    path_share = min(1.0, float(torch.tensor(trellis.nats - trellis.path_nats).exp()))
    return (
        f"{shown} {len(mass):,} states are shown; they hold {share:.0%} of the posterior probability. The text has "
        f"{trellis.nats:.2f} nats over all paths and {trellis.path_nats:.2f} on the Viterbi path, which has "
        f"{path_share:.2g} of the text's probability."
    )


def encode_short_passage(model: HMM, tokenizer: Tokenizer, text: str, prompt: PromptOptions) -> Passage:
    """The tokens of a text. Raises BadInput for none or more than `MAX_TOKENS`."""
    passage = encode_passage(cast(LanguageModel, model), tokenizer, text, prompt=prompt)
    if len(passage.ids) > MAX_TOKENS:
        raise BadInput(f"the text has {len(passage.ids):,} tokens; give from 1 to {MAX_TOKENS:,}")
    return passage


@dataclass(frozen=True)
class HMMTrellis:
    """Probabilities of S states at T tokens.

    Args:
        forward: (T, S) P(state | tokens up to it).
        backward: (T, S) P(later tokens | state) / P(later tokens | tokens up to it).
        posterior: (T, S) P(state | all tokens): the product of the two.
        path: (T,) the states of the most likely path.
        nats: −log P(text), summed over all paths.
        path_nats: −log P(text and most likely path).
    """

    forward: Float[Tensor, "T S"]
    backward: Float[Tensor, "T S"]
    posterior: Float[Tensor, "T S"]
    path: Int[Tensor, "T"]
    nats: float
    path_nats: float


def forward_backward(chain: HMMProbabilities, ids: Int[Tensor, "T"]) -> HMMTrellis:
    """Forward-backward algorithm and Viterbi path over a text.

    >>> chain = HMMProbabilities(torch.tensor([0.5, 0.5]), torch.eye(2), torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    >>> forward_backward(chain, torch.tensor([0, 0])).posterior[0].tolist()  # 0.75² to 0.25²
    [0.9..., 0.1...]
    """
    likelihoods = decoding.emission_likelihoods(chain, ids[None])[0]
    belief, forward, scales = chain.initial, [], []
    for each in likelihoods:
        joint = belief * each
        scales.append(joint.sum())
        forward.append(joint / scales[-1].clamp_min(torch.finfo(joint.dtype).tiny))
        belief = forward[-1] @ chain.transition
    later = torch.ones_like(chain.initial)
    backward = [later]
    for each, scale in zip(likelihoods[1:].flip(0), reversed(scales[1:]), strict=True):
        later = chain.transition @ (each * later) / scale.clamp_min(torch.finfo(later.dtype).tiny)
        backward.append(later)
    path, best = decoding.viterbi(chain.initial.log()[None], chain.transition.log()[None], likelihoods.log()[None])
    alpha, beta = torch.stack(forward), torch.stack(backward[::-1])
    nats = -float(torch.stack(scales).log().sum())
    return HMMTrellis(alpha, beta, alpha * beta, path[0], nats, -float(best[0]))


def state_names(config: HMMConfig, count: int) -> list[str]:
    """Names of the states: tags, pairs of tags, or numbers."""
    if not config.tags:
        return [f"state {state}" for state in range(count)]
    tags = [*config.tags, "end of sentence"]
    if count == len(tags):
        return tags
    return [f"{before} {tag}" for before in tags for tag in tags]


def viterbi_table(trellis: HMMTrellis, names: list[str], pieces: tuple[str, ...]) -> Table:
    """The Viterbi path, and where another state has the largest posterior probability."""
    largest = trellis.posterior.argmax(1).tolist()
    probability = trellis.posterior.gather(1, trellis.path[:, None])[:, 0].tolist()
    path = [names[state] for state in trellis.path.tolist()]
    others = ["" if names[one] == state else names[one] for one, state in zip(largest, path, strict=True)]
    differing = sum(map(bool, others))
    return Table(
        title="Viterbi path",
        columns=("token", "state", "probability", "state of largest posterior"),
        rows=tuple(zip(pieces, path, probability, others, strict=True)),
        bar="probability",
        caption=f"At {differing:,} of {len(path):,} tokens another state has a larger posterior probability."
        if differing
        else "At every token the path's state has the largest posterior probability.",
    )
