"""Clearstory: language models of every kind on your own machine.

The public names are loaded when they are first used, so that `import clearstory` costs nothing.

>>> import clearstory
>>> "plan" in dir(clearstory)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

NAMES = {
    "train": "clearstory.recipes.training.loop:train",
    "generate": "clearstory.recipes.inference.generate:generate",
    "fill_mask": "clearstory.recipes.inference.fill_mask:fill_mask",
    "embed": "clearstory.recipes.inference.embed:embed",
    "classify": "clearstory.recipes.inference.classify:classify",
    "translate": "clearstory.recipes.inference.translate:translate",
    "tag": "clearstory.recipes.inference.tag:tag",
    "evaluate": "clearstory.recipes.inference.evaluate:evaluate",
    "compare": "clearstory.recipes.comparison.compare:compare",
    "inspect": "clearstory.recipes.inference.inspect:inspect",
    "convert": "clearstory.recipes.conversion.convert:convert",
    "plan": "clearstory.recipes.planning.plan:plan",
    "data": "clearstory.recipes.data:data",
    "doctor": "clearstory.recipes.doctor:doctor",
    "open": "clearstory.formats.folders:open_model",
    "ClearstoryError": "clearstory.errors:ClearstoryError",
}
"""Where each public name lives."""

__all__ = ["__version__", *NAMES]


def __getattr__(name: str) -> Any:
    """A public name, imported on first use."""
    if name not in NAMES:
        raise AttributeError(f"module 'clearstory' has no attribute '{name}'")
    module, _, attribute = NAMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
