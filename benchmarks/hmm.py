"""Hidden Markov models: Baum-Welch at size, beside hmmlearn, against gradients; and the tagger. One JSON object.

    python benchmarks/hmm.py [em] [hmmlearn] [gradient] [tagger]      all four when none is named, one thread each

Words are those of WikiText-2 with a vocabulary of the 10,000 most frequent. Chosen by dev sets, never by a test set.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from shared import clearstory, data, show

from clearstory.models.build import build, count_parameters
from clearstory.models.hmm import baum_welch
from clearstory.models.hmm.config import HMMConfig
from clearstory.evaluation.windows import score_dataset
from clearstory.text.documents import read_documents
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.token_dataset import encode_text

VOCAB = 10_000


def wikitext2() -> tuple[Any, Any, int]:
    """The rows of train and valid, and the token that texts begin after."""
    texts = ["".join(d.text for d in read_documents(data(f"wikitext2/{split}.txt.gz"))) for split in ("train", "valid")]
    tokenizer = train_tokenizer(f"words:{VOCAB}", texts[:1])
    assert tokenizer.eos_token_id is not None
    return encode_text(tokenizer, texts[:1]), encode_text(tokenizer, texts[1:]), tokenizer.eos_token_id


def em(states: int = 256, rounds: int = 20) -> dict[str, Any]:
    """Baum-Welch on all of WikiText-2; valid is read as one text."""
    train, valid, eos = wikitext2()
    model = build(HMMConfig(vocab=VOCAB, states=states), seed=0)
    took, told = [], []
    began, cpu = time.perf_counter(), time.process_time()
    for fitted in islice(model.fit(train), rounds):
        told.append(-fitted.nats * fitted.tokens)
        took.append(round(time.process_time() - cpu, 1))
        print(f"round {len(told)}: {math.exp(fitted.nats):.1f} after {took[-1]} s", file=sys.stderr)
    seconds = time.perf_counter() - began
    score = score_dataset(model.eval(), valid, start_token_id=eos)
    return {
        "states": states, "vocab": VOCAB, "parameters": count_parameters(model), "tokens": len(train), "rounds": rounds,
        "seconds": round(seconds, 1), "cpu_seconds": took[-1], "cpu_seconds_by_round": took,
        "tokens_per_cpu_second": round(rounds * len(train) / took[-1]),
        "log_likelihood": [round(each, 1) for each in told],
        "never_falls": all(later >= sooner for sooner, later in pairwise(told)),
        "valid_tokens": score.tokens, "valid_perplexity": round(score.perplexity, 2),
    }  # fmt: skip


def beside_hmmlearn(states: int = 64, tokens: int = 20_480, rounds: int = 2) -> dict[str, Any]:
    """Rounds of both on the beginning of the text, in windows of 512, by turns; hmmlearn in both its ways."""
    from hmmlearn.hmm import CategoricalHMM

    train, _, _ = wikitext2()
    ids = np.asarray(train.ids[:tokens]).astype(np.int64)
    lengths = [baum_welch.WINDOW] * (tokens // baum_welch.WINDOW)
    took: dict[str, list[float]] = {"clearstory": [], "hmmlearn, scaling": [], "hmmlearn, log": []}
    for turn in range(3):
        for who, times in took.items():
            if who == "clearstory":
                fit = build(HMMConfig(vocab=VOCAB, states=states), seed=turn).fit(SimpleNamespace(ids=ids))
                began = time.process_time()
                list(islice(fit, rounds))
            else:
                other = CategoricalHMM(
                    states, n_iter=rounds, tol=-np.inf, n_features=VOCAB, implementation=who.split()[-1],
                    random_state=turn,
                )  # fmt: skip
                began = time.process_time()
                other.fit(ids[:, None], lengths)
            times.append(tokens * rounds / (time.process_time() - began))
    speeds = {who: round(sorted(times)[1]) for who, times in took.items()}
    ours = speeds["clearstory"]
    return {
        "states": states, "tokens": tokens, "rounds": rounds, "tokens_per_cpu_second": speeds,
        "times_as_fast": {who: round(ours / speed, 1) for who, speed in speeds.items() if who != "clearstory"},
    }  # fmt: skip


def against_gradient(states: int = 64, seconds: int = 60) -> dict[str, Any]:
    """Both ways to learn, with the same processor time on the same words."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for learn_by in ("em", "gradient"):
            said = clearstory(
                "train", str(data("wikitext2/train.txt.gz")), "--model", "hmm", "--model.learn", learn_by,
                "--model.states", str(states), "--tokenizer", f"words:{VOCAB}", "--cpu-seconds", str(seconds),
                "--training.threads", "1", "--training.batch_size", "32", "--training.context", "128",
                "--training.eval_tokens", "8000", "--out", f"{folder}/{learn_by}",
            )  # fmt: skip
            valid = clearstory("evaluate", f"{folder}/{learn_by}", str(data("wikitext2/valid.txt.gz")))
            found[learn_by] = {
                **{key: said[key] for key in ("steps", "tokens", "cpu_seconds", "seconds")},
                "valid_perplexity": round(valid["perplexity"], 2),
            }
    return {"states": states, "cpu_seconds": seconds, **found}


def tagger() -> dict[str, Any]:
    """UD English-EWT, gold words; a tenth of the training documents is held out, as by default."""
    found = {}
    folder = data("ud-english-ewt/train.conllu.gz").parent
    with tempfile.TemporaryDirectory() as place:
        for order in (2, 3):
            said = clearstory(
                "train", str(folder / "train.conllu.gz"), "--model", "hmm", "--model.learn", "tags",
                "--model.order", str(order), "--training.threads", "1", "--out", f"{place}/{order}",
            )  # fmt: skip
            scores = {}
            for split in ("dev", "test"):
                tags = clearstory("evaluate", f"{place}/{order}", str(folder / f"{split}.conllu.gz"), "--task", "tag")
                keys = ("accuracy", "known_accuracy", "unknown_accuracy", "macro_f1", "tokens", "unknown", "sentences")
                scores[split] = {key: tags[key] for key in keys}
                scores[split]["tokens_per_second"] = round(tags["tokens"] / tags["seconds"])
            size = sum(file.stat().st_size for file in Path(said["folder"]).iterdir())
            found[str(order)] = {
                "trained_on": said["tokens"], "process": said["process"], "bytes_on_disk": size, **scores,
            }  # fmt: skip
    return found


PARTS = {"em": em, "hmmlearn": beside_hmmlearn, "gradient": against_gradient, "tagger": tagger}

if __name__ == "__main__":
    torch.set_num_threads(1)
    before = Path(__file__).parent / "results" / "hmm.json"
    kept = json.loads(before.read_text(encoding="utf-8")) if len(sys.argv) > 1 and before.is_file() else {}
    kept.pop("machine", None)
    show({**kept, **{name: PARTS[name]() for name in sys.argv[1:] or PARTS}})
