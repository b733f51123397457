"""Across checkpoints: one view at several checkpoints of a run, and a curve of its main value over training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.lens.views import Curve, HighlightedText, Line, Panel, Report, Table, View
from clearstory.lens.views.report import panels_of
from clearstory.training.checkpoint import list_checkpoints

MAX_CHECKPOINTS = 8
"""Checkpoints that are shown; of more, this many at equal distances, the first and the last included."""

MAX_LINES = 6
"""Rows of a table that are drawn as lines of the curve."""


def view_across_checkpoints(run: str | Path, compute_view: Callable[[Path], View], name: str) -> Report:
    """The view at each checkpoint of a run, preceded by a curve of the last checkpoint's main values over training.

    Raises BadInput if `run` is not a run folder or has no checkpoints.
    """
    checkpoints = list_checkpoints(Path(run))
    if not checkpoints:
        raise BadInput(f"{run} has no checkpoints; pass the folder of a run that has some")
    chosen = evenly_spaced(checkpoints)
    steps = [int(path.name.removeprefix("step-")) for path in chosen]
    views = [panels_of(compute_view(path)) for path in chosen]
    titled = [
        replace(panel, title=f"Step {step:,}: {panel.title}")
        for step, panels in zip(steps, views, strict=True)
        for panel in panels
    ]
    curve = value_curve(steps, views)
    shown = f"{len(chosen)} of {len(checkpoints)}" if len(chosen) < len(checkpoints) else f"{len(checkpoints)}"
    return Report(
        title=f"{name} over training",
        panels=(*([] if curve is None else [curve]), *titled),
        caption=f"{shown} checkpoints, steps {steps[0]:,} to {steps[-1]:,}; --training.keep_checkpoints sets how many "
        "a run keeps.",
    )


def evenly_spaced(paths: Sequence[Path]) -> list[Path]:
    """At most MAX_CHECKPOINTS of the paths at equal distances, the first and the last included.

    >>> [str(path) for path in evenly_spaced([Path(str(number)) for number in range(15)])]
    ['0', '2', '4', '6', '8', '10', '12', '14']
    """
    if len(paths) <= MAX_CHECKPOINTS:
        return list(paths)
    last = MAX_CHECKPOINTS - 1
    return [paths[round(index * (len(paths) - 1) / last)] for index in range(MAX_CHECKPOINTS)]


def value_curve(steps: Sequence[int], views: Sequence[Sequence[Panel]]) -> Curve | None:
    """The values of the last checkpoint's first table or text at each step; None for views without either."""
    for index, last in enumerate(views[-1]):
        same_panel: list[Any] = [panels[index] if index < len(panels) else None for panels in views]
        if isinstance(last, Table) and last.bar is not None:
            lines = tuple(
                line_of(key, steps, [row_value(panel, key) for panel in same_panel])
                for key in dict.fromkeys(str(row[0]) for row in last.rows[:MAX_LINES])
            )
            return Curve(
                title=f"{last.bar} over training, of the first rows at the last checkpoint",
                lines=lines,
                x_label="training steps",
                y_label=last.bar,
                caption=missing_point_caption(lines, len(steps)),
            )
        if isinstance(last, HighlightedText):
            names = [key for key, value in last.totals if isinstance(value, float)]
            if names:
                name = names[-1]
                values = [dict(panel.totals).get(name) for panel in same_panel]
                line = line_of(name, steps, values)
                return Curve(title=f"{name} over training", lines=(line,), x_label="training steps", y_label=name)
    return None


def missing_point_caption(lines: Sequence[Line], steps: int) -> str | None:
    """A sentence on what a missing point means; None where no point is missing."""
    names = [line.name for line in lines if len(line.x) < steps]
    return f"Where {', '.join(names)} has no point, it was not among the rows shown." if names else None


def row_value(table: Table, key: str) -> Any:
    """The main value of the row whose first cell is `key`; None if there is no such row."""
    assert table.bar is not None
    values = zip(table.rows, table.column(table.bar), strict=True)
    return next((value for row, value in values if str(row[0]) == key), None)


def line_of(name: str, steps: Sequence[int], values: Sequence[Any]) -> Line:
    """A line through the values that are not None."""
    points = [(float(step), float(value)) for step, value in zip(steps, values, strict=True) if value is not None]
    return Line(name, tuple(x for x, _ in points), tuple(y for _, y in points))
