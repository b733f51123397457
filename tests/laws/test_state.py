"""Laws of states: a state is a value, and how a text is split into calls changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from clearstory.models.base import LanguageModel, State, TokenBatch
from tiny import MODELS, VOCAB

IDS = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def read(model: Any, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    hidden, state = model.forward(TokenBatch(ids), state)
    return model.logits(hidden), state


def test_every_family_follows_the_protocol(model: Any) -> None:
    assert isinstance(model, LanguageModel)
    assert isinstance(model.init_state(2), State)
    assert model.init_state(2).lengths == [0, 0]


@pytest.mark.parametrize("cuts", [[1] * 20, [7, 1, 12], [19, 1], [4, 6, 10]])
def test_processing_in_pieces_equals_processing_at_once(model: Any, cuts: list[int]) -> None:
    whole = model.logits(model.forward(TokenBatch(IDS))[0])
    state, pieces = model.init_state(3), []
    for piece in IDS.split(cuts, 1):
        logits, state = read(model, piece, state)
        pieces.append(logits)
    same(torch.cat(pieces, 1), whole)
    assert state.lengths == [20, 20, 20]


def test_a_ragged_batch_equals_its_sequences_alone(model: Any) -> None:
    rows = [IDS[0, :9].tolist(), IDS[1, :2].tolist(), IDS[2, :14].tolist()]
    state = model.init_state(3)
    hidden, state = model.forward(TokenBatch.from_sequences(rows), state)
    assert state.lengths == [9, 2, 14]
    more, state = model.forward(TokenBatch.from_sequences([[1], [2, 3, 4], [5, 6]]), state)
    assert state.lengths == [10, 5, 16]
    for i, (row, then) in enumerate(zip(rows, [[1], [2, 3, 4], [5, 6]], strict=True)):
        alone = model.forward(TokenBatch.from_sequences([row + then]))[0][0]
        same(hidden[i, : len(row)], alone[: len(row)])
        same(more[i, : len(then)], alone[len(row) :])


def test_select_and_join_agree_with_separate_sequences(model: Any) -> None:
    _, long = read(model, IDS[:1, :11], model.init_state(1))
    _, short = read(model, IDS[1:2, :3], model.init_state(1))
    joined = type(long).join([long, short])
    assert joined.lengths == [11, 3]
    chosen = joined.select([1, 0, 1])
    assert chosen.lengths == [3, 11, 3]
    then = torch.tensor([[4, 5], [6, 7], [8, 9]])
    logits, after = read(model, then, chosen)
    assert after.lengths == [5, 13, 5]
    for i, before in enumerate([IDS[1, :3], IDS[0, :11], IDS[1, :3]]):
        alone = model.logits(model.forward(TokenBatch(torch.cat([before, then[i]])[None]))[0])
        same(logits[i], alone[0, -2:])


def test_an_old_state_continues_to_be_valid(model: Any) -> None:
    _, state = read(model, IDS[:, :6], model.init_state(3))
    first, one = read(model, IDS[:, 6:9], state)
    other, _ = read(model, IDS[:, 10:13], state)
    again, two = read(model, IDS[:, 6:9], state)
    same(again, first)
    assert not torch.equal(other, first)
    # Each continuation is as if the other did not exist.
    same(read(model, IDS[:, 9:], one)[0], read(model, IDS[:, 9:], two)[0])


def test_states_branch_at_every_step(model: Any) -> None:
    """As in beam search: the best of several continuations is continued again and again."""
    paths, state = [[3], [3]], model.init_state(1)
    logits, state = read(model, torch.tensor([[3]]), state)
    state = state.select([0, 0])
    for step in range(6):
        new = [(5 * step + 1) % VOCAB, (7 * step + 2) % VOCAB]
        logits, state = read(model, torch.tensor(new)[:, None], state)
        paths = [[*path, id] for path, id in zip(paths, new, strict=True)]
        parents = [1, 1] if step % 2 else [1, 0]
        paths, state, logits = [paths[p] for p in parents], state.select(parents), logits[parents]
        for path, row in zip(paths, logits, strict=True):
            same(row[-1], model.logits(model.forward(TokenBatch(torch.tensor([path])))[0])[0, -1])


def test_tensors_hold_the_state(model: Any) -> None:
    _, state = read(model, IDS, model.init_state(3))
    tensors = state.tensors()
    assert tensors
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert state.detach().lengths == state.lengths
