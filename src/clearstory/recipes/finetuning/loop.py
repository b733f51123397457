"""Fine-tuning as a generator of events: the training loop on a task, for one seed or several."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Unpack

from clearstory import durable
from clearstory.evaluation.classification import interval_of_mean
from clearstory.recipes.finetuning.backbone import is_new
from clearstory.recipes.finetuning.bag_of_words import bag_of_words_events
from clearstory.recipes.finetuning.curve_run import label_curve_events
from clearstory.recipes.finetuning.hmm_tagger import hmm_tagger_events
from clearstory.recipes.finetuning.ngram_classifier import ngram_classifier_events
from clearstory.recipes.finetuning.preparation import FinetuningPreparation, read_data
from clearstory.recipes.finetuning.report_page import report_html
from clearstory.recipes.finetuning.teacher import teacher_outputs
from clearstory.recipes.settings.finetuning import (
    BAG_OF_WORDS,
    HMM_TAGGER,
    NGRAM_CLASSIFIER,
    FinetuneRecipe,
    language_modelling_recipe,
)
from clearstory.recipes.settings.keywords import FinetuneKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import GenerationProgress, TrainingEvent, TrainingResult
from clearstory.recipes.training.loop import run_events, train_events
from clearstory.recipes.training.run_folder import changed_results, lock_run_folder, open_run_folder
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.tasks.base import GeneratingTask, evaluate_predictions, evaluate_task, format_metrics
from clearstory.tasks.data.examples import LabeledData
from clearstory.tasks.evaluation import TaskEvaluation


@dataclass(frozen=True)
class FinetuneResult:
    """Results of fine-tuning with one seed or several.

    Args:
        folder: model folder of the run with the best metric.
        task: name of the task.
        metric: name of the metric that selects the best model.
        metrics: validation metrics, the mean of all runs.
        intervals: 95 % interval of each metric: of the mean over seeds (Student's t), or of a single run by bootstrap.
        test_metrics: metrics on test examples, the mean of all runs; empty without a test file.
        runs: the result of each run.
    """

    folder: Path
    task: str
    metric: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    test_metrics: Mapping[str, float]
    runs: tuple[TrainingResult, ...]

    def to_json(self) -> dict[str, Any]:
        """The results as a dictionary for JSON."""
        return asdict(self)


def finetune(
    model: str | Path, data: str | Path | Sequence[str | Path] = (), /, **settings: Unpack[FinetuneKeywords]
) -> FinetuneResult:
    """Fine-tune a model for a task with labeled examples, and save the best one in a run folder.

    `settings` are the fields of FinetuneRecipe, nested as dicts; see `clearstory finetune --help`.

    >>> import clearstory
    >>> result = clearstory.finetune("models/minilm", "reviews.csv", seeds=3, out="runs/reviews")  # doctest: +SKIP
    >>> result.metrics["accuracy"]  # doctest: +SKIP
    0.893
    """
    sources = (str(data),) if isinstance(data, str | Path) else tuple(map(str, data))
    values: dict[str, Any] = dict(settings)
    for name in ("validation", "test"):  # a path, a share or several paths, as they are typed
        if values.get(name) is not None:
            given = values[name]
            values[name] = tuple(map(str, [given] if isinstance(given, str | int | float | Path) else given))
    for name in ("threshold", "freeze", "teacher"):
        if values.get(name) is not None:
            values[name] = str(values[name])
    recipe = build_settings(FinetuneRecipe, {"model": str(model), "data": sources, **values})
    results: list[TrainingResult] = []
    for each in recipes_of_seeds(recipe):
        for event in finetune_events(each):
            if isinstance(event, TrainingResult):
                results.append(event)
    return summarize_seeds(recipe, results)


def finetune_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of a fine-tuning run with one seed; the last one is its TrainingResult.

    Ctrl-C (or SIGTERM) saves a checkpoint and raises KeyboardInterrupt. A loss that is not finite saves a checkpoint of
    the last finite weights and raises Diverged.
    """
    if recipe.model == BAG_OF_WORDS and not recipe.names_path:
        yield from bag_of_words_events(recipe)
        return
    if recipe.task != "lm" and recipe.model == HMM_TAGGER and is_new(recipe):
        yield from hmm_tagger_events(recipe)
        return
    if recipe.task != "lm" and recipe.model == NGRAM_CLASSIFIER and is_new(recipe):
        yield from ngram_classifier_events(recipe)
        return
    if recipe.curve:
        yield from label_curve_events(recipe)
        return
    if recipe.task == "lm":
        yield from train_events(language_modelling_recipe(recipe))
        return
    budget = TimeBudget(float("inf"))
    with lock_run_folder(recipe) as (recipe, note):
        folder, recipe = open_run_folder(recipe)
        notes = [each for each in (note, changed_results(folder) if recipe.resume else None) if each is not None]
        preparation = FinetuningPreparation()
        if recipe.distillation.teacher is not None:
            sources = read_data(recipe, None).train.examples
            preparation.teacher = yield from teacher_outputs(recipe, folder, sources)
        for event in run_events(folder, recipe, budget, preparation, notes=notes):
            if isinstance(event, TrainingResult):
                yield from score_best(preparation, event)
            else:
                yield event


def score_best(preparation: FinetuningPreparation, result: TrainingResult) -> Iterator[TrainingEvent]:
    """Events up to the result with the intervals of its metrics and the scores on test examples; writes report.json.

    The model of the run has its best weights at that time.
    """
    objective, run, data = preparation.objective, preparation.run, preparation.data
    task = objective.fitted[0] if objective.fitted else preparation.task
    run.use_full_precision()
    scores: dict[str, TaskEvaluation] = {}
    if isinstance(task, GeneratingTask):
        parts = {"validation": task.eval_samples(data.validation), "test": data.test}
        for name, part in parts.items():
            if part is not None and part.examples:
                scores[name] = yield from generate_and_score(task, run.model, part, name)
    elif data.validation.examples:  # predicted at the end of the run
        rows = preparation.validation.rows
        scores["validation"] = evaluate_predictions(task, objective.predictions, rows, data.validation)
    if data.test is not None and "test" not in scores:
        scores["test"] = evaluate_task(task, run.model, data.test)
    durable.write_json(result.run_folder / "report.json", {name: each.to_json() for name, each in scores.items()})
    title = f"{run.folder.path.name}: {task.name}, {run.prepared.model_summary}"
    few = () if preparation.few is None else data.train.examples
    page = report_html(title, scores, run.folder.metrics_file, few)
    durable.write_text(result.run_folder / "report.html", page)
    yield with_scores(result, scores)


def generate_and_score(
    task: GeneratingTask, model: Any, data: LabeledData[Any], name: str
) -> Generator[TrainingEvent, None, TaskEvaluation]:
    """The scores of the texts that the model generates for examples; yields the progress."""
    outputs: dict[int, Any] = {}
    for index, output in task.generate(model, data.examples):
        outputs[index] = output
        yield GenerationProgress(what=name, done=len(outputs), total=len(data.examples))
    return task.evaluate_outputs(model, outputs, data)


def with_scores(result: TrainingResult, scores: Mapping[str, TaskEvaluation]) -> TrainingResult:
    """The result with the scores on validation and test examples, which report.json has."""
    validation, test = scores.get("validation"), scores.get("test")
    sentences = [
        f"{describe_scores(each)} on {each.examples:,} {name} example{'s' * (each.examples != 1)}"
        for name, each in scores.items()
    ]
    return replace(
        result,
        metrics=validation.metrics if validation else result.metrics,
        intervals=validation.intervals if validation else {},
        test_metrics=test.metrics if test else {},
        test_intervals=test.intervals if test else {},
        report=result.run_folder / "report.json",
        summary="\n".join(sentences) or result.summary,
        bits_per_byte=None,
    )


def describe_scores(scores: TaskEvaluation) -> str:
    """Metrics in one phrase, the first with its interval."""
    name, *others = scores.metrics
    first = format_metrics({name: scores.metrics[name]})
    if name in scores.intervals:
        low, high = scores.intervals[name]
        first += f" (95 % interval {low:.3f} to {high:.3f})"
    return ", ".join(filter(None, (first, format_metrics({each: scores.metrics[each] for each in others}))))


def recipes_of_seeds(recipe: FinetuneRecipe) -> list[FinetuneRecipe]:
    """A recipe for each seed, in folders seed-0, seed-1 ... of the run folder; the recipe itself for one seed."""
    if recipe.seeds == 1 or recipe.curve:  # a curve draws with each seed itself
        return [recipe]
    first, out = recipe.training.seed, recipe.out or Path("runs") / recipe.default_name
    return [
        replace(recipe, seeds=1, out=out / f"seed-{seed}", training=replace(recipe.training, seed=seed))
        for seed in range(first, first + recipe.seeds)
    ]


def summarize_seeds(recipe: FinetuneRecipe, results: Sequence[TrainingResult]) -> FinetuneResult:
    """The means of all runs with their intervals, and the folder of the best; written to summary.json for several."""
    first = results[0]
    metrics = [metrics_of(each) for each in results]
    metric = next(iter(metrics[0]), "loss")
    means = {name: fmean(each[name] for each in metrics) for name in metrics[0]}
    intervals = dict(first.intervals)
    if len(results) > 1:
        intervals = {name: interval_of_mean([each[name] for each in metrics]) for name in metrics[0]}
    sign = -1 if recipe.task == "lm" else 1  # of bits, fewer are better
    best = max(zip(metrics, results, strict=True), key=lambda pair: sign * pair[0].get(metric, 0.0))[1]
    test = {name: fmean(each.test_metrics[name] for each in results) for name in first.test_metrics}
    result = FinetuneResult(best.folder, recipe.task, metric, means, intervals, test, tuple(results))
    if len(results) > 1:
        durable.write_json(best.run_folder.parent / "summary.json", plain_paths(result.to_json()))
    return result


def metrics_of(result: TrainingResult) -> dict[str, float]:
    """The metrics of a task; of a language model bits per byte and nats per token, where they are known."""
    found = {name: getattr(result, name) for name in ("bits_per_byte", "nats_per_token")} if not result.report else {}
    return {**{name: value for name, value in found.items() if value is not None}, **result.metrics}


def plain_paths(value: Any) -> Any:
    """A value with its paths as strings, for JSON."""
    if isinstance(value, dict):
        return {key: plain_paths(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_paths(each) for each in value]
    return str(value) if isinstance(value, Path) else value
