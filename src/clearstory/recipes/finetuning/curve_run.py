"""The run of a label-efficiency curve: its folder, its points one after the other, and its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from clearstory import durable
from clearstory.errors import BadSetting, CorruptFile, UnknownName, nearest
from clearstory.models.device import reusing_memory
from clearstory.models.families import PRESETS
from clearstory.recipes.finetuning.backbone import default_learning_rate, is_new, open_backbone
from clearstory.recipes.finetuning.curve_report import FINE_TUNED, CurvePoint, CurveSummary, curve_report_html
from clearstory.recipes.finetuning.label_curve import FROZEN, LabelCurve
from clearstory.recipes.finetuning.preparation import data_fingerprint, read_data, resolved_recipe
from clearstory.recipes.settings.finetuning import BAG_OF_WORDS, FinetuneRecipe
from clearstory.recipes.training.events import (
    CurvePointScored,
    TrainingEvent,
    TrainingNote,
    TrainingResult,
)
from clearstory.recipes.training.preparation import resolve_for_machine
from clearstory.recipes.training.run_folder import (
    MAX_RECORD_BYTES,
    RunFolder,
    check_same_corpus,
    lock_run_folder,
    open_run_folder,
    write_run_settings,
)


def label_curve_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of a curve: a point after the other, and a TrainingResult with the scores of the largest number of labels.

    Raises BadSetting for more labels than there are, KeyboardInterrupt with how to continue.
    """
    started = time.monotonic()
    with lock_run_folder(recipe) as (recipe, note), reusing_memory():
        folder, recipe = open_run_folder(recipe)
        curve, fingerprints = prepare_curve(folder, recipe)
        points = read_points(folder) if recipe.resume else []
        for sentence in filter(None, (note, *curve.data.train.notes, *curve.data.notes, curve.note)):
            yield TrainingNote(message=sentence)
        if recipe.overwrite:
            folder.clear()
        saved = replace(curve.recipe, new_head=recipe.new_head)
        write_run_settings(folder, saved, fingerprints, curve.settings.device)
        done = {(each.model, each.labels, each.seed) for each in points}
        first = recipe.training.seed
        try:
            for seed in range(first, first + recipe.seeds):
                for labels in sorted(recipe.curve):
                    for model in curve.models:
                        if (model, labels, seed) not in done:
                            points.append(curve.point(model, labels, seed))
                            write_report(folder, curve, points)
                    scored = {each.model: each for each in points if (each.labels, each.seed) == (labels, seed)}
                    metric = next(iter(scored[FINE_TUNED].metrics))
                    scores = {name: each.metrics[metric] for name, each in scored.items()}
                    yield CurvePointScored(labels=labels, seed=seed, metric=metric, scores=scores)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {len(points)} points; continue with: clearstory finetune --resume --out {folder.path}"
            ) from None
        summary = write_report(folder, curve, points)
        yield TrainingResult(
            folder=folder.path,
            run_folder=folder.path,
            bits_per_byte=None,
            nats_per_token=None,
            cpu_seconds=sum(each.cpu_seconds for each in points),
            seconds=time.monotonic() - started,
            tokens=0,
            steps=sum(each.steps for each in points),
            parameters=curve.parameters,
            curve=folder.path / "report.html",
            objective=recipe.task,
            metrics=summary.last(FINE_TUNED).means,
            intervals=summary.last(FINE_TUNED).intervals,
            report=folder.path / "report.json",
            summary="\n".join(summary.claims),
            next_command="clearstory finetune MODEL " + " ".join(recipe.data),
        )


def prepare_curve(folder: RunFolder, recipe: FinetuneRecipe) -> tuple[LabelCurve, dict[str, str]]:
    """The model and the data of a curve, and their fingerprints. Raises BadSetting for sizes that they do not have."""
    check_baselines(recipe)
    settings, new = resolve_for_machine(recipe.training.training_settings()), is_new(recipe)
    if recipe.training.learning_rate is None:
        settings = replace(settings, learning_rate=default_learning_rate(recipe, new))
    recipe = replace(resolved_recipe(recipe, settings), new_head=True)
    backbone = None if new else open_backbone(folder, recipe)
    data = read_data(recipe, None if backbone is None else backbone.model)
    held_out = data.validation if data.test is None else data.test
    if not held_out.examples:
        raise BadSetting(
            "validation is 0 and test is not given, so there are no examples to evaluate on; give one of them"
        )
    if max(recipe.curve) > len(data.train):
        raise BadSetting(
            f"curve has {max(recipe.curve):,} labels, and {data.train.name} has {len(data.train):,} examples for "
            "training; give at most that many"
        )
    present = len({label for example in data.train.examples for label in example.labels})
    if data.train.kind == "single" and min(recipe.curve) < present:
        raise BadSetting(
            f"curve has {min(recipe.curve)} labels, and {data.train.name} has {present} different ones; give at least "
            "one example of each"
        )
    fingerprints = {"corpus": data_fingerprint(data)}
    if backbone is not None and backbone.fingerprint is not None:
        fingerprints |= {"tokenizer": backbone.tokenizer.fingerprint, "init": backbone.fingerprint}
    if recipe.resume:
        check_same_corpus(folder, fingerprints["corpus"])
    return LabelCurve(recipe, settings, backbone, data, held_out), fingerprints


def check_baselines(recipe: FinetuneRecipe) -> None:
    """Raise UnknownName for a baseline that does not exist, BadSetting for frozen vectors of a new model."""
    known = (FROZEN, BAG_OF_WORDS, *PRESETS)
    for name in recipe.baselines:
        if name not in known:
            raise UnknownName(f"baselines names {name[:60]!r}; {nearest(name, known)}")
    if is_new(recipe) and (FROZEN in recipe.baselines or not recipe.baselines):
        raise BadSetting(
            f"baselines are {' '.join(recipe.baselines) or 'frozen tfidf'}, and {recipe.model} is a preset, whose "
            "vectors are random; give others, such as --baselines tfidf"
        )


def read_points(folder: RunFolder) -> list[CurvePoint]:
    """The points of a curve that report.json has. Raises CorruptFile."""
    path = folder.path / "report.json"
    if not durable.is_regular_file(path):
        return []
    found = durable.parse_json(durable.read_file(path, MAX_RECORD_BYTES), path)
    try:
        return [CurvePoint(**each) for each in found["points"]]
    except (TypeError, KeyError) as reason:
        raise CorruptFile(f"{path} is not a report of a curve ({reason!r}); delete it to start again") from None


def write_report(folder: RunFolder, curve: LabelCurve, points: Sequence[CurvePoint]) -> CurveSummary:
    """Write report.json and report.html with the points so far; their summary."""
    summary = CurveSummary.of(points, curve.models)
    held_out = f"{len(curve.held_out):,} examples of {curve.held_out.name}{f' ({curve.note})' if curve.note else ''}"
    report = {
        "task": curve.recipe.task,
        "model": curve.recipe.model,
        "scored_on": held_out,
        **summary.to_json(),
        "points": [asdict(each) for each in points],
    }
    durable.write_json(folder.path / "report.json", report)
    title = f"{folder.path.name}: label efficiency of {curve.recipe.model}"
    durable.write_text(folder.path / "report.html", curve_report_html(title, held_out, summary))
    return summary
