"""Ladder: what came of a comparison, as data. Trials are single trainings; rungs are models, the best on top.

A rung's bits per byte are the mean over its seeds, unit by unit. Its interval says how far they would move on other
text of the kind, not how far another seed would: that is what `seeds` are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.metrics import CONFIDENCE, NATS_PER_BIT, PairedDifference, Floats, bootstrap_interval, paired_bootstrap

LIKELIHOOD = "likelihood"
"""How a model is measured that reads left to right: what all its predictions cost together."""

PSEUDO = "pseudo-likelihood"
"""How an encoder is measured: what each token costs, told from all the others, of some of the text."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model, trained once (or found trained), measured and made to write. What is not known is None.

    Args:
        model: as it was asked for.
        family: its kind in one word.
        shape: the model in words.
        measure: what its bits per byte are: likelihood, or pseudo-likelihood.
        seed: of its birth; None where it was found trained.
        tokenizer: what makes its tokens.
        vocab: how many there are.
        parameters: numbers it has learnt.
        bytes_on_disk: its model folder, tokenizer included.
        cpu_seconds: processor time of its training, all in all.
        seconds: time by the clock.
        tokens: tokens it learnt from, repetitions counted.
        steps: optimizer steps, or rounds of counting.
        passes: how many times it went over the text.
        nats: what each unit of the text cost it, (U,); nan for units that were not read.
        bits_per_byte: all of them together.
        nats_per_token: of its own tokens.
        charged: the part of its bits per byte that pays for what its tokenizer leaves out.
        windows: how it read.
        generation_tokens_per_second: tokens it writes in a second of the processor.
        sample: what it wrote after the prompt.
        folder: its model folder.
        curve: processor seconds and bits per byte, look by look.
        note: one sentence on what to know about it.
        failed: why there is nothing to measure.
    """

    model: str
    family: str
    shape: str = ""
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
    passes: float | None = None
    nats: tuple[float, ...] | None = None
    bits_per_byte: float | None = None
    nats_per_token: float | None = None
    charged: float = 0.0
    windows: str = ""
    generation_tokens_per_second: float | None = None
    sample: str = ""
    folder: Path | None = None
    curve: tuple[tuple[float, float], ...] = ()
    note: str | None = None
    failed: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens it learns from in a second of the processor, everything counted."""
        return self.tokens / self.cpu_seconds if self.tokens and self.cpu_seconds else None

    def to_json(self) -> dict[str, Any]:
        """As plain data, to be read again by `from_json`."""
        nats = None if self.nats is None else [None if np.isnan(each) else each for each in self.nats]
        return asdict(self) | {"nats": nats, "folder": None if self.folder is None else str(self.folder)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Trial:
        """What `to_json` wrote. Raises TypeError and KeyError for anything else."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in said.items() if key in known}
        nats = said["nats"]
        values["nats"] = None if nats is None else tuple(np.nan if each is None else float(each) for each in nats)
        values["curve"] = tuple((float(x), float(y)) for x, y in said["curve"])
        values["folder"] = None if said["folder"] is None else Path(said["folder"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A model on the ladder: the trial in the middle of its seeds, and what all of them say.

    Args:
        trial: of several seeds, the one whose bits per byte are in the middle.
        bits_per_byte: the mean over seeds.
        interval: where that would lie on other text of the kind, 95 times of 100; None for a text of one unit.
        seeds: every seed with its bits per byte and its folder.
        nats: (U,) the mean over seeds.
    """

    trial: Trial
    bits_per_byte: float | None
    interval: tuple[float, float] | None
    seeds: tuple[Trial, ...]
    nats: Floats | None

    def to_json(self) -> dict[str, Any]:
        """As plain data: what `compare --json` says of a model."""
        found = {key: value for key, value in self.trial.to_json().items() if key not in ("nats", "seed", "curve")}
        keys = ("seed", "bits_per_byte", "cpu_seconds", "folder", "failed")
        seeds = [{key: value for key, value in trial.to_json().items() if key in keys} for trial in self.seeds]
        return found | {
            "bits_per_byte": self.bits_per_byte,
            "interval": None if self.interval is None else list(self.interval),
            "tokens_per_second": self.trial.tokens_per_second,
            "seeds": seeds,
            "curve": [list(point) for point in self.trial.curve],
        }


@dataclass(frozen=True)
class Pair:
    """Two models whose intervals overlap, on the same units of text."""

    first: str
    second: str
    difference: PairedDifference

    @property
    def sure(self) -> bool:
        """Whether nearly every resample agrees on which is better."""
        return not self.difference.low <= 0 <= self.difference.high

    @property
    def sentence(self) -> str:
        """In words."""
        d = self.difference
        if not self.sure:
            return (
                f"{self.first} and {self.second} are {abs(d.bits):.4f} bits apart, and this text cannot say which is "
                f"better ({d.low:+.4f} to {d.high:+.4f})"
            )
        better, worse = (self.first, self.second) if d.bits < 0 else (self.second, self.first)
        low, high = sorted((abs(d.low), abs(d.high)))
        return f"{better} needs {abs(d.bits):.4f} bits less than {worse} ({low:.4f} to {high:.4f})"


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A comparison.

    Args:
        text: what was foreseen, in words.
        bytes: its length.
        unit: what was resampled for the intervals.
        units: how many there are.
        learnt: what the models learnt from, in words; None where they were found trained.
        budget: what each was given, in words.
        prompt: how the samples begin.
        rungs: the models, best first; those without bits per byte last.
        pairs: models whose intervals overlap.
        command: the command line that does it again.
        machine: what it ran on.
        folder: where its files are.
    """

    text: str
    bytes: int
    unit: str
    units: int
    learnt: str | None
    budget: str
    prompt: str
    rungs: tuple[Rung, ...]
    pairs: tuple[Pair, ...]
    command: str
    machine: Mapping[str, Any]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "text": self.text,
            "bytes": self.bytes,
            "learnt_from": self.learnt,
            "budget": self.budget,
            "interval": {"level": CONFIDENCE, "unit": self.unit, "units": self.units},
            "models": [rung.to_json() for rung in self.rungs],
            "pairs": [
                {"first": pair.first, "second": pair.second, **asdict(pair.difference), "sentence": pair.sentence}
                for pair in self.pairs
            ],
            "prompt": self.prompt,
            "command": self.command,
            "machine": dict(self.machine),
            "folder": str(self.folder),
            "report": str(self.folder / "report.html"),
        }


def rungs(trials: Sequence[Trial], sizes: Floats) -> tuple[Rung, ...]:
    """A rung for each model, best first; encoders, whose pseudo-likelihood is another yardstick, behind all others.

    `sizes` (U,) are the units' bytes.
    """
    models = dict.fromkeys(trial.model for trial in trials)
    found = [rung([trial for trial in trials if trial.model == model], sizes) for model in models]
    return tuple(sorted(found, key=place))


def place(rung: Rung) -> tuple[bool, bool, float]:
    """What rungs are sorted by."""
    bits = rung.bits_per_byte
    return bits is None, rung.trial.measure != LIKELIHOOD, 0.0 if bits is None else bits


def rung(seeds: Sequence[Trial], sizes: Floats) -> Rung:
    """One model from its trials."""
    measured = sorted(
        (trial for trial in seeds if trial.nats is not None and trial.bits_per_byte is not None),
        key=lambda trial: trial.bits_per_byte or 0.0,
    )
    if not measured:
        return Rung(trial=seeds[0], bits_per_byte=None, interval=None, seeds=tuple(seeds), nats=None)
    nats = np.mean(np.array([trial.nats for trial in measured], np.float64), axis=0)
    read = np.isfinite(nats)
    return Rung(
        trial=measured[(len(measured) - 1) // 2],
        bits_per_byte=float(nats[read].sum() / sizes[read].sum() / NATS_PER_BIT),
        interval=bootstrap_interval(nats[read], sizes[read]),
        seeds=tuple(seeds),
        nats=nats,
    )


def pairs(rungs: Sequence[Rung], sizes: Floats) -> tuple[Pair, ...]:
    """Models whose intervals overlap: each two of them, compared on the same units."""
    found = []
    for first, second in combinations(rungs, 2):
        if first.interval is None or second.interval is None or first.interval[1] < second.interval[0]:
            continue
        assert first.nats is not None
        assert second.nats is not None
        if first.trial.measure != second.trial.measure:
            continue
        read = np.isfinite(first.nats) & np.isfinite(second.nats)
        difference = paired_bootstrap(first.nats[read], second.nats[read], sizes[read])
        if difference is not None:
            found.append(Pair(first.trial.model, second.trial.model, difference))
    return tuple(found)
