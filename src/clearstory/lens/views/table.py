"""Table: rows of cells under named columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import Cell, View


@dataclass(frozen=True, kw_only=True)
class Table(View):
    """Rows of cells under named columns. The numbers of the column named by `bar` are also drawn as bars.

    >>> Table(title="Next", columns=("token", "probability"), rows=(("a", 0.75),), bar="probability").to_json()["kind"]
    'table'
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    bar: str | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise BadInput(
                    f"a row has {len(row)} cells and the table has {len(self.columns)} columns; give a cell for each"
                )
        if self.bar is not None and self.bar not in self.columns:
            raise BadInput(f"bar is '{self.bar}', which is not a column; choose one of {', '.join(self.columns)}")

    def column(self, name: str) -> list[Cell]:
        """The cells of one column, from top to bottom."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]
