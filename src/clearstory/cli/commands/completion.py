"""clearstory completion: prints the script that completes clearstory's commands and flags in a shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.cli.completion import SCRIPTS
from clearstory.recipes.settings.tools import CompletionRecipe


def run(recipe: CompletionRecipe, output: Output) -> Mapping[str, Any]:
    """Print the script."""
    script = SCRIPTS[recipe.shell]
    if not output.json:
        output.write(script)
    return {"shell": recipe.shell, "script": script}


COMMAND = Command(
    recipe=CompletionRecipe,
    run=run,
    example="clearstory completion bash > ~/.local/share/bash-completion/completions/clearstory",
    further_examples=(
        'clearstory completion zsh > "${fpath[1]}/_clearstory"',
        "clearstory completion fish > ~/.config/fish/completions/clearstory.fish",
    ),
    needs_torch=False,
)
