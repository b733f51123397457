"""How one can see that a setting does something: a function of the recipe whose answer must differ, or a test's name.

A function gets the recipe with its usual value and again with an odd one, in a folder of its own each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from clearstory.models.config import TransformerConfig

Observation = Callable[[Any], Any] | str

ODD = {
    "model": "gpt2",
    "training.context": "16",
    "training.device": "meta",
    "training.threads": "1",
    "model.window": "5",
    "model.recall": "3",
    "model.tied": "false",
    "model.norm": "rms",
    "model.positions": "rotary",
    "model.rope_theta": "500",
    "model.kv_heads": "1",
    "model.norm_eps": "0.0625",
    "steps": "3",
    "top_p": "0.5",
    "out": "elsewhere",
    "tokenizer": "words",
    "objective": "causal",
    "minutes": "0.0625",
}
"""Odd values where the first that comes to mind would be refused or do nothing."""

NEEDED: dict[str, dict[str, Any]] = {
    "TrainRecipe": {"model": "nanogpt-char", "model.recall_rows": 8},
    "PlanRecipe": {"model": "nanogpt-char", "model.recall_rows": 8, "measure": False},
    "EvaluateRecipe": {"text": ("corpus:python-docs",)},
    "DataRecipe": {"text": ("corpus:python-docs",), "tokenizer": "bytes"},
}
"""What a recipe is given besides the setting that is observed."""


def planned(recipe: Any) -> Any:
    """The plan, without what is measured."""
    from clearstory.recipes.plan import plan

    found = plan(recipe).as_dict()
    return {key: value for key, value in found.items() if key != "runs"}, [run["seconds"] for run in found["runs"][:3]]


def priced(recipe: Any) -> Any:
    """What the plan costs."""
    from clearstory.recipes.plan import plan

    return [run.dollars for run in plan(recipe).runs]


def built(recipe: Any) -> Any:
    """The model's config: every field of it is observed by the laws of the models."""
    return recipe.model.config(vocab=67)


def counted(recipe: Any) -> Any:
    """What is said of a text in two formats."""
    from clearstory.recipes.data import data

    lines = [f'{{"text": "one two {n}", "odd": "four {n}"}}\n' for n in range(50)]
    Path("a.jsonl").write_text("".join(lines), encoding="utf-8")
    report = data(recipe=replace(recipe, text=("a.jsonl",)))
    return report.bytes, report.split_bytes, report.tokens, len(report.shown), sorted(map(str, Path().rglob("*")))


CONFIG = [field.name for field in fields(TransformerConfig)]

OBSERVED: dict[str, Observation] = {
    **{f"{recipe}.model.{name}": built for recipe in ("TrainRecipe", "PlanRecipe") for name in CONFIG},
    "TrainRecipe.model": built,
    "PlanRecipe.model": planned,
    "PlanRecipe.parameters": planned,
    "PlanRecipe.devices": planned,
    "PlanRecipe.batch_size": planned,
    "PlanRecipe.tokens": planned,
    "PlanRecipe.utilization": planned,
    "PlanRecipe.price": priced,
    "PlanRecipe.measure": lambda recipe: recipe.measure,
    "DoctorRecipe.measure": "cli/test_contract.py::test_doctor_speaks_json",
    "DataRecipe.text": "cli/test_contract.py::test_data_speaks_json",
    "DataRecipe.tokenizer": counted,
    "DataRecipe.show": counted,
    "DataRecipe.data.text_field": counted,
    "DataRecipe.data.validation": counted,
    "DataRecipe.data.errors": "text/test_documents.py::test_half_characters_of_jsonl_can_be_replaced",
    "DataRecipe.data.cache": counted,
}
"""By recipe and key."""
