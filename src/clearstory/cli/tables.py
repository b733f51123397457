"""Tables: a plan, set in columns for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from clearstory.recipes.plan import Part, Plan, Run


def draw_plan(plan: Plan, console: Console) -> None:
    """A plan in four tables: parts, memory, arithmetic, time."""
    c, recipe = plan.config, plan.recipe
    console.print(f"{plan.model}: {plan.parameters:,} parameters, counted on paper and on the model itself\n")
    rows = [part_row(part, plan.parameters) for part in plan.parts]
    rows.append(["all", "", "", "", f"{plan.parameters:,}", "100 %"])
    if c.tied:
        rows.insert(-1, ["unembedding", "the embedding", "", "", "0", ""])
    table(console, ["part", "one of them", "per layer", "layers", "parameters", "share"], rows)
    title = f"memory, {recipe.batch_size:,} x {c.context:,} tokens"
    table(console, [title, ""], [[MEMORY[name], size(value)] for name, value in plan.memory.items()])
    share = f"each of {recipe.devices:,} devices" if recipe.devices > 1 else "one device"
    console.print(
        f"  training with AdamW, mixed precision: {size(plan.training_per_device)} on {share} "
        "(weights, gradients and moments in fp32, divided; activations in bf16)\n"
    )
    table(
        console,
        ["arithmetic for each token", "FLOP"],
        [[FLOPS[name], f"{value:,}"] for name, value in plan.flops.items()],
    )
    console.print(
        f"  {plan.tokens:,} tokens take {plan.training_flops:.3g} FLOP; at {recipe.utilization:.0%} of the peak:\n"
    )
    table(console, ["on", "peak", "time", "energy", "cost", "memory"], [run_row(run) for run in plan.runs])
    for run in plan.runs:
        console.print(f"  {run.processor.name}: {run.processor.source}", style="dim")


MEMORY = {
    "weights_fp32": "weights in fp32",
    "weights_bf16": "weights in bf16",
    "gradients_fp32": "gradients in fp32",
    "adamw_fp32": "AdamW's two moments in fp32",
    "activations_fp32": "activations in fp32",
    "activations_bf16": "activations in bf16",
    "cache_bf16": "keys and values of a full context in bf16",
}
FLOPS = {
    "weights": "2 for each weight it meets",
    "attention": "attention over a full context",
    "forward": "reading it",
    "training": "learning from it, three times as much",
}


def part_row(part: Part, whole: int) -> list[str]:
    """One line of the table of parts."""
    return [
        part.name,
        " x ".join(f"{side:,}" for side in part.shape),
        f"{part.each:,}",
        f"{part.layers:,}",
        f"{part.parameters:,}",
        f"{part.parameters / whole:.1%}".replace("%", " %"),
    ]


def run_row(run: Run) -> list[str]:
    """One line of the table of times."""
    count = f"{run.devices:,} x " if run.devices > 1 else ""
    return [
        f"{count}{run.processor.name}",
        f"{run.processor.flops / 1e12:,.3g} TFLOP/s {run.processor.precision}",
        span(run.seconds),
        "" if run.kilowatt_hours is None else f"{run.kilowatt_hours:,.3g} kWh",
        "" if run.dollars is None else f"${run.dollars:,.0f}",
        f"{size(run.processor.memory)}: {'fits' if run.fits else 'too small'}",
    ]


def table(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be: the first is words, the others stand to the right. Nothing is cut off."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *rows]:
        cells = [cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        console.print(f"  {'  '.join(cells)}".rstrip())
    console.print()


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


def span(seconds: float) -> str:
    """A length of time as people say it.

    >>> span(90)
    '1.5 minutes'
    """
    for unit, length in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            amount = seconds / length
            return f"{amount:,.0f} {unit}" if amount >= 100 else f"{amount:.2g} {unit}"
    return f"{seconds:.2g} seconds"
