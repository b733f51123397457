"""Maps and figures: labels do not overlap, and every parameter of a model is in exactly one box."""

from __future__ import annotations

import csv
import io
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from clearstory.lens.probes.architecture import architecture
from clearstory.lens.rendering.dispatch import render_svg, render_terminal
from clearstory.lens.rendering.map import overlap, place_labels
from clearstory.lens.rendering.render import render_csv, render_html
from clearstory.lens.views import View
from clearstory.lens.views.diagrams import Arrow, Box, Figure, RepeatFrame
from clearstory.lens.views.plots import Map, Point
from clearstory.models.build import build, count_parameters
from clearstory.models.families import PRESETS
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from tiny import MODELS

HOSTILE = '</svg><script>alert(1)</script>"\x1b[2J\u202e&amp;\x00[bold]\ud800'
SVG = "{http://www.w3.org/2000/svg}"

MAP = Map(
    title=HOSTILE,
    points=(Point(HOSTILE, 0.0, 0.0, 0, HOSTILE), Point("b", 3.0, 4.0, 1), Point("c", math.nan, 1.0)),
    links=((0, 1), (1, 2)),
    groups=(HOSTILE, "other"),
    x_label=HOSTILE,
    y_label="second",
    caption=HOSTILE,
)
FIGURE = Figure(
    title=HOSTILE,
    boxes=(Box(HOSTILE, 2, 1, 16, 5, HOSTILE, 12, "norm"), Box("+", 9, 7, 3, 1, role="add")),
    arrows=(Arrow(((10, 7), (10, 6))), Arrow(((10, 8), (20, 8), (20, 7), (12, 7)))),
    frames=(RepeatFrame(3, 0, 0, 23, 9),),
    caption=HOSTILE,
)


def shown(view: View, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_terminal(view, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("view", [MAP, FIGURE], ids=["map", "figure"])
def test_markup_and_control_characters_are_escaped(view: View) -> None:
    tags = {each.tag.removeprefix(SVG) for each in ET.fromstring(render_svg(view)).iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "line", "polyline", "polygon", "circle"}
    page = render_html(view)
    page.encode()
    assert "<script" not in page
    assert "\x1b" not in shown(view)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=20), st.floats(), st.floats()), max_size=8))
def test_any_points_can_be_rendered(points: list[tuple[str, float, float]]) -> None:
    view = Map(title="m", points=tuple(Point(*each) for each in points), x_label="x", y_label="y")
    ET.fromstring(render_svg(view))
    assert shown(view)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 700), st.floats(0, 400), st.floats(5, 120)), max_size=40))
def test_labels_overlap_neither_each_other_nor_a_dot(labels: list[tuple[float, float, float]]) -> None:
    centers = [(x, y) for x, y, _ in labels]
    placed = place_labels(centers, [(width, 15.0) for *_, width in labels], (0, 0, 700, 400))
    boxes = [box for box in placed if box is not None]
    assert not any(overlap(box, other) for number, box in enumerate(boxes) for other in boxes[:number])
    assert not any(overlap(box, (x - 4, y - 4, x + 4, y + 4)) for box in boxes for x, y in centers)


def test_both_axes_of_a_map_have_the_same_scale() -> None:
    points = (Point("a", 0.0, 0.0), Point("b", 3.0, 0.0), Point("c", 0.0, 4.0))
    view = Map(title="m", points=points, links=((0, 1), (0, 2)), x_label="x", y_label="y")
    drawn = [
        [float(each.get(name, 0)) for name in ("cx", "cy")]
        for each in ET.fromstring(render_svg(view)).iter(SVG + "circle")
    ]
    a, b, c = drawn
    assert (b[0] - a[0]) / 3 == pytest.approx((a[1] - c[1]) / 4, rel=1e-3)
    assert [row[:3] for row in csv.reader(io.StringIO(render_csv(view)))][1:] == [
        ["a", "0.0", "0.0"],
        ["b", "3.0", "0.0"],
        ["c", "0.0", "4.0"],
    ]
    assert all(name in shown(view, 60) for name in "abc")


SMALL: dict[str, Any] = {
    "width": 16,
    "layers": 3,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab": 40,
}
OTHERS = {
    "bert": replace(BERT_TINY, **SMALL),
    "bare": replace(BERT_TINY, **SMALL, mlm_transform=False, unembed_bias=False),
    "t5": replace(T5_SMALL, **SMALL),
    "marian": replace(PRESETS["transformer-base"], **SMALL),
}


@pytest.mark.parametrize("name", [*MODELS, *OTHERS])
def test_every_parameter_is_in_one_box(name: str) -> None:
    model = MODELS[name]() if name in MODELS else build(OTHERS[name], seed=1)
    view = architecture(model, None, "")
    assert sum((box.parameters or 0) * view.repeats(box) for box in view.boxes) == count_parameters(model)
    assert f"{count_parameters(model):,} parameters" in str(view.caption)
    drawn = shown(view)
    assert all(box.name in drawn for box in view.boxes)
    assert max(map(len, drawn.splitlines())) <= 80
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in view.boxes]
    assert not any(overlap(box, other) for number, box in enumerate(corners) for other in corners[:number])
    assert min(min(each) for each in corners) >= 0


def test_gpt2_has_the_parameters_of_its_paper() -> None:
    view = architecture(build(replace(PRESETS["gpt2"], layers=3), device="meta"), None, "")
    assert view.frames[0].times == 3
    rows = {box.name: box.parameters for box in view.boxes}
    # 768 · 3,072 · 2 and biases 3,072 + 768; 4 · 768² and 4 · 768
    assert (rows["feed-forward"], rows["attention"]) == (4_722_432, 2_362_368)
    assert (rows["embedding"], rows["+ position embedding"], rows["unembedding"]) == (38_597_376, 786_432, 0)
    assert "12 heads of 64, causal" in render_csv(view)
