"""Plan display: prints the estimate of `plan` as tables, for narrow and wide terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console

from clearstory.recipes.planning.parameter_groups import ParameterGroup
from clearstory.recipes.planning.plan import ModelPlan, TrainingEstimate

WIDE = 100
"""Terminal columns from which tables show values that follow from the others."""


def print_plan(plan: ModelPlan, console: Console) -> None:
    """Print a plan in sections: parameters, formula, memory, FLOPs and time, then notes."""
    wide = console.width >= WIDE
    console.print(f"{plan.model}: {plan.parameters:,} parameters\n", style="bold")
    print_parameters(plan, console, wide)
    if plan.formula_terms:
        print_formula(plan, console)
    print_memory(plan, console)
    if plan.estimates:
        print_flops(plan, console)
        print_estimates(plan, console, wide)
    for note in plan.notes:
        print_wrapped(console, note[0].upper() + note[1:] + ".")


def print_parameters(plan: ModelPlan, console: Console, wide: bool) -> None:
    """Print every kind of weight matrix and vector, by group."""
    columns = [
        "parameters",
        "shape",
        "per layer",
        *(["parameters per layer"] if wide else []),
        "layers",
        "total",
        "share",
    ]
    rows = []
    for group, parts in (
        (group, list(found)) for group, found in groupby(plan.parameter_groups, lambda part: part.group)
    ):
        whole = sum(part.parameters for part in parts)
        lone = len(parts) == 1
        if not lone:
            rows.append([group, "", "", *([""] if wide else []), "", f"{whole:,}", percentage(whole, plan.parameters)])
        for part in parts:
            name = group if lone else f"  {part.name}"
            rows.append(parameter_row(part, f"{name}  {part.symbol}".rstrip(), plan.parameters, wide))
    if getattr(plan.config, "tie_embeddings", False):
        rows.append(["unembedding", "tied", "", *([""] if wide else []), "", "0", percentage(0, plan.parameters)])
    rows.append(["total", "", "", *([""] if wide else []), "", f"{plan.parameters:,}", "100 %"])
    print_table(console, columns, rows, total=True)
    if plan.parameters_per_layer is not None:
        print_wrapped(console, f"Each of {plan.config.layers:,} layers: {plan.parameters_per_layer:,}.")
        console.print()


def parameter_row(part: ParameterGroup, name: str, whole: int, wide: bool) -> list[str]:
    """One row of the table of parameters."""
    return [
        name,
        " × ".join(f"{side:,}" for side in part.shape),
        f"{part.count_per_layer:,}",
        *([f"{part.parameters_per_layer:,}"] if wide else []),
        f"{part.layers:,}",
        f"{part.parameters:,}",
        percentage(part.parameters, whole),
    ]


def print_formula(plan: ModelPlan, console: Console) -> None:
    """Print the formula of the number of parameters, and the value of each term."""
    c = plan.config
    formula = " + ".join(term.formula for term in plan.formula_terms)
    print_wrapped(console, f"{formula}, with L = {c.layers:,}, d = {c.width:,}, V = {c.vocab:,}, T = {c.context:,}:")
    console.print()
    rows = [[term.formula, f"{term.parameters:,}", term.meaning] for term in plan.formula_terms]
    print_table(
        console,
        ["term", "parameters", "meaning"],
        [*rows, ["total", f"{plan.parameters:,}", ""]],
        total=True,
        left_aligned={2},
    )


def print_memory(plan: ModelPlan, console: Console) -> None:
    """Print the memory in bytes, in both precisions."""
    recipe = plan.recipe
    rows = []
    for name, label in MEMORY_LABELS.items():
        both = [plan.memory.get(f"{name}_{precision}") for precision in ("fp32", "bf16")]
        if any(both):
            rows.append([label, *("" if each is None else format_bytes(each) for each in both)])
    title = f"memory, {recipe.batch_size:,} × {plan.context:,} tokens" if plan.estimates else "memory"
    print_table(console, [title, "fp32", "bf16"], rows)
    for name, formula in plan.memory_formulas.items():
        print_wrapped(console, f"{MEMORY_LABELS[name][0].upper() + MEMORY_LABELS[name][1:]}: {formula}.")
    if plan.training_bytes_per_device is not None:
        where = f"on each of {recipe.devices:,} devices" if recipe.devices > 1 else "on one device"
        print_wrapped(
            console,
            f"Training with AdamW in mixed precision: {format_bytes(plan.training_bytes_per_device)} {where}: weights, "
            f"gradients and moments in fp32{', sharded' if recipe.devices > 1 else ''}, activations in bf16.",
        )
        console.print()


MEMORY_LABELS = {
    "weights": "weights",
    "gradients": "gradients",
    "adamw": "optimizer state",
    "activations": "activations",
    "cache": "key-value cache",
}


def print_flops(plan: ModelPlan, console: Console) -> None:
    """Print the FLOPs per token, by group."""
    forward = plan.flops_per_token["forward"]
    rows = [[name, f"{value:,}", percentage(value, forward)] for name, value in plan.flops_by_group.items()]
    rows.append(["forward pass", f"{forward:,}", "100 %"])
    print_table(console, ["FLOPs per token", "FLOP", "share"], rows, total=True)
    attention = f", attention over all of {plan.context:,} tokens" if plan.flops_per_token["attention"] else ""
    print_wrapped(
        console,
        f"A training step takes three times as many per token, {plan.flops_per_token['training']:,}. Two FLOPs for "
        f"each multiplied weight{attention}; embeddings are lookups. Kaplan et al. (2020), table 1; Hoffmann et al. "
        "(2022), appendix F.",
    )
    console.print()


def print_estimates(plan: ModelPlan, console: Console, wide: bool) -> None:
    """Print time, energy and cost on each kind of hardware."""
    recipe, priced = plan.recipe, plan.recipe.price is not None
    devices = f"{recipe.devices:,} devices" if recipe.devices > 1 else "one device"
    columns = [f"time on {devices}", "peak", "time", *(["energy"] if wide or not priced else [])]
    columns += [*(["cost"] if priced else []), "memory"]
    rows = [estimate_row(run, energy=wide or not priced, priced=priced) for run in plan.estimates]
    print_table(console, columns, rows)
    print_wrapped(
        console,
        f"{plan.tokens:,} tokens take {plan.total_flops:.3g} FLOP, at {100 * recipe.utilization:.3g} % of the peak "
        "of dense matrix products. Peaks as published by the manufacturers:",
    )
    for run in plan.estimates:
        print_wrapped(console, f"{run.hardware.name}: {run.hardware.source}", style="dim", hang=True)
    console.print()


def estimate_row(run: TrainingEstimate, *, energy: bool, priced: bool) -> list[str]:
    """One row of the table of times."""
    precision = "" if run.hardware.precision == "bf16" else f" {run.hardware.precision}"
    return [
        run.hardware.name,
        f"{run.hardware.peak_flops / 1e12:,.3g} TFLOP/s{precision}",
        format_duration(run.seconds),
        *(["" if run.kilowatt_hours is None else format_energy(run.kilowatt_hours)] if energy else []),
        *(["" if run.dollars is None else f"${run.dollars:,.0f}"] if priced else []),
        f"{format_bytes(run.hardware.memory)} {'fits' if run.fits else 'too small'}",
    ]


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    total: bool = False,
    left_aligned: frozenset[int] | set[int] = frozenset(),
) -> None:
    """Print a table. The first column and those in `left_aligned` are aligned left, the others right; nothing is cut.

    `total`: separate the last row by a line.
    """
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    line = "  ".join("─" * width for width in widths)
    for number, row in enumerate([columns, *rows]):
        if number == 1 or (total and number == len(rows)):
            console.print(f"  {line}", style="dim")
        left = {0, *left_aligned}
        cells = [cell.ljust(widths[i]) if i in left else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        console.print(f"  {'  '.join(cells)}".rstrip(), style="bold" if number == 0 else None)
    console.print()


def print_wrapped(console: Console, sentence: str, style: str | None = None, *, hang: bool = False) -> None:
    """Print a sentence wrapped to the width of the terminal, at most 100 columns."""
    width = min(console.width, 100) - 1
    for line in textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    " if hang else "  "):
        console.print(line, style=style)


def percentage(part: int, whole: int) -> str:
    """A fraction as a percentage.

    >>> percentage(1, 8)
    '12.5 %'
    """
    return f"{100 * part / whole:.1f} %"


def format_bytes(count: float) -> str:
    """A number of bytes with its unit.

    >>> format_bytes(1_500_000)
    '1.5 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 100 or unit == "bytes" else f"{count:.3g} {unit}"


def format_energy(kilowatt_hours: float) -> str:
    """Energy with its unit.

    >>> format_energy(287_600)
    '288 MWh'
    """
    for unit in ("kWh", "MWh", "GWh"):
        if kilowatt_hours < 1000 or unit == "GWh":
            break
        kilowatt_hours /= 1000
    return f"{kilowatt_hours:,.3g} {unit}"


def format_duration(seconds: float) -> str:
    """A duration with its unit.

    >>> format_duration(90)
    '1.5 minutes'
    """
    for unit, length in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            amount = seconds / length
            number = f"{amount:,.0f}" if amount >= 100 else f"{amount:.2g}"
            return f"{number} {unit[:-1] if number == '1' else unit}"
    return f"{seconds:.2g} seconds"
