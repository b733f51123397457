"""clearstory studio: serves a local web page over a folder of models and runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import StudioRecipe


def run(recipe: StudioRecipe, output: Output) -> Mapping[str, Any] | None:
    """Print the address, then serve until Ctrl-C."""
    from clearstory.studio.server import listen, serve

    place = listen(recipe)
    said = {"url": place.url, "host": place.host, "port": place.port, "token": place.token, "folder": recipe.folder}

    def ready() -> None:
        if output.json:
            output.print_json(said)
        else:
            output.write(f"the studio is at {place.url}\nCtrl-C ends it; runs that it has begun go on\n")

    serve(place, recipe.folder, ready)
    return None


COMMAND = Command(recipe=StudioRecipe, run=run, example="clearstory studio runs --port 0")
