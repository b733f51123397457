"""Summaries of SciTLDR by a decoder fine-tuned with LoRA, beside the first sentence and the abstract itself.

    python benchmarks/summarization.py MODEL.gguf [--cpu-seconds 5400] [--folder runs/scitldr]
    python benchmarks/summarization.py MODEL.gguf --measure
    python benchmarks/summarization.py MODEL.gguf --prompted

MODEL is SmolLM2-135M-Instruct or another decoder. A twentieth of the training abstracts selects the best step; the 619
of dev are summarized once, at the end. ROUGE by rouge-score with Porter's stemmer, of several references the one with
the best ROUGE-1. --measure takes a few steps and prints the tokens per CPU second of training; --prompted scores the
model without fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from common import data_file, print_result, run_clearstory

PROMPT = "{source}\nTL;DR:"


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cpu-seconds", type=float, default=5400)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", nargs="+", default=["query", "key", "value", "output", "gate", "up", "down"])
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--max-source-length", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/scitldr"))
    parser.add_argument("--measure", action="store_true", help="time a few steps of training, and train no model")
    parser.add_argument("--steps", type=int, default=4, help="steps of --measure")
    parser.add_argument("--prompted", action="store_true", help="score the model as it is")
    args = parser.parse_args()
    train, dev = (str(data_file(f"scitldr/{name}.jsonl.gz")) for name in ("train", "dev"))
    cut = ("--truncate", "source-right", "--max-source-length", str(args.max_source_length))
    if args.prompted:
        options = ("--task", "summarize", "--prompt-template", PROMPT, "--max-target-length", "64", *cut)
        scores = run_clearstory("evaluate", args.model, dev, *options, threads=args.threads)
        print_result({"model": args.model, "prompt": PROMPT, **summary(scores), "process": scores["process"]})
        return
    if args.measure:
        print_result(measure(args, train))
        return
    targets = [word for name in args.targets for word in ("--lora.targets", name)]
    training = run_clearstory(
        *("finetune", args.model, train, "--task", "summarize", "--validation", "0.05", "--test", dev),
        *(
            "--prompt-template",
            PROMPT,
            *cut,
            "--lora.rank",
            str(args.rank),
            *targets,
            "--cpu-seconds",
            str(args.cpu_seconds),
        ),
        *("--training.batch_tokens", str(args.batch_tokens), "--training.learning_rate", str(args.learning_rate)),
        *("--training.threads", str(args.threads), "--training.seed", str(args.seed), "--training.eval_steps", "100"),
        *("--max-eval-samples", "1", "--out", str(args.folder), "--overwrite"),
        threads=args.threads,
    )
    scores = json.loads((args.folder / "report.json").read_text(encoding="utf-8"))["test"]
    [run] = training["runs"]
    print_result(
        {
            "model": args.model,
            "settings": {name: str(value) for name, value in vars(args).items()},
            "steps": run["steps"],
            "tokens": run["tokens"],
            "cpu_seconds": run["cpu_seconds"],
            **summary(scores),
            "examples_shown": scores["details"]["examples"],
            "process": training["process"],
        }
    )


def summary(scores: dict) -> dict:
    """Scores with their intervals, signatures and baselines."""
    return {
        "examples": scores["examples"],
        "metrics": scores["metrics"],
        "intervals": scores["intervals"],
        "signatures": scores["details"]["signatures"],
        "baselines": scores["details"]["baselines"],
        "decoding": scores["details"]["decoding"],
    }


def measure(args: argparse.Namespace, train: str) -> dict:
    """Tokens per CPU second of a few steps, padding not counted, and what padding and targets take of a batch."""
    from clearstory.recipes.finetuning.preparation import FinetuningPreparation
    from clearstory.recipes.settings.finetuning import FinetuneRecipe
    from clearstory.recipes.settings.schema import build_settings
    from clearstory.recipes.training.run_folder import RunFolder
    from clearstory.recipes.training.time_budget import TimeBudget

    recipe = build_settings(
        FinetuneRecipe,
        {
            "model": args.model,
            "data": (train,),
            "task": "summarize",
            "validation": "0.05",
            "prompt_template": PROMPT,
            "truncate": "source-right",
            "max_source_length": args.max_source_length,
            "lora": {"rank": args.rank, "targets": tuple(args.targets)},
            "training": {
                "batch_tokens": args.batch_tokens,
                "threads": args.threads,
                "learning_rate": args.learning_rate,
            },
        },
    )
    run = FinetuningPreparation()(RunFolder(args.folder), recipe, TimeBudget(float("inf")))
    trainer, losses, speeds = run.trainer, [], []
    trainer.set_total_steps(1000)
    for step in range(args.steps):
        started, before = time.process_time(), trainer.tokens
        losses.append(round(trainer.train_step().loss, 3))
        speeds.append((trainer.tokens - before) / (time.process_time() - started))
        print(f"step {step}: {speeds[-1]:.0f} tokens per CPU second, {run.settings.precision}", file=sys.stderr)
    kept = sorted(speeds[1:] or speeds)
    return {
        "precision": run.settings.precision,
        "matmul": run.settings.matmul,
        "tokens_per_cpu_second": round(kept[len(kept) // 2]),
        "steps_per_epoch": trainer.batches.batches_per_epoch,
        "tokens_per_step": trainer.tokens_per_step,
        "padding_share": round(trainer.batches.padding_share, 4),
        "losses": losses,
    }


if __name__ == "__main__":
    main()
