"""Files of embeddings, of search results and of texts without duplicates: jsonl, csv, tsv, npy or txt."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clearstory import durable
from clearstory.errors import BadSetting
from clearstory.recipes.inference.embed import Embeddings
from clearstory.recipes.inference.similarity_search import Deduplication, SearchResult

TABLES = (".jsonl", ".csv", ".tsv")


def check_suffix(file: Path, *more: str) -> None:
    """Raise BadSetting for a file whose suffix is not that of a table or of one of these additional kinds."""
    if file.suffix not in (*TABLES, *more):
        raise BadSetting(
            f"out is {file}; its suffix must be {', '.join((*TABLES, *more)[:-1])} or {(*TABLES, *more)[-1]}"
        )


def write_embeddings(file: Path, embeddings: Embeddings) -> None:
    """Write texts with their vectors: a list of numbers in .jsonl, a column for each in .csv and .tsv, the matrix alone
    in .npy.
    """
    if file.suffix == ".npy":
        stream = io.BytesIO()
        np.save(stream, embeddings.vectors)
        durable.write_bytes(file, stream.getvalue())
        return
    rows = zip(embeddings.texts, embeddings.vectors.tolist(), strict=True)
    if file.suffix == ".jsonl":
        write_records(file, [{"text": text, "vector": vector} for text, vector in rows])
    else:
        write_records(
            file, [{"text": text, **{str(i): value for i, value in enumerate(vector)}} for text, vector in rows]
        )


def write_search_results(file: Path, results: Sequence[SearchResult]) -> None:
    """Write a record for each text that was found: query, text, score and position, from 1."""
    write_records(
        file,
        [
            {"query": result.query, "text": hit.text, "score": hit.score, "position": hit.position}
            for result in results
            for hit in result.hits
        ],
    )


def write_deduplication(file: Path, found: Deduplication) -> None:
    """Write the kept texts, one a line, as .txt; or a record for each text, with the position of the kept text of its
    group, from 1, and its cosine with that.
    """
    if file.suffix == ".txt":
        lines = "".join(" ".join(found.texts[position].splitlines()) + "\n" for position in found.kept)
        durable.write_bytes(file, lines.encode("utf-8", "surrogatepass"))
        return
    rows = zip(found.texts, found.first, found.scores, strict=True)
    write_records(
        file,
        [
            {"text": text, "position": position + 1, "group": first + 1, "score": score, "kept": position == first}
            for position, (text, first, score) in enumerate(rows)
        ],
    )


def write_records(file: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records with the same fields, one a line, as .jsonl, .csv or .tsv."""
    if file.suffix == ".jsonl":
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    else:
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="," if file.suffix == ".csv" else "\t", lineterminator="\n")
        writer.writerow(records[0].keys())
        writer.writerows(record.values() for record in records)
        text = stream.getvalue()
    durable.write_bytes(file, text.encode("utf-8", "surrogatepass"))
