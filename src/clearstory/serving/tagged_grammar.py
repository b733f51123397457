"""The grammar of calls with a tag for each argument."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clearstory.serving.tagged_arguments import tagged_arguments
from clearstory.text.tagged_calls import TaggedCallFormat


def tagged_rules(schemas: Mapping[str, Mapping[str, Any]], form: TaggedCallFormat, parallel: bool) -> list[str]:
    """The rules of `calls`. Arguments are in the order of the schema; those that are not required may be absent.

    In `call0`, `first0_i` begins at argument i after the name of the function, `more0_i` after another argument.
    """
    length = len(form.close)
    none, last = [quoted(form.none)], [quoted(form.last[length:])]
    if parallel and form.between is not None and form.none_between is not None:
        none.append(f"{quoted(form.none_between)} calls")
        last.append(f"{quoted(form.between[length:])} calls")
    rules = [f"calls: {' | '.join(f'call{number}' for number in range(len(schemas)))}"]
    for number, (name, schema) in enumerate(schemas.items()):
        arguments = tagged_arguments(schema, form)
        rules.append(f"call{number}: {quoted(name)} first{number}_0")
        for at, argument in enumerate(arguments):
            value = f"value{number}_{at}"
            rules += argument.rules(value, form.close)
            for part, before in (("first", form.first), ("more", form.following[length:])):
                if part == "more" and at == 0:
                    continue
                tag = quoted(before + argument.name + form.middle)
                absent = "" if argument.required else f" | {part}{number}_{at + 1}"
                rules.append(f"{part}{number}_{at}: {tag} {value} more{number}_{at + 1}{absent}")
        rules.append(f"first{number}_{len(arguments)}: {' | '.join(none)}")
        if arguments:
            rules.append(f"more{number}_{len(arguments)}: {' | '.join(last)}")
    return rules


def quoted(text: str) -> str:
    """A text as an expression of a grammar."""
    return json.dumps(text, ensure_ascii=False)
