"""Difference: what one view says more than another of its kind: B − A, number by number.

 grids    place by place              two models on one sentence, or two sentences of as many tokens
 curves   line by line, where both have a place
 tables   row by row, by their names  the next words of any two models, of any two sentences
 texts    over the same characters    bits of two models, whatever pieces their tokenizers make of the text

What has no difference is refused with what both sides are, and with what could be compared.
"""

from __future__ import annotations

import math

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.views.alignment import average, became, found, paired, same_unit, signed, titled
from clearstory.lens.rendering.scales import cell_text
from clearstory.lens.views.text_difference import of_texts
from clearstory.lens.views import Cell, Curve, Grid, Line, HighlightedText, Table, View

ROWS = 20
"""Rows of a table of differences, those that differ most."""


def difference(a: View, b: View, *, top: int = ROWS) -> View:
    """B − A, of the kind that both are. Of a table the `top` rows that differ most.

    Raises CannotDo where that would mean nothing.

    >>> a, b = (Grid(title=t, row_labels=("x",), column_labels=("y",), values=((v,),)) for t, v in (("A", 1), ("B", 3)))
    >>> difference(a, b).values
    ((2,),)
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 row")
    match a, b:
        case Grid(), Grid():
            return of_grids(a, b)
        case Curve(), Curve():
            return of_curves(a, b)
        case Table(), Table():
            return of_tables(a, b, top)
        case HighlightedText(), HighlightedText():
            return of_texts(a, b)
    if a.kind != b.kind:
        raise CannotDo(f"A is a {a.kind} and B is a {b.kind}; look at both in the same way, such as --view next-token")
    raise CannotDo(
        f"nothing can be taken away from a {a.kind}; grids, curves, tables and texts can be compared, such as lens, "
        "reach, next and surprise"
    )


# ---- grids


def of_grids(a: Grid, b: Grid) -> Grid:
    """Cell by cell."""
    unit = same_unit(a.unit, b.unit)
    rows, columns = paired(a.row_labels, b.row_labels, "rows"), paired(a.column_labels, b.column_labels, "columns")
    # (i, j) in A is (k, m) in B.
    places = [[(i, j, k, m) for j, m in columns.places] for i, k in rows.places]
    values = tuple(tuple(taken(a.values[i][j], b.values[k][m]) for i, j, k, m in row) for row in places)
    texts = None
    if (mine := a.texts) is not None and (theirs := b.texts) is not None:
        texts = tuple(
            tuple(worded(mine[i][j], theirs[k][m], value) for (i, j, k, m), value in zip(row, own, strict=True))
            for row, own in zip(places, values, strict=True)
        )
    cells = [
        (value, f"row ‘{label}’, column ‘{name}’", a.values[i][j], b.values[k][m])
        for label, row, own in zip(rows.labels, places, values, strict=True)
        for name, (i, j, k, m), value in zip(columns.labels, row, own, strict=True)
        if math.isfinite(value)
    ]
    notes = [note for note in (rows.note, columns.note if columns.labels != rows.labels else "") if note]
    return Grid(
        title=titled(a, b),
        row_labels=rows.labels,
        column_labels=columns.labels,
        values=values,
        texts=texts,
        unit=unit,
        dots=a.dots and b.dots,
        ink="apart",
        caption=" ".join([found(cells), average(cells, unit), *notes]),
    )


def taken(a: float, b: float) -> float:
    """B − A; what nobody may look at in either stays so.

    >>> taken(-math.inf, -math.inf), taken(1.0, 0.5)
    (-inf, -0.5)
    """
    return b if a == b == -math.inf else b - a


def worded(a: str, b: str, value: float) -> str:
    """The words of both in one cell, and how far they are apart as a remark of few characters.

    >>> worded("cat\\n12", "dog\\n30", 0.18)
    'cat→dog\\n+0.18'
    """
    size = abs(value)
    remark = "" if size < 0.005 else f"{value:+.2f}" if size < 10 else f"{value:+.0f}" if size < 1000 else signed(value)
    return "\n".join([became(a.split("\n")[0], b.split("\n")[0]), *([remark.replace("-", "−")] if remark else [])])


# ---- curves


def of_curves(a: Curve, b: Curve) -> Curve:
    """Line by line, at the places that both have."""
    if (a.x_label, a.y_label) != (b.x_label, b.y_label):
        raise CannotDo(
            f"A shows {a.y_label} over {a.x_label} and B {b.y_label} over {b.x_label}; choose a view with the same axes"
        )
    lines, cells = [], []
    for line in (each for each in a.lines if each.of is None):
        other = next((each for each in b.lines if each.name == line.name), None)
        if other is None:
            continue
        theirs = dict(zip(other.x, other.y, strict=True))
        points = [(x, y, theirs[x]) for x, y in zip(line.x, line.y, strict=True) if x in theirs]
        if points:
            lines.append(Line(line.name, tuple(x for x, *_ in points), tuple(z - y for _, y, z in points), line.dashed))
            cells += [(z - y, f"{line.name} at {cell_text(x)}", y, z) for x, y, z in points]
    if not lines:
        names = [", ".join(each.name for each in view.lines) for view in (a, b)]
        raise CannotDo(
            f"A's lines ({names[0]}) and B's ({names[1]}) have no place in common; choose a view whose lines both have"
        )
    return Curve(
        title=titled(a, b),
        lines=tuple(lines),
        x_label=a.x_label,
        y_label=f"B − A, {a.y_label}",
        log_x=a.log_x,
        caption=f"{found(cells)} {average(cells, a.y_label)}",
    )


# ---- tables


def of_tables(a: Table, b: Table, top: int) -> Table:
    """Row by row: the rows of either, by their first column (and its second where that names no row alone).

    A row that one side does not show has no number there and no difference.
    """
    if a.columns != b.columns or a.bar is None or a.bar != b.bar:
        raise CannotDo(
            f"A's table has the columns {', '.join(a.columns)} and B's {', '.join(b.columns)}; rows are compared by "
            "one column of numbers that both draw as bars, as next does"
        )
    names, mine, theirs = keyed(a, b)
    keys = list(dict.fromkeys((*mine, *theirs)))
    cells = [
        (theirs[key] - mine[key], f"‘{key[0]}’", mine[key], theirs[key])
        for key in keys
        if key in mine and key in theirs
    ]
    if not cells:
        raise CannotDo(
            f"no row stands in both tables (A has ‘{next(iter(mine), ('nothing',))[0]}’, B "
            f"‘{next(iter(theirs), ('nothing',))[0]}’); ask for longer ones with --top"
        )
    rows: list[tuple[Cell, ...]] = [
        (*key, x, y, None if x is None or y is None else y - x)
        for key, x, y in ((key, mine.get(key), theirs.get(key)) for key in keys)
    ]
    # Those that differ most first, and last those that have no difference.
    rows.sort(key=lambda row: 1.0 if row[-1] is None else -abs(float(row[-1])))
    lone = len(rows) - len(cells)
    notes = [found(cells)]
    if lone:
        notes.append(f"{lone:,} of {len(rows):,} rows stand in one table only and have no difference.")
    if all(abs(math.fsum(side.values()) - 1) < 1e-3 for side in (mine, theirs)):
        moved = math.fsum(abs(y - x) for x, y in ((mine.get(k, 0.0), theirs.get(k, 0.0)) for k in keys)) / 2
        notes.append(f"{moved:.0%} of the {a.bar} stands elsewhere.")
    return Table(
        title=titled(a, b),
        columns=(*names, f"{a.bar}, A", f"{a.bar}, B", "B − A"),
        rows=tuple(rows[:top]),
        bar="B − A",
        caption=" ".join(notes),
    )


Keyed = dict[tuple[Cell, ...], float]


def keyed(a: Table, b: Table) -> tuple[tuple[str, ...], Keyed, Keyed]:
    """The names of the columns by which rows are known, and each side's numbers by them."""
    assert a.bar is not None
    place = a.columns.index(a.bar)
    for wide in range(1, place + 1):
        sides = [{row[:wide]: row[place] for row in view.rows} for view in (a, b)]
        if all(len(side) == len(view.rows) for side, view in zip(sides, (a, b), strict=True)):
            mine, theirs = ({k: float(v) for k, v in side.items() if isinstance(v, int | float)} for side in sides)
            return a.columns[:wide], mine, theirs
    raise CannotDo(
        f"rows are known by {', '.join(a.columns[:place]) or 'nothing'}, and two of them have the same; choose a view "
        "whose rows have names"
    )
