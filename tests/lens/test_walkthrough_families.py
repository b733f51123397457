"""Walkthrough of recurrent models, HMMs, n-gram models and mixtures: each equals the library's own computation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.hmm_states import forward_backward
from clearstory.lens.probes.ngram_counts import matching_contexts
from clearstory.lens.probes.recurrent_units import compute_gates, unit_activations
from clearstory.lens.probes.walkthrough import walkthrough
from clearstory.models.base import TokenBatch
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, RECURRENT_WRITERS, VOCAB, shaken

LETTERS = "abcdefghijklmnopqrstuvw"
TOKENIZER = train_tokenizer("characters", [LETTERS])
TEXT = "cabbage"


def made(name: str, text: str = TEXT, **settings: Any) -> tuple[Any, list[int], dict[str, Any]]:
    """A model, the ids of a text, and its walkthrough; the next token's logits are the model's."""
    model: Any = MODELS[name]()
    ids = list(encode_passage(model, TOKENIZER, text).ids)
    result = walkthrough(model, TOKENIZER, text, **settings)
    assert [token["id"] for token in result["tokens"]] == ids
    with torch.no_grad():
        logits = model.logits(model.forward(TokenBatch.from_sequences([ids]))[0][0, -1]).double()
    torch.testing.assert_close(result["next.logits"], logits[result["next.ids"]])
    assert int(result["next.counts"].sum()) + len(result["next.ids"]) + result["next"]["impossible"] == VOCAB
    return model, ids, result


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "adaptive"])
@pytest.mark.parametrize("layer", [0, 1])
def test_recurrent_states_and_gates(name: str, layer: int) -> None:
    model, ids, result = made(name, layer=layer)
    for each in (0, 1):
        values = unit_activations(model, ids, each)
        width = values.shape[1]
        torch.testing.assert_close(result[f"layer.{each}"], values[:, : min(width, 32)])
        torch.testing.assert_close(result["lengths"][each + 1], values.norm(dim=-1))
    gates = compute_gates(model, ids, layer)
    assert result["gates"] == list(gates)
    for gate, values in gates.items():
        torch.testing.assert_close(result[f"gate.{gate}"], values)
    assert made(name, layer=layer, rows=(6, 7))[2]["layer.0"].shape[0] == 1
    with pytest.raises(BadSetting, match="layer is 5"):
        made(name, layer=5)


@pytest.mark.parametrize("name", ["hmm", "blocks", "tagger"])
def test_hmm_probabilities_and_path(name: str) -> None:
    model, ids, result = made(name)
    with torch.no_grad():
        chain = model.probabilities()
        trellis = forward_backward(chain, torch.tensor(ids))
    states = result["states"]
    for key in ("forward", "backward", "posterior"):
        torch.testing.assert_close(result[key], getattr(trellis, key)[:, states])
    assert result["path"].tolist() == trellis.path.tolist()
    torch.testing.assert_close(result["transition"], chain.transition[states][:, states])
    torch.testing.assert_close(result["posterior"].sum(1) <= 1 + 1e-9, torch.ones(len(ids), dtype=torch.bool))


@pytest.mark.parametrize("name", ["ngram", "katz", "laplace"])
def test_ngram_orders_and_contexts(name: str) -> None:
    model, ids, result = made(name)
    assert len(result["orders"]) == len(ids) - 1
    assert all(1 <= order <= model.config.order for order in result["orders"])
    found = matching_contexts(model, ids)
    assert [each["ids"] for each in result["contexts"]] == [list(each.ids) for each in found]
    longest = result["contexts"][0]
    assert [one["count"] for one in longest["seen"]] == [each.count for each in found[0].seen[:8]]
    assert not made(name, "a")[2]["orders"]


@pytest.mark.parametrize("name", ["mixture", "uncached"])
def test_mixture_weights_give_the_probability_of_every_token(name: str) -> None:
    model, ids, result = made(name)
    with torch.no_grad():
        nats, _ = model.token_nll(TokenBatch.from_sequences([ids[:-1]]), torch.tensor([ids[1:]]))
    torch.testing.assert_close((result["weights"] * result["probabilities"]).sum(-1), (-nats[0]).exp())
    torch.testing.assert_close(result["weights"].sum(-1), torch.ones(len(ids) - 1, dtype=torch.float64))
    assert made(name, "a")[2]["weights"].shape == (0, len(result["components"]))


def test_a_model_without_layers_to_show_is_refused() -> None:
    model: Any = shaken(replace(RECURRENT_WRITERS["cho"], vocab=TOKENIZER.vocab, decoder_start_token_id=0))
    with pytest.raises(CannotDo, match="residual stream"):
        walkthrough(model, TOKENIZER, TEXT)
