"""Sequences of BIO tags and of hidden states, against all sequences one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from clearstory.models.hmm.decoding import path_posteriors, viterbi
from clearstory.models.tag_paths import likeliest_bio_tags

BIO = ("O", "B-P", "I-P", "B-L", "I-L")


def is_valid(tags: list[str]) -> bool:
    before = ["O", *tags[:-1]]
    return all(tag[0] != "I" or last in ("B-" + tag[2:], tag) for last, tag in zip(before, tags, strict=True))


def test_the_likeliest_valid_tags_are_those_of_all_sequences() -> None:
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(40):
        scores = np.log(rng.dirichlet(np.full(5, 0.5), size=4))
        paths = [ids for ids in product(range(5), repeat=4) if is_valid([BIO[id] for id in ids])]
        best = max(paths, key=lambda ids: scores[range(4), ids].sum())
        found = likeliest_bio_tags(scores, BIO)
        assert found.tolist() == list(best)
        changed += found.tolist() != scores.argmax(1).tolist()
    assert changed > 10


def test_other_schemes_are_free() -> None:
    io = np.log([[0.1, 0.9], [0.2, 0.8]])
    assert likeliest_bio_tags(io, ("O", "I-P")).tolist() == [1, 1]
    assert likeliest_bio_tags(np.zeros((0, 5)), BIO).tolist() == []


@pytest.mark.parametrize("before", [1, 3])
def test_posteriors_are_sums_over_all_paths(before: int) -> None:
    """Of a first-order chain, and of a second-order one, whose transitions depend on the state before the last."""
    draw = torch.Generator().manual_seed(0)
    initial, transition, emission = (
        torch.randn(shape, generator=draw, dtype=torch.float64).log_softmax(-1)
        for shape in ((before, 3), (before, 3, 3), (1, 4, 3))
    )
    expected, best = torch.zeros(4, 3, dtype=torch.float64), (-torch.inf, ())
    for first, path in product(range(before), product(range(3), repeat=4)):
        total = initial[first, path[0]] + emission[0, 0, path[0]]
        for at in range(1, 4):
            earlier = 0 if before == 1 else first if at == 1 else path[at - 2]
            total = total + transition[earlier, path[at - 1], path[at]] + emission[0, at, path[at]]
        expected[range(4), path] += total.exp()
        best = max(best, (float(total), path))
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(path_posteriors(initial, transition, emission)[0], expected)
    path, total = viterbi(initial, transition, emission)
    assert tuple(path[0].tolist()) == best[1]
    assert float(total) == pytest.approx(best[0])
