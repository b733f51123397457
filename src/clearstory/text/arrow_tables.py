"""Rows of parquet files, and of arrow files as the `datasets` library writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CorruptFile, MissingExtra
from clearstory.text.files import COMPRESSED_SUFFIXES

BATCH = 1024
"""Number of rows per batch."""


def read_schema(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Names of the columns, and their features as `datasets` describes them ({} where the file does not)."""
    with _reading(path, [0]) as pyarrow:
        if path.suffix.lower() == ".arrow":
            with pyarrow.memory_map(str(path)) as file:
                schema = _arrow_batches(pyarrow, file).schema
        else:
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
    described = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(described).get("info", {}).get("features", {})
    except (ValueError, RecursionError, AttributeError):
        features = {}
    return list(schema.names), features if isinstance(features, dict) else {}


def read_arrow_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as (number from 1, value of each column); all columns if none are named.

    Raises CorruptFile for a damaged file, MissingExtra without pyarrow.
    """
    done = [0]
    with _reading(path, done) as pyarrow:
        if path.suffix.lower() == ".arrow":
            with pyarrow.memory_map(str(path)) as file:
                reader = _arrow_batches(pyarrow, file)
                for batch in reader:
                    yield from _rows(batch.select(list(columns or reader.schema.names)), done)
        else:
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=BATCH, columns=None if columns is None else list(columns)):
                    yield from _rows(batch, done)


def _arrow_batches(pyarrow: Any, file: Any) -> Any:
    """The batches of a stream, which `datasets` writes, or of an arrow file (Feather)."""
    if file.read(6) == b"ARROW1":
        file.seek(0)
        opened = pyarrow.ipc.open_file(file)
        return pyarrow.RecordBatchReader.from_batches(
            opened.schema, (opened.get_batch(number) for number in range(opened.num_record_batches))
        )
    file.seek(0)
    return pyarrow.ipc.open_stream(file)


def _rows(batch: Any, done: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in batch.to_pylist():
        done[0] += 1
        yield done[0], row


@contextmanager
def _reading(path: Path, done: list[int]) -> Iterator[Any]:
    """The module pyarrow; its errors become sentences. `done[0]` is the number of rows that were read."""
    kind = path.suffix.lower().removeprefix(".")
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        raise BadInput(f"{path} is a compressed parquet file, which needs random access; decompress it first")
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise MissingExtra(f"{path} needs pyarrow: pip install 'clearstory[data]'") from None
    try:
        yield pyarrow
    except UnicodeDecodeError:
        raise CorruptFile(
            f"{path} has text that is not UTF-8 after row {done[0]:,}, which {kind} text must be; write it again"
        ) from None
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(". ")
        article = "an" if kind == "arrow" else "a"
        raise CorruptFile(f"{path} is truncated or not {article} {kind} file ({reason}); download it again") from None
