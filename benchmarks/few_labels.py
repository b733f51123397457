"""Fine-tuning with few labels beside SetFit, in CPU seconds of one thread; prints one JSON object.

    python benchmarks/few_labels.py MODEL --setfit-python PYTHON [--few 8] [--draws 10] [--first 0]

MODEL is a folder of sentence-transformers, PYTHON an interpreter with setfit. `finetune --few` and SetFit with its
default settings train the same encoder on the same draws, alternately; both start from a loaded model. Accuracy is on
the development sentences, which neither sees in training. The data are SST-2's, or files given with --data and
--validation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import data_file, print_result

from clearstory.models.device import reusing_memory
from clearstory.recipes.finetuning.preparation import FinetuningPreparation
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.recipes.training.time_budget import TimeBudget


def ours(args: argparse.Namespace, seed: int) -> tuple[dict[str, float], dict[str, Any]]:
    """CPU seconds and accuracy of `finetune --few`, and what SetFit is to train on."""
    recipe = build_settings(
        FinetuneRecipe,
        {
            "model": args.model, "data": (args.data,), "validation": args.validation, "few": args.few,
            "problem": "single", "training": {"threads": 1, "device": "cpu", "seed": seed},
        },
    )  # fmt: skip
    preparation = FinetuningPreparation()
    run = preparation(RunFolder(Path("unused")), recipe, TimeBudget(float("inf")))
    run.trainer.set_total_steps(run.default_steps)
    started = time.process_time()
    with reusing_memory():
        while run.trainer.step < run.trainer.steps:
            run.trainer.train_step()
        with run.trainer.averaged_weights():
            trained = time.process_time()
            metrics = run.evaluate(None).metrics
    found = {
        "train_cpu_seconds": trained - started,
        "label_cpu_seconds": time.process_time() - trained,
        "accuracy": metrics["accuracy"],
    }
    data, labels = preparation.data, {name: id for id, name in enumerate(preparation.task.labels)}
    train, dev = (
        [(each.text, labels[each.labels[0]]) for each in part.examples] for part in (data.train, data.validation)
    )
    return found, {"model": args.model, "train": train, "dev": dev, "seed": seed}


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--setfit-python", required=True)
    parser.add_argument("--data")
    parser.add_argument("--validation")
    parser.add_argument("--few", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    args.data = args.data or str(data_file("sst/sst2-train.tsv.gz"))
    args.validation = args.validation or str(data_file("sst/sst2-dev.tsv.gz"))
    torch.set_num_threads(1)
    command = [args.setfit_python, str(Path(__file__).parent / "setfit_worker.py")]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    draws: dict[str, list[dict[str, float]]] = {"clearstory": [], "setfit": []}
    for seed in range(args.first, args.first + args.draws):
        found, asked = ours(args, seed)
        draws["clearstory"].append(found)
        print(json.dumps(asked), file=worker.stdin, flush=True)
        draws["setfit"].append(json.loads(worker.stdout.readline()))
    worker.stdin.close()
    worker.wait()
    result: dict[str, Any] = {"data": Path(args.data).name, "few": args.few, "first": args.first, "threads": 1}
    for name, each in draws.items():
        result[name] = {
            "accuracy": statistics.fmean(draw["accuracy"] for draw in each),
            "train_cpu_seconds": statistics.median(draw["train_cpu_seconds"] for draw in each),
            "label_cpu_seconds": statistics.median(draw["label_cpu_seconds"] for draw in each),
            "accuracies": [draw["accuracy"] for draw in each],
        }
    pairs = list(zip(draws["clearstory"], draws["setfit"], strict=True))
    result["accuracy_difference"] = statistics.fmean(a["accuracy"] - b["accuracy"] for a, b in pairs)
    result["share_of_cpu_seconds"] = statistics.median(
        a["train_cpu_seconds"] / b["train_cpu_seconds"] for a, b in pairs
    )
    print_result(result)


main()
