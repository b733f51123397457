"""Training settings: a frozen dataclass without torch, read by flags, YAML files and forms alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.errors import BadSetting

MAX_THREADS = 1024
"""More threads than any machine has cores; torch takes no number above 2³¹."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of training. None means: set by the preset, or chosen from measurements of this machine.

    Args:
        batch_size: sequences in each micro-batch.
        batch_tokens: largest number of tokens in each micro-batch of pairs (objective seq2seq), sources, targets and
            padding; 0 gives 4,096, or 32 for each of batch_size pairs if that is more.
        gradient_accumulation_steps: micro-batches whose gradients are added before each optimizer step.
        context: tokens in each sequence; default: the model's context.
        whole_words: mask all tokens of a word together (objectives mlm and mlm+nsp).
        stateful: keep the state of a model without a context (recurrent) from batch to batch, and read the text in
            parallel streams; otherwise train on shuffled windows, as models with a context are.
        align_documents: start shuffled windows at document starts; where context is not given, they are no longer than
            the longest document. For documents that all have the same structure; default: only for corpus:digits.
        shuffle_documents: read the documents in another random order in each epoch, so that nothing is learned from the
            order of a list; default: with --data.lines. Not with align_documents.
        optimizer: optimizer: adamw, muon (for the matrices inside blocks and layers, with adamw for the rest), or sgd.
        learning_rate: peak learning rate of adamw or sgd.
        muon_learning_rate: peak learning rate of muon.
        recall_learning_rate: learning rate of row-wise Adagrad for the tables of model.recall.
        weight_decay: decoupled weight decay of matrices, multiplied by the learning rate.
        beta1: decay rate of the gradient's mean (adamw).
        beta2: decay rate of the gradient's square (adamw).
        epsilon: added to the root of the gradient's mean square (adamw).
        schedule: learning rate after warm-up: cosine, linear, constant, wsd (constant, then linear), or noam:
            proportional to 1/sqrt(step), whatever the number of steps (Vaswani et al. 2017, eq. 3).
        warmup_steps: steps over which the learning rate rises linearly from zero.
        warmup_ratio: share of the steps over which it rises, instead of warmup_steps.
        layer_decay: factor of the learning rates of each block and of those below it; below 1, the first blocks and the
            embeddings are changed least (Howard and Ruder 2018, section 3.2).
        decay_share: share of the steps over which wsd falls.
        final_learning_rate: final learning rate as a share of the peak.
        label_smoothing: share of each target spread over the vocabulary (Szegedy et al. 2016), for objectives with a
            source; evaluations report the loss without it.
        gradient_clip: largest norm of the gradient; 0 does not clip.
        eval_steps: steps between evaluations on the validation split; 0 gives about twenty evaluations in the run.
        eval_tokens: validation tokens of each evaluation; 0 takes as many as cost a tenth of the training time. The
            final evaluation always takes all.
        save_steps: steps between checkpoints; 0 saves at every evaluation.
        keep_checkpoints: number of newest checkpoints to keep besides step 0.
        weight_checkpoints: number of steps, log-spaced over the run, whose weights are kept to watch how the model
            learns; 0 keeps none.
        sample_steps: steps between texts sampled from the model; 0 samples none.
        weight_average: share of the steps, at the end, over which weights are averaged (Polyak and Juditsky 1992); the
            averaged model is evaluated and saved; 0 uses the last weights.
        average_checkpoints: number of last evaluations whose weights are averaged at the end (Vaswani et al. 2017,
            section 6.1); the mean is kept where it is the best model of the run. 0 averages none.
        patience: evaluations without a lower validation loss before training stops early; 0 never stops early.
        precision: fp32, bf16, or auto: bf16 where this machine's hardware multiplies it faster.
        matmul: library for fp32 matrix products on a CPU: mkl (PyTorch's own), onednn, mixed (mkl for the gradients of
            weights, else onednn), or auto: the fastest as measured on this machine.
        compile: use torch.compile: on, off, or auto: decided by the planned length of the run.
        device: cpu, cuda, mps, or auto.
        sort_memory: megabytes in which n-grams are sorted while they are counted (-S of KenLM's lmplz); what does not
            fit is sorted in runs on disk, which are merged.
        threads: CPU threads; 0 uses all, unless a measurement finds one to be faster, as on a busy machine.
        initialization: initial weights: normal as in GPT-2, or zero: the output projections of every block are zero, so
            that each block begins as the identity.
        seed: seed of the initial weights, the order of the data and dropout.
    """

    batch_size: int = 16
    batch_tokens: int = 0
    gradient_accumulation_steps: int = 1
    context: int | None = None
    whole_words: bool = False
    stateful: bool = True
    align_documents: bool | None = None
    shuffle_documents: bool | None = None
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
    warmup_ratio: float | None = None
    layer_decay: float = 1.0
    decay_share: float = 0.2
    final_learning_rate: float = 0.1
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0
    eval_steps: int = 0
    eval_tokens: int = 0
    save_steps: int = 0
    keep_checkpoints: int = 2
    weight_checkpoints: int = 12
    sample_steps: int = 0
    weight_average: float = 0.0
    average_checkpoints: int = 0
    patience: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    matmul: Literal["auto", "mkl", "onednn", "mixed"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    sort_memory: int = 256
    threads: int = 0
    initialization: Literal["normal", "zero"] = "normal"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise BadSetting(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "batch_tokens", "warmup_steps", "eval_steps", "eval_tokens", "save_steps", "keep_checkpoints",
            "weight_checkpoints", "average_checkpoints", "sample_steps", "patience", "sort_memory", "threads", "seed",
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
        if self.weight_average and self.average_checkpoints:
            raise BadSetting(
                f"training.weight_average is {self.weight_average:g} and training.average_checkpoints "
                f"{self.average_checkpoints}: weights are averaged over steps or over evaluations; give one of them"
            )
        if self.average_checkpoints == 1:
            raise BadSetting("training.average_checkpoints is 1, and the mean of one is itself; give at least 2, or 0")
        if not 0 < self.layer_decay <= 1:
            raise BadSetting(f"training.layer_decay is {self.layer_decay:g}; it must be above 0 and at most 1")
        if self.warmup_ratio is not None and not 0 <= self.warmup_ratio < 1:
            raise BadSetting(f"training.warmup_ratio is {self.warmup_ratio:g}; it must be at least 0 and under 1")
        if self.threads > MAX_THREADS:
            raise BadSetting(f"training.threads is {self.threads:,}; it must be at most {MAX_THREADS:,}")
        if not 0 <= self.label_smoothing < 1:
            raise BadSetting(f"training.label_smoothing is {self.label_smoothing}; it must be at least 0 and under 1")
        if self.weight_decay < 0 or self.gradient_clip < 0:
            raise BadSetting("training.weight_decay and training.gradient_clip must be at least 0")
        if self.context is not None and self.context < 1:
            raise BadSetting(f"training.context is {self.context}; it must be at least 1")
