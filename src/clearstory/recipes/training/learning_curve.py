"""Curve: how a run learnt, drawn over what runs of its kind usually look like.

A reference is a file of recipes/training/references/, made by benchmarks/references.py: bits per byte against tokens learnt
from, the lowest and highest of several seeds. Against tokens, since seconds belong to a machine.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from clearstory.lens.rendering.render import save
from clearstory.lens.views import Band, Curve, Line
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.training.metrics_log import read_metrics


def draw_curve(run: RunFolder, preset: str, corpus: str) -> Path | None:
    """Write curve.svg of a run; None when it has not looked at its validation split yet."""
    view = learning_curve(run, preset, corpus)
    return None if view is None else save(view, run.folder / "curve.svg")


def learning_curve(run: RunFolder, preset: str, corpus: str) -> Curve | None:
    """Validation loss of a run against the tokens it has learnt from, the reference behind it where there is one."""
    looks = [row for row in read_metrics(run.metrics) if row["kind"] == "look"]
    if not looks:
        return None
    bits = all(row["bits_per_byte"] is not None for row in looks)
    unit, key = (
        ("bits per byte", "bits_per_byte") if bits else (f"nats per {looks[0].get('token', 'token')}", "nats_per_token")
    )
    points = [(float(row["tokens"]), float(row[key])) for row in looks if row["tokens"] > 0]
    line = Line(f"{run.folder.name}, validation", tuple(x for x, _ in points), tuple(y for _, y in points))
    band = reference(preset, corpus) if bits else None
    return Curve(
        title=f"How {preset} learnt {corpus}",
        lines=(line,),
        x_label="tokens learnt from",
        y_label=unit,
        log_x=True,
        band=band,
        caption=compared(points, band),
    )


def reference(preset: str, corpus: str) -> Band | None:
    """The shipped reference of a preset on a corpus; None where there is none."""
    name = f"{preset}-{corpus.removeprefix('corpus:')}.json"
    file = files("clearstory.recipes.training") / "references" / name
    if not file.is_file():
        return None
    said: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    x, low, high = (tuple(map(float, said[key])) for key in ("tokens", "low", "high"))
    return Band(f"{preset} on {corpus}, {said['seeds']} seeds", x, low, high)


def compared(points: list[tuple[float, float]], band: Band | None) -> str | None:
    """One sentence on whether the curve is normal, for a run that went as far as the reference goes."""
    if band is None or not points:
        return None
    tokens, bits = points[-1]
    near = [i for i, x in enumerate(band.x) if 0.8 * tokens <= x <= 1.25 * tokens]
    if not near:
        return None
    place = min(near, key=lambda i: abs(band.x[i] - tokens))
    low, high = band.low[place], band.high[place]
    if bits > high + 0.02:
        return f"{bits:.3f} bits per byte, above the {low:.3f} to {high:.3f} of reference runs after as many tokens"
    if bits < low - 0.02:
        return f"{bits:.3f} bits per byte, below the {low:.3f} to {high:.3f} of reference runs after as many tokens"
    return f"{bits:.3f} bits per byte, where reference runs were after as many tokens ({low:.3f} to {high:.3f})"
