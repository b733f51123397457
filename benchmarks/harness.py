"""lm-evaluation-harness: its own `hf` model and ours on the same requests, log-likelihoods and CPU seconds.

    python benchmarks/harness.py --model FOLDER [--tasks arc_easy piqa] [--start 0] [--rows 50] [--out FILE]

FOLDER is a model folder of transformers, such as: clearstory convert SmolLM2.gguf FOLDER --to hf. One thread; both
models read pieces of the same requests in turns. Without --rows, the sizes are 500 rows of ARC-easy, PIQA and
HellaSwag, 1,000 of LAMBADA and 200 of each BLiMP set. --out adds the rows to those of a file, so that the whole can be
measured in several runs: a row that is there already is not measured again. Prints one JSON object: for each task the
largest difference of two log-likelihoods in nats, how many `is_greedy` differ, the accuracies of both, and their CPU
seconds.

Numbers in fp32 are rounded, and how much depends on the order of sums: the first --reference-rows of each task are also
computed by `hf` in float64, from which both distances are told.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1")

from common import data_file, machine_info

DATA = {"arc_easy": "arc/easy-test.jsonl.gz", "piqa": "piqa/valid.jsonl.gz", "hellaswag": "hellaswag/val.jsonl.gz"}
LAMBADA = "lambada/development.txt.gz"
PIECE = 10
"""Rows that one model reads before the other's turn."""


def task_folder(folder: Path) -> dict[str, int]:
    """Fill a folder with the data of all tasks; returns the rows of each that are measured."""
    rows = dict.fromkeys(DATA, 500) | {"lambada_openai": 1000}
    for name, file in DATA.items():
        (folder / f"{name}.jsonl.gz").symlink_to(data_file(file).resolve())
    (folder / "lambada_openai.txt.gz").symlink_to(data_file(LAMBADA).resolve())
    for file in sorted(data_file("blimp/reference-results.jsonl").parent.glob("*.jsonl.gz")):
        (folder / f"blimp_{file.name}").symlink_to(file.resolve())
        rows[f"blimp_{file.name.split('.')[0]}"] = 200
    return rows


def requests_of(task: Any, rows: list[int]) -> dict[int, list[Any]]:
    """The harness's requests of each row of a task."""
    task._instances = None
    task.build_all_requests(samples=rows, rank=0, world_size=1)
    found: dict[int, list[Any]] = {}
    for instance in task.instances:
        found.setdefault(rows[instance.doc_id], []).append(instance)
    return found


def measure(
    models: dict[str, Any], task: Any, rows: list[int], seconds: dict[str, float], reference: Any, last: int
) -> dict[int, Any]:
    """The answers of both models for each row, read in turns, and of `reference` for rows before `last`; adds their CPU
    seconds.
    """
    found: dict[int, Any] = {}
    wanted = requests_of(task, rows)
    for turn, start in enumerate(range(0, len(rows), PIECE)):
        piece = rows[start : start + PIECE]
        instances = [each for row in piece for each in wanted[row]]
        answers = {}
        for name in sorted(models, reverse=turn % 2 == 1):
            began = time.process_time()
            answers[name] = models[name].loglikelihood(instances)
            seconds[name] += time.process_time() - began
        exact = [each for row in piece if row < last for each in wanted[row]]
        if exact:
            answers["float64"] = reference().loglikelihood(exact)
        at = 0
        for row in piece:
            count = len(wanted[row])
            scores = {
                name: [list(each) for each in answers[name][at : at + count]]
                for name in answers
                if at < len(answers[name])
            }
            metrics = {
                name: task.process_results(wanted[row][0].doc, answers[name][at : at + count]) for name in models
            }
            at += count
            accuracies = {
                name: {key: float(value) for key, value in each.items() if key in ("acc", "acc_norm")}
                for name, each in metrics.items()
            }
            found[row] = {"answers": scores, "metrics": accuracies}
    return found


def summary(rows: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """What the rows of one task say."""
    pairs = [
        (one, two)
        for row in rows.values()
        for one, two in zip(row["answers"]["hf"], row["answers"]["clearstory"], strict=True)
    ]
    accuracies = {
        name: {
            key: sum(row["metrics"][name][key] for row in rows.values()) / len(rows)
            for key in next(iter(rows.values()))["metrics"][name]
        }
        for name in ("hf", "clearstory")
    }
    exact = [row["answers"] for row in rows.values() if "float64" in row["answers"]]
    reference = {
        name: max(
            (abs(a[0] - b[0]) for each in exact for a, b in zip(each[name], each["float64"], strict=True)), default=None
        )
        for name in ("hf", "clearstory")
    }
    return {
        "rows": len(rows),
        "requests": len(pairs),
        "float64_rows": len(exact),
        "max_difference_from_float64_nats": reference,
        "max_difference_nats": max(abs(one[0] - two[0]) for one, two in pairs),
        "is_greedy_differs": sum(one[1] != two[1] for one, two in pairs),
        "accuracy": accuracies,
        "cpu_seconds": {name: round(value, 2) for name, value in seconds.items()},
        "ratio": round(seconds["hf"] / seconds["clearstory"], 2),
    }


def main() -> None:
    """Measure, and print the summary of each task."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--hf-batch-size", type=int, default=8)
    parser.add_argument("--reference-rows", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    import torch
    from lm_eval.models.huggingface import HFLM

    from clearstory.recipes.inference.evaluate_harness import task_manager
    from clearstory.recipes.inference.lm_eval_model import ClearstoryLM
    from clearstory.recipes.settings.evaluation_tasks import BenchmarkSettings

    torch.set_num_threads(1)
    kept: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    started = time.process_time()
    models = {
        "hf": HFLM(pretrained=arguments.model, dtype="float32", device="cpu", batch_size=arguments.hf_batch_size),
        "clearstory": ClearstoryLM(arguments.model),
    }
    loading = time.process_time() - started

    @cache
    def reference() -> Any:
        return HFLM(pretrained=arguments.model, dtype="float64", device="cpu", batch_size=1)

    with tempfile.TemporaryDirectory() as folder:
        sizes = task_folder(Path(folder))
        names = [each for each in sizes if not arguments.tasks or any(each.startswith(t) for t in arguments.tasks)]
        manager = task_manager(names, BenchmarkSettings(task_files=Path(folder)))
        for name in names:
            part = kept.setdefault(name, {"rows": {}, "seconds": {"hf": 0.0, "clearstory": 0.0}})
            stop = sizes[name] if arguments.rows is None else min(sizes[name], arguments.start + arguments.rows)
            rows = [row for row in range(arguments.start, stop) if str(row) not in part["rows"]]
            if not rows:
                continue
            task = manager.load([name])["tasks"][name]
            found = measure(models, task, rows, part["seconds"], reference, arguments.reference_rows)
            part["rows"] |= {str(row): each for row, each in found.items()}
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(kept))
    tasks = {name: summary(part["rows"], part["seconds"]) for name, part in kept.items() if part["rows"]}
    total = {name: sum(part["seconds"][name] for part in kept.values()) for name in ("hf", "clearstory")}
    result = {
        "tasks": tasks,
        "max_difference_nats": max(each["max_difference_nats"] for each in tasks.values()),
        "is_greedy_differs": sum(each["is_greedy_differs"] for each in tasks.values()),
        "requests": sum(each["requests"] for each in tasks.values()),
        "cpu_seconds": {name: round(value, 2) for name, value in total.items()},
        "ratio": round(total["hf"] / total["clearstory"], 2),
        "loading_cpu_seconds": round(loading, 2),
        "hf_batch_size": arguments.hf_batch_size,
    }
    print(json.dumps({"machine": machine_info(), **result}, indent=2))


if __name__ == "__main__":
    main()
