"""Result files: the table, CSV, JSON and report of a comparison, rewritten after every run, so that they can be read
while it is running.

    results.csv     a row for each model, seed and budget
    results.md      the models ranked so far, as a table
    compare.json    the same as data
    report.html     table, training curves, samples
    curves.svg      training curves
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clearstory import __version__, durable
from clearstory.errors import BadInput
from clearstory.evaluation.units import EvalText
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views.formatting import format_number
from clearstory.metrics import LIKELIHOOD, PSEUDO_LIKELIHOOD
from clearstory.models.matmul.measurement_cache import processor_name
from clearstory.recipes.comparison.leaderboard import (
    Leaderboard,
    LeaderboardEntry,
    ModelResult,
    compare_pairs,
    rank_models,
)
from clearstory.recipes.comparison.report import curve_view, report_html, setup_text
from clearstory.recipes.comparison.settings import CompareRecipe, command_line, describe_budget, source_names

FILE_NAMES = ("results.csv", "results.md", "compare.json", "report.html", "curves.svg")

CSV_COLUMNS = (
    "model", "seed", "budget", "family", "summary", "tokenizer", "vocab", "parameters", "bytes_on_disk", "cpu_seconds",
    "seconds", "tokens", "steps", "epochs", "measure", "bits_per_byte", "nats_per_token", "oov_bits_per_byte",
    "tokens_per_second", "generation_tokens_per_second", "folder", "note", "error",
)  # fmt: skip
"""Columns of results.csv: fields of ModelResult, and a description of the budget."""


@dataclass
class ResultFiles:
    """The results of a comparison so far, and their files.

    Args:
        recipe: the settings of the comparison.
        folder: its results folder.
        text: the evaluation text.
        planned: how many results there will be.
        prompt: prompt of the samples.
        results: the results so far.
        entries: the models ranked so far.
    """

    recipe: CompareRecipe
    folder: Path
    text: EvalText
    planned: int
    prompt: str
    results: list[ModelResult] = field(default_factory=list)
    entries: tuple[LeaderboardEntry, ...] = ()

    def add(self, *results: ModelResult) -> Leaderboard:
        """Add results, rewrite the files, and return the leaderboard so far, without paired comparisons."""
        self.results += results
        self.entries = rank_models(self.results, self.text.sizes, self.entries)
        return self.write(with_pairs=False)

    def write(self, *, with_pairs: bool = True) -> Leaderboard:
        """Write all files, each at once: a reader finds the old contents or the new. Returns the leaderboard."""
        leaderboard = Leaderboard(
            text=self.text.name,
            bytes=self.text.bytes,
            unit=self.text.unit,
            units=len(self.text.ends),
            trained_on=source_names(self.recipe.sources) if self.recipe.models else None,
            budget=describe_budget(self.recipe),
            prompt=self.prompt,
            entries=self.entries,
            pairs=compare_pairs(self.entries, self.text.sizes) if with_pairs else (),
            command=command_line(self.recipe),
            machine=describe_machine(),
            folder=self.folder,
            done=len(self.results),
            planned=self.planned,
        )
        durable.write_text(self.folder / "results.csv", results_csv(self.results, leaderboard.budget))
        durable.write_text(self.folder / "results.md", results_markdown(leaderboard))
        durable.write_json(self.folder / "compare.json", leaderboard.to_json())
        curves = curve_view(leaderboard)
        if curves.lines:
            save_view(curves, self.folder / "curves.svg")
        durable.write_text(self.folder / "report.html", report_html(leaderboard))
        return leaderboard


def read_results(folder: Path) -> tuple[str, dict[str, Any]]:
    """The results so far of a comparison, which may still be running: as a Markdown table, and as `--json` prints them.

    Raises BadInput for a folder without results.
    """
    try:
        table = (folder / "results.md").read_text(encoding="utf-8")
        values = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadInput(
            f"{folder} has no comparison results yet; to start a comparison, give a text and --models, or models and "
            "--text"
        ) from None
    return table, values


def describe_machine() -> dict[str, Any]:
    """The machine and the versions that a comparison runs on."""
    return {
        "clearstory": __version__,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def results_csv(results: list[ModelResult], budget: str) -> str:
    """One row for each model and seed, in the order of their evaluation; unknown values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerow({name: budget if name == "budget" else getattr(result, name) for name in CSV_COLUMNS})
    return text.getvalue()


def results_markdown(leaderboard: Leaderboard) -> str:
    """The leaderboard as a Markdown table, with its notes and samples."""
    several = any(len(entry.seeds) > 1 for entry in leaderboard.entries)
    header = ["model", "family", "parameters", "CPU s", "epochs", "bits per byte", "95 % interval", "nats per token"]
    header += ["seeds: lowest to highest"] if several else []
    lines = [f"# {leaderboard.headline}", "", f"{leaderboard.progress} {setup_text(leaderboard)}".strip(), ""]
    lines += [markdown_row(header), markdown_row(["---", "---", *["---:"] * 4, "---", "---:", "---"][: len(header)])]
    lines += [markdown_row(markdown_cells(entry, several)) for entry in leaderboard.entries]
    notes = [f"{entry.result.model}: {note}." for entry in leaderboard.entries for note in entry.notes]
    notes += [f"{pair.sentence}." for pair in leaderboard.pairs]
    if any(entry.result.measure != LIKELIHOOD for entry in leaderboard.entries):
        notes.append(f"* {PSEUDO_LIKELIHOOD}: not comparable with the values of the other models.")
    lines += ["", *(f"- {note}" for note in notes)]
    for result in (entry.result for entry in leaderboard.entries if entry.result.sample):
        sample = (leaderboard.prompt + result.sample).splitlines()
        lines += ["", f"Text generated by {result.model}:", "", *(f"    {line}" for line in sample)]
    return "\n".join([*lines, "", "Command:", "", f"    {leaderboard.command}"]) + "\n"


def markdown_row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def markdown_cells(entry: LeaderboardEntry, several: bool) -> list[str]:
    """The cells of one model."""
    result = entry.result
    numbers = (result.parameters, result.cpu_seconds, result.epochs)
    bits, nats = entry.bits_per_byte, entry.nats_per_token
    mark = "" if result.measure == LIKELIHOOD else " *"
    cells = [result.model, result.family, *("–" if number is None else format_number(number) for number in numbers)]
    cells += ["–" if bits is None else f"{bits:.4f}{mark}"]
    cells += ["–" if entry.interval is None else "{:.3f} to {:.3f}".format(*entry.interval)]
    cells += ["–" if nats is None else f"{nats:.4f}"]
    return [*cells, entry.seed_range] if several else cells
