"""EncoderEvaluation: the result of evaluating an encoder. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clearstory.metrics import perplexity
from clearstory.recipes.notebook_html import html_table


@dataclass(frozen=True, kw_only=True)
class EncoderEvaluation:
    """Evaluation of an encoder on the tokens of a text.

    Args:
        nats_per_token: mean loss of masked tokens: 15 % of the text, the same tokens in every evaluation.
        tokens: number of masked tokens.
        next_sentence_accuracy: from 0 to 1; None for a model without that head, or for one document.
        pairs: number of pairs of texts.
        pseudo_nats_per_token: mean loss of tokens masked one at a time (pseudo-log-likelihood, Salazar et al. 2020,
            eq. 1).
        pseudo_tokens: number of these tokens, spread over the text.
        documents: number of documents, each evaluated separately.
        context: the longest window in tokens.
        seconds: time of the evaluation.
        reason: why there are no bits per byte.
        note: skipped or replaced parts of the files, or None.
    """

    nats_per_token: float
    tokens: int
    next_sentence_accuracy: float | None
    pairs: int
    pseudo_nats_per_token: float
    pseudo_tokens: int
    documents: int
    context: int
    seconds: float
    reason: str
    note: str | None = None

    @property
    def bits_per_byte(self) -> None:
        """None; see `reason`."""

    def _repr_html_(self) -> str:
        """The main values as a table, for notebooks."""
        names = ("nats_per_token", "tokens", "next_sentence_accuracy", "pseudo_nats_per_token", "documents", "reason")
        rows = ((name.replace("_", " "), getattr(self, name)) for name in names)
        return html_table((name, value) for name, value in rows if value is not None)

    def to_json(self) -> dict[str, Any]:
        """All values as a dictionary for JSON."""
        return {
            "bits_per_byte": None,
            **asdict(self),
            "perplexity": perplexity(self.nats_per_token * self.tokens, self.tokens),
            "pseudo_log_likelihood": -self.pseudo_nats_per_token * self.pseudo_tokens,
            "pseudo_perplexity": perplexity(self.pseudo_nats_per_token * self.pseudo_tokens, self.pseudo_tokens),
        }
