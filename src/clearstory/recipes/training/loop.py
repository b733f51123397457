"""The training loop: from text to the best model, as a generator of events.

corpus ─► tokenizer ─► dataset ─► model ─► trainer ─► (train step · evaluate · sample · save)* ─► best model

The stages before the first step are in `preparation`, the number of steps in `run_length`, checkpoints in
`training_run`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from clearstory import durable
from clearstory.errors import Diverged
from clearstory.formats.folders import update_model_card
from clearstory.models.build import count_parameters
from clearstory.models.device import reusing_memory
from clearstory.models.lora import remove_lora
from clearstory.recipes.settings.keywords import TrainKeywords
from clearstory.recipes.settings.run_recipe import RecipeT
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.training.checkpoint_averaging import average_weights, keep_weights, remove_weights_after
from clearstory.recipes.training.corpus_preparation import encode_corpus, load_or_train_tokenizer, open_corpus
from clearstory.recipes.training.events import (
    Evaluated,
    ModelSaved,
    TextSampled,
    TrainingEvent,
    TrainingResult,
)
from clearstory.recipes.training.initial_model import load_initial_model
from clearstory.recipes.training.learning_curve import save_learning_curve
from clearstory.recipes.training.model_size import resolve_size
from clearstory.recipes.training.preparation import (
    build_config,
    build_model,
    build_trainer,
    build_validation,
    describe_run,
    make_objective,
    resolve_objective,
    resolve_settings,
)
from clearstory.recipes.training.run_folder import (
    RESULT_FILES,
    RunFolder,
    changed_results,
    lock_run_folder,
    open_run_folder,
)
from clearstory.recipes.training.run_length import FINAL_EVALUATION_TOKENS, plan_run_length
from clearstory.recipes.training.samples import sample_text, save_digit_images
from clearstory.recipes.training.step_timer import StepTimer
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.recipes.training.training_run import TrainingRun
from clearstory.training.objectives.table import objective_spec

NOT_VALIDATED = "trained on the whole text: there is no validation loss, and the last weights are kept"


def train(text: str | Path | Sequence[str] = (), /, **settings: Unpack[TrainKeywords]) -> TrainingResult:
    """Train a model on text and save the best one in a run folder.

    `settings` are the fields of TrainRecipe, nested as dicts; see `clearstory train --help`.

    >>> import tempfile, clearstory
    >>> result = clearstory.train(
    ...     "corpus:python-docs", model={"name": "clear", "width": 32, "layers": 1}, tokenizer="bytes", steps=2,
    ...     training={"batch_size": 2, "context": 32, "eval_tokens": 100}, out=tempfile.mkdtemp())
    >>> result.steps
    2
    """
    sources = (str(text),) if isinstance(text, str | Path) else tuple(map(str, text))
    result = None
    for event in train_events(build_train_recipe({"text": sources, **settings})):
        result = event
    assert isinstance(result, TrainingResult)
    return result


def train_events(recipe: TrainRecipe, *, full_evaluation: bool = True) -> Iterator[TrainingEvent]:
    """Events of a training run; the last one is its TrainingResult.

    `full_evaluation`: evaluate the best model on the whole validation split at the end, within the time limit.
    `compare` evaluates models itself, and leaves that time to training.
    Ctrl-C (or SIGTERM) saves a checkpoint and raises KeyboardInterrupt. A loss that is not finite saves a checkpoint of
    the last finite weights and raises Diverged.
    """
    budget = TimeBudget(float("inf"))
    with lock_run_folder(recipe) as (recipe, note):
        folder, recipe = open_run_folder(recipe)
        notes = [each for each in (note, changed_results(folder) if recipe.resume else None) if each is not None]
        yield from run_events(folder, recipe, budget, prepare_run, full_evaluation, notes)


def run_events(
    folder: RunFolder,
    recipe: RecipeT,
    budget: TimeBudget,
    prepare: Callable[[RunFolder, RecipeT, TimeBudget], TrainingRun],
    full_evaluation: bool = True,
    notes: Sequence[str] = (),
) -> Iterator[TrainingEvent]:
    """Events of a training run in a folder that this process may write; `notes` are logged as warnings.

    `prepare` does everything that the run needs before its first step.
    """
    if recipe.time_limit is not None:
        budget.seconds, budget.counts_cpu_time = recipe.time_limit, recipe.cpu_seconds is not None
    with stop_on_signal() as stop, reusing_memory():
        run = prepare(folder, recipe, budget)
        run.full_evaluation = full_evaluation
        run.restore_latest_checkpoint()
        try:
            yield run.prepared
            yield from plan_run_length(run)
            remove_weights_after(run)
            for note in [*notes, *run.changed_metrics()]:
                yield run.warn(note)
            yield from train_steps(run, stop)
            yield from average_weights(run)
            yield finish(run)
        finally:
            run.close()


def prepare_run(folder: RunFolder, recipe: TrainRecipe, budget: TimeBudget) -> TrainingRun:
    """Everything that a run needs before its first step: corpus ─► tokenizer ─► dataset ─► model ─► trainer."""
    recipe = resolve_settings(recipe)
    initial = None if recipe.init is None else load_initial_model(recipe)
    recipe = resolve_objective(recipe, initial)
    corpus, recipe = open_corpus(recipe)
    tokenizer = load_or_train_tokenizer(folder, recipe, corpus, initial)
    objective = make_objective(recipe, tokenizer)
    datasets = encode_corpus(recipe, corpus, tokenizer)
    recipe = resolve_size(recipe, tokenizer, datasets["train"], budget)
    config, objective, tagged = build_config(recipe, corpus, tokenizer, datasets["train"], objective, initial)
    recipe, model = build_model(folder, recipe, config, initial)
    trainer = build_trainer(recipe, model, objective, datasets["train"], tagged)
    prepared, card = describe_run(folder, recipe, corpus, tokenizer, datasets, trainer, initial)
    fingerprints = {"tokenizer": tokenizer.fingerprint, "corpus": corpus.fingerprint}
    if initial is not None:
        fingerprints["init"] = initial.fingerprint
    return TrainingRun(
        folder,
        recipe,
        trainer,
        tokenizer,
        build_validation(corpus, tokenizer, datasets["validation"], objective),
        card,
        budget,
        prepared,
        fingerprints,
        base_folder=None if initial is None else initial.base_folder,
        generation_config=None if initial is None else initial.generation_config,
        objective=recipe.objective,
        summary=objective_spec(recipe.objective).summary,
        next_command=objective_spec(recipe.objective).next_command,
    )


def train_steps(run: TrainingRun, stop: threading.Event) -> Iterator[TrainingEvent]:
    """Take the steps of a run; evaluate, sample and save at their intervals.

    Raises KeyboardInterrupt after the step in which `stop` is set.
    """
    trainer, timer = run.trainer, StepTimer(run.trainer, run.budget)
    while trainer.step < trainer.steps:
        try:
            result = trainer.train_step()
        except Diverged:
            yield run.save_checkpoint()
            raise
        yield run.log_step(result, timer)
        if result.note is not None:
            yield run.warn(result.note)
        if result.loss is not None and (message := run.monitor.check_loss(result.step, result.loss)):
            yield run.warn(message)
        if run.recipe.time_limit is not None:
            if run.budget.remaining() <= 0:
                trainer.set_total_steps(trainer.step)
            elif is_due(trainer.step, run.eval_steps):
                trainer.set_total_steps(run.budget.total_steps(trainer.step, timer.budget_per_step()))
        done = trainer.step >= trainer.steps
        if done or is_due(trainer.step, run.eval_steps):
            yield from evaluate_step(run) if run.validates else keep_last_weights(run)
            keep_weights(run)
            if run.out_of_patience:
                count = run.evaluations_since_best
                yield run.warn(f"stopped early: no improvement over step {run.best_step:,} in {count} evaluations")
                trainer.set_total_steps(trainer.step)
                done = True
        if is_due(trainer.step, run.settings.sample_steps):
            yield sample_step(run)
        if run.weights_due(done):  # before the checkpoint, from which a killed run would not go back to them
            yield run.save_weights()
        if done or stop.is_set() or is_due(trainer.step, run.save_steps):
            yield run.save_checkpoint()
        if stop.is_set():
            raise KeyboardInterrupt(
                f"stopped at step {trainer.step:,}; continue with: clearstory {run.recipe.command} --resume --out "
                f"{run.folder.path}"
            )
    if run.best_step < 0:  # a resumed run that had ended without an evaluation
        yield from evaluate_step(run) if run.validates else keep_last_weights(run)


def is_due(step: int, interval: int) -> bool:
    """Whether `step` is a multiple of `interval`; never for 0."""
    return bool(interval) and step % interval == 0


def evaluate_step(run: TrainingRun) -> Iterator[TrainingEvent]:
    """Evaluate on some tokens of the validation split; save the model if it is the best so far."""
    trainer = run.trainer
    with trainer.averaged_weights():
        validation = run.evaluate(run.eval_tokens)
        loss, step = validation.score.nats_per_token, trainer.step
        if is_best := run.best_step < 0 or validation.criterion < run.best_criterion:
            run.save_best_model(validation)
    if is_best:
        run.best_criterion, run.best_step, run.evaluations_since_best = validation.criterion, step, 0
    else:
        run.evaluations_since_best += 1
    run.log(
        kind="evaluation",
        step=step,
        tokens=trainer.tokens,
        seconds=run.seconds(),
        cpu_seconds=run.cpu_seconds(),
        **run.validation.record(validation),
    )
    complete = run.eval_tokens >= run.prepared.validation_tokens
    yield Evaluated(
        step=step,
        nats_per_token=loss,
        bits_per_byte=validation.score.bits_per_byte,
        is_best=is_best,
        complete=complete,
        loss_unit=run.validation.objective.loss_unit,
        metrics=validation.metrics,
    )
    if is_best:
        yield ModelSaved(step=step, path=run.folder.model_folder, kind="model")
    has_dropout = hasattr(getattr(run.model, "config", None), "dropout")
    if message := run.monitor.check_validation(step, loss, has_dropout=has_dropout):
        yield run.warn(message)


def keep_last_weights(run: TrainingRun) -> Iterator[TrainingEvent]:
    """Save the last model if no text is held out for selecting the best one."""
    with run.trainer.averaged_weights():
        run.save_best_model(None)
    run.best_step = run.trainer.step
    yield ModelSaved(step=run.best_step, path=run.folder.model_folder, kind="model")


def sample_step(run: TrainingRun) -> TextSampled:
    """Sample a text from the model, log it, and return it as an event."""
    trainer, seed = run.trainer, run.settings.seed
    with trainer.averaged_weights():
        source = run.validation.sample_source(trainer.step, trainer.context)
        ends = () if run.generation_config is None else run.generation_config.eos_token_ids
        text = sample_text(run.model, run.tokenizer, seed=seed + trainer.step, source=source, ends=ends)
    run.log(kind="sample", step=trainer.step, text=text)
    return TextSampled(step=trainer.step, text=text)


def finish(run: TrainingRun) -> TrainingResult:
    """Evaluate the best model in full precision, update its model card, and draw the learning curve."""
    trainer = run.trainer
    last_is_best = run.best_step == trainer.step and not run.keeps_average
    if not last_is_best:
        run.load_best_model()
    validation = None
    if run.validates:
        with trainer.averaged_weights() if last_is_best else nullcontext():
            validation = run.evaluate(None if run.full_evaluation else FINAL_EVALUATION_TOKENS, mixed_precision=False)
    score = validation.score if validation else None
    parameters = count_parameters(remove_lora(run.model))
    bits_per_byte = score.bits_per_byte if score else None
    update_model_card(run.folder.model_folder, replace(run.card, parameters=parameters, bits_per_byte=bits_per_byte))
    run.log(
        kind="end",
        step=trainer.step,
        tokens=trainer.tokens,
        seconds=run.seconds(),
        cpu_seconds=run.cpu_seconds(),
        **run.validation.record(validation),
    )
    if run.prepared.corpus == "digits":
        save_digit_images(run.model, run.tokenizer, run.folder.path / "digits.png", seed=run.settings.seed)
    curve = save_learning_curve(run.folder, run.recipe.default_name, run.prepared.corpus)
    durable.record_files(run.folder.path, RESULT_FILES)
    return TrainingResult(
        folder=run.folder.model_folder,
        run_folder=run.folder.path,
        bits_per_byte=bits_per_byte,
        nats_per_token=score.nats_per_token if score else None,
        cpu_seconds=run.cpu_seconds(),
        seconds=run.seconds(),
        tokens=trainer.tokens,
        steps=trainer.step,
        parameters=parameters,
        curve=curve,
        objective=run.objective,
        reason=score.reason if score else NOT_VALIDATED,
        metrics=validation.metrics if validation else {},
        summary=run.summary(validation) if validation else NOT_VALIDATED,
        next_command=run.next_command.format(run=run.folder.path),
    )


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT (Ctrl-C) or SIGTERM sets; a second signal raises KeyboardInterrupt at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are delivered to the main thread only
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
