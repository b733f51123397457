"""Table: rows of cells under named columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import Cell, View


@dataclass(frozen=True, kw_only=True)
class Table(View):
    """Rows of cells under named columns; the column named in `bar` is drawn as bars too.

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
        if any(len(row) != len(self.columns) for row in self.rows):
            raise BadInput(f"a table of {len(self.columns)} columns has a row of another length; give a cell for each")
        if self.bar is not None and self.bar not in self.columns:
            raise BadInput(
                f"bars are to show '{self.bar}', which is no column; choose one of {', '.join(self.columns)}"
            )

    def column(self, name: str) -> list[Cell]:
        """One column from top to bottom."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]
