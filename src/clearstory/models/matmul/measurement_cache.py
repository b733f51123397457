"""Tables of measured speeds, kept beside the cached token ids: measured once for each processor, torch and number of
threads.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from clearstory import durable
from clearstory.errors import ClearstoryError

Table = Mapping[str, Mapping[str, float]]
"""Positive numbers by row and column."""

MAX_BYTES = 2**20


def measured_once(
    file_name: str, threads: int, rows: Collection[str], columns: Collection[str], measure: Callable[[], Table]
) -> Table:
    """The table of this machine with so many threads: from the file in the cache folder, or measured now and kept."""
    key = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {threads} threads"
    folder = durable.user_cache_folder()
    known = read_tables(folder, file_name, rows, columns)
    if key in known:
        return known[key]
    table = measure()
    # Another process may have measured meanwhile: both then use one result.
    known = read_tables(folder, file_name, rows, columns)
    if folder is not None and key not in known:
        with suppress(ClearstoryError, OSError):  # a cache that cannot be written costs a fifth of a second
            durable.make_folder(folder)
            durable.write_json(folder / file_name, {**known, key: table})
    return known.get(key, table)


def read_tables(
    folder: Path | None, file_name: str, rows: Collection[str], columns: Collection[str]
) -> dict[str, Table]:
    """The tables in the cache by machine; without those that are damaged."""
    if folder is None:
        return {}
    try:
        saved: Any = durable.parse_json(durable.read_file(folder / file_name, MAX_BYTES), folder / file_name)
        return {key: table for key, table in saved.items() if is_table(table, rows, columns)}
    except (ClearstoryError, OSError, ValueError, AttributeError):
        return {}


def is_table(value: Any, rows: Collection[str], columns: Collection[str]) -> bool:
    """Whether a value read from the cache is a table of these rows and columns."""
    return (
        isinstance(value, dict)
        and value.keys() == set(rows)
        and all(isinstance(row, dict) and row.keys() == set(columns) for row in value.values())
        and all(isinstance(each, int | float) and 0 < each < 1e9 for row in value.values() for each in row.values())
    )


@cache
def processor_name() -> str:
    """The CPU's model name, or the architecture where the system does not report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
