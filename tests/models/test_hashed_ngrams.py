"""Hashed n-grams: the formula of both forms, gradients of the rows that were read, and the size for subwords."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import TINY_RECALL, TINY_RECALL_SUBWORDS, shaken
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.activations import record_activations
from clearstory.models.base import TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import CLEAR, RECALL, RECALL_SUBWORDS
from clearstory.models.transformer.sizing import parameter_count
from clearstory.recipes.settings.model_choice import ModelChoice

FORMS = {"logits": TINY_RECALL, "short rows": TINY_RECALL_SUBWORDS}

IDS = [3, 1, 4, 1, 5, 9, 2]


def hashed_row(ids: list[int], order: int, rows: int) -> int:
    """The row of the last `order` tokens, by Python's integers as 64-bit ones; 0 stands for a token before the text."""

    def wrap(number: int) -> int:
        return (number + 2**63) % 2**64 - 2**63

    newest, *earlier = [id + 1 for id in reversed(ids)] + [0] * order
    key = newest
    for before in earlier[: order - 1]:
        key = wrap(key * 1_000_003 + before * 0x9E3779B1)
        key ^= key >> 15
    return (wrap(key * 0x2545F4914F6CDD1D) >> 20) % rows


def predicted(model: Any, ids: list[int], own: Tensor) -> Tensor:
    """Logits after the last of `ids` from the network's own hidden state, by the formula in the docstring."""
    recall, c = model.recall, model.config
    weights = recall.order_weights.weight @ own + recall.order_weights.bias
    rows = [number * c.recall_rows + hashed_row(ids, order, c.recall_rows) for number, order in enumerate(c.recall)]
    weighted = sum(weight * recall.table.weight[row] for weight, row in zip(weights, rows, strict=True))
    if not c.recall_dim:
        out: Tensor = model.output_weight @ own + weighted
        return out
    added: Tensor = recall.output_projection.weight @ weighted
    return model.output_weight @ (own + added)  # type: ignore[no-any-return]  # the model is Any


@pytest.mark.parametrize("form", FORMS)
def test_logits_equal_the_formula(form: str) -> None:
    model: Any = shaken(FORMS[form])
    with torch.no_grad(), record_activations(model, "norm", "embedding_output") as recorded:
        hidden, _ = model.forward(TokenBatch(torch.tensor([IDS])))
        logits = model.logits(hidden)[0]
    for position in range(len(IDS)):
        expected = predicted(model, IDS[: position + 1], recorded["norm"][0, position])
        torch.testing.assert_close(logits[position], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_the_input_is_the_embedding_and_a_fifth_of_the_projected_rows(form: str) -> None:
    model: Any = shaken(FORMS[form])
    with torch.no_grad(), record_activations(model, "embedding_output") as recorded:
        model.forward(TokenBatch(torch.tensor([IDS])))
        rows = model.recall.table(model.recall.hash_rows(torch.tensor([IDS]))).flatten(-2)
        expected = model.embedding(torch.tensor([IDS])) + 0.2 * rows @ model.recall.input_projection.weight.T
    torch.testing.assert_close(recorded["embedding_output"], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form: str) -> None:
    model: Any = shaken(FORMS[form])
    ids, targets = torch.tensor([IDS[:-1]]), torch.tensor([IDS[1:]])

    def loss() -> Tensor:
        out: Tensor = model.token_nll(TokenBatch(ids), targets)[0].sum()
        return out

    loss().backward()
    row = int(model.recall.hash_rows(ids)[0, 3, 1])
    checked = [(name, p, 0 if "table" not in name else row) for name, p in model.recall.named_parameters()]
    for name, p, first in checked:
        grad = p.grad.to_dense() if p.grad.is_sparse else p.grad
        at = (first,) + (0,) * (p.ndim - 1)
        with torch.no_grad():
            before = float(p[at])
            sides = []
            for side in (1e-6, -1e-6):
                p[at] = before + side
                sides.append(float(loss()))
            p[at] = before
        assert float(grad[at]) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-7), name


def test_only_the_rows_of_the_batch_have_gradients() -> None:
    model: Any = build(TINY_RECALL_SUBWORDS, seed=0)
    ids = torch.tensor([IDS])
    model.token_nll(TokenBatch(ids), torch.tensor([[*IDS[1:], 0]]))[0].sum().backward()
    gradient = model.recall.table.weight.grad
    assert gradient.is_sparse
    assert set(gradient.coalesce().indices()[0].tolist()) == set(model.recall.hash_rows(ids).flatten().tolist())


@pytest.mark.parametrize("form", FORMS)
def test_parameters_on_paper_equal_those_of_the_model(form: str) -> None:
    assert parameter_count(FORMS[form]) == count_parameters(build(FORMS[form], device="meta"))


def test_recall_for_subwords_is_clear_beside_tables_of_bounded_memory() -> None:
    for vocab in (2048, 4096, 50_257):
        config = ModelChoice(name="recall").config(vocab=vocab, parameters=4_000_000)
        clear = ModelChoice(name="clear").config(vocab=vocab, parameters=4_000_000)
        assert replace(config, recall=(), recall_rows=0, recall_dim=0) == clear
        table: Any = build(config, device="meta")
        assert 4 * table.recall.table.weight.numel() == 50_331_648
    assert ModelChoice(name="recall").config(vocab=67) == RECALL
    assert replace(RECALL_SUBWORDS, recall=(), recall_rows=0, recall_dim=0) == CLEAR


def test_tables_of_too_many_numbers_are_refused() -> None:
    with pytest.raises(BadSetting, match=r"6 tables of 131,072 rows of 4,096 numbers .*2,147,483,648.*recall_dim"):
        replace(RECALL, vocab=4096)
    with pytest.raises(BadSetting, match=r"model.recall_dim is -1; it must lie between 0 and 65,536"):
        replace(TINY_RECALL, recall_dim=-1)
    assert isinstance(replace(RECALL, vocab=4096, recall_dim=64), TransformerConfig)
