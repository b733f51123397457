"""Session: one training run. What happens between two steps is decided here; how many there are, in `course`.

plan ─► (step · look · save · sample)* ─► the best model, measured on all
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clearstory import durable
from clearstory.errors import CorruptFile, Diverged
from clearstory.formats.lora.adapters import read_adapter, save_adapter, write_adapter
from clearstory.formats.model_card import ModelCard
from clearstory.formats.folders import config_json_dict, open_model, save_model, update_model_card
from clearstory.formats.native import NATIVE
from clearstory.metrics import Score
from clearstory.models.families import count
from clearstory.models.lora import unadapted
from clearstory.recipes.training import time_budget
from clearstory.recipes.training import run_folder
from clearstory.recipes.training.learning_curve import draw_curve
from clearstory.recipes.training.events import TrainingEvent, TrainingResult, Evaluated, RunPrepared, TextSampled, ModelSaved, StepCompleted, TrainingWarning
from clearstory.recipes.held_out import HeldOut
from clearstory.recipes.training.digit_pictures import draw_digits
from clearstory.recipes.training.samples import sample
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.text.tokenizers import Tokenizer
from clearstory.training import checkpoint
from clearstory.training.base import BaseTrainer
from clearstory.training.metrics_log import MetricsLog, LossMonitor
from clearstory.training.trainer import COMPUTE_DTYPES

LAST_LOOK = 20_000
"""Tokens of the last look, where someone else measures on all of them."""


@dataclass
class Session:
    """One run from its plan to its end."""

    run: run_folder.RunFolder
    recipe: TrainRecipe
    learner: BaseTrainer
    tokenizer: Tokenizer
    held: HeldOut
    card: ModelCard
    clock: time_budget.TimeBudget
    prepared: RunPrepared
    decided: Mapping[str, str]
    base: Path | None  # the folder of the model that rests, where one learns beside it
    closing: bool = True  # whether the end measures on all of the validation split
    record: MetricsLog | None = None
    last: Path | None = None  # the checkpoint that the run goes on from
    watchman: LossMonitor = field(default_factory=LossMonitor)
    best: float = float("inf")
    best_step: int = -1
    looks_without_better: int = 0
    before: float = 0.0  # seconds that the run had taken when it was resumed
    cpu_before: float = 0.0
    eval_steps: int = 0
    eval_tokens: int = 0
    save_steps: int = 0
    compiled: bool = False

    @property
    def model(self) -> nn.Module:
        """What is being trained."""
        return self.learner.model

    @property
    def device(self) -> str:
        """Where it is."""
        return next(each.device.type for each in (*self.model.parameters(), *self.model.buffers()))

    def go_back(self) -> None:
        """Go to where the run stood, if it is resumed. Raises CorruptFile and CheckpointMismatch."""
        self.last = run_folder.last_checkpoint(self.run) if self.recipe.resume else None
        if self.last is not None:
            self.restore(checkpoint.load_checkpoint(self.last))

    def write_down(self) -> None:
        """Begin the run folder. Not before: what cannot be trained leaves nothing behind, and an old run as it was."""
        if self.recipe.overwrite:
            run_folder.clear(self.run)
        run_folder.describe(self.run, self.recipe, self.decided)
        if not (self.run.tokenizer / "tokenizer.json").is_file():
            with durable.write_folder(self.run.tokenizer) as folder:
                self.tokenizer.save(folder)
        self.record = MetricsLog(self.run.metrics, since=None if self.last is None else self.learner.step)

    def train_tokenizer(self, stop: threading.Event) -> Iterator[TrainingEvent]:
        """Step after step; look, save and sample now and then."""
        s, learner = self.recipe.training, self.learner
        speed = 0.0
        began, spent, first = time.monotonic(), self.clock.spent(), learner.step
        while learner.step < learner.steps:
            try:
                progress = learner.advance()
            except Diverged:
                yield self.save()
                raise
            terms = dict(progress.terms or {})
            terms = terms if len(terms) > 1 else {}
            now = learner.tokens_per_step / progress.seconds
            speed = now if not speed else 0.9 * speed + 0.1 * now
            self.note(
                kind="step", step=progress.step, loss=progress.loss, learning_rate=progress.learning_rate,
                gradient_norm=progress.gradient_norm, tokens=progress.tokens, seconds=self.seconds(),
                **({"terms": terms} if terms else {}),
            )  # fmt: skip
            left = (learner.steps - progress.step) * (time.monotonic() - began) / (progress.step - first)
            yield StepCompleted(
                step=progress.step, steps=progress.steps, loss=progress.loss, terms=terms,
                learning_rate=progress.learning_rate, gradient_norm=progress.gradient_norm, tokens=progress.tokens,
                tokens_per_second=speed, seconds=self.seconds(), eta=left,
            )  # fmt: skip
            if progress.note is not None:
                yield self.warn(progress.note)
            if progress.loss is not None and (sentence := self.watchman.step(progress.step, progress.loss)):
                yield self.warn(sentence)
            if self.recipe.time_limit is not None:
                if self.clock.left() <= 0:
                    learner.set_total_steps(learner.step)
                elif progress.step % self.eval_steps == 0:
                    per_step = (self.clock.spent() - spent) / (progress.step - first)
                    learner.set_total_steps(self.clock.steps(learner.step, per_step))
            over = learner.step >= learner.steps
            if over or progress.step % self.eval_steps == 0:
                yield from self.look()
                if s.patience and self.looks_without_better >= s.patience:
                    yield self.warn(
                        f"stopped early: {s.patience} looks brought nothing better than step {self.best_step:,}"
                    )
                    learner.set_total_steps(learner.step)
                    over = True
            if s.sample_steps and progress.step % s.sample_steps == 0:
                with learner.averaged():
                    source = self.held.source(progress.step, learner.context)
                    text = sample(self.model, self.tokenizer, seed=s.seed + progress.step, source=source)
                self.note(kind="sample", step=progress.step, text=text)
                yield TextSampled(step=progress.step, text=text)
            if over or stop.is_set() or progress.step % self.save_steps == 0:
                yield self.save()
            if stop.is_set():
                raise KeyboardInterrupt(
                    f"stopped at step {learner.step:,}; go on with: clearstory train --resume --out {self.run.folder}"
                )
        if self.best_step < 0:  # a resumed run that was over already
            yield from self.look()

    def look(self) -> Iterator[TrainingEvent]:
        """Read some of the validation split; keep the model if it is the best yet."""
        with self.learner.averaged():
            score = self.look_at(self.eval_tokens)
            if better := score.nats_per_token < self.best:
                self.keep(score)
        nats = score.nats_per_token
        step = self.learner.step
        if better:
            self.best, self.best_step, self.looks_without_better = nats, step, 0
        else:
            self.looks_without_better += 1
        self.note(
            kind="look", step=step, nats_per_token=nats, bits_per_byte=score.bits_per_byte,
            tokens=self.learner.tokens, seconds=self.seconds(), cpu_seconds=self.cpu_seconds(), **self.held.beside(),
        )  # fmt: skip
        complete = self.eval_tokens >= self.prepared.validation_tokens
        yield Evaluated(
            step=step, nats_per_token=nats, bits_per_byte=score.bits_per_byte, best=better, complete=complete,
            **self.held.beside(),
        )  # fmt: skip
        if better:
            yield ModelSaved(step=step, path=self.run.model, kind="model")
        if sentence := self.watchman.look(step, nats):
            yield self.warn(sentence)

    def look_at(self, limit: int | None, fast: bool = True, spread: bool = True) -> Score:
        """Nats on the validation split, of about `limit` tokens of it where that is given. `fast`: in the arithmetic of
        training, else in the weights' own. `spread`: those tokens come from all over.
        """
        model: Any = self.model
        model.compute_dtype = COMPUTE_DTYPES[self.recipe.training.precision] if fast else None
        model.eval()
        return self.held.score(model, self.learner.context, limit, spread)

    def keep(self, score: Score) -> None:
        """Write the model folder: what to use, as others open it too."""
        card = replace(self.card, bits_per_byte=score.bits_per_byte)
        self.model.eval()
        if self.base is not None:
            save_adapter(self.run.model, self.model, self.base, self.tokenizer, card, overwrite=True)
        else:
            save_model(self.run.model, self.model, self.tokenizer, card, overwrite=True)

    def save(self) -> ModelSaved:
        """Write a checkpoint: what to go on from. It opens as a model too."""
        tensors, values = self.learner.state()
        parts: dict[str, dict[str, Tensor]] = {
            part: {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
            for part in ("model", "optimizer")
        }
        values |= {
            "best": self.best if self.best_step >= 0 else None,
            "best_step": self.best_step,
            "looks_without_better": self.looks_without_better,
            "watchman": vars(self.watchman),
            "seconds": self.seconds(),
            "cpu_seconds": self.cpu_seconds(),
        }

        def describe(folder: Path) -> None:
            self.tokenizer.save(folder)
            if self.base is not None:
                write_adapter(folder, self.model, self.base, self.card)
                return
            config: Any = self.model.config
            durable.write_json(
                folder / "config.json", config_json_dict(NATIVE, config, {}, self.model, self.tokenizer, self.card)
            )

        path = checkpoint.save_checkpoint(
            self.run.folder, self.learner.step, parts["model"], parts["optimizer"], values, describe=describe
        )
        checkpoint.prune_checkpoints(self.run.folder, self.recipe.training.keep_checkpoints)
        return ModelSaved(step=self.learner.step, path=path, kind="checkpoint")

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go back to where a checkpoint was written."""
        tensors = {f"model.{name}": value for name, value in saved.model.items()}
        tensors |= {f"optimizer.{name}": value for name, value in saved.optimizer.items()}
        values = saved.values
        try:
            self.learner.load_state(tensors, {**values, "step": saved.step})
            self.best = float("inf") if values["best"] is None else float(values["best"])
            self.best_step = int(values["best_step"])
            self.looks_without_better = int(values["looks_without_better"])
            vars(self.watchman).update(values["watchman"])
            self.before, self.cpu_before = float(values["seconds"]), float(values["cpu_seconds"])
        except (KeyError, TypeError, ValueError) as reason:
            raise CorruptFile(
                f"the checkpoint of step {saved.step:,} in {self.run.folder} is not one of ours ({reason!r}); "
                "delete it, and the run goes on from the one before"
            ) from None

    def finish(self) -> TrainingResult:
        """Measure the best model in fp32, on all of the validation split if it is to close the run; draw the curve."""
        if self.best_step != self.learner.step:
            folder = self.run.model
            best = open_model(folder).model if self.base is None else read_adapter(folder, self.model)
            self.model.load_state_dict(best.state_dict())
        with self.learner.averaged() if self.best_step == self.learner.step else nullcontext():
            score = self.look_at(None if self.closing else LAST_LOOK, fast=False)
        parameters = count(unadapted(self.model))
        update_model_card(self.run.model, replace(self.card, parameters=parameters, bits_per_byte=score.bits_per_byte))
        self.note(
            kind="end", step=self.learner.step, nats_per_token=score.nats_per_token, bits_per_byte=score.bits_per_byte,
            tokens=self.learner.tokens, seconds=self.seconds(), cpu_seconds=self.cpu_seconds(), **self.held.beside(),
        )  # fmt: skip
        if self.prepared.corpus == "digits":
            draw_digits(self.model, self.tokenizer, self.run.folder / "digits.png", seed=self.recipe.training.seed)
        curve = draw_curve(self.run, self.recipe.default_name, self.prepared.corpus)
        return TrainingResult(
            folder=self.run.model,
            run=self.run.folder,
            bits_per_byte=score.bits_per_byte,
            nats_per_token=score.nats_per_token,
            cpu_seconds=self.cpu_seconds(),
            seconds=self.seconds(),
            tokens=self.learner.tokens,
            steps=self.learner.step,
            parameters=parameters,
            curve=curve,
            objective=self.recipe.objective,
            reason=score.reason,
            next_sentence_accuracy=self.held.accuracy,
        )

    def note(self, **row: Any) -> None:
        """Write a line into the record."""
        assert self.record is not None, "a run is planned before anything happens in it"
        self.record.write(**row)

    def warn(self, sentence: str) -> TrainingWarning:
        """Say it, and write it down."""
        self.note(kind="warning", step=self.learner.step, sentence=sentence)
        return TrainingWarning(step=self.learner.step, sentence=sentence)

    def seconds(self) -> float:
        """How long the run has taken, interruptions not counted."""
        return self.before + time.monotonic() - self.clock.began

    def cpu_seconds(self) -> float:
        """Processor time of the run, all threads added."""
        return self.cpu_before + time.process_time() - self.clock.cpu_began
