"""n-gram models opened as NGramTables, which do not need torch: saved models and ARPA files.

The tables of a folder are memory-mapped: for a large model, only the pages that a text needs are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.durable import listed_files, parse_json, read_file, verify_folder
from clearstory.durable.paths import expand_home
from clearstory.errors import ClearstoryError
from clearstory.formats.arpa.read import is_arpa, read_arpa_orders
from clearstory.formats.model_path import resolve_model_path
from clearstory.formats.native import NATIVE
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.tables import NGramTables
from clearstory.text.tokenizer_files import find_tokenizer_file
from clearstory.text.tokenizers import Tokenizer

WEIGHTS = "model.safetensors"

RESUME_FILES = ("optimizer.safetensors", "state.json")
"""Files of a checkpoint that are not read when it is opened as a model."""

MAX_CONFIG_BYTES = 2**20

DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32}


@dataclass(frozen=True)
class OpenedTables:
    """The tables of an n-gram model with their tokenizer."""

    model: NGramTables
    tokenizer: Tokenizer


def is_ngram_model(path: str | Path) -> bool:
    """Whether a path is an ARPA file or leads to a saved n-gram model. Raises nothing."""
    file = expand_home(path)
    try:
        return (file.is_file() and is_arpa(file)) or read_ngram_config(resolve_model_path(file)) is not None
    except (ClearstoryError, OSError):
        return False


def read_ngram_config(folder: Path) -> NGramConfig | None:
    """The config of a model folder; None if it is of another family."""
    file = folder / "config.json"
    external = parse_json(read_file(file, MAX_CONFIG_BYTES), file) if file.is_file() else None
    if not isinstance(external, dict) or external.get("model_type") != NATIVE.model_type:
        return None
    if external.get("family") != "NGram":
        return None
    config = NATIVE.config_to_native(external)
    return config if isinstance(config, NGramConfig) else None


def open_ngram_tables(path: str | Path) -> OpenedTables | None:
    """The tables and tokenizer of a saved n-gram model or an ARPA file; None for everything else.

    None too for a folder that is not as it was saved, which `open_model` checks tensor by tensor. Raises the errors of
    `open_model` for files that have changed, and CorruptFile for a damaged ARPA file.
    """
    file = expand_home(path)
    if not is_ngram_model(file):
        return None
    if file.is_file():
        config, orders, tokenizer = read_arpa_orders(file)
        return OpenedTables(NGramTables.from_orders(config, orders), tokenizer)
    folder = resolve_model_path(file)
    listed = listed_files(folder)
    if {each.name for each in folder.glob("*.safetensors")} - set(RESUME_FILES) != {WEIGHTS}:
        return None
    if not {WEIGHTS, "config.json"} <= listed or find_tokenizer_file(folder) is None:
        return None
    if verify_folder(folder, skip=RESUME_FILES, unread=("README.md",)):
        return None
    saved = read_ngram_config(folder)
    tables = None if saved is None else tables_of(saved, map_safetensors(folder / WEIGHTS))
    if tables is None:
        return None
    tokenizer = Tokenizer.open(folder)
    return OpenedTables(tables, tokenizer) if tables.vocab // 2 < tokenizer.vocab <= tables.vocab else None


def map_safetensors(file: Path) -> dict[str, Any]:
    """The arrays of a safetensors file by name, memory-mapped; arrays of types that numpy does not have are skipped."""
    mapped = np.memmap(file, np.uint8, "r")
    length = int(mapped[:8].view(np.uint64)[0])
    header: Mapping[str, Any] = json.loads(mapped[8 : 8 + length].tobytes())
    arrays = {}
    for name, entry in header.items():
        if entry.get("dtype") in DTYPES:
            start, stop = entry["data_offsets"]
            kind = DTYPES[entry["dtype"]]
            count = (stop - start) // np.dtype(kind).itemsize
            arrays[name] = np.frombuffer(mapped, kind, count, 8 + length + start).reshape(entry["shape"])
    return arrays


def tables_of(config: NGramConfig, arrays: Mapping[str, Any]) -> NGramTables | None:
    """The tables among the arrays of a file; None if they do not have the sizes of the config."""
    rows = [config.vocab, *config.sizes]
    if len(rows) != config.order:
        return None
    expected = {f"tables.{at}.log_probs": size for at, size in enumerate(rows)}
    expected |= {f"tables.{at}.log_backoffs": size for at, size in enumerate(rows[:-1])}
    expected |= {f"tables.{at}.keys": size for at, size in enumerate(rows) if at}
    if any(name not in arrays or arrays[name].shape != (size,) for name, size in expected.items()):
        return None
    return NGramTables(
        config=config,
        keys=[arrays[f"tables.{at}.keys"] for at in range(1, config.order)],
        log_probs=[arrays[f"tables.{at}.log_probs"] for at in range(config.order)],
        log_backoffs=[arrays[f"tables.{at}.log_backoffs"] for at in range(config.order - 1)],
    )
