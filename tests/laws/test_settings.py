"""No setting is ignored: each is in the resolved settings, and each has an observable effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_origin

import pytest
from observations import NEEDED, OBSERVED, ODD

from clearstory.cli.arguments import flag_name, parse_arguments
from clearstory.errors import ClearstoryError
from clearstory.models.families import PRESETS, preset
from clearstory.models.transformer.config import ARCHITECTURE_FIELDS
from clearstory.recipes.settings import (
    chat,
    embedding,
    evaluation,
    finetuning,
    inference,
    prompting,
    serving,
    tools,
    training,
    translation,
)
from clearstory.recipes.settings.evaluation_tasks import BenchmarkSettings
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.schema import Setting, build_settings, setting_table, strip_optional, to_plain
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.tasks.text_to_text_settings import TeacherSettings, TextToTextSettings

RECIPES = {
    name: each
    for module in (training, finetuning, tools, inference, evaluation, chat, embedding, translation, prompting, serving)
    for name, each in vars(module).items()
    if name.endswith("Recipe")
}


def every_setting() -> Iterator[tuple[str, Setting]]:
    """Every field of every recipe."""
    for name, recipe in RECIPES.items():
        for setting in setting_table(recipe).values():
            yield name, setting


ALL = list(every_setting())
IDS = [f"{name}.{setting.key}" for name, setting in ALL]


def other_value(name: str, setting: Setting) -> str:
    """A value other than the default, as it is typed."""
    for key in (f"{name}.{setting.key}", setting.key):
        if key in ODD:
            return ODD[key]
    hint = strip_optional(setting.hint)
    kind = get_origin(hint) or hint
    if setting.choices:
        return next((choice for choice in setting.choices if choice != setting.default), setting.choices[0])
    if kind is bool:
        return "false" if setting.default is True else "true"
    if kind is int:
        return "7" if setting.default != 7 else "8"
    if kind is float:
        return "0.0625" if setting.default != 0.0625 else "0.125"
    return "odd"


def required_settings(name: str, changed: str) -> dict[str, Any]:
    """Further settings of a recipe that the changed one needs."""
    table = setting_table(RECIPES[name])
    needed = {key: key for key, setting in table.items() if setting.default is MISSING} | NEEDED.get(name, {})
    if (name, changed) == ("FinetuneRecipe", "training.context"):
        return {**needed, "task": "lm"}
    if name == "FinetuneRecipe" and changed == "baselines":
        return {**needed, "curve": [8]}
    if name == "FinetuneRecipe" and changed.startswith("lora.") and changed != "lora.rank":
        return {**needed, "lora.rank": 2}
    if name == "FinetuneRecipe" and changed.startswith("embed."):
        return {**needed, "task": "embed"}
    if changed in ("model.global_interval", "model.local_rope_theta"):
        return {**needed, "model": "gemma3-270m"}
    of_texts = {**vars(TextToTextSettings()), **vars(TeacherSettings())}
    if name in ("FinetuneRecipe", "EvaluateRecipe") and changed in of_texts:
        wanted = {**needed, **({"teacher": "m"} if changed == "teacher_num_beams" else {})}
        return {**wanted, "task": "translate" if name == "FinetuneRecipe" else ["translate"]}
    if changed in ("assistant_only_loss", "chat_template") and name != "ChatRecipe":
        return {**needed, "task": "chat" if name == "FinetuneRecipe" else ["chat"]}
    if name == "EvaluateRecipe" and changed in vars(BenchmarkSettings()):
        task = "probes" if changed == "probe_files" else "lm-eval:arc_easy"
        return {"model": "model", "task": [task], **({"out": "out"} if changed == "log_samples" else {})}
    if name == "ChatRecipe":
        return {"url": "http://localhost:8000/v1"} if changed == "api_key_file" else {**needed, "model": "model"}
    if (name, changed) == ("PromptRecipe", "max_tokens"):
        return {**needed, "answer": "generate"}
    if (name, changed) == ("EvaluateRecipe", "vectors"):
        return {**needed, "task": ["similarity:pairs.txt"]}
    if (name, changed) == ("EmbedRecipe", "top"):
        return {**needed, "query": "a dog"}
    if name == "TrainRecipe" and (
        changed == "init" or changed.startswith("lora.")
    ):  # these need an existing model and no preset
        return {"init": "model", **({} if changed in ("init", "lora.rank") else {"lora.rank": 2})}
    if changed.startswith("model.") and not hasattr(preset(ModelChoice().name), changed.removeprefix("model.")):
        needed["model"] = next(
            name for name, config in PRESETS.items() if hasattr(config, changed.removeprefix("model."))
        )
        others = [key for key in needed if not hasattr(PRESETS[needed["model"]], key.removeprefix("model."))]
        needed = {key: value for key, value in needed.items() if not (key.startswith("model.") and key in others)}
    kinds = ARCHITECTURE_FIELDS.get(changed.removeprefix("model."), ())
    if kinds and "decoder" not in kinds:
        needed = {key: value for key, value in needed.items() if not key.startswith("model.")}
        needed["model"] = next(
            name for name, config in PRESETS.items() if getattr(config, "architecture", None) in kinds
        )
    return {key: value for key, value in needed.items() if key != changed or not isinstance(value, bool)}


def at(tree: dict[str, Any], key: str) -> Any:
    """The value under a dotted key of nested dictionaries."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else value if part == "name" else None
    return value.get("name") if isinstance(value, dict) else value


def failures(check: Callable[[str, Setting], None]) -> list[str]:
    """The settings for which a check fails, each with the reason. One test for all: a thousand items cost more to
    report than to run.
    """
    found = []
    for name, setting in ALL:
        try:
            check(name, setting)
        except (AssertionError, ClearstoryError, ValueError) as error:
            found.append(f"{name}.{setting.key}: {error}")
    return found


def test_another_value_is_in_the_resolved_settings() -> None:
    def check(name: str, setting: Setting) -> None:
        recipe = RECIPES[name]
        word = other_value(name, setting)
        parsed = parse_arguments([f"{flag_name(setting.key)}={word}"], setting_table(recipe))
        before = to_plain(build_settings(recipe, required_settings(name, setting.key)))
        after = to_plain(build_settings(recipe, {**required_settings(name, setting.key), **parsed}))
        value = at(after, setting.key)
        assert value != at(before, setting.key) or len(setting.choices) == 1, f"stayed {value!r}"
        written = str(value[0] if isinstance(value, list) else value).lower()
        assert written == word or float(written) == float(word)

    assert len(ALL) > 250
    assert not failures(check)


def test_settings_survive_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"

    def check(name: str, setting: Setting) -> None:
        recipe = build_settings(
            RECIPES[name], {**required_settings(name, setting.key), setting.key: other_value(name, setting)}
        )
        file.write_text(to_yaml(recipe), encoding="utf-8")
        assert build_settings(RECIPES[name], read_yaml(file)) == recipe

    assert not failures(check)


def test_every_setting_can_be_observed() -> None:
    """A row of OBSERVED for each setting: a function that shows its effect, or the test that does."""
    unknown = set(OBSERVED) - set(IDS)
    assert not unknown, f"observations of settings that do not exist: {sorted(unknown)}"
    unseen = [id for id in IDS if id not in OBSERVED]
    assert not unseen, f"settings without a row in observations.py: {unseen}"


@pytest.mark.parametrize("id", [id for id, seen in OBSERVED.items() if callable(seen)])
def test_another_value_changes_something(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, key = id.partition(".")
    setting, recipe, observe = setting_table(RECIPES[name])[key], RECIPES[name], OBSERVED[id]
    assert callable(observe)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen = []
    for place, more in (("usual", {}), ("odd", {key: other_value(name, setting)})):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        seen.append(observe(build_settings(recipe, {**required_settings(name, setting.key), **more})))
    assert seen[0] != seen[1], f"{id} = {other_value(name, setting)} changes nothing"


@pytest.mark.parametrize(
    "id", ["TrainRecipe.steps", "GenerateRecipe.seed", "EvaluateRecipe.limit", "InspectRecipe.top"]
)
def test_what_is_observed_is_the_same_twice(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, key = id.partition(".")
    observe = OBSERVED[id]
    assert callable(observe)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        seen.append(observe(build_settings(RECIPES[name], required_settings(name, key))))
    assert seen[0] == seen[1]


TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("id", [id for id, seen in OBSERVED.items() if isinstance(seen, str)])
def test_a_named_observation_exists(id: str) -> None:
    file, _, function = str(OBSERVED[id]).partition("::")
    assert (TESTS / file).is_file(), f"{id} is said to be observed in {file}, which is not there"
    assert f"def {function}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file} has no {function}"
