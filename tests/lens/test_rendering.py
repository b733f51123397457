"""Rendering: every number is in the output, and control characters and markup in a view have no effect."""

from __future__ import annotations

import csv
import io
import json
import math
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from clearstory.errors import BadInput, UnknownName
from clearstory.lens.rendering.canvas import Scale, even_ticks, log_ticks
from clearstory.lens.rendering.dispatch import render_svg, render_terminal
from clearstory.lens.rendering.palette import DARK, HEAT_LEVELS, LIGHT
from clearstory.lens.rendering.render import render_csv, render_html, render_json, save_view
from clearstory.lens.views import Band, Curve, Grid, HighlightedText, Line, Span, Table, View

HOSTILE = '</svg><script>alert(1)</script>"\x1b[2J\u202e&amp;\x00[bold]\ud800'
TABLE = Table(
    title=HOSTILE,
    columns=("token", "id", HOSTILE),
    rows=(("a", 1, 0.75), (HOSTILE, 2, 1 / 3), ("c", 3, None)),
    bar=HOSTILE,
    caption=HOSTILE,
)
CURVE = Curve(
    title=HOSTILE,
    lines=(Line(HOSTILE, (1.0, 10.0, 100.0), (3.0, 2.0, 1.0)), Line("other", (1.0, 2.0), (math.nan, 2.5), dashed=True)),
    x_label=HOSTILE,
    y_label="nats per token",
    log_x=True,
    band=Band(HOSTILE, (1.0, 10.0), (1.4, 1.3), (1.6, 1.5)),
    caption=HOSTILE,
)
HIGHLIGHTED = HighlightedText(
    title=HOSTILE,
    spans=(Span("a", 0.5, "rank 1", ("a", 1)), Span(HOSTILE + "\n", 20.0, HOSTILE, (HOSTILE, 2)), Span(" ", None)),
    unit="bits",
    columns=("token", HOSTILE),
    totals=((HOSTILE, 20.5),),
    caption=HOSTILE,
)
SVG = "{http://www.w3.org/2000/svg}"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


def shown(view: View, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_terminal(view, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("view", [TABLE, CURVE, HIGHLIGHTED], ids=["table", "curve", "highlighted_text"])
def test_markup_and_control_characters_are_escaped(view: View) -> None:
    drawing = ET.fromstring(render_svg(view))
    assert {each.tag for each in drawing.iter()} <= {
        SVG + tag for tag in ("svg", "title", "desc", "style", "rect", "text", "line", "polyline", "polygon", "circle")
    }
    parser = Tags()
    page = render_html(view)
    page.encode()  # a lone surrogate could not be encoded
    parser.feed(page)
    assert "script" not in parser.seen
    assert "src=" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "\x1b" not in shown(view)
    assert "[bold]" in shown(view)  # rich's own markup is escaped as well


@settings(deadline=None)  # on a busy machine one example may take any time
@given(st.text(), st.floats(), st.floats())
def test_any_text_and_number_can_be_rendered(text: str, first: float, second: float) -> None:
    table = Table(title=text, columns=("a", "b"), rows=((text, first), (text, second)), bar="b", caption=text)
    ET.fromstring(render_svg(table))
    curve = Curve(title=text, lines=(Line(text, (first, 1.0), (1.0, second)),), x_label=text, y_label=text)
    ET.fromstring(render_svg(curve))
    assert shown(table)
    assert shown(curve)


def test_the_csv_holds_every_digit() -> None:
    read = list(csv.reader(io.StringIO(render_csv(TABLE))))
    assert read[0] == list(TABLE.columns)
    assert [row[1] for row in read[1:]] == ["1", "2", "3"]
    assert float(read[2][2]) == 1 / 3
    assert read[2][0] == HOSTILE
    assert [row[0] for row in csv.reader(io.StringIO(render_csv(CURVE)))][1:] == [HOSTILE] * 3 + ["other"] * 2


def test_the_json_is_the_view() -> None:
    assert json.loads(render_json(CURVE)) == CURVE.to_json()


def test_bars_are_as_long_as_their_numbers() -> None:
    view = Table(title="t", columns=("token", "p"), rows=(("a", 0.5), ("b", 0.25), ("c", 0.0)), bar="p")
    widths = [float(each.get("width", 0)) for each in ET.fromstring(render_svg(view)).iter(SVG + "rect")][1:]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-3)
    lengths = [line.count("█") for line in shown(view, 60).splitlines() if line and line[0] in "abc"]
    assert lengths[0] == 2 * lengths[1] > 0


def test_a_falling_line_falls() -> None:
    [line] = ET.fromstring(
        render_svg(Curve(title="t", lines=(CURVE.lines[0],), x_label="x", y_label="y", log_x=True))
    ).iter(SVG + "polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # downwards is more in SVG
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)  # equal decades


def test_an_empty_curve_says_so() -> None:
    for lines in ((), (Line("l", (), ()),), (Line("l", (1.0,), (math.nan,)),)):
        empty = Curve(title="t", lines=lines, x_label="x", y_label="y")
        assert "nothing to draw" in render_svg(empty)
        assert "nothing to draw" in shown(empty)


def test_a_million_points_are_drawn_as_few() -> None:
    many = tuple(float(i) for i in range(100_000))
    drawing = render_svg(
        Curve(title="t", lines=(Line("l", many, tuple(math.sin(x) for x in many)),), x_label="x", y_label="y")
    )
    assert len(drawing) < 60_000


def test_the_suffix_of_a_file_is_its_format(tmp_path: Path) -> None:
    for suffix in (".html", ".svg", ".csv", ".json"):
        view = Table(title="t", columns=("a",), rows=((1,),))
        assert save_view(view, tmp_path / f"view{suffix}").stat().st_size
    with pytest.raises(UnknownName, match="png"):
        save_view(TABLE, tmp_path / "view.png")


def test_the_numbers_of_other_kinds_are_in_csv_and_html() -> None:
    grid = Grid(title="g", row_labels=("a",), column_labels=("b",), values=((0.25,),))
    assert render_csv(grid) == ",b\na,0.25\n"
    assert "0.25" in render_html(grid)
    assert render_csv(HighlightedText(title="s", spans=())) == "text,value,note\n"
    assert render_csv(HighlightedText(title="s", spans=(Span("a\n", 1.0),))) == 'text,value,note\n"a\n",1.0,\n'
    read = list(csv.reader(io.StringIO(render_csv(HIGHLIGHTED))))
    assert read[0] == ["text", "bits", "token", HOSTILE, "note"]
    assert read[3] == [" ", "", "", "", ""]
    assert ">0.5<" in render_html(HIGHLIGHTED)


def test_spans_are_coloured_by_the_thresholds_they_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (0.5, 1.0, 3.9, 4.0, 8.0, 99.0, None)
    view = HighlightedText(title="s", spans=tuple(Span("x", value, "n") for value in values), unit="bits")
    assert [view.level(span) for span in view.spans] == [0, 1, 2, 3, 4, 5, 0]
    assert [f'heat-{i}" data-note' in render_html(view) for i in range(7)] == [True] * 6 + [False]
    drawn = [each.get("class") for each in ET.fromstring(render_svg(view)).iter(SVG + "rect")][7:]
    assert drawn == [f"heat-{i}" for i in (0, 1, 2, 3, 4, 5, 0)]
    assert "x[0.5]x[1.0]x[3.9]x[4.0]x[8.0]x[99.0]x" in shown(view)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", no_color=False)
    console.print(render_terminal(view))
    assert "\x1b[1;37;41mx\x1b[0m" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_spans_joined_are_the_text() -> None:
    class Text(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.text = False, ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside |= ("class", "text") in attrs

        def handle_endtag(self, tag: str) -> None:
            self.inside &= tag != "p"

        def handle_data(self, data: str) -> None:
            self.text += data if self.inside else ""

    text = "ab <i> c\nd e"
    read = Text()
    read.feed(render_html(HighlightedText(title="s", spans=tuple(Span(c, 1.0) for c in text))))
    assert read.text == text.replace("\n", "↵\n")


def test_a_long_line_of_spans_stays_on_the_page() -> None:
    view = HighlightedText(title="s", spans=(Span("wide " * 40, 1.0), Span("吾" * 200, 9.0), *(Span(" a", 2.0),) * 100))
    for each in list(ET.fromstring(render_svg(view)).iter(SVG + "rect"))[7:]:
        assert float(each.get("x", 0)) + float(each.get("width", 0)) <= 760 - 24 + 1


def contrast(first: str, second: str) -> float:
    """WCAG 2.2: the ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_enough_contrast_on_every_heat_level(colours: dict[str, str]) -> None:
    assert all(contrast(colours[f"heat-{i}"], colours[f"on-{i}"]) >= 4.5 for i in range(HEAT_LEVELS))
    strength = [contrast(colours[f"heat-{i}"], colours["paper"]) for i in range(HEAT_LEVELS)]
    assert strength == sorted(set(strength))


def test_a_line_with_the_colour_of_another_has_no_legend_entry() -> None:
    lines = (
        Line("one", (1.0, 2.0), (1.0, 2.0)),
        Line("law", (1.0, 2.0), (1.0, 2.5), dashed=True, same_color_as="one"),
        Line("two", (1.0, 2.0), (3.0, 2.0)),
    )
    view = Curve(title="t", lines=lines, x_label="x", y_label="y")
    assert view.color_indices() == [0, 0, 1]
    assert ">law<" not in render_svg(view)
    assert "law" not in shown(view)
    with pytest.raises(BadInput, match="no earlier line"):
        Curve(title="t", lines=lines[1:], x_label="x", y_label="y")


def test_squares_are_as_dark_as_their_numbers() -> None:
    grid = Grid(title="g", row_labels=("a", HOSTILE), column_labels=("b", HOSTILE), values=((1.0, 0.0), (0.5, -0.25)))
    squares = list(ET.fromstring(render_svg(grid)).iter(SVG + "rect"))[1:]
    assert [each.get("opacity") for each in squares] == ["1", "0.52", "0.28"]  # 0.04 + 0.96 share
    assert squares[2].get("fill") == "none"
    assert "████" not in shown(grid)
    assert "██" in shown(grid)
    assert "\x1b" not in shown(grid)
    assert "nothing" in render_svg(Grid(title="g", row_labels=(), column_labels=(), values=()))


def test_circles_are_as_large_as_their_numbers_and_masked_cells_are_marked() -> None:
    values = ((4.0, -1.0), (0.0, -math.inf))
    grid = Grid(title="g", row_labels=("a", "b"), column_labels=("c", "d"), values=values, palette="query", dots=True)
    drawing = ET.fromstring(render_svg(grid))
    filled, hollow = drawing.iter(SVG + "circle")
    assert (filled.get("class"), hollow.get("class")) == ("query", "edge-query")
    # Area: a quarter of the number has half the radius; the edge, 1.4 wide, lies within.
    assert float(hollow.get("r", 0)) + 0.7 == pytest.approx(float(filled.get("r", 0)) / 2, abs=0.02)
    assert [each.text for each in drawing.iter(SVG + "text") if each.get("class") == "value"] == ["−∞"]
    assert "the largest is 4" in render_svg(grid)
    assert "████" not in shown(grid)
    for mark in ("██", "-░", "−∞"):
        assert mark in shown(grid)
    assert render_csv(grid).splitlines()[2] == "b,0.0,-inf"
    assert json.loads(render_json(grid))["values"] == [[4.0, -1.0], [0.0, None]]


def test_in_a_reduced_grid_each_mark_is_the_strongest_of_a_block() -> None:
    names = tuple(map(str, range(250)))
    values = [[0.0] * 250 for _ in names]
    values[101][7], values[2][249] = 1.0, -0.5
    grid = Grid(title="g", row_labels=names, column_labels=names, values=tuple(map(tuple, values)))
    drawing = ET.fromstring(render_svg(grid))
    marks = [each for each in drawing.iter(SVG + "rect") if each.get("opacity")]
    notes = [each.findtext(f"{SVG}title") for each in marks]
    assert notes == ["0 → 249: -0.5", "99 → 6: 1"]  # blocks of 3, named by their first
    assert "Each mark is the strongest of 3 × 3 numbers" in render_svg(grid)
    assert "62,750 cells are too many for a page; a .csv file contains all of them" in render_html(grid)
    assert len(render_html(grid)) < 50_000
    assert all(len(line) <= 80 for line in shown(grid).splitlines())
    assert "3 × 4" in shown(grid)  # 75 characters for 250 columns


def test_ticks_are_round_numbers_within() -> None:
    assert even_ticks(0, 1, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert even_ticks(-3, 12, 4) == [0.0, 5.0, 10.0]
    assert even_ticks(2, 2, 4) == [2]
    assert log_ticks(10, 1990, 7) == [10, 20, 50, 100, 200, 500, 1000]
    assert log_ticks(1, 1e9, 6) == [1, 1e2, 1e4, 1e6, 1e8]
    assert Scale(5, 5, 0, 10)(5) == 5


@settings(deadline=None)  # as above
@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_within_and_are_few(low: float, span: float) -> None:
    for ticks in (even_ticks(low, low + span, 6), log_ticks(low, low + span, 6)):
        assert 1 <= len(ticks) <= 8
        assert all(low - 1e-6 * span <= tick <= (low + span) * (1 + 1e-6) for tick in ticks)
