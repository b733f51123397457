"""n-grams: what counting and looking up cost, beside KenLM's, and how well they foresee.

    python benchmarks/ngram.py [--turns 3] [--lmplz PATH]

1. Order-5 modified Kneser-Ney on the words of WikiText-2: processor seconds from the file of text to the finished
   tables, vocabulary included, taking turns with KenLM's lmplz (where its path is given), which writes its tables as
   text; what the two say of the validation text; and tokens scored a second. lmplz refuses a word spelt <unk>, so it is
   renamed for both.
2. A corpus of 10 M tokens: what peak memory counting takes. It is what test data there is, one file after the other.
3. Characters of tinyshakespeare, the first nine tenths to learn from: order 6, and the orders and smoothings beside it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from shared import DATA, data, show, whole_process

from clearstory.formats.arpa.read import read_arpa
from clearstory.formats.arpa.write import write_arpa
from clearstory.models.base import TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.ngram.config import NGramConfig
from clearstory.evaluation.windows import score_dataset
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.token_dataset import encode_text

REFERENCE = {
    "interpolated_kneser_ney_5": {"valid": 238.9, "what": "one discount an order"},
    "tinyshakespeare_order_6_nats": 1.523,
}
TOKENS = 10_000_000


def main() -> None:
    """Measure and print; `--part` is how the program calls itself for what wants a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--lmplz", type=Path, help="KenLM's estimator; its query is looked for beside it")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        name, file = args.part
        print(json.dumps(PARTS[name](Path(file))))
        return
    with tempfile.TemporaryDirectory() as folder:
        words = wikitext(Path(folder), args.turns, args.lmplz)
        large = whole(Path(folder))
    show({"reference": REFERENCE, "wikitext2_words": words, "ten_million": large, "tinyshakespeare": characters()})


def wikitext(folder: Path, turns: int, lmplz: Path | None) -> dict[str, Any]:
    """Part 1."""
    train, valid = folder / "train.txt", folder / "valid.txt"
    for file in (train, valid):
        text = gzip.decompress(data(f"wikitext2/{file.stem}.txt.gz").read_bytes()).decode()
        file.write_text(text.replace("<unk>", "[unk]"), encoding="utf-8")
    ours, theirs, kenlm = [], [], None
    for _ in range(turns):
        ours.append(part("estimate", train))
        if lmplz is not None:
            command = f"exec {lmplz} -o 5 -S 2G -T {folder} < {train} > {folder / 'kenlm.arpa'} 2> /dev/null"
            _, took = whole_process(["bash", "-c", command])
            theirs.append(took)
    if lmplz is not None:
        query = f"{lmplz.parent / 'query'} -v summary {folder / 'kenlm.arpa'} < {valid}"
        said = subprocess.run(["bash", "-c", query], capture_output=True, text=True, check=True).stdout
        perplexity = re.search(r"including OOVs:\s*([\d.]+)", said)
        assert perplexity is not None
        kenlm = {
            "cpu_seconds": statistics.median(each["cpu_seconds"] for each in theirs),
            "cpu_seconds_each": [each["cpu_seconds"] for each in theirs],
            "valid_perplexity": float(perplexity[1]),
        }
    seconds = [each["cpu_seconds"] for each in ours]
    middle = ours[seconds.index(statistics.median_low(seconds))]
    return {
        **middle,
        "cpu_seconds_each": seconds,
        "tokens_per_cpu_second": round(middle["tokens"] / middle["cpu_seconds"]),
        "lmplz": kenlm,
    }


def estimate(file: Path) -> dict[str, Any]:
    """From a file of text to the tables, then what they say of the validation text beside it."""
    began = time.process_time()
    text = file.read_text(encoding="utf-8")
    tokenizer = train_tokenizer("words", [text])
    learnt = time.process_time()
    rows = encode_text(tokenizer, [text])
    encoded = time.process_time()
    model: Any = build(NGramConfig(vocab=tokenizer.vocab, order=5, bos_token_id=tokenizer.eos_token_id))
    for _ in model.fit(rows):
        pass
    done = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    valid = encode_text(tokenizer, [file.with_name("valid.txt").read_text(encoding="utf-8")])
    score = score_dataset(model, valid, start_token_id=tokenizer.eos_token_id, batch_size=16)
    saved = file.with_name("ours.arpa")
    writing = time.process_time()
    write_arpa(saved, model, tokenizer)
    reading = time.process_time()
    read_arpa(saved)
    return {
        "cpu_seconds": round(done - began, 2),
        "of_which": {
            "vocabulary": round(learnt - began, 2),
            "encoding": round(encoded - learnt, 2),
            "counting_and_smoothing": round(done - encoded, 2),
        },
        "tokens": len(rows.ids),
        "ngrams": [model.vocab, *model.config.sizes],
        "peak_mb": round(memory / 1024),
        "valid_perplexity": round(score.perplexity, 4),
        "valid_tokens": score.tokens,
        "score_tokens_per_cpu_second": {"valid": speed(model, valid.ids), "train": speed(model, rows.ids[:1_000_000])},
        "arpa_cpu_seconds": {
            "write": round(reading - writing, 1),
            "read": round(time.process_time() - reading, 1),
        },
    }


def speed(model: Any, ids: Any) -> int:
    """Tokens scored a processor second, in one batch; the median of five."""
    row = torch.from_numpy(ids.astype(np.int64))[None]
    found = []
    for _ in range(5):
        began = time.process_time()
        model.token_nll(TokenBatch(row[:, :-1]), row[:, 1:])
        found.append(time.process_time() - began)
    return round(row.shape[1] / statistics.median(found))


def whole(folder: Path) -> dict[str, Any]:
    """Part 2: the corpus is written first, so that making it takes none of the memory that is measured."""
    file = folder / "large.npy"
    made = part("corpus", file)
    return {**made, **part("large", file)}


def corpus(file: Path) -> dict[str, Any]:
    """Ten million words and marks, of all files of the test data but vocabularies, until there are enough."""
    found: list[str] = []
    files = [path for path in sorted(DATA.glob("*/*.gz"), reverse=True) if path.parent.name != "gguf-vocab"]
    for path in files:
        found += re.findall(r"\w+|[^\w\s]|\n", gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        if len(found) >= TOKENS:
            break
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in found[:TOKENS]], np.uint32)
    np.save(file, ids)
    return {"words_of_text": len(found[:TOKENS]), "different": len(numbers), "files": files.index(path) + 1}


def large(file: Path) -> dict[str, Any]:
    """Count a corpus that is mapped from disk."""
    ids = np.load(file, mmap_mode="r")
    rows: Any = SimpleNamespace(ids=ids, starts=np.array([0, len(ids)]), byte_lengths=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    model: Any = build(NGramConfig(vocab=int(ids.max()) + 1, order=5))
    for _ in model.fit(rows):
        pass
    return {
        "tokens": len(ids),
        "ngrams": [model.vocab, *model.config.sizes],
        "cpu_seconds": round(time.process_time() - began, 1),
        "tokens_per_cpu_second": round(len(ids) / (time.process_time() - began)),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "before_mb": round(before / 1024),
        "parameters": count_parameters(model),
    }


def characters() -> list[dict[str, Any]]:
    """Part 3."""
    text = gzip.decompress(data("tinyshakespeare/input.txt.gz").read_bytes()).decode()
    cut = int(0.9 * len(text))
    tokenizer = train_tokenizer("characters", [text])
    train, held = encode_text(tokenizer, [text[:cut]]), encode_text(tokenizer, [text[cut:]])
    found = []
    tried = [("kneser-ney", order) for order in (5, 6, 7, 8, 10)]
    for smoothing, order in [*tried, ("witten-bell", 6), ("katz", 6), ("laplace", 6), ("laplace", 4)]:
        config = NGramConfig(vocab=tokenizer.vocab, order=order, smoothing=smoothing, bos_token_id=tokenizer.bos_token_id)
        model: Any = build(config)
        began = time.process_time()
        notes = [fitted.note for fitted in model.fit(train)]
        seconds = time.process_time() - began
        score = score_dataset(model, held, start_token_id=tokenizer.bos_token_id, batch_size=16)
        found.append(
            {
                "smoothing": smoothing,
                "order": order,
                "nats_per_character": round(score.nats_per_token, 4),
                "cpu_seconds": round(seconds, 2),
                "note": notes[-1],
            }
        )
    return found


def part(name: str, file: Path) -> dict[str, Any]:
    """One of PARTS in a process of its own, so that its memory is its own."""
    out, _ = whole_process([sys.executable, __file__, "--part", name, str(file)])
    answer: dict[str, Any] = json.loads(out)
    return answer


PARTS = {"estimate": estimate, "corpus": corpus, "large": large}


if __name__ == "__main__":
    main()
