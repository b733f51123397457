"""clearstory studio: a web page over a folder of models and runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import StudioRecipe


def run(recipe: StudioRecipe, talk: Talk) -> Mapping[str, Any] | None:
    """Serve until Ctrl-C; where to look is said before."""
    from clearstory.studio.serving import listen, serve

    place = listen(recipe)
    said = {"url": place.url, "host": place.host, "port": place.port, "token": place.token, "folder": recipe.folder}

    def ready() -> None:
        if talk.json:
            talk.tell(said)
        else:
            talk.write(f"the studio is at {place.url}\nCtrl-C ends it; runs that it has begun go on\n")

    serve(place, recipe.folder, ready)
    return None


COMMAND = Command(recipe=StudioRecipe, run=run, example="clearstory studio runs --port 0")
