"""QK circuit: the decomposed matrix is the one that attention scores are computed with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting
from clearstory.lens.hooks.attention_sites import attention_parts
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.probes.attention_head import head_quantities
from clearstory.lens.probes.qk_circuit import QKCircuit, decompose_qk, qk_circuit, token_inputs
from clearstory.lens.views import Curve, Table
from clearstory.models.transformer.presets import BERT_TINY, MARIAN, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_CLEAR, TINY_GPT2, shaken

TOKENIZER = train_tokenizer("characters", ["abcdefghijklmnop"])
SIZES: dict[str, Any] = {"layers": 1, "vocab": TOKENIZER.vocab}
NARROW: dict[str, Any] = {
    **SIZES,
    "width": 16,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "context": 24,
}
IDS = (5, 6, 7, 5, 8, 6, 9, 10)
READ = Passage(IDS, tuple(map(str, IDS)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["grouped", "gpt2", "t5"])
def test_the_product_of_its_factors_is_the_matrix(name: str) -> None:
    model = shaken(replace(T5_SMALL, **NARROW)) if name == "t5" else MODELS[name]()
    for part in attention_parts(model):
        found = decompose_qk(model, 0, 1, part)
        at = found.site.attention
        query, key = (map.weight.unflatten(0, (-1, at.head_dim)) for map in (at.query, at.key))
        query, key = query[1], key[1 * key.shape[0] // query.shape[0]]
        if at.query_norm is not None and at.key_norm is not None:
            query, key = query * at.query_norm.weight[:, None], key * at.key_norm.weight[:, None]
        whole = query.mT @ key * at.scale / math.sqrt(at.head_dim)
        again = found.queries @ found.singular.diag() @ found.keys.mT
        assert torch.allclose(again, whole, rtol=1e-9, atol=1e-9)
        assert torch.allclose(found.queries.mT @ found.queries, torch.eye(at.head_dim).double(), atol=1e-9)
        assert torch.all(found.singular.diff() <= 0)


@torch.no_grad()
def test_scores_at_equal_positions_are_those_of_the_directions() -> None:
    """The first block of a rotary model without biases: a word's score with itself."""
    model = shaken(replace(TINY_CLEAR, **SIZES, qk_norm=False, recall=()))
    found = decompose_qk(model, 0, 2)
    asked, answered = token_inputs(model, found.site)
    quantities = head_quantities(model, READ, 0, 2)
    ids = list(IDS)
    along = ((asked[ids] @ found.queries) * found.singular * (answered[ids] @ found.keys)).sum(-1)
    # Cosines and sines of the rotary embedding are stored in fp32.
    assert torch.allclose(quantities.scaled.diagonal(), along, rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("config", [BERT_TINY, MARIAN], ids=["bert", "marian"])
def test_token_inputs_are_the_input_of_the_first_block(config: Any) -> None:
    model: Any = shaken(replace(config, **NARROW, positions="none", token_types=0))
    read = READ if config is BERT_TINY else Passage((0, 3), (), IDS, ())
    for part in attention_parts(model)[:1]:
        asked, answered = token_inputs(model, decompose_qk(model, 0, 0, part).site)
        quantities = head_quantities(model, read, 0, 0, part)
        assert torch.allclose(asked[list(IDS)], quantities.input, rtol=1e-9, atol=1e-9)
        assert torch.equal(asked, answered)


def test_the_effective_rank_counts_equal_directions() -> None:
    at = decompose_qk(MODELS["gpt2"](), 0, 0).site
    some = torch.zeros(8, 6)
    assert QKCircuit(at, 0, torch.tensor([2.0, 2, 2, 2, 0, 0]), some, some).effective_rank == pytest.approx(4)
    # Shares 3/4 and 1/4: exp(3/4 ln 4/3 + 1/4 ln 4) = 1.7548
    assert QKCircuit(at, 0, torch.tensor([3.0, 1.0]), some[:, :2], some[:, :2]).effective_rank == pytest.approx(
        1.7548, abs=1e-4
    )


@torch.no_grad()
def test_the_view_lists_the_tokens_with_the_largest_components() -> None:
    model: Any = shaken(replace(TINY_GPT2, **SIZES))
    view = qk_circuit(model, TOKENIZER, "", layer=0, head=1, top=2)
    curve, table = view.panels
    assert isinstance(curve, Curve)
    assert isinstance(table, Table)
    found = decompose_qk(model, 0, 1)
    assert curve.lines[0].y == tuple(found.singular.tolist())
    asked, answered = token_inputs(model, found.site)
    for column, words, directions in (("queries", asked, found.queries), ("keys", answered, found.keys)):
        for row, sign in ((0, 1), (1, -1)):
            order = (sign * words @ directions[:, 0]).argsort(descending=True)[:2]
            assert table.column(column)[row] == " ".join(TOKENIZER.display_token(int(id)) for id in order)
    assert "Not included: position embeddings; biases of queries and keys." in str(view.caption)
    few = qk_circuit(model, TOKENIZER, "ab", layer=0, head=1, top=9).panels[1]
    assert isinstance(few, Table)
    assert set(str(few.column("queries")[0]).split()) == {"a", "b"}
    for wrong in ({"head": 2}, {"layer": 1}, {"top": 0}):
        with pytest.raises(BadSetting):
            qk_circuit(model, TOKENIZER, **wrong)
