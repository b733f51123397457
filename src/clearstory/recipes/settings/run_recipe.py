"""RunRecipe: what the recipes of all runs share, those of `train` and of `finetune`: length, folder, resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from clearstory.errors import BadSetting, CheckpointMismatch
from clearstory.recipes.settings.schema import check_output_folder, flatten_keys, to_plain

LENGTH_SETTINGS = ("minutes", "cpu_seconds", "steps")
"""Alternative settings for the length of a run. A layer that sets one of them unsets the others of earlier layers."""

CHANGEABLE_ON_RESUME = {"out", "resume", "overwrite", "minutes", "cpu_seconds", "steps", "data.cache"}
"""Settings that may differ when a run is resumed: they change where and how long, not what is trained."""


@runtime_checkable
class RunRecipe(Protocol):
    """The settings of a run that do not depend on what is trained."""

    command: ClassVar[str]

    @property
    def out(self) -> Path | None:
        """Run folder."""

    @property
    def minutes(self) -> float | None:
        """Wall-clock time limit."""

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time limit."""

    @property
    def steps(self) -> int | None:
        """Number of optimizer steps."""

    @property
    def resume(self) -> bool:
        """Whether to continue from the newest checkpoint."""

    @property
    def overwrite(self) -> bool:
        """Whether to replace an existing run."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that the run learns from; none for a run that is resumed by its folder alone."""

    @property
    def default_name(self) -> str:
        """The name of a run folder, before the date, where `out` is not given."""

    @property
    def time_limit(self) -> float | None:
        """Time limit in seconds, wall-clock (minutes) or CPU (cpu_seconds); None without one."""

    def with_absolute_paths(self) -> Self:
        """The recipe with absolute paths, as it is saved."""

    def resumed(self, saved: Mapping[str, Any], folder: Path) -> Any:  # of its own class
        """The saved recipe of a run with the changeable settings of this one. Raises CheckpointMismatch."""


RecipeT = TypeVar("RecipeT", bound=RunRecipe)


def check_run_settings(recipe: RunRecipe) -> None:
    """Raise BadSetting for a length that cannot be, or settings that contradict each other."""
    check_output_folder(recipe.out)
    lengths = [f"{name} is {getattr(recipe, name):,g}" for name in LENGTH_SETTINGS if getattr(recipe, name) is not None]
    if len(lengths) > 1:
        raise BadSetting(f"{' and '.join(lengths)}; give one of them")
    for name in ("minutes", "cpu_seconds"):
        value = getattr(recipe, name)
        if value is not None and value <= 0:
            raise BadSetting(f"{name} is {value:g}; it must be above 0")
    if recipe.steps is not None and recipe.steps < 1:
        raise BadSetting(f"steps is {recipe.steps}; it must be at least 1")
    check_no_standard_input(recipe.sources)
    if recipe.resume and recipe.overwrite:
        raise BadSetting("resume continues a run and overwrite deletes it; give one of them")


def check_no_standard_input(sources: Iterable[str]) -> None:
    """Raise BadSetting for `-`: the text of a run is read again when the run is resumed."""
    if "-" in sources:
        raise BadSetting(
            "a resumed run reads its text again, which is not possible from standard input; save it to a file first: "
            "COMMAND > text.txt"
        )


def check_same_settings(
    folder: Path, saved: RecipeT, recipe: RecipeT, default: RecipeT, is_resolved: Callable[[str], bool]
) -> None:
    """Raise CheckpointMismatch where a recipe differs from the saved one of the run in `folder`.

    A setting that has its default is not compared if the run resolves it (`is_resolved`), or if the recipe names no
    sources and so only differences from the defaults.
    """
    old, new, defaults = (
        flatten_keys(type(saved), to_plain(each))
        for each in (saved.with_absolute_paths(), recipe.with_absolute_paths(), default)
    )
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        unset = now == defaults.get(key) and (is_resolved(key) or not recipe.sources)
        if key not in CHANGEABLE_ON_RESUME and before != now and not unset:
            raise CheckpointMismatch(
                f"the run in {folder} was started with {key} {format_setting(before)}, but now it is "
                f"{format_setting(now)}; resume with the original settings, or choose another --out"
            )


def resumed_from(saved: RecipeT, recipe: RecipeT, folder: Path) -> RecipeT:
    """The saved recipe of the run in `folder`, with the length of this recipe where it has one."""
    length: dict[str, Any] = {name: getattr(recipe, name) for name in LENGTH_SETTINGS}
    if not any(length.values()):
        length = {name: getattr(saved, name) for name in LENGTH_SETTINGS}
    changes: dict[str, Any] = {"out": folder, "resume": True, "overwrite": False, **length}
    resumed: RecipeT = replace(saved, **changes)  # type: ignore[type-var]  # every recipe is a dataclass
    return resumed


def format_setting(value: Any) -> str:
    """The value of a setting as it is typed on the command line."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "not set"
    return "not set" if value is None else str(value)
