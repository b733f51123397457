"""Viterbi path: the most likely states, their posterior probabilities, and what a model without states says."""

from __future__ import annotations

import pytest
import torch

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.probes.hmm_states import viterbi
from clearstory.lens.registry import check_supported
from clearstory.models.hmm import decoding
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS

READER = train_tokenizer("characters", ["abcdefghijklmnopqrst "])


@pytest.mark.parametrize("name", ["hmm", "blocks", "tagger"])
def test_the_path_is_viterbis_and_its_probabilities_are_the_posteriors(name: str) -> None:
    model = MODELS[name]().requires_grad_(False)
    seen = viterbi(model, READER, "banana", top=3)
    assert seen.column("token") == list("banana")
    chances = [share for share in seen.column("probability") if isinstance(share, float)]
    assert all(0 < share <= 1 for share in chances)
    if name == "hmm":
        chain, ids = model.probabilities(), torch.tensor([READER.encode("banana")])
        path, _ = decoding.viterbi(chain.initial.log()[None], chain.transition.log()[None], chain.emission[ids].log())
        assert seen.column("state") == path[0].tolist()
        sure = decoding.posteriors(chain, ids)[0]
        assert chances == pytest.approx([float(sure[t, state]) for t, state in enumerate(path[0].tolist())])
        best = chain.emission[:, path[0, 0]].topk(3).indices.tolist()
        assert seen.column("most likely tokens")[0] == " ".join(map(READER.display_token, best))
    if name == "tagger":
        assert set(seen.column("state")) <= {*"ABCD", "end of sentence"}


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(BadInput, match="the text is empty"):
        viterbi(MODELS["hmm"](), READER, "")
    with pytest.raises(BadSetting, match="top is 0"):
        viterbi(MODELS["hmm"](), READER, "a", top=0)
    with pytest.raises(CannotDo, match="needs discrete hidden states, and this model"):
        check_supported("viterbi", MODELS["lstm"]())
