"""Output folder: the results folder of a comparison: how it is opened, resumed and written to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from clearstory import durable
from clearstory.errors import BadSetting, CheckpointMismatch, FolderExists
from clearstory.recipes.comparison.leaderboard import ModelResult
from clearstory.recipes.comparison.result_files import FILE_NAMES
from clearstory.recipes.comparison.settings import AUTO_SIZES, CompareRecipe
from clearstory.recipes.settings.run_recipe import format_setting
from clearstory.recipes.settings.schema import build_settings, flatten_keys, to_plain
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.recipes.training.run_folder import RunFolder, check_no_file_in_path, has_files
from clearstory.text.sources import absolute_source

RESUME_SETTINGS = ("out", "resume", "overwrite", "models", "seeds", "data.cache")
"""Settings that can change when a comparison is resumed: models and seeds can be added."""

SCALING_RESUME_SETTINGS = ("sizes", "amounts", "cpu_seconds")
"""Additional settings that can change when a scaling law is resumed: sizes, amounts and time can be added."""

RESULT_FILE = "measured.json"
"""In a run folder: the ModelResult of a finished model."""


@contextmanager
def lock_output_folder(recipe: CompareRecipe) -> Iterator[CompareRecipe]:
    """A block in which no other process can write the results folder; yields the recipe with its path.

    Raises FolderInUse with the process that writes it.
    """
    folder = recipe.out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    check_no_file_in_path(folder)
    with durable.lock_folder(folder):
        yield replace(recipe, out=folder)


def open_output_folder(recipe: CompareRecipe) -> tuple[Path, CompareRecipe]:
    """The results folder, and the recipe with the saved settings if the comparison is resumed.

    Raises FolderExists for a folder that is not empty, CheckpointMismatch for a resumed comparison with other settings.
    """
    folder = recipe.out
    assert folder is not None, "lock_output_folder sets it"
    config_file = folder / "config.yaml"
    if folder.is_dir():
        durable.remove_stale(folder)
    if recipe.resume and config_file.is_file():
        return folder, resume_comparison(folder, recipe)
    if not recipe.sources:
        raise BadSetting(f"there is no comparison in {folder} to resume; give a text and --models")
    if has_files(folder) and not recipe.overwrite:
        content = "a comparison" if config_file.is_file() else "files"
        raise FolderExists(
            f"{folder} already has {content}; --resume continues a comparison, --overwrite replaces the contents"
        )
    return folder, replace(recipe, out=folder)


def resume_comparison(folder: Path, recipe: CompareRecipe) -> CompareRecipe:
    """The saved recipe with the models and seeds that are given now. Raises CheckpointMismatch for other changes."""
    saved = with_absolute_sources(build_settings(CompareRecipe, read_yaml(folder / "config.yaml")))
    before, now = (flatten_keys(CompareRecipe, to_plain(each)) for each in (saved, with_absolute_sources(recipe)))
    changeable = (*RESUME_SETTINGS, *(SCALING_RESUME_SETTINGS if recipe.sizes and saved.sizes else ()))
    for key in before if recipe.sources else ():
        if key not in changeable and before[key] != now.get(key):
            raise CheckpointMismatch(
                f"the comparison in {folder} was started with {key} {format_setting(before[key])}, but now it is "
                f"{format_setting(now.get(key))}; resume with the original settings, or choose another --out"
            )
    given = recipe if recipe.sources else saved
    chosen = {name: getattr(given, name) for name in ("models", "seeds", *SCALING_RESUME_SETTINGS)}
    if given.sizes == AUTO_SIZES:  # those that were chosen then
        chosen |= {"sizes": saved.sizes, "amounts": saved.amounts}
    return replace(saved, **chosen, out=folder, resume=True, overwrite=False)


def is_scaling(recipe: CompareRecipe) -> bool:
    """Whether the results folder has a scaling law."""
    saved = read_yaml(recipe.out / "config.yaml") if recipe.out and (recipe.out / "config.yaml").is_file() else {}
    return bool(saved.get("sizes"))


def with_absolute_sources(recipe: CompareRecipe) -> CompareRecipe:
    """The recipe with absolute paths of its texts, as it is saved, so that it works from any working directory."""
    sources, text = (tuple(map(absolute_source, each)) for each in (recipe.sources, recipe.text))
    return replace(recipe, sources=sources, text=text)


def write_config(folder: Path, recipe: CompareRecipe) -> None:
    """Create the folder and its config.yaml. With `overwrite`, delete the files of an earlier comparison only."""
    if recipe.overwrite and (folder / "config.yaml").is_file():
        for path in folder.iterdir():
            if path.is_dir() and (RunFolder(path).exists or path.name == "tokenizers"):
                durable.remove_folder(path)
        for name in FILE_NAMES:
            durable.remove_file(folder / name)
    durable.write_text(folder / "config.yaml", to_yaml(with_absolute_sources(recipe)))


def load_result(run: Path) -> ModelResult | None:
    """The result saved in a run folder; None if it does not exist or cannot be read."""
    try:
        return ModelResult.from_json(json.loads((run / RESULT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
