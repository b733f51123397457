"""clearstory convert: converts a model to another file format and verifies the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.errors import CorruptFile
from clearstory.recipes.settings.tools import ConvertRecipe

if TYPE_CHECKING:
    from rich.console import Console

    from clearstory.recipes.conversion.check_transformers import PortabilityReport
    from clearstory.recipes.conversion.convert import Conversion


def run(recipe: ConvertRecipe, output: Output) -> Mapping[str, Any]:
    """Convert, and print how close the result is to the original."""
    from clearstory.recipes.conversion.convert import convert

    conversion = convert(
        recipe.model, recipe.out, recipe.to, dtype=recipe.dtype, check=recipe.check, overwrite=recipe.overwrite
    )
    portability = conversion.portability
    if not output.json:
        print_conversion(conversion, output.console)
        if portability is not None and portability.portable:
            print_portability(portability, output.console)
    if portability is not None and not portability.portable:
        raise CorruptFile(
            f"{conversion.path} is not portable: {portability.reason}; it opens in Clearstory, but possibly not in "
            "other programs"
        )
    return {**asdict(conversion), "path": str(conversion.path)}


def print_conversion(conversion: Conversion, console: Console) -> None:
    """Print the size of the result and its largest differences from the original."""
    console.print(f"{conversion.path}: {conversion.parameters:,} parameters in {conversion.bytes:,} bytes")
    tokens = f"{conversion.tokens_compared:,} tokens"
    nats = ""
    if conversion.max_nats_difference is not None:
        nats = f"by at most {conversion.max_nats_difference:.1g} nats"
    if conversion.max_relative_difference is None:
        rounding = ""
        if conversion.max_rounding_difference > 0:
            rounding = (
                f"; rounding to {conversion.dtype} changes a token by up to {conversion.max_rounding_difference:.2g}"
            )
        console.print(f"reopened: the negative log-likelihoods of {tokens} differ {nats}{rounding}")
    else:
        console.print(
            f"onnxruntime: outputs for {tokens} differ by at most "
            f"{conversion.max_relative_difference:.1g} of the largest"
            f"{f', log-likelihoods {nats}' if nats else ''}"
        )
    if conversion.note:
        console.print(f"note: {conversion.note}")


def print_portability(portability: PortabilityReport, console: Console) -> None:
    """Print the comparison with transformers."""
    texts = f"{portability.texts} texts have the same ids" if portability.texts else "no text was compared"
    template = ", and the chat template gives the same text" if portability.template else ""
    console.print(
        f"transformers: logits differ by at most {portability.max_relative_difference:.1g} of the largest; "
        f"{texts}{template}"
    )
    if portability.note:
        console.print(f"note: {portability.note}")


COMMAND = Command(recipe=ConvertRecipe, run=run, example="clearstory convert runs/book book.gguf")
