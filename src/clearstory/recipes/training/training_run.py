"""TrainingRun: the objects and counters of one run, and how it is evaluated, saved and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clearstory import durable
from clearstory.errors import CorruptFile
from clearstory.formats.finite import check_finite_to_save
from clearstory.formats.folders import config_json_dict, open_model, save_model
from clearstory.formats.generation_json import write_generation_config
from clearstory.formats.lora.adapters import read_adapter, save_adapter, write_adapter
from clearstory.formats.model_card import ModelCard
from clearstory.formats.native import NATIVE
from clearstory.formats.sentence_folder import SentencePipeline
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.matmul.backend import resolve_backend, using_backend
from clearstory.recipes.settings.run_recipe import RunRecipe
from clearstory.recipes.training.events import ModelSaved, RunPrepared, StepCompleted, TrainingWarning
from clearstory.recipes.training.run_folder import RunFolder, write_run_settings
from clearstory.recipes.training.step_timer import StepTimer
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.recipes.training.validation import ValidationSplit
from clearstory.text.tokenizers import Tokenizer
from clearstory.training import checkpoint, weight_checkpoints
from clearstory.training.base import BaseTrainer, StepResult
from clearstory.training.metrics_log import LossMonitor, MetricsLog
from clearstory.training.objectives.base import Validation
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import COMPUTE_DTYPES

DEFAULT_STEPS = 2000
"""Default number of steps if neither steps nor a time limit is set."""


NO_CRITERION = (float("inf"), float("inf"))
"""The lowest criterion before the first evaluation."""


@dataclass
class TrainingRun:
    """One training run.

    Args:
        folder: its run folder.
        recipe: its settings, resolved.
        trainer: the trainer with the model.
        tokenizer: the tokenizer of the model.
        validation: the validation split and its evaluation.
        card: the model card.
        budget: the time limit; also the clock of the run.
        prepared: information on text and model before the first step.
        fingerprints: hashes of the tokenizer, the corpus and the initial model, compared on resume.
        base_folder: folder of the frozen base model with LoRA; None if all weights are trained.
        generation_config: the generation config of the initial model, which is saved with the model; None without one.
        objective: the name of the training objective, or of the task.
        default_steps: number of steps if neither steps nor a time limit is set.
        evaluates_all: whether every evaluation uses the whole validation split; there are then fewer evaluations.
        summary: the quality of the final model in one sentence.
        next_command: the command to try with the trained model; {run} is its folder.
        sentence: pooling of sentence vectors, which is saved with the model; None for other models.
        full_evaluation: whether the final evaluation uses the whole validation split.
        metrics: the metrics log; None until the run folder is written.
        resumed_from: the checkpoint from which the run was resumed; None for a new run.
        monitor: detects divergence and overfitting.
        best_criterion: lowest `Validation.criterion` so far.
        best_step: the step of that evaluation; -1 before the first.
        evaluations_since_best: evaluations since then, for early stopping.
        seconds_before: wall-clock seconds before the run was resumed.
        cpu_seconds_before: CPU seconds before the run was resumed.
        eval_steps: steps between evaluations.
        eval_tokens: validation tokens of each evaluation.
        save_steps: steps between checkpoints.
        weights_step: the step of the newest weight checkpoint; 0 before the first.
        metrics_position: size and digest of the metrics log at the checkpoint from which the run was resumed.
        compiled: whether torch.compile is used.
        keeps_average: whether the saved model has the mean of the weights of several evaluations.
    """

    folder: RunFolder
    recipe: RunRecipe
    trainer: BaseTrainer
    tokenizer: Tokenizer
    validation: ValidationSplit[Any]
    card: ModelCard
    budget: TimeBudget
    prepared: RunPrepared
    fingerprints: Mapping[str, str]
    base_folder: Path | None
    generation_config: GenerationConfig | None = None
    objective: str = "causal"
    default_steps: int = DEFAULT_STEPS
    evaluates_all: bool = False
    summary: Callable[[Validation], str] = field(default=lambda validation: "")
    next_command: str = "clearstory generate {run}"
    sentence: SentencePipeline | None = None
    full_evaluation: bool = True
    metrics: MetricsLog | None = None
    resumed_from: Path | None = None
    monitor: LossMonitor = field(default_factory=LossMonitor)
    best_criterion: tuple[float, float] = NO_CRITERION
    best_step: int = -1
    evaluations_since_best: int = 0
    seconds_before: float = 0.0
    cpu_seconds_before: float = 0.0
    eval_steps: int = 0
    eval_tokens: int = 0
    save_steps: int = 0
    weights_step: int = 0
    metrics_position: Mapping[str, Any] | None = None
    compiled: bool = False
    keeps_average: bool = False

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.trainer.model

    @property
    def settings(self) -> TrainingSettings:
        """The training settings, resolved."""
        return self.trainer.settings

    @property
    def validates(self) -> bool:
        """Whether text is held out, so that the best weights can be kept and not the last ones."""
        return self.prepared.validation_tokens > 0

    @property
    def device(self) -> str:
        """The device type of the model, such as "cpu"."""
        return next(tensor.device.type for tensor in (*self.model.parameters(), *self.model.buffers()))

    def seconds(self) -> float:
        """Wall-clock seconds of the run, without interruptions."""
        return self.seconds_before + time.monotonic() - self.budget.started

    def cpu_seconds(self) -> float:
        """CPU seconds of the run, summed over all threads."""
        return self.cpu_seconds_before + time.process_time() - self.budget.cpu_started

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation has not improved for `patience` evaluations."""
        patience = self.settings.patience
        return bool(patience) and self.evaluations_since_best >= patience

    def create_folder(self) -> None:
        """Write config.yaml, environment.json and tokenizer/, and open metrics.jsonl.

        Called after the first step is known to fit, so that a run that cannot be trained changes nothing on disk.
        """
        if self.recipe.overwrite:
            self.folder.clear()
        write_run_settings(self.folder, self.recipe, self.fingerprints, self.settings.device)
        if not self.folder.has_tokenizer:
            with durable.write_folder(self.folder.tokenizer_folder) as folder:
                self.tokenizer.save(folder)
        since = None if self.resumed_from is None else self.trainer.step
        self.metrics = MetricsLog(self.folder.metrics_file, since=since, written=self.metrics_position)
        weight_checkpoints.remove_weights_after(self.folder.path, self.trainer.step)
        self.weights_step = max(weight_checkpoints.list_weights(self.folder.path), default=0)

    def changed_metrics(self) -> list[str]:
        """A sentence if records of the metrics log have changed since the checkpoint was saved."""
        if self.metrics is None or not self.metrics.changed:
            return []
        path = self.metrics.path
        return [f"{path} has changed since the checkpoint was saved; only its readable records are kept"]

    def close(self) -> None:
        """Close metrics.jsonl."""
        if self.metrics is not None:
            self.metrics.close()

    def log(self, **record: Any) -> None:
        """Append a record to metrics.jsonl."""
        assert self.metrics is not None, "the run folder is created before the first record"
        self.metrics.write(**record)

    def log_step(self, result: StepResult, timer: StepTimer) -> StepCompleted:
        """Log a step, and return it as an event."""
        timer.update(result)
        terms = dict(result.terms or {})
        terms = terms if len(terms) > 1 else {}
        event = StepCompleted(
            step=result.step,
            steps=result.steps,
            loss=result.loss,
            terms=terms,
            learning_rate=result.learning_rate,
            gradient_norm=result.gradient_norm,
            tokens=result.tokens,
            tokens_per_second=timer.tokens_per_second,
            seconds=self.seconds(),
            eta=timer.eta(),
        )
        names = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "seconds", *(("terms",) if terms else ()))
        self.log(kind="step", **{name: getattr(event, name) for name in names})
        return event

    def warn(self, message: str) -> TrainingWarning:
        """Log a warning, and return it as an event."""
        self.log(kind="warning", step=self.trainer.step, message=message)
        return TrainingWarning(step=self.trainer.step, message=message)

    def evaluate(self, limit: int | None, *, mixed_precision: bool = True, spread: bool = True) -> Validation:
        """Loss and further metrics of the model on about `limit` tokens of the validation split; on all of it for None.

        `mixed_precision`: compute in the precision of training, else in that of the weights. `spread`: choose the
        tokens from the whole split instead of its beginning.
        """
        model: Any = self.model
        model.compute_dtype = COMPUTE_DTYPES[self.settings.precision] if mixed_precision else None
        model.eval()
        with using_backend(resolve_backend(self.settings.matmul, "training.matmul")):
            return self.validation.evaluate(model, self.trainer.context, limit, spread)

    def use_full_precision(self) -> None:
        """Let the model compute in the precision of its weights, without dropout."""
        model: Any = self.model
        model.compute_dtype = None
        model.eval()

    def save_best_model(self, validation: Validation | None) -> None:
        """Write the model, its tokenizer and its card to model/; without a score where nothing is held out."""
        card = replace(self.card, bits_per_byte=None if validation is None else validation.score.bits_per_byte)
        self.model.eval()
        folder = self.folder.model_folder
        if self.base_folder is not None:
            save_adapter(
                folder,
                self.model,
                self.base_folder,
                self.tokenizer,
                card,
                overwrite=True,
                sentence=self.sentence,
                generation_config=self.generation_config,
            )
            return
        save_model(
            folder,
            self.model,
            self.tokenizer,
            card,
            overwrite=True,
            generation_config=self.generation_config,
            sentence=self.sentence,
        )

    def load_best_model(self) -> None:
        """Load the weights in model/ into the model."""
        folder = self.folder.model_folder
        best = open_model(folder).model if self.base_folder is None else read_adapter(folder, self.model)
        weights = best.state_dict()
        if has_capability(self.model, Capability.EXPERTS):  # its n-gram tables may be larger by now
            model: Any = self.model
            model.resize({name: tuple(each.shape) for name, each in weights.items()})
        self.model.load_state_dict(weights)

    def save_checkpoint(self) -> ModelSaved:
        """Write a checkpoint, which opens as a model too, and delete old ones."""
        tensors, values = self.trainer.checkpoint_state()
        parts: dict[str, dict[str, Tensor]] = {
            part: {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
            for part in ("model", "optimizer")
        }
        config: Any = self.model.config
        check_finite_to_save(parts["model"].items(), config)
        values |= {
            "best_criterion": None if self.best_criterion == NO_CRITERION else list(self.best_criterion),
            "best_step": self.best_step,
            "evaluations_since_best": self.evaluations_since_best,
            "monitor": vars(self.monitor),
            "seconds": self.seconds(),
            "cpu_seconds": self.cpu_seconds(),
            "metrics": None if self.metrics is None else self.metrics.position,
        }
        path = checkpoint.save_checkpoint(
            self.folder.path,
            self.trainer.step,
            parts["model"],
            parts["optimizer"],
            values,
            describe=self.write_model_description,
        )
        checkpoint.prune_checkpoints(self.folder.path, self.settings.keep_checkpoints)
        return ModelSaved(step=self.trainer.step, path=path, kind="checkpoint")

    def weights_due(self, done: bool) -> bool:
        """Whether the weights of this step are kept: at log-spaced steps, and after the last one."""
        count, step = self.settings.weight_checkpoints, self.trainer.step
        if not count or not self.trainer.complete_after_each_step:
            return False
        return done or weight_checkpoints.is_weight_step(step, self.weights_step, self.trainer.steps, count)

    def save_weights(self) -> ModelSaved:
        """Write a weight checkpoint: an adapter with LoRA, else the model."""
        tensors, _ = self.trainer.checkpoint_state()
        prefix, step = "model.", self.trainer.step
        model = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        config: Any = self.model.config
        check_finite_to_save(model.items(), config)
        path = weight_checkpoints.save_weights(
            self.folder.path, step, {} if self.base_folder else model, self.write_model_description
        )
        self.weights_step = step
        weight_checkpoints.prune_weights(self.folder.path, self.settings.weight_checkpoints)
        return ModelSaved(step=step, path=path, kind="weights")

    def write_model_description(self, folder: Path) -> None:
        """Write the tokenizer and config.json, or the adapter's config, into the folder of a checkpoint."""
        self.tokenizer.save(folder)
        if self.sentence is not None:
            self.sentence.save(folder)
        if self.generation_config is not None and has_capability(self.model, Capability.CAUSAL):
            write_generation_config(folder, self.model, self.tokenizer, self.generation_config)
        if self.base_folder is not None:
            write_adapter(folder, self.model, self.base_folder, self.card)
            return
        config: Any = self.model.config
        description = config_json_dict(NATIVE, config, {}, self.model, self.tokenizer, self.card)
        durable.write_json(folder / "config.json", description)

    def restore_latest_checkpoint(self) -> None:
        """Restore the newest checkpoint if the run is resumed. Raises CorruptFile and CheckpointMismatch."""
        self.resumed_from = self.folder.latest_checkpoint() if self.recipe.resume else None
        if self.resumed_from is None:
            return
        saved = checkpoint.load_checkpoint(self.resumed_from)
        tensors = {f"model.{name}": value for name, value in saved.model.items()}
        tensors |= {f"optimizer.{name}": value for name, value in saved.optimizer.items()}
        values = saved.values
        try:
            self.trainer.load_checkpoint_state(tensors, {**values, "step": saved.step})
            if self.trainer.step != saved.step:  # counting of an n-gram starts again, and so do its records
                self.resumed_from = None
                return
            best = values["best_criterion"]
            self.best_criterion = NO_CRITERION if best is None else (float(best[0]), float(best[1]))
            self.best_step = int(values["best_step"])
            self.evaluations_since_best = int(values["evaluations_since_best"])
            vars(self.monitor).update(values["monitor"])
            self.seconds_before = float(values["seconds"])
            self.cpu_seconds_before = float(values["cpu_seconds"])
            position = values.get("metrics")
            self.metrics_position = None if position is None else dict(position)
        except (KeyError, TypeError, ValueError) as reason:
            raise CorruptFile(
                f"the checkpoint of step {saved.step:,} in {self.folder.path} has invalid values ({reason!r}); delete "
                "it to resume from the previous one"
            ) from None
