"""Fine-tuning with few labels beside SetFit, in CPU seconds of one thread; prints one JSON object.

    python benchmarks/few_labels.py MODEL --setfit-python PYTHON [--few 8] [--draws 10] [--out FILE]

MODEL is a folder of sentence-transformers, PYTHON an interpreter with setfit. `finetune --few` and SetFit with its
default settings train the same encoder on the same draws, alternately; both start from a loaded model. Accuracy is on
the development sentences, which neither sees in training. The data are SST-2's, or files given with --data and
--validation. FILE keeps the result after each draw, and the draws that it has already are not repeated.
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
from common import data_file, machine_info, print_result

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
    parser.add_argument("--out", type=Path)
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
    draws: list[dict[str, Any]] = []
    if args.out is not None and args.out.is_file():
        draws = json.loads(args.out.read_text())["draws"]
    known = {draw["seed"] for draw in draws}
    for seed in range(args.first, args.first + args.draws):
        if seed in known:
            continue
        found, asked = ours(args, seed)
        print(json.dumps(asked), file=worker.stdin, flush=True)
        draws.append({"seed": seed, "clearstory": found, "setfit": json.loads(worker.stdout.readline())})
        if args.out is not None:
            args.out.write_text(json.dumps({"machine": machine_info(), **summary(args, draws)}, indent=2) + "\n")
    worker.stdin.close()
    worker.wait()
    print_result(summary(args, draws))


def summary(args: argparse.Namespace, draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of accuracies, medians of CPU seconds, and their ratio, with all draws."""
    result: dict[str, Any] = {
        "data": Path(args.data).name,
        "few": args.few,
        "threads": 1,
        "number_of_draws": len(draws),
    }
    for name in ("clearstory", "setfit"):
        result[name] = {"accuracy": statistics.fmean(draw[name]["accuracy"] for draw in draws)}
        for what in ("train_cpu_seconds", "label_cpu_seconds"):
            result[name][what] = statistics.median(draw[name][what] for draw in draws)
    differences = [draw["clearstory"]["accuracy"] - draw["setfit"]["accuracy"] for draw in draws]
    shares = [draw["clearstory"]["train_cpu_seconds"] / draw["setfit"]["train_cpu_seconds"] for draw in draws]
    result |= {"accuracy_difference": statistics.fmean(differences), "share_of_cpu_seconds": statistics.median(shares)}
    return {**result, "draws": sorted(draws, key=lambda draw: draw["seed"])}


main()
