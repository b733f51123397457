"""Views: what probes return, as plain data. `lens.rendering` renders them as SVG, HTML, CSV and terminal output."""

from clearstory.lens.views.base import Cell, View
from clearstory.lens.views.diagrams import Arrow, Box, Figure, Node, Tree
from clearstory.lens.views.grids import Grid, GridPalette, Table, Tile, TileGrid
from clearstory.lens.views.plots import Band, Curve, Line, Map, Point
from clearstory.lens.views.report import Panel, Report
from clearstory.lens.views.text import HighlightedText, Span

__all__ = [
    "Arrow",
    "Band",
    "Box",
    "Cell",
    "Curve",
    "Figure",
    "Grid",
    "GridPalette",
    "HighlightedText",
    "Line",
    "Map",
    "Node",
    "Panel",
    "Point",
    "Report",
    "Span",
    "Table",
    "Tile",
    "TileGrid",
    "Tree",
    "View",
]
