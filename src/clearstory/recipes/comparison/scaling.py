"""Scaling: trains one model in several sizes on several amounts of a text, and fits the scaling law of its losses.

text ─► tokenizer ─► plan (sizes × amounts) ─► (train ─► result files)* ─► law ─► ScalingReport

A finished run is kept and not repeated: a scaling law can be stopped, continued, and extended by sizes, amounts, seeds
and time.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from clearstory import durable
from clearstory.errors import BadSetting, ClearstoryError, Diverged
from clearstory.recipes.comparison.compare import ComparisonStarted, ModelMeasured, ModelProgress
from clearstory.recipes.comparison.leaderboard import ModelResult
from clearstory.recipes.comparison.model_run import TrainingContext
from clearstory.recipes.comparison.output_folder import (
    RESULT_FILE,
    load_result,
    lock_output_folder,
    open_output_folder,
    write_config,
)
from clearstory.recipes.comparison.result_files import describe_machine
from clearstory.recipes.comparison.scaling_analysis import analyse
from clearstory.recipes.comparison.scaling_files import write_report, write_runs
from clearstory.recipes.comparison.scaling_report import ScalingReport, scaling_runs
from clearstory.recipes.comparison.scaling_runs import (
    ScalingPlan,
    check_enough,
    plan_scaling,
    run_path,
    scaling_recipe,
    scaling_result,
)
from clearstory.recipes.comparison.settings import AUTO_SIZES, CompareRecipe, command_line
from clearstory.recipes.settings.keywords import CompareKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.training.run_folder import has_files
from clearstory.text.corpus import Corpus

ScalingEvent = ComparisonStarted | ModelProgress | ModelMeasured | ScalingReport
"""Events of a scaling law; the last one is its report."""


def scaling_law(*sources: str | Path, **settings: Unpack[CompareKeywords]) -> ScalingReport:
    """Fit a scaling law to runs on a text, and predict the loss for more parameters and more text, with 95 % intervals.

    `settings` are fields of CompareRecipe; without `sizes`, they are chosen for `cpu_seconds`. See `clearstory compare
    --help`.

    >>> import clearstory
    >>> clearstory.scaling_law("corpus:kjv", cpu_seconds=600).predictions[0].loss  # doctest: +SKIP
    1.48
    """
    values: dict[str, Any] = {"sizes": AUTO_SIZES, "sources": tuple(map(str, sources)), **settings}
    for name in ("sizes", "amounts"):
        given = values.get(name, ())
        values[name] = (given,) if isinstance(given, str) else tuple(map(str, given))
    report = None
    for event in scaling_events(build_settings(CompareRecipe, values)):
        report = event
    assert isinstance(report, ScalingReport)
    return report


def scaling_events(recipe: CompareRecipe) -> Iterator[ScalingEvent]:
    """Events of a scaling law; the last one is its report. Result files are written after every run.

    Ctrl-C raises KeyboardInterrupt; finished runs are kept, and so is a checkpoint of an unfinished one. Raises
    BadSetting where too few runs are finished in the CPU time.
    """
    with lock_output_folder(recipe) as recipe:
        folder, recipe = open_output_folder(recipe)
        if not recipe.sizes:
            raise BadSetting(f"{folder} contains a comparison, not a scaling law; give --sizes and another --out")
        corpus = Corpus.open(recipe.sources, recipe.data)
        context = TrainingContext(recipe, folder, corpus)
        if recipe.overwrite:
            write_config(folder, recipe)  # deletes what is there
        plan = plan_in(context)
        # As chosen: a resumed law has the same runs, however fast the machine is then.
        sizes, amounts = tuple(map(str, plan.sizes)), tuple(map(str, plan.amounts))
        write_config(folder, replace(recipe, sizes=sizes, amounts=amounts, overwrite=False))
        saved = [load_result(run_path(context, plan, *run)) if recipe.resume else None for run in plan.runs]
        yield describe_start(context, plan)
        results = [each for each in saved if each is not None]
        yield from (ModelMeasured(each, reused=True) for each in results)
        try:
            for event in train_runs(context, plan, saved):
                yield event
                if isinstance(event, ModelMeasured) and event.result.error is None:
                    results.append(event.result)
                    write_runs(folder, results, len(plan.runs))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped with {len(results)} of {len(plan.runs)} runs finished; resume with: clearstory compare "
                f"--resume --out {shlex.quote(str(folder))}"
            ) from None
        spent = sum(each.cpu_seconds or 0.0 for each in results)
        check_enough(results, plan, spent)
        _, _, dataset = context.encoded_corpus(context.tokenizer_spec(plan.spec))
        report = ScalingReport(
            text=corpus.name,
            model=plan.spec.label,
            tokenizer=context.tokenizer_spec(plan.spec),
            training_tokens=len(dataset),
            results=tuple(results),
            planned=len(plan.runs),
            command=command_line(recipe),
            machine=describe_machine(),
            folder=folder,
            **analyse(scaling_runs(results), len(dataset), spent, recipe.seed),
        )
        write_report(folder, report)
        yield report


def plan_in(context: TrainingContext) -> ScalingPlan:
    """The plan of a recipe; a tokenizer that was trained for one that is refused is removed."""
    had_files = has_files(context.folder)
    try:
        return plan_scaling(context)
    except ClearstoryError:
        if not had_files and (context.folder / "tokenizers").is_dir():
            durable.remove_folder(context.folder / "tokenizers")
        raise


def describe_start(context: TrainingContext, plan: ScalingPlan) -> ComparisonStarted:
    """The event that describes the planned runs."""
    _, _, dataset = context.encoded_corpus(context.tokenizer_spec(plan.spec))
    seconds, notes = context.recipe.cpu_seconds, context.corpus.notes.sentences()
    sizes, amounts = (" ".join(f"{each:,}" for each in values) for values in (plan.sizes, plan.amounts))
    return ComparisonStarted(
        text=f"about {sizes} parameters on {amounts} of the {len(dataset):,} training tokens of {context.corpus.name}",
        bytes=context.corpus.text_bytes,
        unit="run",
        budget="no limit of time" if seconds is None else f"{seconds:g} CPU seconds together",
        models=1,
        runs=tuple(plan.label(*run) for run in plan.runs),
        folder=context.folder,
        note="; ".join(notes) or None,
    )


def train_runs(
    context: TrainingContext, plan: ScalingPlan, saved: list[ModelResult | None]
) -> Iterator[ModelProgress | ModelMeasured]:
    """Train the runs that are not finished, the cheapest first, as long as the next one fits into the CPU time."""
    done = [each for each in saved if each is not None]
    for number, (run, result) in enumerate(zip(plan.runs, saved, strict=True), start=1):
        if result is not None or exceeds_budget(context.recipe, done, run):
            continue
        label = plan.label(*run)
        yield ModelProgress(label, number)
        trained = None
        try:
            for event in train_events(scaling_recipe(context, plan, *run), full_evaluation=False):
                trained = event
                yield ModelProgress(label, number, event)
        except Diverged as reason:  # not saved: a resumed law trains it again
            yield ModelMeasured(ModelResult(model=label, family=plan.spec.preset, seed=run[2], error=str(reason)))
            continue
        assert isinstance(trained, TrainingResult)
        result = scaling_result(context, plan, *run, trained)
        durable.write_json(run_path(context, plan, *run) / RESULT_FILE, result.to_json())
        done.append(result)
        yield ModelMeasured(result)


def exceeds_budget(recipe: CompareRecipe, done: list[ModelResult], run: tuple[int, int, int]) -> bool:
    """Whether a run would end after the CPU time, at the speed of the largest run that is done."""
    if recipe.cpu_seconds is None or not done:
        return False
    spent = sum(each.cpu_seconds or 0.0 for each in done)
    largest = max(done, key=lambda each: (each.parameters or 0) * (each.tokens or 0))
    share = run[0] * run[1] / ((largest.parameters or 1) * (largest.tokens or 1))
    return spent + share * (largest.cpu_seconds or 0.0) > recipe.cpu_seconds
