"""Translation file: written at the end; until then, finished translations are in OUT.part, to continue a command.

OUT.part    {"fingerprint": ...}, then an object for each source, with its index
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearstory import durable
from clearstory.errors import BadSetting

WRITE_SECONDS = 5.0
"""Time between two writes to OUT.part; a killed command loses at most the translations of this time."""


class TranslationFile:
    """A file of translations that is being made.

    Args:
        out: the file; .jsonl has an object for each source, .tsv sources and translations, any other a line each.
        fingerprint: hash of the model, the settings and the sources.
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        if out.is_dir():
            raise BadSetting(f"out is {out}, a folder; give a file, such as {out / 'out.txt'}")
        self.out, self.fingerprint = out, fingerprint
        self.part = out.with_name(f"{out.name}.part")

    def read(self) -> dict[int, dict[str, Any]]:
        """Translations of an earlier command with the same model, settings and sources, by index; {} if none."""
        lines = self.part.read_bytes().split(b"\n") if self.part.is_file() else []
        found: dict[int, dict[str, Any]] = {}
        try:
            if lines and json.loads(lines[0]) == {"fingerprint": self.fingerprint}:
                for line in lines[1:]:
                    record = json.loads(line)
                    found[int(record.pop("index"))] = record
        except (ValueError, KeyError, AttributeError, TypeError):
            pass  # a line that was not written whole: those before it count
        self.out.parent.mkdir(parents=True, exist_ok=True)
        records = [{"index": index, **record} for index, record in found.items()]
        durable.write_text(self.part, "".join(f"{json.dumps(each)}\n" for each in [self.header, *records]))
        return found

    @property
    def header(self) -> dict[str, Any]:
        """The first line."""
        return {"fingerprint": self.fingerprint}

    def append_each(self, records: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Append translations as they are finished, every WRITE_SECONDS, at the end, and before an error or Ctrl-C."""
        pending: dict[int, Mapping[str, Any]] = {}
        written = time.monotonic()
        try:
            for index, record in records:
                pending[index] = record
                if time.monotonic() - written >= WRITE_SECONDS:
                    ready, pending = pending, {}  # an interrupted write is not repeated after half a line
                    self.append(ready)
                    written = time.monotonic()
        finally:
            self.append(pending)

    def append(self, records: Mapping[int, Mapping[str, Any]]) -> None:
        """Append translations to OUT.part."""
        with self.part.open("ab") as file:
            for index, record in records.items():
                file.write((json.dumps({"index": index, **record}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the complete file, and remove OUT.part."""
        durable.write_text(self.out, format_translations(self.out.suffix.lower(), records))
        durable.remove_file(self.part)


def format_translations(suffix: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The text of a file: a line for each source, or, with several translations, the lines of Moses' n-best lists:
    index ||| translation ||| score.
    """
    if suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if suffix == ".tsv":
        rows = [(record["source"], *[best["text"] for best in best_texts(record)]) for record in records]
        return "".join("\t".join(map(on_one_line, row)) + "\n" for row in rows)
    return "".join(lines_of(index, record) for index, record in enumerate(records))


def lines_of(index: int, record: Mapping[str, Any]) -> str:
    """The lines of a source in plain text."""
    if "n_best" not in record:
        return on_one_line(record["text"]) + "\n"
    return "".join(f"{index} ||| {on_one_line(each['text'])} ||| {each['score']:.4f}\n" for each in record["n_best"])


def best_texts(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The translations of a source, best first."""
    texts: Sequence[Mapping[str, Any]] = record.get("n_best") or [record]
    return texts


def on_one_line(text: str) -> str:
    """A text without line feeds and tabs, so that lines stay aligned with those of the sources."""
    return " ".join(text.split()) if any(each in text for each in "\n\r\t\v\f\x85\u2028\u2029") else text
