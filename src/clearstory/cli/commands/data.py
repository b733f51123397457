"""clearstory data: look at a text and count it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings.tools import DataRecipe


def run(recipe: DataRecipe, talk: Talk) -> Mapping[str, Any]:
    """Count, and print what was found."""
    from clearstory.recipes.data import data

    report = data(recipe=recipe)
    if not talk.json:
        out = talk.out
        if report.note:
            talk.aside.print(report.note, style="yellow")
        out.print(
            f"{report.corpus}: {report.documents:,} document{'s' * (report.documents != 1)}, {report.bytes:,} bytes"
        )
        for split, length in report.split_bytes.items():
            counted = "" if report.tokens is None else f", {report.tokens[split]:,} tokens"
            if counted and report.tokens and report.tokens[split]:
                counted += f" of {length / report.tokens[split]:.2f} bytes each"
            out.print(f"  {split:10} {length:,} bytes{counted}")
        for name, text in report.shown:
            beginning = " ".join(text.split())[:70]
            out.print(f"  {name}: {beginning}", style="dim")
    return asdict(report)


COMMAND = Command(recipe=DataRecipe, run=run, example="clearstory data corpus:python-docs --tokenizer bpe:4096")
