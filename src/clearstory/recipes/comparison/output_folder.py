"""Comparison: the folder of one, made by `compare`: how it begins, goes on, and what is kept in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from clearstory import durable
from clearstory.errors import BadSetting, CheckpointMismatch, FolderExists
from clearstory.recipes.comparison.settings import CompareRecipe
from clearstory.recipes.settings.schema import build_settings, flatten_keys, to_plain
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.recipes.comparison.leaderboard import Trial
from clearstory.recipes.training.run_folder import RunFolder, check_no_file_in_path, format_setting
from clearstory.text.documents import absolute_source

FREE = ("out", "resume", "overwrite", "models", "seeds", "data.cache")
"""Settings that may differ when a comparison goes on: it may learn of more models, and of more seeds."""

MEASURED = "measured.json"
"""In a run folder: the trial that is finished."""


def begin(recipe: CompareRecipe) -> tuple[Path, CompareRecipe]:
    """The folder of the results, and the comparison as it will be made.

    Raises FolderExists where something is already, CheckpointMismatch where the one to go on with was another.
    """
    folder = recipe.out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    file = folder / "config.yaml"
    check_no_file_in_path(folder)
    if folder.is_dir():
        durable.remove_stale(folder)
    if recipe.resume and file.is_file():
        then = placed(build_settings(CompareRecipe, read_yaml(file)))
        before, now = (flatten_keys(CompareRecipe, to_plain(each)) for each in (then, placed(recipe)))
        for key in before if recipe.sources else ():
            if key not in FREE and before[key] != now.get(key):
                raise CheckpointMismatch(
                    f"the comparison in {folder} was made with {key} {format_setting(before[key])}, and now it is "
                    f"{format_setting(now.get(key))}; go on with the settings it was made with, or choose another --out"
                )
        models, seeds = (recipe.models, recipe.seeds) if recipe.sources else (then.models, then.seeds)
        return folder, replace(then, out=folder, models=models, seeds=seeds, resume=True, overwrite=False)
    if not recipe.sources:
        raise BadSetting(f"there is no comparison in {folder} to go on with; name a text and --models")
    if folder.is_dir() and any(folder.iterdir()) and not recipe.overwrite:
        what = "a comparison" if file.is_file() else "files"
        raise FolderExists(
            f"{folder} already has {what}; --resume goes on with a comparison, --overwrite replaces what is there"
        )
    return folder, replace(recipe, out=folder)


def placed(recipe: CompareRecipe) -> CompareRecipe:
    """The comparison as it is written down: what it reads is found from any folder."""
    sources, text = (tuple(map(absolute_source, each)) for each in (recipe.sources, recipe.text))
    return replace(recipe, sources=sources, text=text)


def write_down(folder: Path, recipe: CompareRecipe) -> None:
    """Begin the folder; what an earlier comparison left in it goes, and nothing else."""
    if recipe.overwrite and (folder / "config.yaml").is_file():
        for place in folder.iterdir():
            if place.is_dir() and (RunFolder(place).exists or place.name == "tokenizers"):
                durable.remove_folder(place)
        for name in ("compare.json", "report.html", "curves.svg"):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_text(folder / "config.yaml", to_yaml(placed(recipe)))


def finished_before(run: Path) -> Trial | None:
    """The trial that a run folder has kept; None where there is none that can be read."""
    try:
        return Trial.from_json(json.loads((run / MEASURED).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
