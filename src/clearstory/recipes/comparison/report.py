"""Report: a ladder as a page that needs no other file, and its learning curves as one drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clearstory.lens.rendering.svg_canvas import DARK, INKS, LIGHT, clean
from clearstory.lens.rendering.scales import Scale, short
from clearstory.lens.rendering.svg import svg
from clearstory.lens.views import Curve, Line
from clearstory.recipes.comparison.leaderboard import LIKELIHOOD, PSEUDO, Ladder, Rung, Trial

FAMILIES = {
    "ngram": "counts which token followed each few tokens, and falls back on fewer where it has not met them.",
    "hmm": "moves between hidden states; each state writes a token and chooses the next state.",
    "rnn": "carries one vector from token to token and rewrites all of it at every step.",
    "gru": "carries one vector; gates decide how much of it to keep and how much to rewrite.",
    "lstm": "carries a vector that gates protect: they decide what is written into it, what stays and what is shown.",
    "transformer": "looks back at all the tokens in its window at once, and learns which of them to attend to.",
    "residual": "an n-gram, and a small network that learns what it got wrong.",
}
"""What each kind of model does, in a sentence."""


def curves(ladder: Ladder) -> Curve:
    """Bits per byte against processor seconds, a line for each model, best first.

    Looks far above where the models ended are left out: the first ones would leave no room for the rest.
    """
    drawn = [rung for rung in ladder.rungs if rung.trial.curve]
    ends = [rung.trial.curve[-1][1] for rung in drawn]
    top = max(ends, default=0.0) + max(0.35, 0.5 * (max(ends, default=0.0) - min(ends, default=0.0)))
    lines = []
    for rung in drawn:
        points = [(x, y) for x, y in rung.trial.curve if y <= top]
        lines.append(Line(rung.trial.model, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return Curve(
        title=f"Learning curves: {ladder.text}",
        lines=tuple(lines),
        x_label="seconds of the processor",
        y_label="bits per byte",
        log_x=True,
        caption=lead(lines),
    )


def lead(lines: Sequence[Line]) -> str | None:
    """One sentence on who led when, from the looks."""
    looks = sorted((x, y, line.name) for line in lines for x, y in zip(line.x, line.y, strict=True))
    now: dict[str, float] = {}
    leaders: list[tuple[float, str]] = []
    for x, y, name in looks:
        now[name] = y
        best = min(now, key=now.__getitem__)
        if not leaders or leaders[-1][1] != best:
            leaders.append((x, best))
    if len(lines) < 2 or not leaders:
        return None
    if len(leaders) == 1:
        return f"{leaders[0][1]} led from the first look to the last."
    first = f"{leaders[0][1]} led at first"
    return f"{first}; {leaders[-1][1]} leads from {short(round(leaders[-1][0], 1))} seconds on."


def html(ladder: Ladder) -> str:
    """The page: verdict, table, curves, samples, and how to do it again."""
    view = curves(ladder)
    inks = {line.name: number for number, line in enumerate(view.lines)}
    parts = [
        f"<h1>{clean(verdict(ladder))}</h1>",
        f"<p class=soft>{clean(setting(ladder))}</p>",
        table(ladder, inks),
        "".join(f"<p>{clean(pair.sentence)}.</p>" for pair in ladder.pairs),
    ]
    if view.lines:
        parts.append(f"<h2>How they learnt</h2><div class=drawing>{svg(view)}</div>")
    parts.append(samples(ladder))
    parts.append(kinds(ladder))
    machine = ", ".join(f"{name} {value}" for name, value in ladder.machine.items())
    parts.append(
        f"<h2>Again</h2><pre class=code>{clean(ladder.command)}</pre><p class=soft>Measured on: {clean(machine)}.</p>"
    )
    colours = (tokens(LIGHT), tokens(DARK))
    return PAGE.format(title=clean(verdict(ladder)), light=colours[0], dark=colours[1], body="\n".join(parts))


def tokens(colours: dict[str, str]) -> str:
    """Colours as custom properties."""
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


def verdict(ladder: Ladder) -> str:
    """The outcome in a line."""
    best = [rung for rung in ladder.rungs if rung.bits_per_byte is not None]
    if not best:
        return f"No model gives bits per byte of {ladder.text}"
    if best[0].trial.measure != LIKELIHOOD:
        return f"{best[0].trial.model} tells {ladder.text} best from both sides: {best[0].bits_per_byte:.3f} ({PSEUDO})"
    first = f"{best[0].trial.model} foresees {ladder.text} best: {best[0].bits_per_byte:.3f} bits per byte"
    return first if len(best) > 1 else f"{best[0].trial.model}: {best[0].bits_per_byte:.3f} bits per byte"


def setting(ladder: Ladder) -> str:
    """What was done, in words."""
    learnt = f"Each model learnt from {ladder.learnt} with {ladder.budget}. " if ladder.learnt else ""
    return (
        f"{learnt}All foresaw the same {ladder.bytes:,} bytes, {ladder.text}. Intervals hold 95 % of a bootstrap over "
        f"{ladder.units:,} {ladder.unit}: how far bits per byte would move on other text of the kind. Speeds are per "
        "second of the processor."
    )


HEADS = (
    ("model", ""), ("family", ""), ("parameters", "n"), ("on disk", "n"), ("training, CPU s", "n"), ("passes", "n"),
    ("learns, tokens/s", "n"), ("writes, tokens/s", "n"), ("bits per byte", "n"), ("95 % interval", ""),
)  # fmt: skip


def table(ladder: Ladder, inks: dict[str, int]) -> str:
    """The rungs, best first."""
    ends = [end for rung in ladder.rungs if rung.interval for end in rung.interval]
    scale = Scale(min(ends), max(ends), 6, 134) if ends else None
    head = "".join(f"<th scope=col class='{look}'>{clean(name)}</th>" for name, look in HEADS)
    rows = "".join(f"<tr>{''.join(cells(rung, inks.get(rung.trial.model), scale))}</tr>" for rung in ladder.rungs)
    notes = "".join(
        f"<li><b>{clean(rung.trial.model)}</b>: {clean(note)}.</li>"
        for rung in ladder.rungs
        if (note := rung.trial.failed or rung.trial.note)
    )
    return (
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{f'<ul class=soft>{notes}</ul>' if notes else ''}"
    )


def cells(rung: Rung, ink: int | None, scale: Scale | None) -> Iterable[str]:
    """One row."""
    trial = rung.trial
    dot = (
        "" if ink is None else f"<i class={'ring' if ink >= INKS else 'dot'} style='--of:var(--line-{ink % INKS})'></i>"
    )
    how = "" if trial.measure == LIKELIHOOD else f" ({trial.measure})"
    yield f"<th scope=row>{dot}{clean(trial.model)}</th><td>{clean(trial.family + how)}</td>"
    yield number(trial.parameters) + number(trial.bytes_on_disk, "B")
    yield number(trial.cpu_seconds, digits=1) + number(trial.passes, digits=2)
    yield number(trial.tokens_per_second) + number(trial.generation_tokens_per_second)
    bits = rung.bits_per_byte
    yield "<td class=n>–</td>" if bits is None else f"<td class='n bits' title='{bits!r}'>{bits:.4f}</td>"
    if rung.interval is None or scale is None or bits is None:
        yield "<td>–</td>"
        return
    low, high = rung.interval
    colour = "var(--soft)" if ink is None else f"var(--line-{ink % INKS})"
    seeds = "".join(
        f"<circle cx={scale(each.bits_per_byte):.1f} cy=9 r=1.6 fill=none stroke={colour} />"
        for each in rung.seeds
        if each.bits_per_byte is not None and len(rung.seeds) > 1 and scale.low <= each.bits_per_byte <= scale.high
    )
    yield (
        f"<td class=whisker><svg width=140 height=18 viewBox='0 0 140 18' aria-hidden=true>"
        f"<line x1={scale(low):.1f} x2={scale(high):.1f} y1=9 y2=9 stroke={colour} stroke-width=2 />"
        f"<circle cx={scale(bits):.1f} cy=9 r=3.5 fill={colour} />{seeds}</svg>"
        f"<span>{low:.3f} – {high:.3f}</span></td>"
    )


def number(value: float | None, unit: str = "", digits: int | None = None) -> str:
    """A cell with a number as people write it; the whole one stands in its title."""
    if value is None:
        return "<td class=n>–</td>"
    text = f"{value:,.{digits}f}" if digits is not None else short(value if value < 1000 else round(value))
    if unit:
        letter = text[-1] if text[-1].isalpha() else ""
        text = f"{text.removesuffix(letter)} {letter}{unit}"
    return f"<td class=n title='{value!r}'>{text}</td>"


def samples(ladder: Ladder) -> str:
    """What each model wrote after the same words."""
    written = [rung.trial for rung in ladder.rungs if rung.trial.sample]
    if not written:
        return ""
    blocks = "".join(
        f"<figure><figcaption>{clean(trial.model)}</figcaption>"
        f"<pre><b>{lines(ladder.prompt)}</b>{lines(trial.sample)}</pre></figure>"
        for trial in written
    )
    how = "The same beginning, the same seed, temperature 0.8."
    return f"<h2>What they write</h2><p class=soft>{how}</p><div class=samples>{blocks}</div>"


def lines(text: str) -> str:
    """A text with its line ends."""
    return "\n".join(clean(line) for line in text.split("\n"))


def kinds(ladder: Ladder) -> str:
    """What each kind of model is, and which models are of it."""
    parts = []
    for family in dict.fromkeys(rung.trial.family for rung in ladder.rungs):
        models = []
        for trial in (rung.trial for rung in ladder.rungs if rung.trial.family == family):
            detail = ", ".join(filter(None, (trial.shape, tokenizer(trial), trial.windows)))
            models.append(f"<li><b>{clean(trial.model)}</b> <span class=soft>{clean(detail)}</span></li>")
        sentence = f" {clean(FAMILIES[family])}" if family in FAMILIES else ""
        parts.append(f"<p><b>{clean(family)}</b>{sentence}</p><ul>{''.join(models)}</ul>")
    return f"<h2>What they are</h2>{''.join(parts)}"


def tokenizer(trial: Trial) -> str:
    """What makes its tokens."""
    return f"{trial.tokenizer} ({trial.vocab:,} tokens)" if trial.vocab else ""


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
