"""Views as data: shapes are checked, and views convert to plain data."""

from __future__ import annotations

import html
import json
import math

import pytest

from clearstory.errors import BadInput
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.render import render_csv, render_html
from clearstory.lens.views import Band, Curve, Figure, Grid, HighlightedText, Line, Map, Report, Span, Table, View
from clearstory.lens.views.diagrams import Arrow, Box, RepeatFrame
from clearstory.lens.views.plots import Point

VIEWS: list[View] = [
    Table(title="t", columns=("token", "probability"), rows=(("a", 0.5), (None, math.nan)), bar="probability"),
    Curve(
        title="c",
        lines=(Line("l", (1.0,), (math.inf,)),),
        x_label="steps",
        y_label="nats",
        band=Band("b", (1.0,), (1.0,), (2.0,)),
    ),
    Grid(title="g", row_labels=("a", "b"), column_labels=("c",), values=((0.1,), (0.2,))),
    HighlightedText(title="s", spans=(Span("a", 0.5, "n"), Span("b", None))),
    Map(
        title="m",
        points=(Point("a", 0.0, 1.0, note="n"), Point("b", 1.0, 0.0)),
        links=((0, 1),),
        x_label="x",
        y_label="y",
    ),
    Figure(
        title="f",
        boxes=(Box("norm", 2, 1, 12, 3, "8", 16, "norm"), Box("+", 7, 5, 3, 1, role="add")),
        arrows=(Arrow(((8, 5), (8, 4))),),
        frames=(RepeatFrame(2, 0, 0, 16, 5),),
    ),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.kind)
def test_a_view_is_plain_data(view: View) -> None:
    data = view.to_json()
    assert data["kind"].replace("_", "") == type(view).__name__.lower()
    # allow_nan=False: nan and infinity have become null.
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_inconsistent_shapes_are_refused() -> None:
    with pytest.raises(BadInput):
        Table(title="t", columns=("a", "b"), rows=((1,),))
    with pytest.raises(BadInput):
        Table(title="t", columns=("a",), rows=(), bar="b")
    with pytest.raises(BadInput):
        Line("l", (1.0, 2.0), (1.0,))
    with pytest.raises(BadInput):
        Grid(title="g", row_labels=("a",), column_labels=("b",), values=((1.0, 2.0),))
    with pytest.raises(BadInput):
        Grid(title="g", row_labels=("a", "b"), column_labels=("b",), values=((1.0,),))
    with pytest.raises(BadInput, match=r"a link is \(0, 1\) and the map has 1 points"):
        Map(title="m", points=(Point("a", 0.0, 0.0),), links=((0, 1),), x_label="x", y_label="y")
    with pytest.raises(BadInput, match="names 1 groups"):
        Map(title="m", points=(Point("a", 0.0, 0.0, 1),), groups=("one",), x_label="x", y_label="y")


def test_a_report_is_its_panels_in_every_format() -> None:
    report = Report(title="w", panels=(VIEWS[2], VIEWS[0]), caption="from one to the other")  # type: ignore[arg-type]
    data = report.to_json()
    assert data["kind"] == "report"
    assert [panel["kind"] for panel in data["panels"]] == ["grid", "table"]
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert render_csv(report) == f"g\n{render_csv(VIEWS[2])}\nt\n{render_csv(VIEWS[0])}"
    page = render_html(report)
    assert page.count("<details>") == 2
    assert "from one to the other" in page
    assert render_svg(report).count("<svg ") == 3
    with pytest.raises(BadInput, match="has no panels"):
        Report(title="w", panels=())


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.kind)
def test_a_notebook_shows_the_page_in_an_iframe(view: View) -> None:
    shown = view._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert html.unescape(shown.split('"')[1]) == render_html(view)
