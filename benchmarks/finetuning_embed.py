"""Sentence vectors before and after fine-tuning, on real pairs; prints one JSON object.

    python benchmarks/finetuning_embed.py MODEL [--pairs 2000] [--seconds 60] [--part NAME] [--home FOLDER]

MODEL is a folder of MiniLM. Given one text of a held-out pair, the other is searched for among those of all test pairs,
before and after fine-tuning. Parts (all by default; up to a minute of CPU each):

    translations   English sentences with their German translations (Tatoeba); MiniLM was trained on English
    paraphrases    English sentences with the same German translation; no sentence of validation and test is in training
    scratch        the same, by a new encoder of two layers that is trained on nothing else
    abstracts      titles of papers with their one-sentence summaries (SciTLDR)
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
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


def translations(split: str) -> list[tuple[str, str]]:
    """English sentences with their German translations, in an order that depends on the sentence alone."""
    with gzip.open(data_file(f"tatoeba-en-de/{split}.tsv.gz"), "rt", encoding="utf-8") as file:
        pairs = [tuple(line.rstrip("\n").split("\t")[:2]) for line in file]
    return sorted(pairs, key=lambda pair: blake2b(pair[0].encode()).digest())  # type: ignore[arg-type,return-value]


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

    shared = {"threads": 1, "batch_size": BATCH_SIZE, "device": "cpu"}
    result = clearstory.finetune(
        model, files["train"], task="embed", validation=files["validation"], out=folder,
        training={**shared, **training}, resume=folder.exists(), **more,
    )  # fmt: skip
    [run] = result.runs
    return {"after": scores_of(str(result.folder), files["test"]), "validation": rounded(result.metrics),
            "steps": run.steps, "tokens": run.tokens, "cpu_seconds": round(run.cpu_seconds, 1),
            "parameters": run.parameters}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--home", type=Path, help="folder of the runs, in which a stopped benchmark continues")
    parser.add_argument("--part", choices=("translations", "paraphrases", "scratch", "abstracts"))
    parsed = parser.parse_args()
    german, development = translations("train")[: parsed.pairs], translations("dev")
    result: dict[str, Any] = {"machine": machine_info(), "pairs": parsed.pairs}
    home = parsed.home or Path(tempfile.mkdtemp())
    home.mkdir(exist_ok=True)

    def files(name: str, **parts: list[tuple[str, str]]) -> dict[str, str]:
        return {part: write_pairs(home / f"{name}-{part}.tsv", pairs) for part, pairs in parts.items()}

    english = paraphrases()
    held_out = {sentence for pair in english[:800] for sentence in pair}
    others = [pair for pair in english[800:] if held_out.isdisjoint(pair)]
    papers = titles("train")
    data = {
        "translations": files("german", test=development[:500], validation=development[500:700], train=german),
        "paraphrases": files("few", test=english[:600], validation=english[600:800], train=others[: parsed.pairs]),
        "scratch": files("all", test=english[:600], validation=english[600:800], train=others),
        "abstracts": files("papers", test=titles("dev"), validation=papers[:100], train=papers[100:1100]),
    }
    for name in data if parsed.part is None else [parsed.part]:
        if name == "scratch":
            recipe = {"cpu_seconds": parsed.seconds, "embed": {"symmetric": True}}
            after = fine_tuned("bert-tiny", data[name], home / name, {"learning_rate": 1e-3}, **recipe)
            first = str(home / name / "checkpoints" / "step-000000")  # random weights
            result[name] = {"before": scores_of(first, data[name]["test"]), **after}
            continue
        training = {"num_train_epochs": 1, "learning_rate": RATE}
        before = home / f"{name}-before.json"
        if not before.is_file():
            before.write_text(json.dumps(scores_of(parsed.model, data[name]["test"])))
        result[name] = {
            "before": json.loads(before.read_text()),
            **fine_tuned(parsed.model, data[name], home / name, training),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
