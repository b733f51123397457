"""clearstory serve: answers HTTP requests in the forms of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.serving import ServeRecipe

if TYPE_CHECKING:
    from clearstory.server.process import OpenedServer


def run(recipe: ServeRecipe, output: Output) -> Mapping[str, Any] | None:
    """Open the models, print the address, and serve until Ctrl-C or SIGTERM."""
    from clearstory.server.process import open_server, serve

    server = open_server(recipe, lambda sentence: output.stderr.print(sentence))

    def print_address() -> None:
        if output.json:
            output.print_json(server.to_json())
        else:
            output.write(describe(server))

    serve(server, recipe, print_address)
    return None


def describe(server: OpenedServer) -> str:
    """The address, the models and a first request, for a newcomer."""
    lines = [f"serving at {server.url}/v1"]
    width = max(map(len, server.engines))
    for name, engine in server.engines.items():
        lines.append(f"  {name:{width}}  {engine.served.family}: {', '.join(engine.served.abilities)}")
    lines.append(f"with {server.threads}")
    lines += ["try it:", f"  {curl(server)}", "Ctrl-C stops it", ""]
    return "\n".join(lines)


def curl(server: OpenedServer) -> str:
    """A command that sends a first request to the first model."""
    name, engine = next(iter(server.engines.items()))
    abilities = engine.served.abilities
    body: dict[str, Any]
    if "chat" in abilities:
        path, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}
    elif "text" in abilities:
        path, body = "/v1/completions", {"prompt": "Once upon a time", "max_tokens": 40}
    else:
        path, body = "/v1/embeddings", {"input": "Hello"}
    key = ' -H "Authorization: Bearer $CLEARSTORY_API_KEY"' if server.policy.keys else ""
    text = json.dumps({"model": name, **body}, ensure_ascii=False).replace("'", "'\\''")
    return f"curl {server.url}{path}{key} -H 'Content-Type: application/json' -d '{text}'"


COMMAND = Command(
    recipe=ServeRecipe,
    run=run,
    example="clearstory serve runs/helper",
    further_examples=(
        "clearstory serve chat=models/smollm2 vectors=models/minilm --int8 --port 8080",
        "clearstory serve runs/helper --host 0.0.0.0 --api-key-file keys.txt",
    ),
)
