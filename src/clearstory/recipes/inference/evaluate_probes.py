"""Probes."""

from __future__ import annotations

from typing import Any


class ProbeEvaluation:
    """Scores of probes."""


def evaluate_probes(*_: Any, **__: Any) -> ProbeEvaluation:
    """Not yet."""
    raise NotImplementedError
