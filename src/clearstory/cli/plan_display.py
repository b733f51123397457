"""Tables: a plan, set in columns for the terminal, narrow or wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console

from clearstory.recipes.planning.parameter_groups import ParameterGroup
from clearstory.recipes.planning.plan import ModelPlan, TrainingEstimate

WIDE = 100
"""Columns from which a table has room for what can be reckoned from the rest."""


def draw_plan(plan: ModelPlan, console: Console) -> None:
    """A plan in sections: parts, formula, memory, arithmetic, time; then what is to be known of them."""
    wide = console.width >= WIDE
    console.print(f"{plan.model}: {plan.parameters:,} parameters\n", style="bold")
    draw_parts(plan, console, wide)
    if plan.formula_terms:
        draw_terms(plan, console)
    draw_memory(plan, console)
    if plan.estimates:
        draw_arithmetic(plan, console)
        draw_runs(plan, console, wide)
    for note in plan.notes:
        say(console, note[0].upper() + note[1:] + ".")


def draw_parts(plan: ModelPlan, console: Console, wide: bool) -> None:
    """Every kind of matrix and vector, group by group."""
    heads = ["parameters", "one of them", "in a layer", *(["a layer's"] if wide else []), "layers", "in all", "share"]
    rows = []
    for group, parts in ((group, list(found)) for group, found in groupby(plan.parameter_groups, lambda part: part.group)):
        whole = sum(part.parameters for part in parts)
        lone = len(parts) == 1
        if not lone:
            rows.append([group, "", "", *([""] if wide else []), "", f"{whole:,}", share(whole, plan.parameters)])
        for part in parts:
            name = group if lone else f"  {part.name}"
            rows.append(part_row(part, f"{name}  {part.symbol}".rstrip(), plan.parameters, wide))
    if getattr(plan.config, "tie_embeddings", False):
        rows.append(["unembedding", "the embedding", "", *([""] if wide else []), "", "0", share(0, plan.parameters)])
    rows.append(["all", "", "", *([""] if wide else []), "", f"{plan.parameters:,}", "100 %"])
    table(console, heads, rows, total=True)
    if plan.parameters_per_layer is not None:
        say(console, f"Each of {plan.config.layers:,} layers: {plan.parameters_per_layer:,}.")
        console.print()


def part_row(part: ParameterGroup, name: str, whole: int, wide: bool) -> list[str]:
    """One line of the table of parts."""
    return [
        name,
        " × ".join(f"{side:,}" for side in part.shape),
        f"{part.count_per_layer:,}",
        *([f"{part.parameters_per_layer:,}"] if wide else []),
        f"{part.layers:,}",
        f"{part.parameters:,}",
        share(part.parameters, whole),
    ]


def draw_terms(plan: ModelPlan, console: Console) -> None:
    """The formula of a wiring, with each term's number."""
    c = plan.config
    formula = " + ".join(term.formula for term in plan.formula_terms)
    say(console, f"{formula}, with L = {c.layers:,}, d = {c.width:,}, V = {c.vocab:,}, T = {c.context:,}:")
    console.print()
    rows = [[term.formula, f"{term.parameters:,}", term.meaning] for term in plan.formula_terms]
    table(console, ["term", "parameters", "what"], [*rows, ["all", f"{plan.parameters:,}", ""]], total=True, words={2})


def draw_memory(plan: ModelPlan, console: Console) -> None:
    """Bytes, in both precisions."""
    recipe = plan.recipe
    rows = []
    for name, words in MEMORY.items():
        both = [plan.memory.get(f"{name}_{precision}") for precision in ("fp32", "bf16")]
        if any(both):
            rows.append([words, *("" if each is None else size(each) for each in both)])
    title = f"memory, {recipe.batch_size:,} × {plan.context:,} tokens" if plan.estimates else "memory"
    table(console, [title, "fp32", "bf16"], rows)
    for name, formula in plan.memory_formulas.items():
        say(console, f"{MEMORY[name][0].upper() + MEMORY[name][1:]}: {formula}.")
    if plan.training_bytes_per_device is not None:
        where = f"on each of {recipe.devices:,} devices" if recipe.devices > 1 else "on one device"
        say(
            console,
            f"Training with AdamW in mixed precision: {size(plan.training_bytes_per_device)} {where}: weights, gradients and "
            f"moments in fp32{', divided' if recipe.devices > 1 else ''}, and activations in bf16.",
        )
        console.print()


MEMORY = {
    "weights": "weights",
    "gradients": "gradients",
    "adamw": "optimizer's memory",
    "activations": "activations",
    "cache": "cache of generating",
}


def draw_arithmetic(plan: ModelPlan, console: Console) -> None:
    """Operations for each token, by part."""
    forward = plan.flops_per_token["forward"]
    rows = [[name, f"{value:,}", share(value, forward)] for name, value in plan.flops_by_group.items()]
    rows.append(["reading it", f"{forward:,}", "100 %"])
    table(console, ["arithmetic for each token", "FLOP", "share"], rows, total=True)
    attention = f", attention over all of {plan.context:,} tokens" if plan.flops_per_token["attention"] else ""
    say(
        console,
        f"Learning from it takes three times as much, {plan.flops_per_token['training']:,}. Two for each number it is multiplied "
        f"with{attention}; embeddings are looked up. Kaplan et al. 2020, table 1; Hoffmann et al. 2022, appendix F.",
    )
    console.print()


def draw_runs(plan: ModelPlan, console: Console, wide: bool) -> None:
    """Time, energy and cost on each kind of processor."""
    recipe, priced = plan.recipe, plan.recipe.price is not None
    devices = f"{recipe.devices:,} devices" if recipe.devices > 1 else "one device"
    heads = [f"time on {devices}", "peak", "time", *(["energy"] if wide or not priced else [])]
    heads += [*(["cost"] if priced else []), "memory"]
    rows = [run_row(run, energy=wide or not priced, priced=priced) for run in plan.estimates]
    table(console, heads, rows)
    say(
        console,
        f"{plan.tokens:,} tokens take {plan.total_flops:.3g} FLOP, at {100 * recipe.utilization:.3g} % of the peak "
        "in dense products. The peaks are their makers':",
    )
    for run in plan.estimates:
        say(console, f"{run.hardware.name}: {run.hardware.source}", style="dim", hang=True)
    console.print()


def run_row(run: TrainingEstimate, *, energy: bool, priced: bool) -> list[str]:
    """One line of the table of times."""
    precision = "" if run.hardware.precision == "bf16" else f" {run.hardware.precision}"
    return [
        run.hardware.name,
        f"{run.hardware.peak_flops / 1e12:,.3g} TFLOP/s{precision}",
        span(run.seconds),
        *(["" if run.kilowatt_hours is None else energy_of(run.kilowatt_hours)] if energy else []),
        *(["" if run.dollars is None else f"${run.dollars:,.0f}"] if priced else []),
        f"{size(run.hardware.memory)} {'fits' if run.fits else 'too small'}",
    ]


def table(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    total: bool = False,
    words: frozenset[int] | set[int] = frozenset(),
) -> None:
    """Columns as wide as they must be: the first is words, the others stand to the right but for `words`. Nothing is
    cut off. `total`: the last row stands under a line.
    """
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    line = "  ".join("─" * width for width in widths)
    for number, row in enumerate([heads, *rows]):
        if number == 1 or (total and number == len(rows)):
            console.print(f"  {line}", style="dim")
        left = {0, *words}
        cells = [cell.ljust(widths[i]) if i in left else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        console.print(f"  {'  '.join(cells)}".rstrip(), style="bold" if number == 0 else None)
    console.print()


def say(console: Console, sentence: str, style: str | None = None, *, hang: bool = False) -> None:
    """A sentence within the terminal's width, and within what the eye follows."""
    width = min(console.width, 100) - 1
    for line in textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    " if hang else "  "):
        console.print(line, style=style)


def share(part: int, whole: int) -> str:
    """Hundredths.

    >>> share(1, 8)
    '12.5 %'
    """
    return f"{100 * part / whole:.1f} %"


def size(count: float) -> str:
    """Bytes as people read them.

    >>> size(1_500_000)
    '1.5 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 100 or unit == "bytes" else f"{count:.3g} {unit}"


def energy_of(kilowatt_hours: float) -> str:
    """Energy as people read it.

    >>> energy_of(287_600)
    '288 MWh'
    """
    for unit in ("kWh", "MWh", "GWh"):
        if kilowatt_hours < 1000 or unit == "GWh":
            break
        kilowatt_hours /= 1000
    return f"{kilowatt_hours:,.3g} {unit}"


def span(seconds: float) -> str:
    """A length of time as people say it.

    >>> span(90)
    '1.5 minutes'
    """
    for unit, length in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            amount = seconds / length
            said = f"{amount:,.0f}" if amount >= 100 else f"{amount:.2g}"
            return f"{said} {unit[:-1] if said == '1' else unit}"
    return f"{seconds:.2g} seconds"
