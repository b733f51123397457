"""Events: what a training recipe tells while it runs. One dataclass for each kind of news, none of them torch's.

A recipe is a generator of these; the terminal, the studio and a notebook each draw them in their own way.

    RunPrepared ─► RunPlanned ─► (Step · Evaluated · TextSampled · ModelSaved · TrainingWarning)* ─► TrainingResult
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunPrepared:
    """The text is tokens now, and the model stands.

    Args:
        corpus: what was read, as the user named it.
        note: something to know about it, such as what serves in its place; None when there is nothing.
        documents: how many, validation included.
        unit: what a document is: document, or pair.
        bytes: their length in UTF-8.
        tokens: tokens to learn from.
        validation_tokens: tokens held back.
        tokenizer: what it is, such as "bpe:8192".
        vocab: how many tokens it knows.
        parameters: numbers the model learns.
        shape: the model in words, such as "6 layers of width 192".
    """

    corpus: str
    note: str | None
    documents: int
    bytes: int
    tokens: int
    validation_tokens: int
    tokenizer: str
    vocab: int
    parameters: int
    shape: str
    unit: str = "document"


@dataclass(frozen=True, kw_only=True)
class RunPlanned:
    """How far the run will go, and what that takes. `seconds` is None where nothing was measured."""

    steps: int
    seconds: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class StepCompleted:
    """One optimizer step is done.

    Args:
        step: how many are done.
        steps: how many there will be, as planned now.
        loss: nats per token of this step's batch; None where counting does not tell.
        terms: what the loss is the sum of, by name.
        learning_rate: the rate it was taken at; None where nothing is learnt by gradient.
        gradient_norm: the gradient's length before it was clipped; None likewise.
        tokens: tokens read since the run began.
        tokens_per_second: the present speed.
        seconds: time since the run began.
        eta: seconds still to go.
    """

    step: int
    steps: int
    loss: float | None
    terms: Mapping[str, float]
    learning_rate: float | None
    gradient_norm: float | None
    tokens: int
    tokens_per_second: float
    seconds: float
    eta: float


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A look at the validation split.

    Args:
        step: after which step.
        nats_per_token: the mean loss.
        bits_per_byte: the same per byte of text; None where the tokenizer loses some of it.
        best: whether no look before was better.
        complete: whether all of the split was read, or only its first tokens.
        token: what is counted: token, or masked token.
        next_sentence_accuracy: share of the pairs told rightly; None where none are told.
    """

    step: int
    nats_per_token: float
    bits_per_byte: float | None
    best: bool
    complete: bool
    token: str = "token"
    next_sentence_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class TextSampled:
    """Something the model wrote on the way."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ModelSaved:
    """Something is safe on disk. `kind` is "checkpoint" or "model"."""

    step: int
    path: Path
    kind: str


@dataclass(frozen=True, kw_only=True)
class TrainingWarning:
    """Something looks wrong, said in one sentence."""

    step: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The run is over: where the model is and how good it became.

    Args:
        folder: the model folder, the best of the run.
        run: the run folder.
        bits_per_byte: over all of the validation split; None where the tokenizer loses some of the text, and of models
            that see both sides.
        nats_per_token: over the same tokens; of models that see both sides, over those that are masked.
        cpu_seconds: processor time of the whole run, all threads added.
        seconds: time by the clock.
        tokens: tokens learnt from.
        steps: optimizer steps taken.
        parameters: numbers the model learnt.
        curve: the drawn learning curve; None where none was drawn.
        objective: what it learnt by.
        reason: why there are no bits per byte; None where there are.
        next_sentence_accuracy: share of the pairs told rightly; None where none are told.
    """

    folder: Path
    run: Path
    bits_per_byte: float | None
    nats_per_token: float
    cpu_seconds: float
    seconds: float
    tokens: int
    steps: int
    parameters: int
    curve: Path | None
    objective: str = "causal"
    reason: str | None = None
    next_sentence_accuracy: float | None = None


TrainingEvent = RunPrepared | RunPlanned | StepCompleted | Evaluated | TextSampled | ModelSaved | TrainingWarning | TrainingResult
"""All of them: what a match statement over events should cover."""
