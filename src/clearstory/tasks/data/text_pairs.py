"""Texts and pairs of texts without labels, from the columns of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from clearstory.tasks.data.columns import choose_column, find_named
from clearstory.tasks.data.data_files import RECORD_FILES, find_data_files
from clearstory.tasks.data.records import read_table, read_text
from clearstory.tasks.data.settings import LabelSettings
from clearstory.text.read_notes import ReadNotes

TEXT_COLUMNS = ("text", "sentence", "sentence1", "content", "review")
"""Usual names of a text column, used if the table has no column with the given name."""


def read_text_pairs(
    source: str | Path, text_column: str, pair_column: str | None, errors: Literal["strict", "replace"] = "strict"
) -> list[tuple[str, str | None]]:
    """The texts in a column of a table (csv, tsv, jsonl, parquet), each with that of another column if it is named.

    Raises BadInput for a column that is not there.
    """
    settings = LabelSettings(text_column=text_column, pair_column=pair_column, errors=errors)
    table = read_table(find_data_files((source,), settings.reading, RECORD_FILES), settings, ReadNotes())
    usual = find_named(table.columns, TEXT_COLUMNS) if text_column == "text" else None
    first = usual or choose_column(table, text_column, "--text-field")
    second = None if pair_column is None else choose_column(table, pair_column, "--pair-column")
    return [
        (read_text(record, first), None if second is None else read_text(record, second)) for record in table.records
    ]
