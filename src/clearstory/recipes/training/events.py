"""Events of a training run, one dataclass for each kind. Imports no torch.

`train_events` yields them; the terminal, the studio and notebooks display them.

RunPrepared ─► RunPlanned ─► (StepCompleted · Evaluated · TextSampled · ModelSaved · TrainingWarning)* ─► TrainingResult
TrainingNote* ─► CurvePointScored* ─► TrainingResult                     of baselines and of label-efficiency curves
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunPrepared:
    """The text is tokenized and the model is built.

    Args:
        corpus: the text, as the user named it.
        note: a note on the text, such as a fallback for a missing corpus; None if there is none.
        documents: number of documents, including validation.
        unit: unit of the data: document or pair.
        bytes: length of the text in UTF-8.
        tokens: training tokens.
        validation_tokens: validation tokens.
        tokenizer: the tokenizer, such as "bpe:8192".
        vocab: vocabulary size.
        parameters: number of parameters.
        model_summary: description of the model's size, such as "6 layers of width 192".
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
    model_summary: str
    unit: str = "document"


@dataclass(frozen=True, kw_only=True)
class RunPlanned:
    """The number of steps is set. `seconds` is their estimated time; None if it was not measured."""

    steps: int
    seconds: float | None
    message: str


@dataclass(frozen=True, kw_only=True)
class StepCompleted:
    """One optimizer step, or one round of counting, is done.

    Args:
        step: steps done.
        steps: total steps, as planned now.
        loss: nats per token of this step's batch; None for models fitted by counting.
        terms: the terms of the loss by name, where there are several.
        learning_rate: learning rate of the step; None for models fitted by counting.
        gradient_norm: L2 norm of the gradient before clipping; None for models fitted by counting.
        tokens: tokens processed since the start of the run.
        tokens_per_second: current speed.
        seconds: wall-clock seconds since the start of the run.
        eta: estimated seconds until the last step.
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
    """The model was evaluated on the validation split.

    Args:
        step: the step after which it was evaluated.
        nats_per_token: mean loss.
        bits_per_byte: the loss per byte of text; None if the tokenizer is lossy.
        is_best: whether this is the lowest loss so far.
        complete: whether the whole split was used, not only some of its tokens.
        loss_unit: unit over which the loss is averaged: token, masked token or target token.
        metrics: further metrics of the objective by name, such as next_sentence_accuracy, from 0 to 1.
    """

    step: int
    nats_per_token: float
    bits_per_byte: float | None
    is_best: bool
    complete: bool
    loss_unit: str = "token"
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TextSampled:
    """A text was sampled from the model."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ModelSaved:
    """A model was written. `kind` is "checkpoint" (to resume from), "weights" (to watch learning), or "model"."""

    step: int
    path: Path
    kind: str


@dataclass(frozen=True, kw_only=True)
class CurvePointScored:
    """A number of labels of a label-efficiency curve is scored with one draw: `scores` by the names of the models."""

    labels: int
    seed: int
    metric: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class GenerationProgress:
    """Texts were generated: `done` of `total`; `what` is the purpose, such as "teacher" or "validation"."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class TrainingNote:
    """A note, such as which columns of the data are read."""

    message: str


@dataclass(frozen=True, kw_only=True)
class TrainingWarning:
    """A warning, such as a diverging loss."""

    step: int
    message: str


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a training run: its best model and the metrics of this model.

    Args:
        folder: the model folder, with the best model of the run.
        run_folder: the run folder.
        bits_per_byte: on the whole validation split; None if the tokenizer is lossy, for encoders and
            encoder-decoders, and if no text is held out.
        nats_per_token: on the same tokens; for an encoder, on masked tokens; None if no text is held out.
        cpu_seconds: CPU time of the run, summed over all threads.
        seconds: wall-clock time of the run.
        tokens: tokens processed in training.
        steps: optimizer steps.
        parameters: number of parameters.
        curve: file of the learning curve, or None.
        objective: the training objective; for a fine-tuning run, its task.
        intervals: 95 % interval of each metric of a task, by bootstrap over validation examples.
        test_metrics: metrics of a task on test examples.
        test_intervals: their intervals.
        report: file with all scores of a task, or None.
        reason: the reason why bits_per_byte is None, or None.
        metrics: further metrics of the objective by name, such as next_sentence_accuracy, from 0 to 1.
        summary: the quality of the model in one sentence.
        next_command: a command to try the model with.
    """

    folder: Path
    run_folder: Path
    bits_per_byte: float | None
    nats_per_token: float | None
    cpu_seconds: float
    seconds: float
    tokens: int
    steps: int
    parameters: int
    curve: Path | None
    objective: str = "causal"
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    test_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    report: Path | None = None
    reason: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""
    next_command: str = ""


TrainingEvent = (
    RunPrepared
    | RunPlanned
    | StepCompleted
    | Evaluated
    | TextSampled
    | ModelSaved
    | CurvePointScored
    | GenerationProgress
    | TrainingNote
    | TrainingWarning
    | TrainingResult
)
"""Every kind of event, for `match` statements."""
