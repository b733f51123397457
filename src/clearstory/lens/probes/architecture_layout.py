"""Layout shared by all architecture figures: widths of columns, numbers of parameters, loops."""

from __future__ import annotations

from torch import nn

from clearstory.lens.views.diagrams import Arrow, Box, FigureColumn

LEFT, COLUMN_WIDTH, GAP, SIDE_WIDTH = 2, 34, 9, 26
"""In characters: left margin, width of a column, gap between two columns, and width of a side column."""


def parameter_count(*modules: nn.Module | nn.Parameter | None) -> int:
    """Number of parameters of some modules."""
    return sum(
        each.numel() if isinstance(each, nn.Parameter) else sum(one.numel() for one in each.parameters())
        for each in modules
        if each is not None
    )


def add_loop(column: FigureColumn, box: Box) -> None:
    """An arrow from a box back into itself."""
    right = box.x + box.width
    corners = ((right - 1, box.y + 1), (right + 3, box.y + 1), (right + 3, box.y + 3), (right, box.y + 3))
    column.arrows.append(Arrow(corners))
