"""Settings of the optimizer steps of fine-tuning: FinetuneTrainingSettings. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.training.settings import TrainingSettings

SHARED_TRAINING_SETTINGS = (
    *("batch_size", "batch_tokens", "gradient_accumulation_steps", "learning_rate", "layer_decay", "schedule"),
    *("warmup_ratio", "average_checkpoints", "context"),
    *("weight_decay", "label_smoothing", "gradient_clip", "eval_steps", "save_steps", "keep_checkpoints", "patience"),
    *("precision", "matmul", "device", "threads", "seed"),
)
"""Settings that the trainer has under the same name."""


@dataclass(frozen=True, kw_only=True)
class FinetuneTrainingSettings:
    """Settings of training on a task.

    Args:
        num_train_epochs: passes over the training examples, if neither steps nor a time limit is given.
        batch_size: examples of similar length in each micro-batch.
        batch_tokens: maximum number of tokens in each micro-batch, including padding, instead of batch_size; 0: no
            limit.
        gradient_accumulation_steps: micro-batches whose gradients are accumulated before each optimizer step.
        learning_rate: peak learning rate of AdamW; default: 1e-4 for all weights of a pre-trained model; 1e-3 for LoRA,
            for training only the head, and for a new model.
        layer_decay: layer-wise learning rate decay: each layer's learning rate is that of the layer above it times this
            factor; 1: no decay (Howard and Ruder 2018).
        schedule: learning rate after warm-up: linear, cosine or constant.
        warmup_ratio: fraction of the steps over which the learning rate rises linearly from zero.
        weight_decay: decoupled weight decay of matrices (not of biases and norms), multiplied by the learning rate.
        label_smoothing: probability of each target that is spread over all labels (Szegedy et al. 2016).
        class_weights: balanced: every class has the same total weight in the loss; or a weight per label, in the order
            of their ids.
        gradient_clip: maximum norm of the gradient; 0: no clipping.
        eval_steps: steps between evaluations on the validation examples; 0: as many evaluations as take a tenth of the
            training time, at least two.
        save_steps: steps between checkpoints; 0: a checkpoint at every evaluation.
        keep_checkpoints: number of most recent checkpoints to keep, in addition to step 0.
        patience: evaluations without a better metric before early stopping; 0: no early stopping.
        average_checkpoints: number of last evaluations whose weights are averaged at the end (Vaswani et al. 2017,
            section 6.1); the average is kept if its metric is the best of the run; 0: no averaging.
        precision: fp32, bf16, or auto: bf16 if this machine's hardware multiplies it faster.
        context: tokens in each sequence (task lm); default: the model's context.
        matmul: library for fp32 matrix products on a CPU: mkl (PyTorch's own), onednn, mixed (mkl for the gradients of
            weights, onednn for other products), or auto: the fastest as measured on this machine.
        device: cpu, cuda, mps, or auto.
        threads: number of CPU threads; 0: all, unless one thread was measured to be faster, as on a busy machine.
        seed: seed of the head's initial weights, the order of the data, dropout and the validation split.
    """

    num_train_epochs: float = 3.0
    batch_size: int = 32
    batch_tokens: int = 0
    gradient_accumulation_steps: int = 1
    learning_rate: float | None = None
    layer_decay: float = 1.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    class_weights: tuple[str, ...] = ()
    gradient_clip: float = 1.0
    eval_steps: int = 0
    save_steps: int = 0
    keep_checkpoints: int = 2
    patience: int = 0
    average_checkpoints: int = 0
    context: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    matmul: Literal["auto", "mkl", "onednn", "mixed"] = "auto"
    device: str = "auto"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_train_epochs <= 0:
            raise BadSetting(f"training.num_train_epochs is {self.num_train_epochs:g}; it must be above 0")
        self.loss_weights()
        self.training_settings()  # checks the others

    def loss_weights(self) -> Literal["balanced"] | tuple[float, ...]:
        """The weights of the classes as numbers; () where all have the same."""
        if self.class_weights == ("balanced",):
            return "balanced"
        try:
            weights = tuple(map(float, self.class_weights))
        except ValueError:
            weights = (-1.0,)
        if any(not 0 < weight < float("inf") for weight in weights):
            raise BadSetting(
                f"training.class_weights is {' '.join(self.class_weights)}; give a positive number for each label, or "
                "balanced"
            )
        return weights

    def training_settings(self) -> TrainingSettings:
        """The settings of the trainer."""
        values = {name: value for name in SHARED_TRAINING_SETTINGS if (value := getattr(self, name)) is not None}
        # Devlin et al. 2019, appendix A.2; the schedule ends at zero.
        return TrainingSettings(**values, beta2=0.999, final_learning_rate=0.0, stateful=False, weight_checkpoints=0)
