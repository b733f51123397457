"""Leaderboard: the result of a comparison as data, models ranked by bits per byte.

The bits per byte of a model are the mean over its seeds, for each unit. The interval describes their variation on
other text of the same kind, not over other seeds; use `seeds` for the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.metrics import (
    CONFIDENCE,
    LIKELIHOOD,
    NATS_PER_BIT,
    PSEUDO_LIKELIHOOD,
    Floats,
    PairedDifference,
    bootstrap_interval,
    paired_bootstrap,
)
from clearstory.recipes.notebook_html import html_table


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model, trained once or opened, with its measurements and a sample. Unknown values are None.

    Args:
        model: the model as it was written in the command.
        family: its family.
        summary: description of its layers and sizes.
        measure: basis of its bits per byte: likelihood or pseudo-likelihood.
        seed: seed of its training; None for a model that was only evaluated.
        tokenizer: its tokenizer.
        vocab: size of its vocabulary.
        parameters: number of its parameters.
        bytes_on_disk: size of its model folder, including the tokenizer.
        cpu_seconds: CPU time of its training.
        seconds: wall-clock time of its training.
        tokens: training tokens, including repetitions.
        steps: optimizer steps, or iterations of a model that is fitted by counting.
        epochs: number of passes over the training text.
        nats: negative log-likelihood of each unit of the text, (U,); nan for a unit that was not evaluated.
        bits_per_byte: of all evaluated units together.
        nats_per_token: per token of its own tokenizer.
        oov_bits_per_byte: the part of its bits per byte that encodes out-of-vocabulary words and lost white space.
        windows: kind of the evaluation windows.
        generation_tokens_per_second: generated tokens per CPU second.
        sample: text generated after the prompt.
        folder: its model folder.
        curve: CPU seconds and bits per byte of each evaluation during training.
        note: a remark on the measurement.
        error: error message if the model could not be trained, otherwise None.
    """

    model: str
    family: str
    summary: str = ""
    measure: str = LIKELIHOOD
    seed: int | None = None
    tokenizer: str = ""
    vocab: int | None = None
    parameters: int | None = None
    bytes_on_disk: int | None = None
    cpu_seconds: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    steps: int | None = None
    epochs: float | None = None
    nats: tuple[float, ...] | None = None
    bits_per_byte: float | None = None
    nats_per_token: float | None = None
    oov_bits_per_byte: float = 0.0
    windows: str = ""
    generation_tokens_per_second: float | None = None
    sample: str = ""
    folder: Path | None = None
    curve: tuple[tuple[float, float], ...] = ()
    note: str | None = None
    error: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens per CPU second."""
        return self.tokens / self.cpu_seconds if self.tokens and self.cpu_seconds else None

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary for JSON, which `from_json` reads."""
        nats = None if self.nats is None else [None if np.isnan(each) else each for each in self.nats]
        return asdict(self) | {"nats": nats, "folder": None if self.folder is None else str(self.folder)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ModelResult:
        """The result that `to_json` wrote. Raises TypeError or KeyError for any other content."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in content.items() if key in known}
        nats = content["nats"]
        values["nats"] = None if nats is None else tuple(np.nan if each is None else float(each) for each in nats)
        values["curve"] = tuple((float(x), float(y)) for x, y in content["curve"])
        values["folder"] = None if content["folder"] is None else Path(content["folder"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class LeaderboardEntry:
    """One model of the leaderboard, all its seeds together.

    Args:
        result: the result of the seed with the median bits per byte.
        bits_per_byte: mean over the seeds.
        interval: 95 % bootstrap interval over units of text; None for a text of one unit.
        seeds: the results of all seeds.
        nats: negative log-likelihood of each unit, mean over the seeds, (U,).
    """

    result: ModelResult
    bits_per_byte: float | None
    interval: tuple[float, float] | None
    seeds: tuple[ModelResult, ...]
    nats: Floats | None

    @property
    def nats_per_token(self) -> float | None:
        """Nats per token, mean over the seeds."""
        measured = [each.nats_per_token for each in self.seeds if each.nats_per_token is not None]
        return sum(measured) / len(measured) if measured else None

    @property
    def seed_range(self) -> str:
        """Number of seeds, and the lowest and highest of their bits per byte, as text."""
        bits = [each.bits_per_byte for each in self.seeds if each.bits_per_byte is not None]
        spread = f": {min(bits):.4f} to {max(bits):.4f}" if len(bits) > 1 else ""
        return f"{len(bits)}{spread}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Why seeds could not be trained, and a remark on the measurement."""
        several = len(self.seeds) > 1
        errors = [f"seed {each.seed}: {each.error}" if several else each.error for each in self.seeds if each.error]
        return (*errors, *([self.result.note] if self.result.note else []))

    def to_json(self) -> dict[str, Any]:
        """The entry as `compare --json` prints it."""
        values = {key: value for key, value in self.result.to_json().items() if key not in ("nats", "seed", "curve")}
        keys = ("seed", "bits_per_byte", "cpu_seconds", "folder", "error")
        seeds = [{key: value for key, value in result.to_json().items() if key in keys} for result in self.seeds]
        return values | {
            "bits_per_byte": self.bits_per_byte,
            "nats_per_token": self.nats_per_token,
            "interval": None if self.interval is None else list(self.interval),
            "tokens_per_second": self.result.tokens_per_second,
            "seeds": seeds,
            "curve": [list(point) for point in self.result.curve],
        }


@dataclass(frozen=True)
class PairedComparison:
    """Two models whose intervals overlap, compared on the same units of text: `difference` is first minus second."""

    first: str
    second: str
    difference: PairedDifference

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return not self.difference.low <= 0 <= self.difference.high

    @property
    def sentence(self) -> str:
        """The outcome in a sentence."""
        d = self.difference
        if not self.is_significant:
            return (
                f"{self.first} and {self.second} differ by {abs(d.bits):.4f} bits per byte, which is not significant "
                f"on this text (95 % interval {d.low:+.4f} to {d.high:+.4f})"
            )
        better, worse = (self.first, self.second) if d.bits < 0 else (self.second, self.first)
        low, high = sorted((abs(d.low), abs(d.high)))
        return f"{better} is {abs(d.bits):.4f} bits per byte below {worse} ({low:.4f} to {high:.4f})"


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Result of a comparison.

    Args:
        text: name of the evaluation text.
        bytes: its length.
        unit: the unit of text that was resampled for the intervals.
        units: number of units.
        trained_on: name of the training text; None for models that were only evaluated.
        budget: description of the budget of each model.
        prompt: the prompt of the samples.
        entries: the models, best first; those without bits per byte last.
        pairs: models whose intervals overlap.
        command: command line that repeats the comparison.
        machine: the machine and versions it ran on.
        folder: results folder.
        done: number of finished results, one for each model and seed.
        planned: number of planned results.
    """

    text: str
    bytes: int
    unit: str
    units: int
    trained_on: str | None
    budget: str
    prompt: str
    entries: tuple[LeaderboardEntry, ...]
    pairs: tuple[PairedComparison, ...]
    command: str
    machine: Mapping[str, Any]
    folder: Path
    done: int = 0
    planned: int = 0

    @property
    def progress(self) -> str:
        """Number of finished and planned results, as a sentence; empty if all are finished."""
        return f"{self.done} of {self.planned} done so far." if self.done < self.planned else ""

    @property
    def headline(self) -> str:
        """The result, or the result so far, in a sentence without a full stop."""
        ranked = [entry for entry in self.entries if entry.bits_per_byte is not None]
        if not ranked:
            return f"No model has bits per byte on {self.text}"
        best, so_far = ranked[0], " so far" if self.done < self.planned else ""
        if best.result.measure != LIKELIHOOD:
            return f"{best.result.model} is best on {self.text}{so_far}: {best.bits_per_byte:.3f} ({PSEUDO_LIKELIHOOD})"
        if len(ranked) == 1:
            return f"{best.result.model}: {best.bits_per_byte:.3f} bits per byte"
        return f"{best.result.model} is best on {self.text}{so_far}: {best.bits_per_byte:.3f} bits per byte"

    def _repr_html_(self) -> str:
        """The models as a table, best first, for notebooks."""
        header = ("model", "bits per byte", "95 % interval", "parameters", "CPU seconds", "note")
        rows = [
            (
                entry.result.model,
                entry.bits_per_byte,
                None if entry.interval is None else "{:.3f} to {:.3f}".format(*entry.interval),
                entry.result.parameters,
                entry.result.cpu_seconds,
                "; ".join(entry.notes) or None,
            )
            for entry in self.entries
        ]
        return html_table(rows, header)

    def to_json(self) -> dict[str, Any]:
        """The leaderboard as a dictionary for JSON."""
        return {
            "text": self.text,
            "bytes": self.bytes,
            "trained_on": self.trained_on,
            "budget": self.budget,
            "done": self.done,
            "planned": self.planned,
            "interval": {"level": CONFIDENCE, "unit": self.unit, "units": self.units},
            "models": [entry.to_json() for entry in self.entries],
            "pairs": [
                {"first": pair.first, "second": pair.second, **asdict(pair.difference), "sentence": pair.sentence}
                for pair in self.pairs
            ],
            "prompt": self.prompt,
            "command": self.command,
            "machine": dict(self.machine),
            "folder": str(self.folder),
            "report": str(self.folder / "report.html"),
            "csv": str(self.folder / "results.csv"),
        }


def rank_models(
    results: Sequence[ModelResult], sizes: Floats, known: Sequence[LeaderboardEntry] = ()
) -> tuple[LeaderboardEntry, ...]:
    """An entry for each model, best first. `sizes` (U,) are the bytes of the units.

    Encoders are ranked after all others: their pseudo-likelihood is another measure. An entry of `known` with the same
    results is taken over instead of being computed again.
    """
    models: dict[str, list[ModelResult]] = {}
    for result in results:
        models.setdefault(result.model, []).append(result)
    before = {tuple(map(id, entry.seeds)): entry for entry in known}
    entries = [before.get(tuple(map(id, seeds))) or combine_seeds(seeds, sizes) for seeds in models.values()]
    return tuple(sorted(entries, key=sort_key))


def sort_key(entry: LeaderboardEntry) -> tuple[bool, bool, float]:
    """Sorts entries by measure and bits per byte, entries without any last."""
    bits = entry.bits_per_byte
    return bits is None, entry.result.measure != LIKELIHOOD, 0.0 if bits is None else bits


def combine_seeds(seeds: Sequence[ModelResult], sizes: Floats) -> LeaderboardEntry:
    """The entry of a model from the results of its seeds."""
    measured = sorted(
        (result for result in seeds if result.nats is not None and result.bits_per_byte is not None),
        key=lambda result: result.bits_per_byte or 0.0,
    )
    if not measured:
        return LeaderboardEntry(result=seeds[0], bits_per_byte=None, interval=None, seeds=tuple(seeds), nats=None)
    nats = np.mean(np.array([result.nats for result in measured], np.float64), axis=0)
    evaluated = np.isfinite(nats)
    return LeaderboardEntry(
        result=measured[(len(measured) - 1) // 2],
        bits_per_byte=float(nats[evaluated].sum() / sizes[evaluated].sum() / NATS_PER_BIT),
        interval=bootstrap_interval(nats[evaluated], sizes[evaluated]),
        seeds=tuple(seeds),
        nats=nats,
    )


def compare_pairs(entries: Sequence[LeaderboardEntry], sizes: Floats) -> tuple[PairedComparison, ...]:
    """A paired comparison, on the same units, of every two models with the same measure whose intervals overlap."""
    pairs = []
    for first, second in combinations(entries, 2):
        if first.interval is None or second.interval is None or first.interval[1] < second.interval[0]:
            continue
        assert first.nats is not None
        assert second.nats is not None
        if first.result.measure != second.result.measure:
            continue
        evaluated = np.isfinite(first.nats) & np.isfinite(second.nats)
        difference = paired_bootstrap(first.nats[evaluated], second.nats[evaluated], sizes[evaluated])
        if difference is not None:
            pairs.append(PairedComparison(first.result.model, second.result.model, difference))
    return tuple(pairs)
