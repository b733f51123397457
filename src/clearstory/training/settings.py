"""Training settings: typed, without torch, so that a flag, a YAML key and a form field are the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained. None means: chosen by the preset, or planned from a probe of this machine.

    Args:
        batch_size: rows in each micro-batch.
        gradient_accumulation_steps: micro-batches added up before each optimizer step.
        context: tokens in each row; the model's context when not given.
        whole_words: whether all pieces of a word are masked together (objective masked).
        stateful: whether a model that never forgets is taught in streams, each batch going on from what it remembers of
            the one before; else in shuffled windows, as those with a context are.
        align_documents: whether shuffled windows begin where documents do and, where context is not given, are no longer than the
            longest of them; else they begin anywhere. For documents that are all of a kind: the pictures of
            corpus:digits, unless said otherwise.
        optimizer: adamw, muon for the matrices inside blocks and layers with adamw for the rest, or sgd.
        learning_rate: peak rate of adamw or sgd.
        muon_learning_rate: peak rate of muon.
        recall_learning_rate: rate of row-wise Adagrad for the rows of model.recall.
        weight_decay: pull of every matrix towards zero, times the learning rate.
        beta1: memory of the gradient's mean (adamw).
        beta2: memory of the gradient's square (adamw).
        epsilon: added under the gradient's root mean square (adamw).
        schedule: how the rate falls after the warm-up: cosine, linear, constant, wsd (constant, then linear), or noam:
            with the root of the steps, however many there will be (Vaswani et al. 2017, eq. 3).
        warmup_steps: steps over which the rate rises from zero.
        decay_share: share of the steps over which wsd falls.
        final_learning_rate: where the rate ends, as a share of its peak.
        label_smoothing: share of each target that is spread over the vocabulary (Szegedy et al. 2016), for what is made
            of a source; looks report nats without it.
        gradient_clip: longest allowed gradient; 0 never clips.
        eval_steps: steps between looks at the validation split; 0 takes about twenty looks in the run.
        eval_tokens: validation tokens each look takes; 0 takes as many as cost a tenth of the training's time. The
            end of a run always takes all.
        save_steps: steps between checkpoints; 0 saves at every look.
        keep_checkpoints: newest checkpoints that are kept besides step 0.
        sample_steps: steps between samples of the model's writing; 0 writes none.
        weight_average: share of the steps, at the end, whose weights are averaged (Polyak and Juditsky 1992): the mean is what
            is looked at and kept; 0 takes the last weights as they are.
        patience: looks without a better validation loss before training stops early; 0 never does.
        precision: fp32, bf16, or auto: bf16 where this machine's hardware multiplies it faster.
        compile: whether torch.compile is used; auto decides by the run's planned length.
        device: cpu, cuda, mps, or auto.
        threads: processor threads; 0 uses all, unless a measurement finds one to be faster, as on a busy machine.
        initialization: how the weights are at birth: normal as GPT-2's, or still: every block begins by adding nothing.
        seed: decides the weights at birth, the order of the data and dropout.
    """

    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    context: int | None = None
    whole_words: bool = False
    stateful: bool = True
    align_documents: bool | None = None
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    recall_learning_rate: float = 0.5
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    schedule: Literal["cosine", "linear", "constant", "wsd", "noam"] = "cosine"
    warmup_steps: int = 100
    decay_share: float = 0.2
    final_learning_rate: float = 0.1
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0
    eval_steps: int = 0
    eval_tokens: int = 0
    save_steps: int = 0
    keep_checkpoints: int = 2
    sample_steps: int = 0
    weight_average: float = 0.0
    patience: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    threads: int = 0
    initialization: Literal["normal", "zero"] = "normal"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise BadSetting(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "warmup_steps", "eval_steps", "eval_tokens", "save_steps", "keep_checkpoints", "sample_steps",
            "patience", "threads", "seed",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise BadSetting(f"training.{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("learning_rate", "muon_learning_rate", "recall_learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < 100:
                raise BadSetting(f"training.{name} is {getattr(self, name)}; it must be above 0 and under 100")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise BadSetting(f"training.{name} is {getattr(self, name)}; it must be at least 0 and under 1")
        for name in ("final_learning_rate", "decay_share", "weight_average"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadSetting(f"training.{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise BadSetting(f"training.label_smoothing is {self.label_smoothing}; it must be at least 0 and under 1")
        if self.weight_decay < 0 or self.gradient_clip < 0:
            raise BadSetting("training.weight_decay and training.gradient_clip must be at least 0")
        if self.context is not None and self.context < 1:
            raise BadSetting(f"training.context is {self.context}; it must be at least 1")
