"""Held out: the part of a text that a run does not learn from, and how its model is asked about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.metrics import Score
from clearstory.models.prompts import first_token
from clearstory.evaluation.windows import score_dataset
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.exam import score_masked
from clearstory.training.objectives.base import Objective
from clearstory.training.objectives.mlm import MLM
from clearstory.training.objectives.seq2seq import SpanCorruption, Seq2Seq


@dataclass
class ValidationSplit:
    """The validation split of a run.

    Args:
        rows: its tokens.
        tokenizer: what made them.
        objective: what the model is taught, and so what it is asked.
        lost: why there are no bits per byte; None where there are.
        accuracy: of the last look: share of pairs told rightly, where that is asked.
    """

    rows: TokenDataset
    tokenizer: Tokenizer
    objective: Objective
    lost: str | None
    accuracy: float | None = None

    def score(self, model: Any, context: int, limit: int | None, spread: bool = True) -> Score:
        """Nats in blocks, or whole by a model that never forgets. `spread`: what is read under a limit comes from all
        over the split. A model that tells hidden tokens is asked for those, always the same ones; one that writes from
        a source, for all targets.
        """
        if isinstance(self.objective, Seq2Seq | SpanCorruption):
            return self.objective.look(model, self.rows, context, limit)
        if isinstance(self.objective, MLM):
            marks = score_masked(model, self.objective, self.rows, context, limit=limit)
            self.accuracy = marks.accuracy
            return Score(nats=marks.nats, tokens=marks.tokens, bytes=None, reason=self.lost)
        score = score_dataset(
            model,
            self.rows.subsample(limit) if spread and limit is not None else self.rows,
            context=None if model.context is None else context,
            windows="blocks",
            begin=first_token(self.tokenizer),  # as `evaluate` does, so that both say the same
            batch_size=16,
            limit=limit,
        )
        return score if self.lost is None else score.without_bytes(self.lost)

    def source(self, number: int, context: int) -> list[int] | None:
        """A source, to see what the model makes of it; None for one that writes on from a text."""
        if not isinstance(self.objective, Seq2Seq | SpanCorruption):
            return None
        given = self.objective.batches(self.rows, context, 1, 0).batch(number).source
        assert given is not None
        ids: list[int] = given.ids[0].tolist()
        return ids

    def beside(self) -> dict[str, Any]:
        """What a look tells beside nats, where they are of no text's every token."""
        if isinstance(self.objective, Seq2Seq | SpanCorruption):
            return {"token": "target token"}
        if isinstance(self.objective, MLM):
            return {"token": "masked token", "next_sentence_accuracy": self.accuracy}
        return {}
