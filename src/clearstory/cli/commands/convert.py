"""clearstory convert: converts a model to another file format and verifies the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.errors import CorruptFile
from clearstory.recipes.settings.tools import ConvertRecipe


def run(recipe: ConvertRecipe, output: Output) -> Mapping[str, Any]:
    """Convert, and say how it compares."""
    from clearstory.recipes.conversion.convert import convert

    found = convert(
        recipe.model, recipe.out, recipe.to, dtype=recipe.dtype, check=recipe.check, overwrite=recipe.overwrite
    )
    seen = found.portability
    if not output.json:
        output.console.print(f"{found.path}: {found.parameters:,} parameters in {found.bytes:,} bytes")
        max_rounding_difference = f", and rounding to {found.dtype} costs or gains up to {found.max_rounding_difference:.2g}" * (found.max_rounding_difference > 0)
        nats = "" if found.max_nats_difference is None else f", to {found.max_nats_difference:.1g} nats at most"
        if found.max_relative_difference is None:
            output.console.print(f"opened again: {found.tokens_compared:,} tokens need the same{nats}{rounding}")
        else:
            output.console.print(
                f"onnxruntime gives the same numbers for {found.tokens_compared:,} tokens, to {found.max_relative_difference:.1g} of the largest"
                f"{nats}"
            )
        if found.note:
            output.console.print(f"note: {found.note}")
        if seen is not None and seen.portable:
            more = f"{seen.texts} texts the same ids" if seen.texts else "no text was compared"
            template = ", and the chat template the same text" * seen.template
            output.console.print(
                f"transformers gives the same logits, to {seen.difference:.1g} of the largest; {more}{template}"
            )
            if seen.note:
                output.console.print(f"note: {seen.note}")
    if seen is not None and not seen.portable:
        raise CorruptFile(f"{found.path} is not portable: {seen.reason}; it opens here, and may not elsewhere")
    return {**asdict(found), "path": str(found.path)}


COMMAND = Command(recipe=ConvertRecipe, run=run, example="clearstory convert runs/book book.gguf")
