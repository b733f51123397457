"""Over: a view at the checkpoints of a run, one after another: how what is seen came to be learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.lens.views import Curve, Line, HighlightedText, Panel, Table, View, Report
from clearstory.training.checkpoint import list_checkpoints

MOST = 8
"""Checkpoints that are looked at; of more, as many, evenly chosen, the first and the last among them."""

LINES = 6
"""Rows of a table that become lines."""


def over_checkpoints(run: str | Path, look: Callable[[Path], View], name: str) -> Report:
    """A view of each checkpoint of a run, and before them the numbers of the last one's over all.

    Raises BadInput for what is no run, or has no checkpoints.
    """
    every = list_checkpoints(Path(run))
    if not every:
        raise BadInput(f"{run} has no checkpoints, so nothing can be seen over training; give the folder of a run")
    chosen = thinned(every)
    steps = [int(path.name.removeprefix("step-")) for path in chosen]
    views = [steps_of(look(path)) for path in chosen]
    titled = [
        replace(each, title=f"Step {step:,}: {each.title}")
        for step, own in zip(steps, views, strict=True)
        for each in own
    ]
    curves = [curve] if (curve := followed(steps, views)) is not None else []
    few = f"{len(chosen)} of {len(every)} checkpoints" if len(chosen) < len(every) else f"{len(every)} checkpoints"
    return Report(
        title=f"{name} over training",
        panels=(*curves, *titled),
        caption=f"{few}, steps {steps[0]:,} to {steps[-1]:,}; how many a run keeps says --training.keep_checkpoints.",
    )


def thinned(paths: Sequence[Path]) -> list[Path]:
    """At most MOST of them, evenly.

    >>> [str(path) for path in thinned([Path(str(number)) for number in range(15)])]
    ['0', '2', '4', '6', '8', '10', '12', '14']
    """
    if len(paths) <= MOST:
        return list(paths)
    return [paths[round(place * (len(paths) - 1) / (MOST - 1))] for place in range(MOST)]


def steps_of(view: View) -> tuple[Panel, ...]:
    """A view's own views."""
    return view.panels if isinstance(view, Report) else (view,)


def followed(steps: Sequence[int], views: Sequence[Sequence[Panel]]) -> Curve | None:
    """The numbers of the last checkpoint's first table or text, as they were at all; None for views without either."""
    for number, last in enumerate(views[-1]):
        same: list[Any] = [own[number] if number < len(own) else None for own in views]
        if isinstance(last, Table) and last.bar is not None:
            lines = tuple(
                line(key, steps, [value_of(each, key) for each in same])
                for key in dict.fromkeys(str(row[0]) for row in last.rows[:LINES])
            )
            return Curve(
                title=f"{last.bar} over training, of those that lead at the end",
                lines=lines,
                x_label="training steps",
                y_label=last.bar,
                caption=gaps(lines, len(steps)),
            )
        if isinstance(last, HighlightedText) and (names := [key for key, value in last.totals if isinstance(value, float)]):
            own = names[-1]
            values = [dict(each.totals).get(own) for each in same]
            return Curve(
                title=f"{own} over training", lines=(line(own, steps, values),), x_label="training steps", y_label=own
            )
    return None


def gaps(lines: Sequence[Line], steps: int) -> str | None:
    """What a missing point means, where one is missing."""
    few = [line.name for line in lines if len(line.x) < steps]
    return f"Where {', '.join(few)} has no point, it was not among those shown." if few else None


def value_of(table: Table, key: str) -> Any:
    """The number of a row, found by its first cell; None where it is not there."""
    assert table.bar is not None
    return next(
        (value for row, value in zip(table.rows, table.column(table.bar), strict=True) if str(row[0]) == key), None
    )


def line(name: str, steps: Sequence[int], values: Sequence[Any]) -> Line:
    """A line through the numbers that are there."""
    points = [(float(step), float(value)) for step, value in zip(steps, values, strict=True) if value is not None]
    return Line(name, tuple(x for x, _ in points), tuple(y for _, y in points))
