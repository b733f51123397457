"""The grammar that `generate` holds its texts to: a JSON schema or a regular expression."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearstory.durable import parse_json
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting
from clearstory.generation.grammar import Grammar
from clearstory.generation.settings import Sampling


def read_grammar(json_schema: Mapping[str, Any] | str | Path | None, regex: str | None) -> Grammar | None:
    """The grammar of a JSON schema, itself or in a file, or of a regular expression; None without either.

    Raises BadSetting for both, BadInput for a schema or an expression that is not supported.
    """
    if json_schema is not None and regex is not None:
        raise BadSetting("both json_schema and regex are given; leave one of them out")
    if regex is not None:
        return Grammar.of_regex(regex)
    if json_schema is None:
        return None
    if not isinstance(json_schema, str | Path):
        return Grammar.of_json_schema(json_schema)
    path = expand_home(json_schema)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the JSON schema {path} cannot be read ({error}); give a file with a JSON schema") from None
    return Grammar.of_json_schema(parse_json(text, str(path)))


def check_with_grammar(sampling: Sampling) -> None:
    """Raises BadSetting for settings that do not go with a grammar."""
    if sampling.beam > 1:
        raise BadSetting(f"beam is {sampling.beam}, and json_schema and regex need sampling; give beam 1")
    if sampling.stop:
        raise BadSetting(
            "a stop string could end the text before it is complete; give stop without json_schema or regex"
        )
