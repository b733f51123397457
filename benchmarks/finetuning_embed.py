"""Sentence vectors before and after fine-tuning, on real pairs; prints one JSON object.

    python benchmarks/finetuning_embed.py MODEL [--pairs 4000] [--seconds 70] [--part minilm|scratch|abstracts]
    PEERS/bin/python benchmarks/finetuning_embed.py MODEL --part peer

MODEL is a folder of MiniLM. The pairs are English sentences with the same German translation (Tatoeba); no sentence of
validation and test is in training. Given one sentence, the other is searched for
among those of all test pairs. minilm: the model as it is, and fine-tuned; scratch: a new encoder of two layers, trained
on the same pairs and nothing else; abstracts: the one-sentence summary of a paper by its title (SciTLDR); peer: the
same pairs, batches, steps and loss by sentence-transformers' trainer, one thread.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
import time
from collections import defaultdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from common import data_file, machine_info

BATCH_SIZE, RATE = 64, 5e-5


def paraphrases() -> list[tuple[str, str]]:
    """English sentences with the same German translation, in an order that depends on the translation alone."""
    english = defaultdict(list)
    with gzip.open(data_file("tatoeba-en-de/train.tsv.gz"), "rt", encoding="utf-8") as file:
        for line in file:
            sentence, translation = line.rstrip("\n").split("\t")[:2]
            if sentence not in english[translation]:
                english[translation].append(sentence)
    order = sorted(english, key=lambda translation: blake2b(translation.encode()).digest())
    return [(english[each][0], other) for each in order for other in english[each][1:]]


def titles(split: str) -> list[tuple[str, str]]:
    """Titles of papers with their one-sentence summaries."""
    with gzip.open(data_file(f"scitldr/{split}.jsonl.gz"), "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [(record["title"], record["target"][0]) for record in records if record.get("title") and record["target"]]


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> str:
    """Write pairs as a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("anchor", "positive"), *pairs])
    return str(path)


def scores_of(model: str, test: str) -> dict[str, Any]:
    """Metrics of a model on test pairs, with their intervals."""
    from clearstory.recipes.inference.evaluate_task import evaluate_on_task

    scores = evaluate_on_task(model, [test], "embed")
    return {**rounded(scores.metrics), "intervals": {name: rounded(each) for name, each in scores.intervals.items()},
            "pairs": scores.examples, "candidates": scores.details["candidates"]}  # fmt: skip


def rounded(values: Any) -> Any:
    """Numbers to four places."""
    if isinstance(values, tuple):
        return [round(value, 4) for value in values]
    return {name: round(value, 4) for name, value in values.items()}


def fine_tuned(model: str, files: dict[str, str], folder: Path, training: dict[str, Any], **more: Any) -> Any:
    """The test scores after fine-tuning, and what it took."""
    import clearstory

    started = time.process_time()
    shared = {"threads": 1, "batch_size": BATCH_SIZE, "device": "cpu"}
    result = clearstory.finetune(
        model, files["train"], task="embed", validation=files["validation"], out=folder,
        training={**shared, **training}, **more,
    )  # fmt: skip
    [run] = result.runs
    return {"after": scores_of(str(result.folder), files["test"]), "validation": rounded(result.metrics),
            "steps": run.steps, "tokens": run.tokens, "cpu_seconds": round(time.process_time() - started, 1),
            "parameters": run.parameters}  # fmt: skip


def peer_scores(model: str, train: list[tuple[str, str]], test: list[tuple[str, str]]) -> dict[str, Any]:
    """The same training by sentence-transformers, scored by the same metric."""
    import sentence_transformers
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    from clearstory.evaluation.retrieval import rank_positives, retrieval_metrics
    from clearstory.tasks.embed import text_key

    torch.set_num_threads(1)
    encoder = SentenceTransformer(model, device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=BATCH_SIZE, learning_rate=RATE,
        warmup_ratio=0.1, weight_decay=0.01, report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True,
        disable_tqdm=True, seed=0,
    )  # fmt: skip
    data = Dataset.from_dict({"anchor": [a for a, _ in train], "positive": [b for _, b in train]})
    trainer = SentenceTransformerTrainer(
        model=encoder, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(encoder)
    )
    started = time.process_time()
    trainer.train()
    seconds = time.process_time() - started
    tokens = sum(len(encoder.tokenizer(text)["input_ids"]) for pair in train for text in pair)
    anchors, positives = (
        encoder.encode([pair[side] for pair in test], convert_to_tensor=True).cpu() for side in (0, 1)
    )
    keys = [torch.tensor([text_key(pair[side]) for pair in test]) for side in (0, 1)]
    _, ranks, _ = rank_positives(anchors, positives, *keys)
    return {"package": f"sentence-transformers {sentence_transformers.__version__}", "precision": "fp32",
            "after": rounded(retrieval_metrics(ranks.double().numpy())), "cpu_seconds": round(seconds, 1),
            "tokens": tokens, "tokens_per_cpu_second": round(tokens / seconds)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=70)
    parser.add_argument("--part", choices=("minilm", "scratch", "abstracts", "peer"))
    parsed = parser.parse_args()
    home = Path(tempfile.mkdtemp())
    pairs = paraphrases()
    parts = {"test": pairs[:600], "validation": pairs[600:800]}
    held_out = {sentence for part in parts.values() for pair in part for sentence in pair}
    parts["train"] = [pair for pair in pairs[800:] if held_out.isdisjoint(pair)]
    few = parts["train"][: parsed.pairs]
    result: dict[str, Any] = {"machine": machine_info(), "pairs": len(few)}
    if parsed.part == "peer":
        result["peer"] = peer_scores(parsed.model, few, parts["test"])
        print(json.dumps(result, indent=2))
        return
    files = {name: write_pairs(home / f"{name}.tsv", rows) for name, rows in parts.items()}
    if parsed.part in (None, "minilm"):
        before = scores_of(parsed.model, files["test"])
        some = {**files, "train": write_pairs(home / "few.tsv", few)}
        training = {"num_train_epochs": 1, "learning_rate": RATE}
        result["minilm"] = {"before": before, **fine_tuned(parsed.model, some, home / "minilm", training)}
    if parsed.part in (None, "scratch"):
        recipe = {"cpu_seconds": parsed.seconds, "embed": {"symmetric": True}}
        result["scratch"] = fine_tuned("bert-tiny", files, home / "scratch", {"learning_rate": 1e-3}, **recipe)
    if parsed.part in (None, "abstracts"):
        papers = titles("train")
        science = {
            "train": write_pairs(home / "papers.tsv", papers[100:1100]),
            "validation": write_pairs(home / "papers-validation.tsv", papers[:100]),
            "test": write_pairs(home / "papers-test.tsv", titles("dev")),
        }
        before = scores_of(parsed.model, science["test"])
        training = {"num_train_epochs": 1, "learning_rate": RATE}
        result["abstracts"] = {"before": before, **fine_tuned(parsed.model, science, home / "science", training)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
