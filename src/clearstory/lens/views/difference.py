"""The difference of two views of the same kind: B − A, number by number.

 grids              cell by cell: two models on one text, or two texts with the same number of tokens
 curves             line by line, at the x values that both have
 tables             row by row, matched by name: the next tokens of any two models on any two texts
 highlighted texts  over the same characters: two models with any two tokenizers
 reports            panel by panel

Views without a meaningful difference are refused with a message that describes both.
"""

from __future__ import annotations

import math

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.views.alignment import (
    AlignedSpan,
    align_labels,
    align_spans,
    common_unit,
    describe_extremes,
    describe_mean,
    difference_title,
    format_signed,
    join_labels,
)
from clearstory.lens.views.base import Cell, View
from clearstory.lens.views.formatting import format_cell
from clearstory.lens.views.grids import Grid, Table
from clearstory.lens.views.plots import Curve, Line
from clearstory.lens.views.report import Panel, Report, panels_of
from clearstory.lens.views.text import HighlightedText, Span

THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Thresholds of the colours of differences, in the unit of the text."""

SHARES = (0.1, 0.25, 0.5, 0.75, 0.95)
"""The same where A and B have signed numbers of any size: as shares of the largest difference."""

ROWS = 20
"""Rows of a table of differences, those with the largest differences."""


def difference(a: View, b: View, *, top: int = ROWS) -> View:
    """B − A, a view of the same kind. Of a table, the `top` rows that differ most.

    Raises CannotDo if the difference has no meaning.

    >>> a, b = (Grid(title=t, row_labels=("x",), column_labels=("y",), values=((v,),)) for t, v in (("A", 1), ("B", 3)))
    >>> difference(a, b).values
    ((2,),)
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 row")
    match a, b:
        case Grid(), Grid():
            return subtract_grids(a, b)
        case Curve(), Curve():
            return subtract_curves(a, b)
        case Table(), Table():
            return subtract_tables(a, b, top)
        case HighlightedText(), HighlightedText():
            return subtract_texts(a, b)
        case Report(), Report():
            return subtract_reports(a, b, top)
    kinds = [view.kind.replace("_", " ") for view in (a, b)]
    if a.kind != b.kind:
        raise CannotDo(
            f"A is a {kinds[0]} and B is a {kinds[1]}; choose the same view for both, such as --view next-token"
        )
    raise CannotDo(
        f"the difference of a {kinds[0]} is not defined; grids, curves, tables and highlighted texts have one, such "
        "as logit-lens, gradient-reach, next-token and surprisal"
    )


# ---- reports


def subtract_reports(a: Report, b: Report, top: int) -> Report:
    """B − A, panel by panel; panels without a difference, such as maps, are left out and named in the caption.

    Raises CannotDo if no panel has one.
    """
    if len(a.panels) != len(b.panels):
        raise CannotDo(
            f"A has {len(a.panels)} panels and B has {len(b.panels)}, which cannot be aligned; give both the same "
            "settings"
        )
    panels: list[Panel] = []
    left_out: list[str] = []
    reason = None
    for panel_a, panel_b in zip(a.panels, b.panels, strict=True):
        try:
            panels += panels_of(difference(panel_a, panel_b, top=top))
        except CannotDo as error:
            reason = reason or str(error)
            left_out.append(panel_a.title)
    if not panels:
        raise CannotDo(f"no panel of A and B has a difference: {reason}")
    caption = f"Without a difference: {'; '.join(left_out)}." if left_out else None
    return Report(title=difference_title(a, b), panels=tuple(panels), caption=caption)


# ---- grids


def subtract_grids(a: Grid, b: Grid) -> Grid:
    """B − A, cell by cell."""
    unit = common_unit(a.unit, b.unit)
    rows = align_labels(a.row_labels, b.row_labels, "rows")
    columns = align_labels(a.column_labels, b.column_labels, "columns")
    # (i, j) in A is (k, m) in B.
    indices = [[(i, j, k, m) for j, m in columns.indices] for i, k in rows.indices]
    values = tuple(tuple(subtract(a.values[i][j], b.values[k][m]) for i, j, k, m in row) for row in indices)
    texts = None
    if (texts_a := a.texts) is not None and (texts_b := b.texts) is not None:
        texts = tuple(
            tuple(
                difference_text(texts_a[i][j], texts_b[k][m], value)
                for (i, j, k, m), value in zip(row, row_values, strict=True)
            )
            for row, row_values in zip(indices, values, strict=True)
        )
    differences = [
        (value, f"row ‘{label}’, column ‘{name}’", a.values[i][j], b.values[k][m])
        for label, row, row_values in zip(rows.labels, indices, values, strict=True)
        for name, (i, j, k, m), value in zip(columns.labels, row, row_values, strict=True)
        if math.isfinite(value)
    ]
    notes = [note for note in (rows.note, columns.note if columns.labels != rows.labels else "") if note]
    return Grid(
        title=difference_title(a, b),
        row_labels=rows.labels,
        column_labels=columns.labels,
        values=values,
        texts=texts,
        unit=unit,
        dots=a.dots and b.dots,
        palette="diverging",
        caption=" ".join([describe_extremes(differences), describe_mean(differences, unit), *notes]),
    )


def subtract(a: float, b: float) -> float:
    """B − A; -inf (masked) if both are masked.

    >>> subtract(-math.inf, -math.inf), subtract(1.0, 0.5)
    (-inf, -0.5)
    """
    return b if a == b == -math.inf else b - a


def difference_text(a: str, b: str, value: float) -> str:
    """The words of A and B in one cell, with the difference as a short annotation.

    >>> difference_text("cat\\n12", "dog\\n30", 0.18)
    'cat→dog\\n+0.18'
    """
    size = abs(value)
    if size < 0.005:
        annotation = ""
    elif size < 1000:
        annotation = f"{value:+.2f}" if size < 10 else f"{value:+.0f}"
    else:
        annotation = format_signed(value)
    words = join_labels(a.split("\n")[0], b.split("\n")[0])
    return "\n".join([words, *([annotation.replace("-", "−")] if annotation else [])])


# ---- curves


def subtract_curves(a: Curve, b: Curve) -> Curve:
    """B − A, line by line, at the x values that both have."""
    if (a.x_label, a.y_label) != (b.x_label, b.y_label):
        raise CannotDo(
            f"A shows {a.y_label} over {a.x_label} and B {b.y_label} over {b.x_label}; choose a view with the same axes"
        )
    lines, differences = [], []
    for line in (each for each in a.lines if each.same_color_as is None):
        line_b = next((each for each in b.lines if each.name == line.name), None)
        if line_b is None:
            continue
        heights_b = dict(zip(line_b.x, line_b.y, strict=True))
        points = [(x, y, heights_b[x]) for x, y in zip(line.x, line.y, strict=True) if x in heights_b]
        if points:
            lines.append(Line(line.name, tuple(x for x, *_ in points), tuple(z - y for _, y, z in points), line.dashed))
            differences += [(z - y, f"{line.name} at {format_cell(x)}", y, z) for x, y, z in points]
    if not lines:
        names = [", ".join(each.name for each in view.lines) for view in (a, b)]
        raise CannotDo(
            f"A's lines ({names[0]}) and B's ({names[1]}) have no point in common; choose a view whose lines both have"
        )
    return Curve(
        title=difference_title(a, b),
        lines=tuple(lines),
        x_label=a.x_label,
        y_label=f"B − A, {a.y_label}",
        log_x=a.log_x,
        caption=f"{describe_extremes(differences)} {describe_mean(differences, a.y_label)}",
    )


# ---- tables


def subtract_tables(a: Table, b: Table, top: int) -> Table:
    """B − A, row by row, over the rows of either table, identified by their first columns.

    A row that only one table has, has no number for the other and no difference.
    """
    if a.columns != b.columns or a.bar is None or a.bar != b.bar:
        raise CannotDo(
            f"A's table has the columns {', '.join(a.columns)} and B's {', '.join(b.columns)}; tables are compared by "
            "a column of numbers that both draw as bars, as next-token does"
        )
    names, values_a, values_b = index_rows(a, b)
    keys = list(dict.fromkeys((*values_a, *values_b)))
    differences = [
        (values_b[key] - values_a[key], f"‘{key[0]}’", values_a[key], values_b[key])
        for key in keys
        if key in values_a and key in values_b
    ]
    if not differences:
        raise CannotDo(
            f"no row is in both tables (A has ‘{next(iter(values_a), ('nothing',))[0]}’, B "
            f"‘{next(iter(values_b), ('nothing',))[0]}’); show more rows with --top"
        )
    rows: list[tuple[Cell, ...]] = [
        (*key, x, y, None if x is None or y is None else y - x)
        for key, x, y in ((key, values_a.get(key), values_b.get(key)) for key in keys)
    ]
    # Largest differences first, rows without a difference last.
    rows.sort(key=lambda row: 1.0 if row[-1] is None else -abs(float(row[-1])))
    unmatched = len(rows) - len(differences)
    notes = [describe_extremes(differences)]
    if unmatched:
        notes.append(f"{unmatched:,} of {len(rows):,} rows are only in one table and have no difference.")
    if all(abs(math.fsum(side.values()) - 1) < 1e-3 for side in (values_a, values_b)):
        distance = math.fsum(abs(values_b.get(key, 0.0) - values_a.get(key, 0.0)) for key in keys) / 2
        notes.append(f"Total variation distance: {distance:.0%} of the {a.bar}.")
    return Table(
        title=difference_title(a, b),
        columns=(*names, f"{a.bar}, A", f"{a.bar}, B", "B − A"),
        rows=tuple(rows[:top]),
        bar="B − A",
        caption=" ".join(notes),
    )


RowValues = dict[tuple[Cell, ...], float]
"""From the cells that identify a row to its number."""


def index_rows(a: Table, b: Table) -> tuple[tuple[str, ...], RowValues, RowValues]:
    """The names of the fewest first columns that identify rows, and the numbers of A and of B by them.

    Raises CannotDo if the columns before the numbers do not identify rows.
    """
    assert a.bar is not None
    index = a.columns.index(a.bar)
    for count in range(1, index + 1):
        sides = [{row[:count]: row[index] for row in view.rows} for view in (a, b)]
        if all(len(side) == len(view.rows) for side, view in zip(sides, (a, b), strict=True)):
            values_a, values_b = (
                {k: float(v) for k, v in side.items() if isinstance(v, int | float)} for side in sides
            )
            return a.columns[:count], values_a, values_b
    raise CannotDo(
        f"rows are identified by {', '.join(a.columns[:index]) or 'nothing'}, and two rows have the same; choose a "
        "view whose rows have names"
    )


# ---- highlighted texts


def subtract_texts(a: HighlightedText, b: HighlightedText) -> HighlightedText:
    """B − A over the same characters.

    If both have the same text, numbers are summed between the boundaries that both tokenizations share. Two texts with
    the same number of spans, of which at least half are equal, are compared span by span.
    """
    unit = common_unit(a.unit, b.unit)
    texts = ["".join(span.text for span in view.spans) for view in (a, b)]
    same_text = texts[0] == texts[1]
    if same_text:
        aligned = list(align_spans(a, b))
    else:
        labels = [[span.text for span in view.spans] for view in (a, b)]
        names = align_labels(labels[0], labels[1], "spans").labels
        aligned = [AlignedSpan(y.text, name, (x,), (y,)) for name, x, y in zip(names, a.spans, b.spans, strict=True)]
    spans, differences = [], []
    for each in aligned:
        x, y = each.sums
        if x is None or y is None:
            spans.append(Span(each.text, None))
            continue
        pieces = [" · ".join(show_whitespace(span.text) for span in side) for side in (each.a, each.b)]
        cut = f"   A reads {pieces[0]}, B {pieces[1]}" if pieces[0] != pieces[1] and same_text else ""
        name = show_whitespace(each.name)
        note = f"{name}   {format_signed(y - x)} {unit}   {format_cell(x)} in A, {format_cell(y)} in B{cut}"
        spans.append(Span(each.text, y - x, note, (x, y)))
        differences.append((y - x, f"‘{name.strip()}’", x, y))
    if not differences:
        raise CannotDo("no span has a number in both A and B; give a longer text")
    largest = max(1e-9, *(abs(value) for value, *_ in differences))
    sums = math.fsum(x for *_, x, _ in differences), math.fsum(y for *_, y in differences)
    notes = [describe_extremes(differences), describe_mean(differences, unit)]
    if sums[0] != sums[1]:
        notes.insert(
            0,
            f"B takes {format_cell(abs(sums[1] - sums[0]))} {unit} {'more' if sums[1] > sums[0] else 'fewer'} in all.",
        )
    if joined := sum(len(each.a) > 1 or len(each.b) > 1 for each in aligned):
        notes.append(
            f"The tokenizations differ: {joined:,} of {len(aligned):,} aligned spans are several tokens in A or B."
        )
    return HighlightedText(
        title=difference_title(a, b),
        spans=tuple(spans),
        unit=unit,
        columns=(f"{unit}, A", f"{unit}, B"),
        thresholds=tuple(share * largest for share in SHARES) if a.signed and b.signed else THRESHOLDS,
        signed=True,
        totals=(
            (f"{unit}, A", sums[0]),
            (f"{unit}, B", sums[1]),
            ("B − A", sums[1] - sums[0]),
            *(per_byte_totals(a, b) if same_text else ()),
        ),
        caption=" ".join(notes),
    )


def show_whitespace(text: str) -> str:
    """A text with visible characters for spaces, line feeds and tabs."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def per_byte_totals(a: HighlightedText, b: HighlightedText) -> tuple[tuple[str, Cell], ...]:
    """The per-byte totals of A and B; empty if one of them has none."""
    name = f"{a.unit} per byte"
    both = [dict(view.totals).get(name) for view in (a, b)]
    return ((f"{name}, A", both[0]), (f"{name}, B", both[1])) if None not in both else ()
