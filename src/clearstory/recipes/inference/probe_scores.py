"""ProbeEvaluation: the scores of a model on probes. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from clearstory.recipes.notebook_html import html_table

ProbeKind = Literal["grammar", "facts", "reasoning", "bias", "weat"]


@dataclass(frozen=True)
class ProbeScore:
    """The score of one file.

    Args:
        probe: grammar, facts, reasoning, bias or weat.
        name: name of the file.
        metric: acc; for paired sentences the share in which the stereotype is more likely; for sets of words the effect
            size.
        value: the score.
        interval: its 95 % interval, by bootstrap over examples; None if there is none.
        chance: the score of random answers; for bias, the score of an unbiased model.
        examples: number of examples.
        measure: likelihood, or pseudo-likelihood of an encoder.
    """

    probe: ProbeKind
    name: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    chance: float
    examples: int
    measure: str = "likelihood"


@dataclass(frozen=True, kw_only=True)
class ProbeEvaluation:
    """The scores of all probes, and a sentence for each that was skipped."""

    scores: tuple[ProbeScore, ...]
    skipped: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The scores as a dictionary for JSON."""
        return {
            "probes": [asdict(each) for each in self.scores],
            "skipped": list(self.skipped),
            "seconds": self.seconds,
        }

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return html_table((f"{each.probe} {each.name}", f"{each.value:.3f}") for each in self.scores)
