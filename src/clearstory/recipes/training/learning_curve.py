"""Learning curve of a run, drawn over the band of reference runs of the same preset and corpus.

A reference is a file in recipes/training/references/, written by benchmarks/reference_curves.py: the lowest and
highest bits per byte of several seeds against training tokens, since times depend on the machine.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Band, Curve, Line
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.training.metrics_log import read_metrics


def save_learning_curve(folder: RunFolder, preset: str, corpus: str) -> Path | None:
    """Write curve.svg of a run; None if it has not been evaluated yet."""
    view = learning_curve(folder, preset, corpus)
    return None if view is None else save_view(view, folder.path / "curve.svg")


def learning_curve(folder: RunFolder, preset: str, corpus: str) -> Curve | None:
    """Validation loss against training tokens, with the reference band where there is one; None without evaluations."""
    records = [record for record in read_metrics(folder.metrics_file) if record["kind"] == "evaluation"]
    evaluations = [record for record in records if record.keys() >= {"bits_per_byte", "nats_per_token", "tokens"}]
    if not evaluations:
        return None
    if has_bits := all(record["bits_per_byte"] is not None for record in evaluations):
        unit, key = "bits per byte", "bits_per_byte"
    else:
        unit, key = f"nats per {evaluations[0]['unit']}", "nats_per_token"
    points = [(float(record["tokens"]), float(record[key])) for record in evaluations if record["tokens"] > 0]
    line = Line(f"{folder.path.name}, validation", tuple(x for x, _ in points), tuple(y for _, y in points))
    band = load_reference(preset, corpus) if has_bits else None
    return Curve(
        title=f"Learning curve of {preset} on {corpus}",
        lines=(line,),
        x_label="training tokens",
        y_label=unit,
        log_x=True,
        band=band,
        caption=compare_with_reference(points, band),
    )


def load_reference(preset: str, corpus: str) -> Band | None:
    """The reference band of a preset on a corpus; None if there is none."""
    name = f"{preset}-{corpus.removeprefix('corpus:')}.json"
    file = files("clearstory.recipes.training") / "references" / name
    if not file.is_file():
        return None
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    x, low, high = (tuple(map(float, values[key])) for key in ("tokens", "low", "high"))
    return Band(f"{preset} on {corpus}, {values['seeds']} seeds", x, low, high)


def compare_with_reference(points: list[tuple[float, float]], band: Band | None) -> str | None:
    """One sentence on how the last point compares with the reference runs after as many tokens; None if none had."""
    if band is None or not points:
        return None
    tokens, bits = points[-1]
    comparable = [index for index, x in enumerate(band.x) if 0.8 * tokens <= x <= 1.25 * tokens]
    if not comparable:
        return None
    index = min(comparable, key=lambda index: abs(band.x[index] - tokens))
    low, high = band.low[index], band.high[index]
    if bits > high + 0.02:
        return f"{bits:.3f} bits per byte, above the {low:.3f} to {high:.3f} of reference runs at the same token count"
    if bits < low - 0.02:
        return f"{bits:.3f} bits per byte, below the {low:.3f} to {high:.3f} of reference runs at the same token count"
    return f"{bits:.3f} bits per byte, within the {low:.3f} to {high:.3f} of reference runs at the same token count"
