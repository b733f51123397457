"""Differences: A plus B − A is B, exchanging A and B changes the sign, and views without a difference are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clearstory.cli.main import main
from clearstory.errors import BadSetting, CannotDo
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.probes.predictions import next_token
from clearstory.lens.probes.surprisal import surprisal
from clearstory.lens.rendering.dispatch import render_terminal
from clearstory.lens.rendering.render import render
from clearstory.lens.views import Curve, Grid, HighlightedText, Line, Map, Span, Table
from clearstory.lens.views.difference import difference
from clearstory.models.build import build
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, shaken

LETTERS = train_tokenizer("characters", ["the cat sat on a dog "])
BPE = train_tokenizer("bpe:270", ["the cat sat on a dog " * 9])
TEXT = "the cat sat on a dog"


def opened(tokenizer: Any = LETTERS, seed: int = 1, config: Any = TINY_CLEAR) -> Any:
    """A shaken model and its tokenizer."""
    return SimpleNamespace(model=shaken(replace(config, vocab=tokenizer.vocab), seed), tokenizer=tokenizer)


A, B, PIECES = opened(), opened(seed=2), opened(BPE)


def flat(view: Grid) -> list[float]:
    """All numbers of a grid."""
    return [value for row in view.values for value in row]


@pytest.mark.parametrize(
    ("view", "settings"),
    [("attention", {"head": 1}), ("logit-lens", {}), ("logit-lens", {"metric": "rank"}), ("embeddings", {})],
)
def test_a_grid_and_its_difference_are_the_other_grid(view: str, settings: dict[str, Any]) -> None:
    view_a, view_b = (inspect(each, "the cat", view, **settings) for each in (A, B))
    apart = inspect(A, "the cat", view, compare_model=B, **settings)
    assert isinstance(view_a, Grid)
    assert isinstance(view_b, Grid)
    assert isinstance(apart, Grid)
    assert apart.palette == "diverging"
    if apart.column_labels == view_a.column_labels == view_b.column_labels:
        assert [a + d for a, d in zip(flat(view_a), flat(apart), strict=True)] == pytest.approx(flat(view_b))
    back = inspect(B, "the cat", view, compare_model=A, **settings)
    assert isinstance(back, Grid)
    assert flat(back) == pytest.approx([-value for value in flat(apart)])
    assert set(flat(inspect(A, "the cat", view, compare_model=A, **settings))) == {0.0}  # type: ignore[arg-type]


def test_the_words_of_two_text_grids_are_in_one_cell() -> None:
    apart = inspect(A, "the cat", "logit-lens", compare_model=B)
    view_a, view_b = (inspect(each, "the cat", "logit-lens") for each in (A, B))
    word, word_a, word_b = (each.texts[0][0].split("\n")[0] for each in (apart, view_a, view_b))  # type: ignore[union-attr,index]
    assert word == (word_a if word_a == word_b else f"{word_a}→{word_b}")


def test_texts_with_the_same_number_of_tokens_are_compared_by_position() -> None:
    apart = inspect(A, "the cat", "attention", compare_text="the cot", head=0)
    assert isinstance(apart, Grid)
    assert apart.row_labels[5] == "a→o"
    assert "‘a’ in A is ‘o’ in B" in str(apart.caption)
    assert flat(apart)[: 5 * 7] == pytest.approx([0.0] * 35, abs=1e-12)  # earlier tokens do not attend to it
    assert any(flat(apart)[5 * 7 :])


def test_units_are_aligned_by_their_numbers() -> None:
    def grid(columns: str, values: tuple[float, ...]) -> Grid:
        return Grid(title="u", row_labels=("a",), column_labels=tuple(columns.split()), values=(values,))

    apart = difference(grid("3 17 20", (1.0, 2.0, 3.0)), grid("17 20 21", (5.0, 4.0, 1.0)))
    assert isinstance(apart, Grid)
    assert (apart.column_labels, apart.values) == (("17", "20"), ((3.0, 1.0),))
    assert "the 2 that both have" in str(apart.caption)


def test_next_tokens_are_compared_over_the_whole_vocabulary() -> None:
    apart = inspect(A, "the cat", compare_model=B, compare_text="a dog", top=4)
    table_a, table_b = (next_token(each.model, LETTERS, text, top=99) for each, text in ((A, "the cat"), (B, "a dog")))
    values_a, values_b = ({row[1]: row[3] for row in each.rows} for each in (table_a, table_b))
    changes = {id: values_b[id] - values_a[id] for id in values_a}  # type: ignore[operator]
    assert isinstance(apart, Table)
    assert [row[0] for row in apart.rows] == [
        LETTERS.display_token(id)
        for id in sorted(changes, key=lambda id: -abs(changes[id]))[:4]  # type: ignore[arg-type]
    ]
    assert apart.column("B − A") == pytest.approx(sorted(changes.values(), key=lambda each: -abs(each))[:4])
    distance = sum(map(abs, changes.values())) / 2
    assert f"Total variation distance: {distance:.0%} of the probability." in str(apart.caption)


def test_a_row_in_one_table_only_has_no_difference() -> None:
    def table(*rows: tuple[str, float]) -> Table:
        return Table(title="t", columns=("word", "much"), rows=rows, bar="much")

    apart = difference(table(("a", 1.0), ("b", 2.0)), table(("b", 5.0), ("c", 1.0)))
    assert isinstance(apart, Table)
    assert apart.columns == ("word", "much, A", "much, B", "B − A")
    assert apart.rows == (("b", 2.0, 5.0, 3.0), ("a", 1.0, None, None), ("c", None, 1.0, None))
    assert "2 of 3 rows are only in one table" in str(apart.caption)


@pytest.mark.parametrize("compare_model", [B, PIECES])
def test_surprisal_is_compared_across_tokenizers(compare_model: Any) -> None:
    apart = inspect(A, TEXT, "surprisal", compare_model=compare_model)
    assert isinstance(apart, HighlightedText)
    assert apart.signed
    assert "".join(span.text for span in apart.spans) == TEXT
    start = 0
    sides = []
    for each in (A, compare_model):
        ids, offsets = each.tokenizer.encode_with_offsets(TEXT)
        values = [span.value for span in surprisal(each.model, each.tokenizer, TEXT).spans]
        assert len(values) == len(ids)
        sides.append(list(zip(offsets, values, strict=True)))
    for span in apart.spans:
        inside = [[bits for offset, bits in side if start <= offset[0] < start + len(span.text)] for side in sides]
        start += len(span.text)
        if any(bits is None for side in inside for bits in side):
            assert span.value is None  # the first token has no context
        else:
            assert span.value == pytest.approx(sum(inside[1]) - sum(inside[0]))
    totals = dict(apart.totals)
    assert totals["B − A"] == pytest.approx(sum(span.value for span in apart.spans if span.value is not None))
    assert len(apart.spans) <= min(len(side) for side in sides)


def test_empty_spans_and_different_boundaries() -> None:
    a = HighlightedText(title="s", unit="bits", spans=(Span("", 1.0), Span("ab", 2.0), Span("", 3.0), Span("c", 4.0)))
    b = HighlightedText(title="s", unit="bits", spans=(Span("a", 1.0), Span("bc", 2.0)))
    apart = difference(a, b)
    assert isinstance(apart, HighlightedText)
    assert [(span.text, span.value, span.cells) for span in apart.spans] == [("abc", -7.0, (10.0, 3.0))]
    assert "1 of 1 aligned spans are several tokens in A or B." in str(apart.caption)
    assert "B takes 7 bits fewer in all" in str(apart.caption)


def test_lines_are_compared_at_the_x_values_of_both() -> None:
    def curve(name: str, x: tuple[float, ...], y: tuple[float, ...]) -> Curve:
        return Curve(title="c", lines=(Line(name, x, y),), x_label="k", y_label="v")

    apart = difference(curve("n", (1, 2, 3), (1, 1, 1)), curve("n", (2, 3, 4), (2, 0.5, 9)))
    assert isinstance(apart, Curve)
    assert apart.lines == (Line("n", (2, 3), (1, -0.5)),)
    with pytest.raises(CannotDo, match="no point in common"):
        difference(curve("n", (1,), (1,)), curve("m", (1,), (1,)))


def test_views_without_a_difference_are_refused() -> None:
    with pytest.raises(CannotDo, match="A has 7 rows and B has 5"):
        inspect(A, "the cat", "attention", compare_text="a dog")
    with pytest.raises(CannotDo, match="only 0 of 5 rows are the same"):
        inspect(A, "a dog", "attention", compare_text="the c")
    with pytest.raises(CannotDo, match=r"A has \d rows and B has \d"):
        inspect(A, "the cat", "logit-lens", compare_model=opened(config=replace(TINY_CLEAR, layers=3)))
    with pytest.raises(CannotDo, match="A is a table and B is a grid"):
        difference(inspect(A, "the"), inspect(A, "the", "logit-lens"))
    empty = Map(title="m", points=(), x_label="x", y_label="y")
    with pytest.raises(CannotDo, match="the difference of a map is not defined"):
        difference(empty, empty)
    with pytest.raises(CannotDo, match="the unit of A is bits of entropy and the unit of B is rank"):
        difference(*(inspect(A, "the", "logit-lens", metric=metric) for metric in ("entropy", "rank")))
    with pytest.raises(CannotDo, match="columns token, id, logit, probability and B's"):
        difference(inspect(A, "the"), inspect(A, "the", "neurons"))
    with pytest.raises(BadSetting, match="top is 0"):
        inspect(A, "the cat", compare_model=B, top=0)
    with pytest.raises(BadSetting, match="across_checkpoints is set"):
        inspect(A, "the cat", compare_model=B, across_checkpoints=True)


def test_differences_are_rendered_in_two_colours() -> None:
    from rich.console import Console

    for view, name in (("surprisal", "less-"), ("logit-lens", "dot-0"), ("attention", "dot-0")):
        apart = inspect(A, "the cat", view, compare_model=B)
        page = render(apart, "html")
        assert name in page
        assert "dot-1" in page or "more-" in page
        console = Console(width=100, record=True, force_terminal=True)
        console.print(render_terminal(apart, 100))
        assert "B − A" in console.export_text()
    zero = HighlightedText(title="z", spans=(Span("a", 0.1), Span("b", -3.0)), thresholds=(1.0, 2.0), signed=True)
    assert [zero.color_class(span) for span in zero.spans] == ["heat-0", "less-2"]


def test_cells_masked_in_both_stay_masked() -> None:
    grid = Grid(title="g", row_labels=("a",), column_labels=("b", "c"), values=((-math.inf, 1.0),))
    assert flat(difference(grid, grid)) == [-math.inf, 0.0]  # type: ignore[arg-type]


def test_the_command_prints_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", 1), ("other", 2)):
        model = build(replace(TINY_GPT2, vocab=LETTERS.vocab), seed=seed)
        save_model(tmp_path / name, model, LETTERS, ModelCard())
    flags = ["--compare-model", str(tmp_path / "other"), "--compare-text", "a dog", "--top", "3", "--json"]
    assert main(["inspect", str(tmp_path / "one"), "the cat", *flags]) == 0
    data = json.loads(capsys.readouterr().out)
    apart = inspect(tmp_path / "one", "the cat", compare_model=tmp_path / "other", compare_text="a dog", top=3)
    assert data["rows"] == [list(row) for row in apart.rows]  # type: ignore[union-attr]
    assert data["columns"][-1] == "B − A"
    assert main(["inspect", str(tmp_path / "one"), "the cat", "--view", "logit-lens", *flags[2:4]]) == 1
    assert "A has 7 columns and B has 5" in capsys.readouterr().err
