"""clearstory chat: a conversation with a chat model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.chat import ChatRecipe


def run(recipe: ChatRecipe, output: Output) -> Mapping[str, Any] | None:
    """Chat in a terminal, or answer the lines of standard input."""
    from clearstory.cli.chat_terminal import ChatTerminal, answer_lines
    from clearstory.recipes.inference.chat import chat

    session = chat(
        recipe.model,
        url=recipe.url,
        api_key_file=recipe.api_key_file,
        system=recipe.system,
        load=recipe.load,
        chat_template=recipe.chat_template,
        truncate=recipe.truncate,
        precision=recipe.precision,
        int8=recipe.int8,
        device=recipe.device,
        **recipe.sampling.given(),
    )
    if output.json or not sys.stdin.isatty():
        answers = answer_lines(session, sys.stdin, output)
        return {
            "model": recipe.model or None,
            "url": recipe.url,
            "messages": session.messages,
            "answers": [answer.to_json() for answer in answers],
            "stats": session.stats(),
        }
    ChatTerminal(session, output).run()
    return None


COMMAND = Command(
    recipe=ChatRecipe,
    run=run,
    example='clearstory chat runs/helper --system "You are brief." --temperature 0.7',
    further_examples=(
        "clearstory chat --url http://127.0.0.1:8000/v1",
        "printf 'Hi\\nAnd you?\\n' | clearstory chat runs/helper --json",
    ),
)
