"""Hidden Markov models: Baum-Welch on WikiText-2, compared with hmmlearn and with gradient descent; and the tagger.

    python benchmarks/hmm.py [em] [hmmlearn] [gradient] [tagger]      default: all four; one thread each

Words are those of WikiText-2 with a vocabulary of the 10,000 most frequent. Settings were chosen on dev sets.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import data_file, print_result, run_clearstory

from clearstory.evaluation.windows import score_dataset
from clearstory.models.build import build, count_parameters
from clearstory.models.hmm import baum_welch
from clearstory.models.hmm.config import HMMConfig
from clearstory.text.documents import read_documents
from clearstory.text.token_dataset import encode_text
from clearstory.text.train_tokenizer import train_tokenizer

VOCAB = 10_000


def wikitext2() -> tuple[Any, Any, int]:
    """The training and validation data sets, and the end-of-text id."""
    texts = [
        "".join(d.text for d in read_documents(data_file(f"wikitext2/{split}.txt.gz"))) for split in ("train", "valid")
    ]
    tokenizer = train_tokenizer(f"words:{VOCAB}", texts[:1])
    assert tokenizer.eos_token_id is not None
    return encode_text(tokenizer, texts[:1]), encode_text(tokenizer, texts[1:]), tokenizer.eos_token_id


def em(states: int = 256, rounds: int = 20) -> dict[str, Any]:
    """Baum-Welch on all of WikiText-2; the validation set is one text."""
    train, valid, eos = wikitext2()
    model = build(HMMConfig(vocab=VOCAB, states=states), seed=0)
    cpu_seconds, log_likelihoods = [], []
    started, cpu_started = time.perf_counter(), time.process_time()
    for progress in islice(model.fit(train), rounds):
        log_likelihoods.append(-progress.nats * progress.tokens)
        cpu_seconds.append(round(time.process_time() - cpu_started, 1))
        print(
            f"round {len(log_likelihoods)}: perplexity {math.exp(progress.nats):.1f} after {cpu_seconds[-1]} s",
            file=sys.stderr,
        )
    seconds = time.perf_counter() - started
    score = score_dataset(model.eval(), valid, start_token_id=eos)
    return {
        "states": states, "vocab": VOCAB, "parameters": count_parameters(model), "tokens": len(train), "rounds": rounds,
        "seconds": round(seconds, 1), "cpu_seconds": cpu_seconds[-1], "cpu_seconds_by_round": cpu_seconds,
        "tokens_per_cpu_second": round(rounds * len(train) / cpu_seconds[-1]),
        "log_likelihood": [round(each, 1) for each in log_likelihoods],
        "never_falls": all(later >= earlier for earlier, later in pairwise(log_likelihoods)),
        "valid_tokens": score.tokens, "valid_perplexity": round(score.perplexity, 2),
    }  # fmt: skip


def compare_hmmlearn(states: int = 64, tokens: int = 20_480, rounds: int = 2) -> dict[str, Any]:
    """Speed of EM on the start of the text, in windows of 512, alternating with both implementations of hmmlearn."""
    from hmmlearn.hmm import CategoricalHMM

    train, _, _ = wikitext2()
    ids = np.asarray(train.ids[:tokens]).astype(np.int64)
    lengths = [baum_welch.WINDOW] * (tokens // baum_welch.WINDOW)
    speeds_by_library: dict[str, list[float]] = {"clearstory": [], "hmmlearn, scaling": [], "hmmlearn, log": []}
    for repeat in range(3):
        for library, times in speeds_by_library.items():
            if library == "clearstory":
                fit = build(HMMConfig(vocab=VOCAB, states=states), seed=repeat).fit(SimpleNamespace(ids=ids))
                started = time.process_time()
                list(islice(fit, rounds))
            else:
                hmmlearn_model = CategoricalHMM(
                    states, n_iter=rounds, tol=-np.inf, n_features=VOCAB, implementation=library.split()[-1],
                    random_state=repeat,
                )  # fmt: skip
                started = time.process_time()
                hmmlearn_model.fit(ids[:, None], lengths)
            times.append(tokens * rounds / (time.process_time() - started))
    speeds = {library: round(sorted(times)[1]) for library, times in speeds_by_library.items()}
    own_speed = speeds["clearstory"]
    return {
        "states": states, "tokens": tokens, "rounds": rounds, "tokens_per_cpu_second": speeds,
        "times_as_fast": {
            library: round(own_speed / speed, 1) for library, speed in speeds.items() if library != "clearstory"
        },
    }  # fmt: skip


def compare_gradient(states: int = 64, seconds: int = 60) -> dict[str, Any]:
    """Baum-Welch and gradient descent with the same CPU time on the same text."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for learn_by in ("em", "gradient"):
            result = run_clearstory(
                "train", str(data_file("wikitext2/train.txt.gz")), "--model", "hmm", "--model.learn", learn_by,
                "--model.states", str(states), "--tokenizer", f"words:{VOCAB}", "--cpu-seconds", str(seconds),
                "--training.threads", "1", "--training.batch_size", "32", "--training.context", "128",
                "--training.eval_tokens", "8000", "--out", f"{folder}/{learn_by}",
            )  # fmt: skip
            valid = run_clearstory("evaluate", f"{folder}/{learn_by}", str(data_file("wikitext2/valid.txt.gz")))
            results[learn_by] = {
                **{key: result[key] for key in ("steps", "tokens", "cpu_seconds", "seconds")},
                "valid_perplexity": round(valid["perplexity"], 2),
            }
    return {"states": states, "cpu_seconds": seconds, **results}


def tagger() -> dict[str, Any]:
    """Part-of-speech tagging of UD English-EWT with gold words; a tenth of the training documents is held out."""
    results = {}
    folder = data_file("ud-english-ewt/train.conllu.gz").parent
    with tempfile.TemporaryDirectory() as out:
        for order in (2, 3):
            result = run_clearstory(
                "train", str(folder / "train.conllu.gz"), "--model", "hmm", "--model.learn", "tags",
                "--model.order", str(order), "--training.threads", "1", "--out", f"{out}/{order}",
            )  # fmt: skip
            scores = {}
            for split in ("dev", "test"):
                tags = run_clearstory("evaluate", f"{out}/{order}", str(folder / f"{split}.conllu.gz"), "--task", "tag")
                unknown = tags["details"]["unknown_words"]
                scores[split] = {
                    **tags["metrics"], "known_accuracy": unknown["accuracy_of_known"],
                    "unknown_accuracy": unknown["accuracy"], "unknown": unknown["count"],
                    "tokens": sum(label["support"] for label in tags["details"]["labels"]),
                    "sentences": tags["examples"], "process": tags["process"],
                }  # fmt: skip
            size = sum(file.stat().st_size for file in Path(result["folder"]).iterdir())
            results[str(order)] = {
                "trained_on": result["tokens"], "process": result["process"], "bytes_on_disk": size, **scores,
            }  # fmt: skip
    return results


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "em": em,
    "hmmlearn": compare_hmmlearn,
    "gradient": compare_gradient,
    "tagger": tagger,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    result_file = Path(__file__).parent / "results" / "hmm.json"
    earlier = json.loads(result_file.read_text(encoding="utf-8")) if len(sys.argv) > 1 and result_file.is_file() else {}
    earlier.pop("machine", None)
    print_result({**earlier, **{name: PARTS[name]() for name in sys.argv[1:] or PARTS}})
