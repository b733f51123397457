"""Views for the terminal, dispatched by their class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding

from clearstory.lens.rendering.curve import curve_terminal
from clearstory.lens.rendering.figure import figure_terminal
from clearstory.lens.rendering.grid import grid_terminal
from clearstory.lens.rendering.highlighted_text import HighlightedTextTerminal
from clearstory.lens.rendering.map import map_terminal
from clearstory.lens.rendering.table import table_terminal
from clearstory.lens.rendering.terminal_canvas import with_caption
from clearstory.lens.rendering.text_grid import text_grid_terminal
from clearstory.lens.rendering.tile_grid import tile_grid_terminal
from clearstory.lens.rendering.tree import tree_terminal
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
"""From the class of a view to the function that renders it in so many columns."""


def render_terminal(view: View, width: int = 80) -> RenderableType:
    """A view as a rich renderable. Control characters in its texts are replaced."""
    return TERMINAL_RENDERERS[type(view)](view, width)
