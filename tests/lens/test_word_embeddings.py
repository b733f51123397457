"""Word vectors: neighbours, sums, maps and axes against the same by hand."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.probes.embeddings import (
    analogy,
    embeddings,
    known_token,
    most_varying_columns,
    nearest_tokens,
    neighbours,
    parse_word_sum,
    principal_directions,
    project_to_plane,
    unit_word_vectors,
    word_tokens,
)
from clearstory.lens.probes.projection import axis_coordinates, fit_plane, project_on, projection, semantic_axis
from clearstory.lens.registry import supported_views
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_GPT2

TOKENIZER = train_tokenizer("words", ["a b c d e f g h king queen man woman\n"])
FULL = train_tokenizer(
    "words", [" ".join(f"w{number}" for number in range(21)) + "\n"]
)  # as many as the tiny models know
HAVE = [name for name in MODELS if "neighbours" in supported_views(MODELS[name]())]


def test_which_models_have_word_vectors() -> None:
    names = {
        "gpt2",
        "clear",
        "grouped",
        "windowed",
        "recalling",
        "recalling-subwords",
        "placeless",
        "rnn",
        "gru",
        "lstm",
        "adaptive",
    }
    assert set(HAVE) == names
    with pytest.raises(CannotDo, match="has no output embeddings"):  # its unembedding is no plain product
        neighbours(MODELS["adaptive"](), TOKENIZER, "king", matrix="output")


def test_principal_directions_are_those_of_the_covariance() -> None:
    torch.manual_seed(1)
    for rows in (40, 5):  # more vectors than dimensions, and fewer
        vectors = torch.randn(rows, 8).double() * torch.tensor([5.0, 3, 1, 1, 1, 1, 1, 1])
        main = principal_directions(vectors, 3)
        assert torch.allclose(main @ main.T, torch.eye(3).double(), atol=1e-9)
        covariance = (vectors - vectors.mean(0)).T @ (vectors - vectors.mean(0))
        values = torch.linalg.eigvalsh(covariance).flip(0)
        assert torch.allclose((main @ covariance @ main.T).diagonal(), values[:3], rtol=1e-9)
        assert (main.gather(1, main.abs().argmax(1, keepdim=True)) > 0).all()
        coordinates, kept = project_to_plane(vectors)
        assert torch.allclose(coordinates.mean(0), torch.zeros(2).double(), atol=1e-9)
        assert kept == pytest.approx(float(values[:2].sum() / values.sum()))


@pytest.mark.parametrize("matrix", ["input", "output"])
@pytest.mark.parametrize("name", [name for name in HAVE if name != "adaptive"])
def test_principal_components_are_removed(name: str, matrix: Any) -> None:
    model: Any = MODELS[name]()
    assert FULL.vocab == model.vocab
    plain = unit_word_vectors(model, FULL, centre=False, matrix=matrix)
    raw = (model.embedding.weight if matrix == "input" else model.output_weight).detach().float()
    assert torch.allclose(plain, F.normalize(raw, dim=-1))
    clear = unit_word_vectors(model, FULL, remove_components=2, matrix=matrix)
    assert torch.allclose(clear.norm(dim=-1), torch.ones(len(clear)))
    # Nothing is left along the two directions: not of a vector, and so not of a cosine.
    assert (clear @ principal_directions(raw, 2).T).abs().max() < 1e-5
    with pytest.raises(BadSetting, match="remove fewer"):
        unit_word_vectors(model, FULL, remove_components=raw.shape[1], matrix=matrix)


def test_neighbours_among_all_and_among_frequent_tokens() -> None:
    model = MODELS["lstm"]()
    every = neighbours(model, TOKENIZER, "king", top=50)
    assert TOKENIZER.vocab < model.vocab  # whose other rows no token has
    assert len(every.rows) == TOKENIZER.vocab - 1
    assert TOKENIZER.display_token(TOKENIZER.encode("king")[0]) not in every.column("token")
    few = neighbours(model, TOKENIZER, "king", top=50, max_token_id=6)
    assert few.rows == tuple(row for row in every.rows if int(str(row[2])) < 6)
    vectors = unit_word_vectors(model, TOKENIZER, centre=False)
    by_chance = (vectors @ vectors.T).mean()  # of every word with every word
    assert f"{float(by_chance):.2f} for the model's embeddings, and" in str(every.caption)
    for wrong in ({"top": 0}, {"max_token_id": 0}):
        with pytest.raises(BadSetting):
            neighbours(model, TOKENIZER, "king", **wrong)
    with pytest.raises(BadInput, match="not in the vocabulary"):
        neighbours(model, TOKENIZER, "prince")


def test_the_input_embedding_is_shown_where_it_is_not_tied() -> None:
    model: Any = MODELS["clear"]()
    assert model.embedding.weight.data_ptr() != model.output_weight.data_ptr()
    with torch.no_grad():
        model.output_weight.zero_()  # as `clear` begins
    both = {matrix: neighbours(model, TOKENIZER, "king", top=3, matrix=matrix) for matrix in ("input", "output")}
    assert neighbours(model, TOKENIZER, "king", top=3) == both["input"]
    rows = model.embedding.weight.detach()[: TOKENIZER.vocab].float()
    centred = F.normalize(rows - rows.mean(0), dim=-1)
    id = known_token(TOKENIZER, "king")
    cosines = centred @ centred[id]
    assert both["input"].column("cosine") == pytest.approx(
        [float(cosines[i]) for i in both["input"].column("id")], abs=1e-5
    )
    assert "the model's input embeddings" in str(both["input"].caption)
    assert set(both["output"].column("cosine")) == {0.0}
    assert (
        both["output"].caption == "All output embeddings are zero, as they are initialised: the model is not trained."
    )
    assert (
        projection(model, TOKENIZER, "king queen man").title
        == "Projection of input embeddings, each with its 4 nearest"
    )
    spread = {(point.x, point.y) for point in projection(model, TOKENIZER, "king queen man").points}
    assert len(spread) > 5


@pytest.mark.skipif(os.environ.get("CLEARSTORY_CHECK_SHAPES") == "1", reason="the checks of types refuse it first")
def test_another_matrix_is_refused() -> None:
    with pytest.raises(BadSetting, match="matrix is 'both'; give input or output"):
        neighbours(MODELS["clear"](), TOKENIZER, "king", matrix="both")  # type: ignore[arg-type]  # not a matrix


def test_a_sum_of_words_is_that_of_their_unit_vectors() -> None:
    model = MODELS["gpt2"]()
    view = analogy(model, TOKENIZER, "king - man + woman", top=3, centre=False)
    vectors = F.normalize(model.output_weight.detach()[: TOKENIZER.vocab].float(), dim=-1)
    k, m, w = (known_token(TOKENIZER, word) for word in ("king", "man", "woman"))
    cosines = F.cosine_similarity(vectors, (vectors[k] - vectors[m] + vectors[w])[None])
    best = [id for id in cosines.argsort(descending=True).tolist() if id not in (k, m, w)][:3]
    assert view.column("id") == best
    assert view.column("cosine") == pytest.approx([float(cosines[id]) for id in best], abs=1e-5)
    assert "king, man, woman are excluded" in str(view.caption)
    first = int(cosines.argmax())
    assert (f"{TOKENIZER.display_token(first)} would be first" in str(view.caption)) == (first in (k, m, w))
    assert parse_word_sum("a-b − c") == [(1, "a-b"), (-1, "c")]
    with pytest.raises(BadInput, match="not a sum of words"):
        analogy(model, TOKENIZER, "king")


def test_ranks_count_excluded_tokens() -> None:
    vectors = torch.eye(4)
    found = nearest_tokens(vectors, torch.tensor([4.0, 3.0, 2.0, 1.0]), 2, without=(0,))
    length = math.sqrt(16 + 9 + 4 + 1)
    assert [(each.id, each.rank) for each in found] == [(1, 2), (2, 3)]
    assert [each.cosine for each in found] == pytest.approx([3 / length, 2 / length])


def test_a_projection_shows_each_word_once_with_its_links() -> None:
    model = MODELS["gru"]()
    view = projection(model, TOKENIZER, "king queen king", top=2)
    assert word_tokens(TOKENIZER, "king queen king") == [known_token(TOKENIZER, word) for word in ("king", "queen")]
    labels = [point.label for point in view.points]
    assert len(set(labels)) == len(labels)
    for word in ("king", "queen"):
        near = {row[0] for row in neighbours(model, TOKENIZER, word, top=2).rows}
        assert {labels[to] for one, to in view.links if labels[one] == word} == near
    assert projection(model, TOKENIZER, "king", top=0).groups == ("words of the text",)
    with pytest.raises(BadInput, match="the text is empty"):
        projection(model, TOKENIZER, " ")
    with pytest.raises(BadInput, match="more than the 120"):
        projection(model, TOKENIZER, "a b c", top=40)


def test_coordinates_on_a_semantic_axis() -> None:
    # From (1, 0) to (1, 4): (3, 1) is a quarter along and 2 / 4 off.
    coordinates, off = axis_coordinates(
        torch.tensor([[3.0, 1.0], [1.0, 4.0]]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 4.0])
    )
    assert (coordinates.tolist(), off.tolist()) == ([0.25, 1.0], [0.5, 0.0])
    model = MODELS["lstm"]()
    view = semantic_axis(model, TOKENIZER, "a b", words=("king", "queen"))
    found = {point.label: (point.x, point.y) for point in view.points}
    assert found["king"] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert found["queen"] == pytest.approx((1.0, 0.0), abs=1e-6)
    both = semantic_axis(model, TOKENIZER, "a", words=("king man", "queen, woman"))
    middle = [sum(point.x for point in both.points if point.group == group) / 2 for group in (1, 2)]
    assert middle == pytest.approx([0.0, 1.0], abs=1e-5)
    for ends, error in (((), BadSetting), (("king", "king"), BadInput), (("king", " "), BadSetting)):
        with pytest.raises(error):
            semantic_axis(model, TOKENIZER, "a", words=ends)


def test_embeddings_are_the_rows_of_the_weight_with_the_largest_variances() -> None:
    model = MODELS["clear"]()
    view = embeddings(model, TOKENIZER, "a b a", top=5)
    ids = TOKENIZER.encode("a b a")
    columns = [int(label) for label in view.column_labels]
    assert torch.equal(torch.tensor(view.values).float(), model.embedding.weight[ids][:, columns].float())
    assert columns == sorted(columns)
    assert view.row_labels == ("a·0", "b", "a·2")
    varied = model.embedding.weight[ids].float().var(0, correction=0)
    assert set(columns) == set(varied.topk(5).indices.tolist())
    assert most_varying_columns(torch.ones(2, 3), 3)[1] == "All 3 dimensions are shown."
    with pytest.raises(BadInput, match="the text is empty"):
        embeddings(model, TOKENIZER, "")


def test_the_axes_stay_the_same_over_checkpoints() -> None:
    last, first = MODELS["lstm"](), MODELS["lstm"]()
    text, how = "king queen man", {"top": 2}
    with torch.no_grad():
        first.output_weight.copy_(first.output_weight.flip(0))
    plane = fit_plane(last, TOKENIZER, text, **how)
    own, shown = project_on(last, TOKENIZER, plane), projection(last, TOKENIZER, text, **how)
    assert (own.points, own.links) == (shown.points, shown.links)
    moved = project_on(first, TOKENIZER, plane)
    assert [point.label for point in moved.points] == [point.label for point in own.points]
    # By hand: (v - middle) · axes, with the other model's vectors.
    vectors = unit_word_vectors(first, TOKENIZER)[list(plane.ids)]
    coordinates = [[float(axis @ (v - plane.centre)) for axis in plane.axes] for v in vectors]
    assert [[point.x, point.y] for point in moved.points] == [
        pytest.approx(position, abs=1e-6) for position in coordinates
    ]
    there, here = (
        sum(float(v[a] @ v[b]) for a, b in plane.links) / len(plane.links)
        for v in (unit_word_vectors(last, TOKENIZER)[list(plane.ids)], vectors)
    )
    assert plane.cosine == pytest.approx(there, abs=1e-6)
    assert f"a mean cosine of {here:.2f} here and {there:.2f} at the end" in str(moved.caption)
    with pytest.raises(BadInput, match="checkpoints of one run"):
        project_on(MODELS["clear"](), TOKENIZER, fit_plane(_wider(), TOKENIZER, text))


def _wider() -> Any:
    """A model whose vectors are longer than the tiny ones'."""
    return MODELS["gpt2"]().__class__(replace(TINY_GPT2, width=48, head_dim=12))


def test_zero_vectors_are_reported() -> None:
    model = MODELS["lstm"]()
    plane = fit_plane(model, TOKENIZER, "king queen", top=1)
    with torch.no_grad():
        model.output_weight.zero_()
    assert "still zero here" in str(project_on(model, TOKENIZER, plane).caption)
    assert "are zero, as they are initialised" in str(neighbours(model, TOKENIZER, "king").caption)
    with pytest.raises(BadInput, match="these words have 1"):
        projection(model, TOKENIZER, "king queen man woman a", top=0, layout="tsne")


def test_tsne_preserves_neighbourhoods() -> None:
    pytest.importorskip("sklearn", reason="t-SNE is scikit-learn's: pip install clearstory[data]")
    model = MODELS["lstm"]()
    text = "a b c d e f g h"
    ids = [known_token(TOKENIZER, word) for word in text.split()]
    with torch.no_grad():  # two heaps of four words
        noise = 0.05 * torch.randn(8, model.output_weight.shape[1], generator=torch.Generator().manual_seed(1))
        model.output_weight[ids] = noise.double() + torch.tensor([[1.0], [-1.0]]).repeat_interleave(4, 0)
    view = projection(model, TOKENIZER, text, top=0, layout="tsne")
    coordinates = torch.tensor([[point.x, point.y] for point in view.points])
    nearest = (torch.cdist(coordinates, coordinates) + 1e9 * torch.eye(8)).argmin(1)
    assert (nearest // 4).tolist() == [0] * 4 + [1] * 4
    assert view == projection(model, TOKENIZER, text, top=0, layout="tsne")


def test_neighbours_are_the_highest_cosines() -> None:
    model: Any = next(iter(MODELS.values()))()
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    view = neighbours(model, tokenizer, "c", top=3)
    vectors = model.output_weight.detach()[: tokenizer.vocab]
    vectors = vectors - vectors.mean(0)
    own = tokenizer.encode("c")[0]
    assert len(view.column("token")) == 3
    by_hand = sorted(
        ((float(F.cosine_similarity(vectors[i], vectors[own], 0)), i) for i in range(tokenizer.vocab) if i != own),
        reverse=True,
    )
    assert view.column("cosine") == pytest.approx([cosine for cosine, _ in by_hand[:3]], abs=2e-6)
    with pytest.raises(BadInput, match="'abc' is not one token but a · b · c"):
        neighbours(model, tokenizer, "abc")
