"""Trains with SetFit as benchmarks/few_labels.py asks; run by a Python that has setfit, never imported.

Reads JSON lines from standard input: {"model": FOLDER, "train": [[text, label], ...], "dev": [[text, label], ...],
"seed": N}, and answers each with one JSON line: CPU seconds of training and of labeling, and the accuracy.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import datasets
import setfit
import torch


def train_and_label(asked: dict[str, Any]) -> dict[str, float]:
    """SetFit with its default settings, one thread: every pair of the texts once, then logistic regression."""
    model = setfit.SetFitModel.from_pretrained(asked["model"], device="cpu")
    texts, labels = zip(*asked["train"], strict=True)
    arguments = setfit.TrainingArguments(
        output_dir=tempfile.mkdtemp(), seed=asked["seed"], save_strategy="no", show_progress_bar=False, report_to=[]
    )
    rows = datasets.Dataset.from_dict({"text": list(texts), "label": list(labels)})
    started = time.process_time()
    trainer = setfit.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    trained = time.process_time()
    texts, labels = zip(*asked["dev"], strict=True)
    predicted = model.predict(list(texts), show_progress_bar=False)
    right = sum(int(guess) == label for guess, label in zip(predicted, labels, strict=True))
    return {
        "train_cpu_seconds": trained - started,
        "label_cpu_seconds": time.process_time() - trained,
        "accuracy": right / len(labels),
    }


def main() -> None:
    """Answer on standard output, where nothing else is printed."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(train_and_label(json.loads(line))), file=answers, flush=True)


main()
