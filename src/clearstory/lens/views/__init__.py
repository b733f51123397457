"""Views: what probes return, as plain data. `lens.rendering` turns them into SVG, HTML, CSV and terminal output."""

from clearstory.lens.views.base import Cell, View
from clearstory.lens.views.curve import Band, Curve, Line
from clearstory.lens.views.figure import Arrow, Box, Figure
from clearstory.lens.views.grid import Grid, GridPalette
from clearstory.lens.views.highlighted_text import HighlightedText, Span
from clearstory.lens.views.map import Map, Point
from clearstory.lens.views.report import Panel, Report
from clearstory.lens.views.table import Table
from clearstory.lens.views.tile_grid import Tile, TileGrid
from clearstory.lens.views.tree import Node, Tree

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
