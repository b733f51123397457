"""Length of a run: the number of steps, and the intervals between evaluations and checkpoints.

Either as set, or as many steps as the time limit allows by a measured step time.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

from clearstory.errors import BadSetting
from clearstory.models.base import reads_source
from clearstory.models.capabilities import Capability, has_capability
from clearstory.recipes.training.events import RunPlanned, TrainingEvent, TrainingWarning
from clearstory.recipes.training.time_budget import (
    EVALUATIONS_PER_RUN,
    OVERHEAD_FRACTION,
    evaluation_tokens,
    evaluations_for_tokens,
    should_compile,
)
from clearstory.recipes.training.training_run import TrainingRun

MAX_ROUNDS = 1000
"""Rounds planned under a time limit for a model whose first rounds have to show how long one takes."""

FINAL_EVALUATION_TOKENS = 20_000
"""Validation tokens of the final evaluation where the caller evaluates on the whole split."""

TIMING_TOKENS = 10_000
"""Validation tokens evaluated to measure the speed of a model that reads whole documents."""


def plan_run_length(run: TrainingRun) -> Iterator[TrainingEvent]:
    """Set the number of steps and the intervals of a run, create its folder, and save the checkpoint of step 0.

    Raises BadSetting if the time limit is over before the first step.
    """
    recipe, trainer = run.recipe, run.trainer
    step_seconds = None
    if recipe.time_limit is not None:
        yield from compile_model(run, remaining_wall_clock(run))
        step_seconds = plan_steps_by_time(run)
    else:
        yield from compile_model(run, None)
        if run.resumed_from is None or recipe.steps is not None:
            trainer.set_total_steps(recipe.steps or run.default_steps)
    if trainer.step == 0:
        trainer.plans = [(0, trainer.steps)]
    set_intervals(run)
    if run.out_of_patience:
        trainer.set_total_steps(trainer.step)  # it had stopped early, and was killed before its end
    run.create_folder()
    settings, tokens = run.settings, trainer.steps * trainer.tokens_per_step
    # Counting and EM do not depend on the precision.
    precision = "" if has_capability(run.model, Capability.COUNT_FITTED) else f"in {settings.precision} "
    yield RunPlanned(
        steps=trainer.steps,
        seconds=trainer.steps * step_seconds if step_seconds else None,
        message=f"{trainer.length}, {tokens / max(1, run.prepared.tokens):.1f} epochs, {precision}on "
        f"{run.device} with {settings.threads} thread{'s' * (settings.threads > 1)}",
    )
    if trainer.step == 0:
        yield run.save_checkpoint()


def remaining_wall_clock(run: TrainingRun) -> float:
    """Wall-clock seconds left, after subtracting the time that a resumed run has used before."""
    budget = run.budget
    budget.seconds -= run.cpu_seconds_before if budget.counts_cpu_time else run.seconds_before
    return budget.remaining() / (run.settings.threads if budget.counts_cpu_time else 1)


def plan_steps_by_time(run: TrainingRun) -> float | None:
    """Set as many steps as fit into the time limit; returns the seconds per step, None if it is not measured.

    Raises BadSetting if the first step does not fit.
    """
    trainer, budget = run.trainer, run.budget
    started, elapsed = time.perf_counter(), budget.elapsed()
    step_seconds = measure_step_time(run)
    # Of the clock's seconds on a busy machine, only some are of this process.
    share = (budget.elapsed() - elapsed) / (time.perf_counter() - started) if budget.counts_cpu_time else 1.0
    budget.reserve = final_evaluation_seconds(run) + share * trainer.final_seconds
    fits = budget.remaining() >= (step_seconds or 0.0)
    if not fits and trainer.step == 0:
        minutes, cpu_seconds = run.recipe.minutes, run.recipe.cpu_seconds
        limit = f"{cpu_seconds:g} CPU seconds" if minutes is None else f"{minutes:g} minutes"
        step = f", which takes {step_seconds:.2g} s," if step_seconds else ""
        raise BadSetting(
            f"the time limit of {limit} is too short for the first step{step} and {budget.reserve:.2g} s of final "
            "evaluation; give more time, or a smaller model"
        )
    if not fits:
        trainer.set_total_steps(trainer.step)
    elif step_seconds:
        trainer.set_total_steps(budget.total_steps(trainer.step, step_seconds / (1 - OVERHEAD_FRACTION)))
    else:
        trainer.set_total_steps(MAX_ROUNDS)
    return step_seconds


def set_intervals(run: TrainingRun) -> None:
    """Set eval_steps, save_steps and eval_tokens where the settings leave them open."""
    settings, trainer = run.settings, run.trainer
    run.eval_steps = settings.eval_steps or trainer.default_eval_steps or default_eval_steps(run)
    run.save_steps = settings.save_steps or run.eval_steps
    tokens = trainer.steps * trainer.tokens_per_step
    usual = trainer.default_eval_tokens or evaluation_tokens(tokens, trainer.steps // run.eval_steps)
    run.eval_tokens = settings.eval_tokens or usual


def default_eval_steps(run: TrainingRun) -> int:
    """Steps between about twenty evaluations of a run; where each uses the whole validation split, between as many as
    cost a tenth of the training time, at least two and at most twenty.
    """
    steps = run.trainer.steps
    if not run.evaluates_all:
        return max(10, steps // EVALUATIONS_PER_RUN)
    affordable = evaluations_for_tokens(steps * run.trainer.tokens_per_step, run.prepared.validation_tokens)
    return max(1, -(-steps // affordable))


def compile_model(run: TrainingRun, seconds: float | None) -> Iterator[TrainingEvent]:
    """Apply torch.compile where that pays in a run of `seconds`."""
    settings = run.settings
    # Batches of pairs differ in length, and each length would be compiled anew.
    setting = "off" if settings.compile == "auto" and reads_source(run.model) else settings.compile
    use, message = should_compile(setting, run.prepared.parameters, seconds, settings.device)
    if message:
        yield TrainingWarning(step=run.trainer.step, message=message)
    if use:
        # Emitted at every compilation on a GPU; fp32 is meant to be full fp32.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        run.model.compile()
        run.compiled = True


def measure_step_time(run: TrainingRun) -> float | None:
    """Seconds of the time budget per step; None if a trial step would cost too much."""
    if run.compiled:
        run.trainer.measure_step_time()  # the first steps compile, in other processes, whose CPU time is not counted
    started, elapsed = time.perf_counter(), run.budget.elapsed()
    seconds = run.trainer.measure_step_time()
    if seconds is None or not run.budget.counts_cpu_time:
        return seconds
    return seconds * (run.budget.elapsed() - elapsed) / (time.perf_counter() - started)


def final_evaluation_seconds(run: TrainingRun) -> float:
    """Seconds that the end of the run takes: the final evaluation, saving and the learning curve."""
    if not run.validates:
        return 1.0 + 1e-8 * run.prepared.parameters
    # A recurrent model reads documents in parallel; the first one alone would be slow.
    whole_documents = run.model.context is None
    validation_tokens = run.prepared.validation_tokens
    tokens = min(validation_tokens, TIMING_TOKENS if whole_documents else 20 * run.trainer.context)
    if run.compiled or run.settings.device != "cpu":
        # Evaluation is compiled too, and a GPU loads its kernels on first use.
        run.evaluate(tokens, mixed_precision=False, spread=whole_documents)
    started = run.budget.elapsed()
    run.evaluate(tokens, mixed_precision=False, spread=whole_documents)
    seconds_per_token = (run.budget.elapsed() - started) / max(1, tokens)
    final_tokens = validation_tokens if run.full_evaluation else min(validation_tokens, FINAL_EVALUATION_TOKENS)
    return seconds_per_token * final_tokens + 1.0 + 1e-8 * run.prepared.parameters
