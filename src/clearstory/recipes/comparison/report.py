"""Report: a leaderboard as a self-contained HTML page, and its training curves as a view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clearstory.lens.rendering.canvas import Scale, escape
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.palette import DARK, LIGHT, LINE_COLORS
from clearstory.lens.views import Curve, Line
from clearstory.lens.views.formatting import format_number
from clearstory.metrics import LIKELIHOOD
from clearstory.models.families import FAMILY_DESCRIPTIONS
from clearstory.recipes.comparison.leaderboard import (
    Leaderboard,
    LeaderboardEntry,
    ModelResult,
)


def curve_view(leaderboard: Leaderboard) -> Curve:
    """Bits per byte against CPU seconds of training, one line for each model, best first.

    Evaluations far above the final ones are left out, so that the differences between models remain visible.
    """
    entries = [entry for entry in leaderboard.entries if entry.result.curve]
    finals = [entry.result.curve[-1][1] for entry in entries]
    top = max(finals, default=0.0) + max(0.35, 0.5 * (max(finals, default=0.0) - min(finals, default=0.0)))
    lines = []
    for entry in entries:
        points = [(x, y) for x, y in entry.result.curve if y <= top]
        lines.append(Line(entry.result.model, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return Curve(
        title=f"Training curves: {leaderboard.text}",
        lines=tuple(lines),
        x_label="CPU seconds",
        y_label="bits per byte",
        log_x=True,
        caption=leader_caption(lines),
    )


def leader_caption(lines: Sequence[Line]) -> str | None:
    """A sentence on which model was best at first and which at the end; None for fewer than two models."""
    points = sorted((x, y, line.name) for line in lines for x, y in zip(line.x, line.y, strict=True))
    latest: dict[str, float] = {}
    leaders: list[tuple[float, str]] = []
    for x, y, name in points:
        latest[name] = y
        best = min(latest, key=latest.__getitem__)
        if not leaders or leaders[-1][1] != best:
            leaders.append((x, best))
    if len(lines) < 2 or not leaders:
        return None
    if len(leaders) == 1:
        return f"{leaders[0][1]} is best from the first evaluation to the last."
    seconds = format_number(round(leaders[-1][0], 1))
    return f"{leaders[0][1]} is best at the beginning, {leaders[-1][1]} after {seconds} CPU seconds."


def report_html(leaderboard: Leaderboard) -> str:
    """The page: outcome, table, training curves, samples, models, and the command that repeats the comparison."""
    curves = curve_view(leaderboard)
    colors = {line.name: index for index, line in enumerate(curves.lines)}
    parts = [
        f"<h1>{escape(leaderboard.headline)}</h1>",
        f"<p class=soft>{escape(' '.join(filter(None, (leaderboard.progress, setup_text(leaderboard)))))}</p>",
        leaderboard_table(leaderboard, colors),
        "".join(f"<p>{escape(pair.sentence)}.</p>" for pair in leaderboard.pairs),
    ]
    if curves.lines:
        parts.append(f"<h2>Training curves</h2><div class=drawing>{render_svg(curves)}</div>")
    parts.append(samples_section(leaderboard))
    parts.append(models_section(leaderboard))
    machine = ", ".join(f"{name} {value}" for name, value in leaderboard.machine.items())
    parts.append(
        f"<h2>Reproduce</h2><pre class=code>{escape(leaderboard.command)}</pre>"
        f"<p class=soft>Measured on: {escape(machine)}.</p>"
    )
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return PAGE.format(title=escape(leaderboard.headline), light=light, dark=dark, body="\n".join(parts))


def css_variables(colors: dict[str, str]) -> str:
    """Colours as CSS custom properties."""
    return "".join(f"--{name}:{color};" for name, color in colors.items())


def setup_text(leaderboard: Leaderboard) -> str:
    """How the models were trained and measured."""
    training = ""
    if leaderboard.trained_on:
        training = f"Each model was trained on {leaderboard.trained_on} with {leaderboard.budget}. "
    intervals = (
        f"Intervals are 95 % bootstrap intervals over {leaderboard.units:,} {leaderboard.unit}: the variation of bits "
        "per byte to expect on other text of the same kind."
        if leaderboard.units > 1
        else "The text is too short for intervals."
    )
    return (
        f"{training}All were evaluated on the same {leaderboard.bytes:,} bytes, {leaderboard.text}. {intervals} "
        "Speeds are per CPU second."
    )


TABLE_COLUMNS = (
    ("model", ""), ("family", ""), ("parameters", "n"), ("on disk", "n"), ("training, CPU s", "n"), ("epochs", "n"),
    ("training, tokens/s", "n"), ("generation, tokens/s", "n"), ("bits per byte", "n"), ("95 % interval", ""),
)  # fmt: skip
"""Titles and CSS classes of the columns."""


def leaderboard_table(leaderboard: Leaderboard, colors: dict[str, int]) -> str:
    """The entries as an HTML table, best first, with their notes."""
    ends = [end for entry in leaderboard.entries if entry.interval for end in entry.interval]
    scale = Scale(min(ends), max(ends), 6, 134) if ends else None
    head = "".join(f"<th scope=col class='{css_class}'>{escape(name)}</th>" for name, css_class in TABLE_COLUMNS)
    rows = "".join(
        f"<tr>{''.join(entry_cells(entry, colors.get(entry.result.model), scale))}</tr>"
        for entry in leaderboard.entries
    )
    notes = "".join(
        f"<li><b>{escape(entry.result.model)}</b>: {escape(note)}.</li>"
        for entry in leaderboard.entries
        for note in entry.notes
    )
    return (
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{f'<ul class=soft>{notes}</ul>' if notes else ''}"
    )


def entry_cells(entry: LeaderboardEntry, color: int | None, scale: Scale | None) -> Iterable[str]:
    """The cells of one row; `color` is the index of the model's line in the training curves."""
    result = entry.result
    dot = ""
    if color is not None:
        dot = (
            f"<i class={'ring' if color >= LINE_COLORS else 'dot'} style='--of:var(--line-{color % LINE_COLORS})'></i>"
        )
    measure = "" if result.measure == LIKELIHOOD else f" ({result.measure})"
    yield f"<th scope=row>{dot}{escape(result.model)}</th><td>{escape(result.family + measure)}</td>"
    yield number_cell(result.parameters) + number_cell(result.bytes_on_disk, "B")
    yield number_cell(result.cpu_seconds, digits=1) + number_cell(result.epochs, digits=2)
    yield number_cell(result.tokens_per_second) + number_cell(result.generation_tokens_per_second)
    bits = entry.bits_per_byte
    yield "<td class=n>–</td>" if bits is None else f"<td class='n bits' title='{bits!r}'>{bits:.4f}</td>"
    if entry.interval is None or scale is None or bits is None:
        yield "<td>–</td>"
    else:
        yield interval_cell(entry, bits, entry.interval, color, scale)


def interval_cell(
    entry: LeaderboardEntry, bits: float, interval: tuple[float, float], color: int | None, scale: Scale
) -> str:
    """The interval as a line with a dot at the mean and a circle at each seed, and in numbers."""
    low, high = interval
    stroke = "var(--soft)" if color is None else f"var(--line-{color % LINE_COLORS})"
    seeds = "".join(
        f"<circle cx={scale(each.bits_per_byte):.1f} cy=9 r=1.6 fill=none stroke={stroke} />"
        for each in entry.seeds
        if each.bits_per_byte is not None and len(entry.seeds) > 1 and scale.low <= each.bits_per_byte <= scale.high
    )
    return (
        f"<td class=whisker><svg width=140 height=18 viewBox='0 0 140 18' aria-hidden=true>"
        f"<line x1={scale(low):.1f} x2={scale(high):.1f} y1=9 y2=9 stroke={stroke} stroke-width=2 />"
        f"<circle cx={scale(bits):.1f} cy=9 r=3.5 fill={stroke} />{seeds}</svg>"
        f"<span>{low:.3f} – {high:.3f}</span></td>"
    )


def number_cell(value: float | None, unit: str = "", digits: int | None = None) -> str:
    """A cell with an abbreviated number; its title attribute has all digits."""
    if value is None:
        return "<td class=n>–</td>"
    text = f"{value:,.{digits}f}" if digits is not None else format_number(value if value < 1000 else round(value))
    if unit:
        letter = text[-1] if text[-1].isalpha() else ""
        text = f"{text.removesuffix(letter)} {letter}{unit}"
    return f"<td class=n title='{value!r}'>{text}</td>"


def samples_section(leaderboard: Leaderboard) -> str:
    """The samples of all models after the same prompt; empty if there are none."""
    results = [entry.result for entry in leaderboard.entries if entry.result.sample]
    if not results:
        return ""
    blocks = "".join(
        f"<figure><figcaption>{escape(result.model)}</figcaption>"
        f"<pre><b>{clean_lines(leaderboard.prompt)}</b>{clean_lines(result.sample)}</pre></figure>"
        for result in results
    )
    caption = "Same prompt, same seed, temperature 0.8."
    return f"<h2>Samples</h2><p class=soft>{caption}</p><div class=samples>{blocks}</div>"


def clean_lines(text: str) -> str:
    """A text escaped for HTML line by line, line ends kept."""
    return "\n".join(escape(line) for line in text.split("\n"))


def models_section(leaderboard: Leaderboard) -> str:
    """Description of each family, with the sizes, tokenizers and windows of its models."""
    parts = []
    for family in dict.fromkeys(entry.result.family for entry in leaderboard.entries):
        models = []
        for result in (entry.result for entry in leaderboard.entries if entry.result.family == family):
            detail = ", ".join(filter(None, (result.summary, tokenizer_text(result), result.windows)))
            models.append(f"<li><b>{escape(result.model)}</b> <span class=soft>{escape(detail)}</span></li>")
        description = f": {escape(FAMILY_DESCRIPTIONS[family])}" if family in FAMILY_DESCRIPTIONS else ""
        parts.append(f"<p><b>{escape(family)}</b>{description}</p><ul>{''.join(models)}</ul>")
    return f"<h2>Models</h2>{''.join(parts)}"


def tokenizer_text(result: ModelResult) -> str:
    """The tokenizer and the size of its vocabulary."""
    return f"{result.tokenizer} ({result.vocab:,} tokens)" if result.vocab else ""


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ {light} --page: #f6f7f9; }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} --page: #0d0f13; }} }}
* {{ box-sizing: border-box; }}
body {{ background: var(--page); color: var(--ink); margin: 0; padding: 2.5rem 1.25rem 4rem;
  font: 15px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif; }}
main {{ max-width: 1060px; margin: 0 auto; }}
h1 {{ font-size: 1.55rem; line-height: 1.3; margin: 0 0 .6rem; text-wrap: balance; }}
h2 {{ font-size: 1.1rem; margin: 2.6rem 0 .7rem; }}
p {{ margin: .5rem 0; max-width: 76ch; }}
.soft {{ color: var(--soft); }}
.wide, .drawing {{ overflow-x: auto; }}
.wide {{ background: var(--paper); border: 1px solid var(--rule); border-radius: 8px; margin: 1.4rem 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: 13.5px; }}
th, td {{ padding: .5rem .7rem; text-align: left; white-space: nowrap; border-top: 1px solid var(--rule); }}
thead th {{ border-top: 0; color: var(--soft); font-weight: 500; font-size: 12px; vertical-align: bottom;
  white-space: normal; }}
tbody th {{ font-weight: 600; position: sticky; left: 0; background: var(--paper); }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
.text {{ white-space: normal; overflow-wrap: anywhere; }}
.bits {{ font-weight: 600; }}
.dot, .ring {{ display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: .55em;
  border: 2px solid var(--of); }}
.dot {{ background: var(--of); }}
.whisker svg {{ display: block; }}
.whisker span {{ color: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }}
.drawing svg {{ display: block; width: 100%; min-width: 600px; max-width: 900px; height: auto;
  border: 1px solid var(--rule); border-radius: 8px; }}
ul {{ padding-left: 1.2rem; max-width: 90ch; }}
.samples {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 14px; }}
figure {{ margin: 0; padding: .8rem 1rem; background: var(--paper); border: 1px solid var(--rule);
  border-radius: 8px; }}
figcaption {{ font-weight: 600; font-size: 13px; margin-bottom: .35rem; }}
pre {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 12.5px/1.55 ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; }}
.code {{ background: var(--paper); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem 1rem; }}
</style>
<main>
{body}
</main>
</html>
"""
