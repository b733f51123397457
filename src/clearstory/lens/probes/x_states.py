"""States: which hidden state spoke each token of a text, and what that state speaks besides."""

from __future__ import annotations

from typing import Any

import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.next_token import TokenizerProtocol
from clearstory.lens.views import Table
from clearstory.models.hmm.chain import token_probs
from clearstory.models.hmm.decoding import emission_likelihoods, posteriors, viterbi
from clearstory.models.base import inference_mode

MAX_TOKENS = 2000
"""More are no longer looked at, and each has a table of states to states."""


def viterbi(model: Any, tokenizer: TokenizerProtocol, text: str, *, top: int = 5) -> Table:
    """The state that spoke each token on the likeliest path (Viterbi), how sure that is given the whole text, and the
    `top` tokens that the state speaks most often. Of a tagger with trigrams, a state is the second of a pair of tags.

    Raises BadInput for a text without tokens, or with too many.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    ids = torch.tensor([tokenizer.encode(text)])
    if not 0 < ids.shape[1] <= MAX_TOKENS:
        raise BadInput(f"the text has {ids.shape[1]:,} tokens; give from 1 to {MAX_TOKENS:,}")
    with inference_mode(model):
        chain, tags = model.probabilities(), model.config.tags
        ids = ids.to(chain.initial.device)
        path, _ = viterbi(chain.initial.log()[None], chain.transition.log()[None], emission_likelihoods(chain, ids).log())
        sure = posteriors(chain, ids)[0]
        chosen = torch.eye(len(chain.initial)).to(chain.initial)[path[0]]
        often = token_probs(chain, chosen).topk(min(top, model.vocab)).indices.tolist()
    names = (*tags, "line's end") if tags else ()
    rows = []
    for id, state, chances, most in zip(ids[0].tolist(), path[0].tolist(), sure, often, strict=True):
        own = state % model.config.states
        share = float(chances.view(-1, model.config.states).sum(0)[own])
        words = " ".join(tokenizer.display_token(each) for each in most)
        rows.append((tokenizer.display_token(id), names[own] if names else own, share, words))
    least = min(rows, key=lambda row: row[2])
    return Table(
        title="States: which one spoke each token on the likeliest path",
        columns=("token", "state", "probability", "speaks most often"),
        rows=tuple(rows),
        bar="probability",
        caption=f"{len({row[1] for row in rows}):,} states spoke {len(rows):,} tokens; least sure is the one of "
        f"‘{least[0]}’, with {least[2]:.0%} given the whole text.",
    )
