"""clearstory models: shows all presets by family, with size and purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.cli.help import page_width, wrap
from clearstory.recipes.presets import PresetSummary, list_presets, presets_by_kind
from clearstory.recipes.settings.tools import ModelsRecipe


def run(recipe: ModelsRecipe, output: Output) -> Mapping[str, Any]:
    """Print a table for each family."""
    if not output.json:
        parts = [preset_table(kind, presets) for kind, presets in presets_by_kind().items()]
        output.write("\n\n".join([*parts, FOOTER]) + "\n")
    return {"models": [asdict(each) for each in list_presets()]}


def preset_table(kind: str, presets: Sequence[PresetSummary]) -> str:
    """The presets of one family, one per line, below a description of their purpose."""
    lines = [f"{kind:20}{'parameters':>16}{'context':>9}  tokenizer"]
    for use, group in groupby(presets, key=lambda each: each.use):
        lines += [f"  {line}" for line in wrap(f"{use}:", page_width() - 2)]
        for each in group:
            parameters = "from the text" if each.parameters is None else f"{each.parameters:,}"
            context = "any" if each.context is None else f"{each.context:,}"
            lines.append(f"    {each.name:16}{parameters:>16}{context:>9}  {each.tokenizer}")
    return "\n".join(lines)


FOOTER = (
    "Train one with: clearstory train TEXT --model PRESET. Parameters are those with the preset's own vocabulary;\n"
    "clear takes the size that the time or --parameters allows. clearstory plan PRESET shows memory, time and cost."
)

COMMAND = Command(recipe=ModelsRecipe, run=run, example="clearstory models --json", needs_torch=False)
