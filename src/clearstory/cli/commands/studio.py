"""clearstory studio: serves a local web page over a folder of models and runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import StudioRecipe


def run(recipe: StudioRecipe, output: Output) -> Mapping[str, Any] | None:
    """Print the address, then serve until Ctrl-C."""
    from clearstory.studio.server import listen, serve

    address = listen(recipe)

    def print_address() -> None:
        if output.json:
            keys = ("url", "host", "port", "token")
            output.print_json({**{key: getattr(address, key) for key in keys}, "folder": recipe.folder})
        else:
            output.write(f"the studio is at {address.url}\nCtrl-C stops it; training runs that it started continue\n")

    serve(address, recipe.folder, print_address)
    return None


COMMAND = Command(recipe=StudioRecipe, run=run, example="clearstory studio runs --port 0", needs_torch=False)
