"""Views as SVG documents and as terminal output, dispatched by their class."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding

from clearstory.lens.rendering.canvas import SvgCanvas, with_caption
from clearstory.lens.rendering.curve import curve_svg, curve_terminal
from clearstory.lens.rendering.diagrams import figure_svg, figure_terminal, tree_svg, tree_terminal
from clearstory.lens.rendering.grid import grid_svg, grid_terminal, text_grid_svg, text_grid_terminal
from clearstory.lens.rendering.highlighted_text import HighlightedTextTerminal, highlighted_text_svg
from clearstory.lens.rendering.map import map_svg, map_terminal
from clearstory.lens.rendering.table import table_svg, table_terminal
from clearstory.lens.rendering.tile_grid import tile_grid_svg, tile_grid_terminal
from clearstory.lens.views.base import View
from clearstory.lens.views.diagrams import Figure, Tree
from clearstory.lens.views.grids import Grid, Table, TileGrid
from clearstory.lens.views.plots import Curve, Map
from clearstory.lens.views.report import Report
from clearstory.lens.views.text import HighlightedText


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


def any_grid_terminal(view: Grid, width: int) -> RenderableType:
    """A grid for the terminal, with or without texts in its cells."""
    return grid_terminal(view, width) if view.texts is None else text_grid_terminal(view, view.texts, width)


def report_terminal(view: Report, width: int) -> RenderableType:
    """A report for the terminal: all panels, one below the other."""
    panels = (Padding(render_terminal(panel, width), (0, 0, 1, 0)) for panel in view.panels)
    return with_caption(view.title, view.caption, Group(*panels))


TERMINAL_RENDERERS: dict[type[View], Callable[[Any, int], RenderableType]] = {
    Curve: curve_terminal,
    Figure: lambda view, width: figure_terminal(view),
    Grid: any_grid_terminal,
    HighlightedText: lambda view, width: HighlightedTextTerminal(view),
    Map: map_terminal,
    Report: report_terminal,
    Table: table_terminal,
    TileGrid: tile_grid_terminal,
    Tree: tree_terminal,
}
"""Functions that render a view of each class with a given number of columns."""


def render_terminal(view: View, width: int = 80) -> RenderableType:
    """A view as a rich renderable. Control characters in its texts are replaced."""
    return TERMINAL_RENDERERS[type(view)](view, width)
