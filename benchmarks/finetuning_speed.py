"""Speed of fine-tuning and of classification beside transformers, in CPU seconds of one thread; prints one JSON object.

    python benchmarks/finetuning_speed.py MODEL [--steps 8] [--rounds 3]

MODEL is a folder of a BERT model; the data are SST-2's training sentences. Both take steps of the same batch size on
the same sentences, in alternating rounds: our trainer (bf16 and fp32), transformers' Trainer as it is (fp32, shuffled),
with length grouping, and with bf16. Then the development sentences are labeled by `classify` and by pipeline().
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import data_file, machine_info

import clearstory
from clearstory.formats.folders import open_model
from clearstory.models.device import reusing_memory
from clearstory.recipes.finetuning.preparation import FinetuningPreparation
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.recipes.training.time_budget import TimeBudget

BATCH_SIZE, RATE = 32, 5e-5


def sentences(split: str) -> list[tuple[str, int]]:
    """The sentences of a split of SST-2 with their labels."""
    with gzip.open(data_file(f"sst/sst2-{split}.tsv.gz"), "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return [(text, int(label)) for label, text in rows]


def our_trainer(model: str, precision: str) -> Any:
    """Our trainer, ready for its first step."""
    recipe = build_settings(
        FinetuneRecipe,
        {
            "model": model,
            "data": (str(data_file("sst/sst2-train.tsv.gz")),),
            "validation": str(data_file("sst/sst2-dev.tsv.gz")),
            "training": {"threads": 1, "precision": precision, "device": "cpu", "batch_size": BATCH_SIZE,
                         "learning_rate": RATE},
        },
    )  # fmt: skip
    run = FinetuningPreparation()(RunFolder(Path("unused")), recipe, TimeBudget(float("inf")))
    run.trainer.set_total_steps(10**6)
    return run.trainer


def their_steps(model: str, steps: int, *, grouped: bool, bf16: bool) -> Callable[[], tuple[int, float]]:
    """A function that lets transformers' Trainer take steps; tokens without padding, and CPU seconds."""
    import transformers

    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    rows = [{**tokenizer(text), "labels": label} for text, label in sentences("train")]
    counted: list[int] = []
    pad = transformers.DataCollatorWithPadding(tokenizer)

    def collate(features: Any) -> Any:
        counted.append(sum(len(each["input_ids"]) for each in features))
        return pad(features)

    def take() -> tuple[int, float]:
        arguments = transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH_SIZE, max_steps=steps, learning_rate=RATE,
            report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True, bf16=bf16, disable_tqdm=True,
            train_sampling_strategy="group_by_length" if grouped else "random",
        )  # fmt: skip
        trainer = transformers.Trainer(network, arguments, train_dataset=rows, data_collator=collate)
        counted.clear()
        started = time.process_time()
        trainer.train()
        return sum(counted[:steps]), time.process_time() - started

    return take


def our_steps(model: str, steps: int, precision: str) -> Callable[[], tuple[int, float]]:
    """A function that lets our trainer take steps; tokens without padding, and CPU seconds."""
    trainer = our_trainer(model, precision)

    def take() -> tuple[int, float]:
        tokens, started = trainer.tokens, time.process_time()
        with reusing_memory():
            for _ in range(steps):
                trainer.train_step()
        return trainer.tokens - tokens, time.process_time() - started

    return take


def classification(folder: str, rounds: int) -> dict[str, float]:
    """Sentences per CPU second of `classify` and of pipeline(), with the same classifier."""
    import transformers

    texts = [text for text, _ in sentences("dev")][:400]
    opened = open_model(folder)
    pipe = transformers.pipeline("text-classification", model=folder, device="cpu")
    ways: dict[str, Callable[[], object]] = {
        "classify": lambda: clearstory.classify(opened, texts),
        "pipeline": lambda: pipe(texts),
        "pipeline_batch_32": lambda: pipe(texts, batch_size=32),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            speeds[name].append(len(texts) / (time.process_time() - started))
    return {name: round(statistics.median(each), 1) for name, each in speeds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classifier", help="folder of a fine-tuned classifier, for the speed of classification")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways = {
        "clearstory_bf16": our_steps(given.model, given.steps, "bf16"),
        "clearstory_fp32": our_steps(given.model, given.steps, "fp32"),
        "transformers": their_steps(given.model, given.steps, grouped=False, bf16=False),
        "transformers_grouped": their_steps(given.model, given.steps, grouped=True, bf16=False),
        "transformers_grouped_bf16": their_steps(given.model, given.steps, grouped=True, bf16=True),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, take in ways.items():
            tokens, seconds = take()
            speeds[name].append(tokens / seconds)
    medians = {name: round(statistics.median(each), 1) for name, each in speeds.items()}
    result: dict[str, Any] = {
        "machine": machine_info(),
        "batch_size": BATCH_SIZE,
        "steps": given.steps,
        "rounds": given.rounds,
        "training_tokens_per_cpu_second": medians,
        "ratio_as_they_are": round(medians["clearstory_bf16"] / medians["transformers"], 2),
        "ratio_fp32_grouped": round(medians["clearstory_fp32"] / medians["transformers_grouped"], 2),
        "ratio_bf16_grouped": round(medians["clearstory_bf16"] / medians["transformers_grouped_bf16"], 2),
    }
    if given.classifier:
        result["sentences_per_cpu_second"] = classification(given.classifier, given.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
