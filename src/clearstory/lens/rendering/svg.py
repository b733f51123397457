"""Views as SVG documents, dispatched by their class."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from clearstory.lens.rendering.curve import curve_svg
from clearstory.lens.rendering.figure import figure_svg
from clearstory.lens.rendering.grid import grid_svg
from clearstory.lens.rendering.highlighted_text import highlighted_text_svg
from clearstory.lens.rendering.map import map_svg
from clearstory.lens.rendering.svg_canvas import SvgCanvas
from clearstory.lens.rendering.table import table_svg
from clearstory.lens.rendering.text_grid import text_grid_svg
from clearstory.lens.rendering.tile_grid import tile_grid_svg
from clearstory.lens.rendering.tree import tree_svg
from clearstory.lens.views.base import View
from clearstory.lens.views.curve import Curve
from clearstory.lens.views.figure import Figure
from clearstory.lens.views.grid import Grid
from clearstory.lens.views.highlighted_text import HighlightedText
from clearstory.lens.views.map import Map
from clearstory.lens.views.report import Report
from clearstory.lens.views.table import Table
from clearstory.lens.views.tile_grid import TileGrid
from clearstory.lens.views.tree import Tree


def any_grid_svg(view: Grid) -> str:
    """A grid as SVG, with or without texts in its cells."""
    return grid_svg(view) if view.texts is None else text_grid_svg(view, view.texts)


def report_svg(view: Report) -> str:
    """A report as SVG: all panels, one below the other."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    for panel in view.panels:
        document = render_svg(panel)
        height = float(re.search(r' height="(\d+)"', document).group(1))  # type: ignore[union-attr]  # in each document
        canvas.elements.append(document.replace("<svg ", f'<svg y="{canvas.y:.0f}" ', 1).strip())
        canvas.y += height
    return canvas.document(view.title)


SVG_RENDERERS: dict[type[View], Callable[[Any], str]] = {
    Curve: curve_svg,
    Figure: figure_svg,
    Grid: any_grid_svg,
    HighlightedText: highlighted_text_svg,
    Map: map_svg,
    Report: report_svg,
    Table: table_svg,
    TileGrid: tile_grid_svg,
    Tree: tree_svg,
}
"""From the class of a view to the function that renders it."""


def render_svg(view: View) -> str:
    """A view as a stand-alone SVG document."""
    return SVG_RENDERERS[type(view)](view)
