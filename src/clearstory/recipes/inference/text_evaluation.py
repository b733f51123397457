"""Evaluation: how well a model predicts a text. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clearstory.metrics import Score
from clearstory.recipes.notebook_html import html_table


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation of a model on a text, with its settings.

    Args:
        score: sums of nats, tokens and bytes; `bytes` is None if bits per byte are undefined, with the reason in
            `reason`.
        documents: number of documents, each evaluated separately.
        windows: strided (overlapping), blocks (adjacent), or whole for a model without a context.
        stride: tokens between the starts of two windows; None for whole.
        context: length of a window in tokens; None for whole.
        unknown: number of out-of-vocabulary tokens.
        lossless: whether the tokens decode to exactly the text.
        seconds: time of the evaluation.
        note: skipped or replaced parts of the files, or None.
    """

    score: Score
    documents: int
    windows: Literal["strided", "blocks", "whole"]
    stride: int | None
    context: int | None
    unknown: int
    lossless: bool
    seconds: float
    note: str | None = None

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte; None if the tokenizer is lossy on this text."""
        return self.score.bits_per_byte

    def _repr_html_(self) -> str:
        """The main values as a table, for notebooks."""
        names = ("bits_per_byte", "nats_per_token", "perplexity", "tokens", "bytes", "documents", "windows", "reason")
        values = self.to_json()
        return html_table((name.replace("_", " "), values[name]) for name in names if values[name] is not None)

    def to_json(self) -> dict[str, Any]:
        """All values as a dictionary for JSON."""
        return {
            "bits_per_byte": self.score.bits_per_byte,
            "nats_per_token": self.score.nats_per_token,
            "perplexity": self.score.perplexity,
            "bytes": self.score.bytes,
            "tokens": self.score.tokens,
            "documents": self.documents,
            "windows": self.windows,
            "stride": self.stride,
            "context": self.context,
            "unknown": self.unknown,
            "lossless": self.lossless,
            "reason": self.score.reason,
            "seconds": self.seconds,
            "note": self.note,
        }
