"""clearstory data: reports the size of a corpus, its splits and some of its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.tools import DataRecipe


def run(recipe: DataRecipe, output: Output) -> Mapping[str, Any]:
    """Print the size of the corpus and of each split, and the beginnings of some documents."""
    from clearstory.cli.reading_display import reading_progress
    from clearstory.recipes.data import data

    with reading_progress(output):
        report = data(recipe=recipe)
    if not output.json:
        console = output.console
        if report.note:
            output.stderr.print(report.note, style="yellow")
        console.print(
            f"{report.corpus}: {report.documents:,} {report.unit}{'s' * (report.documents != 1)}, "
            f"{report.bytes:,} bytes"
        )
        for split, length in report.split_bytes.items():
            counted = "" if report.tokens is None else f", {report.tokens[split]:,} tokens"
            if counted and report.tokens and report.tokens[split]:
                counted += f" of {length / report.tokens[split]:.2f} bytes each"
            console.print(f"  {split:10} {length:,} bytes{counted}")
        for name, text in report.excerpts:
            beginning = " ".join(text.split())[:70]
            console.print(f"  {name}: {beginning}", style="dim")
    return asdict(report)


COMMAND = Command(
    recipe=DataRecipe,
    run=run,
    example="clearstory data corpus:python-docs --tokenizer bpe:4096",
    needs_torch=False,
)
