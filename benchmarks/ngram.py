"""n-gram models: cost of estimation and scoring compared with KenLM, and their perplexity.

    python benchmarks/ngram.py [--turns 3] [--lmplz PATH]

1. 5-gram models with modified Kneser-Ney smoothing on the words of WikiText-2: CPU seconds from the text file to the
   finished tables, vocabulary included, alternating with KenLM's lmplz (if its path is given), which writes its tables
   as text; the validation perplexity of both; and tokens scored per second. lmplz refuses the word <unk>, so it is
   renamed for both.
2. A corpus of 10 M tokens, concatenated from the test data: peak memory of counting.
3. Characters of tinyshakespeare, trained on the first nine tenths: order 6, other orders and other smoothing methods.
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
from common import DATA, data_file, print_result, run_process

from clearstory.evaluation.windows import score_dataset
from clearstory.formats.arpa.read import read_arpa
from clearstory.formats.arpa.write import write_arpa
from clearstory.models.base import TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.ngram.config import NGramConfig
from clearstory.text.token_dataset import encode_text
from clearstory.text.train_tokenizer import train_tokenizer

REFERENCE = {
    "interpolated_kneser_ney_5": {"valid": 238.9, "what": "one discount an order"},
    "tinyshakespeare_order_6_nats": 1.523,
}
TOKENS = 10_000_000


def main() -> None:
    """Run the benchmark and print the results as JSON; with --part, run one part in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="number of runs of part 1")
    parser.add_argument("--lmplz", type=Path, help="KenLM's estimator; `query` is expected in the same folder")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        name, file = args.part
        print(json.dumps(PARTS[name](Path(file))))
        return
    with tempfile.TemporaryDirectory() as folder:
        words = wikitext2_words(Path(folder), args.turns, args.lmplz)
        large = ten_million_tokens(Path(folder))
    print_result(
        {
            "reference": REFERENCE,
            "wikitext2_words": words,
            "ten_million": large,
            "tinyshakespeare": tinyshakespeare_characters(),
        }
    )


def wikitext2_words(folder: Path, turns: int, lmplz: Path | None) -> dict[str, Any]:
    """Part 1: WikiText-2, compared with KenLM."""
    train, valid = folder / "train.txt", folder / "valid.txt"
    for file in (train, valid):
        text = gzip.decompress(data_file(f"wikitext2/{file.stem}.txt.gz").read_bytes()).decode()
        file.write_text(text.replace("<unk>", "[unk]"), encoding="utf-8")
    own_runs, kenlm_runs, kenlm = [], [], None
    for _ in range(turns):
        own_runs.append(run_part("estimate", train))
        if lmplz is not None:
            command = f"exec {lmplz} -o 5 -S 2G -T {folder} < {train} > {folder / 'kenlm.arpa'} 2> /dev/null"
            _, usage = run_process(["bash", "-c", command])
            kenlm_runs.append(usage)
    if lmplz is not None:
        query = f"{lmplz.parent / 'query'} -v summary {folder / 'kenlm.arpa'} < {valid}"
        output = subprocess.run(["bash", "-c", query], capture_output=True, text=True, check=True).stdout
        perplexity = re.search(r"including OOVs:\s*([\d.]+)", output)
        assert perplexity is not None
        kenlm = {
            "cpu_seconds": statistics.median(each["cpu_seconds"] for each in kenlm_runs),
            "cpu_seconds_each": [each["cpu_seconds"] for each in kenlm_runs],
            "valid_perplexity": float(perplexity[1]),
        }
    seconds = [each["cpu_seconds"] for each in own_runs]
    median_run = own_runs[seconds.index(statistics.median_low(seconds))]
    return {
        **median_run,
        "cpu_seconds_each": seconds,
        "tokens_per_cpu_second": round(median_run["tokens"] / median_run["cpu_seconds"]),
        "lmplz": kenlm,
    }


def estimate(file: Path) -> dict[str, Any]:
    """Estimate a model of a text file, then score the validation text in the same folder."""
    started = time.process_time()
    text = file.read_text(encoding="utf-8")
    tokenizer = train_tokenizer("words", [text])
    vocabulary_done = time.process_time()
    dataset = encode_text(tokenizer, [text])
    encoding_done = time.process_time()
    model: Any = build(NGramConfig(vocab=tokenizer.vocab, order=5, bos_token_id=tokenizer.eos_token_id))
    for _ in model.fit(dataset):
        pass
    fitting_done = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    valid = encode_text(tokenizer, [file.with_name("valid.txt").read_text(encoding="utf-8")])
    score = score_dataset(model, valid, start_token_id=tokenizer.eos_token_id, batch_size=16)
    arpa_file = file.with_name("clearstory.arpa")
    writing = time.process_time()
    write_arpa(arpa_file, model, tokenizer)
    reading = time.process_time()
    read_arpa(arpa_file)
    return {
        "cpu_seconds": round(fitting_done - started, 2),
        "of_which": {
            "vocabulary": round(vocabulary_done - started, 2),
            "encoding": round(encoding_done - vocabulary_done, 2),
            "counting_and_smoothing": round(fitting_done - encoding_done, 2),
        },
        "tokens": len(dataset.ids),
        "ngrams": [model.vocab, *model.config.sizes],
        "peak_mb": round(memory / 1024),
        "valid_perplexity": round(score.perplexity, 4),
        "valid_tokens": score.tokens,
        "score_tokens_per_cpu_second": {
            "valid": scoring_speed(model, valid.ids),
            "train": scoring_speed(model, dataset.ids[:1_000_000]),
        },
        "arpa_cpu_seconds": {
            "write": round(reading - writing, 1),
            "read": round(time.process_time() - reading, 1),
        },
    }


def scoring_speed(model: Any, ids: Any) -> int:
    """Tokens scored per CPU second, in one batch; the median of five runs."""
    row = torch.from_numpy(ids.astype(np.int64))[None]
    seconds = []
    for _ in range(5):
        started = time.process_time()
        model.token_nll(TokenBatch(row[:, :-1]), row[:, 1:])
        seconds.append(time.process_time() - started)
    return round(row.shape[1] / statistics.median(seconds))


def ten_million_tokens(folder: Path) -> dict[str, Any]:
    """Part 2: the corpus is written in another process, so that its memory is not measured."""
    file = folder / "large.npy"
    corpus_info = run_part("corpus", file)
    return {**corpus_info, **run_part("large", file)}


def write_corpus(file: Path) -> dict[str, Any]:
    """Write the ids of ten million words and punctuation marks of the test data, vocabularies excluded."""
    words: list[str] = []
    files = [path for path in sorted(DATA.glob("*/*.gz"), reverse=True) if path.parent.name != "gguf-vocab"]
    for path in files:
        words += re.findall(r"\w+|[^\w\s]|\n", gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        if len(words) >= TOKENS:
            break
    vocabulary: dict[str, int] = {}
    ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words[:TOKENS]], np.uint32)
    np.save(file, ids)
    return {"words_of_text": len(words[:TOKENS]), "different": len(vocabulary), "files": files.index(path) + 1}


def count_large(file: Path) -> dict[str, Any]:
    """Count the n-grams of a memory-mapped corpus."""
    ids = np.load(file, mmap_mode="r")
    dataset: Any = SimpleNamespace(ids=ids, starts=np.array([0, len(ids)]), byte_lengths=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    model: Any = build(NGramConfig(vocab=int(ids.max()) + 1, order=5))
    for _ in model.fit(dataset):
        pass
    return {
        "tokens": len(ids),
        "ngrams": [model.vocab, *model.config.sizes],
        "cpu_seconds": round(time.process_time() - started, 1),
        "tokens_per_cpu_second": round(len(ids) / (time.process_time() - started)),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "before_mb": round(before / 1024),
        "parameters": count_parameters(model),
    }


def tinyshakespeare_characters() -> list[dict[str, Any]]:
    """Part 3: loss on tinyshakespeare by order and smoothing method."""
    text = gzip.decompress(data_file("tinyshakespeare/input.txt.gz").read_bytes()).decode()
    cut = int(0.9 * len(text))
    tokenizer = train_tokenizer("characters", [text])
    train, validation = encode_text(tokenizer, [text[:cut]]), encode_text(tokenizer, [text[cut:]])
    results = []
    kneser_ney = [("kneser-ney", order) for order in (5, 6, 7, 8, 10)]
    for smoothing, order in [*kneser_ney, ("witten-bell", 6), ("katz", 6), ("laplace", 6), ("laplace", 4)]:
        config = NGramConfig(
            vocab=tokenizer.vocab, order=order, smoothing=smoothing, bos_token_id=tokenizer.bos_token_id
        )
        model: Any = build(config)
        started = time.process_time()
        notes = [progress.note for progress in model.fit(train)]
        seconds = time.process_time() - started
        score = score_dataset(model, validation, start_token_id=tokenizer.bos_token_id, batch_size=16)
        results.append(
            {
                "smoothing": smoothing,
                "order": order,
                "nats_per_character": round(score.nats_per_token, 4),
                "cpu_seconds": round(seconds, 2),
                "note": notes[-1],
            }
        )
    return results


def run_part(name: str, file: Path) -> dict[str, Any]:
    """The result of one of PARTS, run in its own process so that its peak memory is measured alone."""
    output, _ = run_process([sys.executable, __file__, "--part", name, str(file)])
    result: dict[str, Any] = json.loads(output)
    return result


PARTS = {"estimate": estimate, "corpus": write_corpus, "large": count_large}


if __name__ == "__main__":
    main()
