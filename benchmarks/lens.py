"""The views of a language model, in CPU seconds, beside an earlier version; prints one JSON object.

    python benchmarks/lens.py MODEL [--base SRC]

128 tokens of text; 24 for ablation and 12 for activation patching, which run the model once for each component. One
thread; each version runs in a process of its own, and each number is the least of the runs that fit into two seconds.
`--base` is the src folder of an earlier version: then every number of its views is compared with ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXT = (
    "The people of the old city built a wall around the garden, and in the evening they came together there to "
    "sing. A merchant who had travelled for many years told them of a river that ran north, of ships with seven "
    "sails, and of a king who had asked every guest the same question. Nobody could answer it, he said, because "
    "the king had forgotten what he wanted to know. The children laughed, and the oldest of the women said that "
    "she remembered the question, for her mother had once been such a guest. She stood up slowly, looked at the "
    "merchant, and waited until it was quiet in the garden; then she asked him where he had learned to lie so "
    "well."
)
SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {},
    "combined-heads": {},
    "head": {},
    "heads": {},
    "logit-lens": {},
    "residual-norms": {},
    "logit-attribution": {},
    "neurons": {},
    "surprisal": {},
    "interventions": {"edit": ("head 20.3 off",)},
    "contextual-embeddings": {"word": "river", "other_text": "They sat on the bank of the river and fished."},
    "gradient-reach": {},
    "ablation": {},
    "activation-patching": {"other_text": ""},
}
TOKENS = {"ablation": 24, "activation-patching": 12}


def main() -> None:
    """Measure one version, or run both and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or .gguf file of a decoder")
    parser.add_argument("--base", help="src folder of an earlier version")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        json.dump(dict(measure(args.model)), sys.stdout)
        return
    from common import print_result, run_process

    found: dict[str, dict[str, Any]] = {}
    for name, source in {"clearstory": None, **({"base": args.base} if args.base else {})}.items():
        path = os.environ.get("PYTHONPATH", "") if source is None else str(Path(source).resolve())
        output, _ = run_process(["env", f"PYTHONPATH={path}", sys.executable, __file__, args.model, "--measure"])
        found[name] = json.loads(output)
    views: dict[str, dict[str, Any]] = {}
    for view, ours in found["clearstory"].items():
        views[view] = {"tokens": ours["tokens"], "seconds": ours["seconds"]}
        if (base := found.get("base", {}).get(view)) is not None:
            difference = largest_difference(ours["numbers"], base["numbers"])
            ratio = round(base["seconds"] / ours["seconds"], 2)
            views[view] |= {"base_seconds": base["seconds"], "speed_ratio": ratio, "largest_difference": difference}
    print_result({"model": Path(args.model).name, "views": views})


def measure(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """CPU seconds of each view, and all its numbers."""
    import torch

    from clearstory.formats.folders import open_model
    from clearstory.lens.registry import load_view
    from clearstory.models.prompts import PromptOptions

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    opened: Any = open_model(path)
    model, tokenizer = opened.model.eval(), opened.tokenizer
    ids = tokenizer.encode(TEXT)
    for name, settings in SETTINGS.items():
        count = TOKENS.get(name, 128)
        text = tokenizer.decode(ids[:count])
        if name == "activation-patching":
            other = [*ids[1:count], ids[0]]
            settings = {"other_text": tokenizer.decode(other), "words": ("king", "garden")}
        function = load_view(name)
        if "prompt" in signature(function).parameters:
            settings = {**settings, "prompt": PromptOptions(raw=True)}
        seconds: list[float] = []
        while not seconds or sum(seconds) < 2:
            started = time.process_time()
            view = function(model, tokenizer, text, **settings)
            seconds.append(time.process_time() - started)
        yield name, {"tokens": count, "seconds": round(min(seconds), 3), "numbers": list(numbers(view))}


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a view."""
    if isinstance(value, float):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from numbers(each)


def largest_difference(ours: list[float], theirs: list[float]) -> float | None:
    """The largest difference, as a share of the value or of 1, whichever is larger; None for other numbers of them."""
    if len(ours) != len(theirs):
        return None
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    return max((abs(a - b) / max(1.0, abs(b)) for a, b in pairs), default=0.0)


if __name__ == "__main__":
    main()
