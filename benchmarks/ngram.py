"""n-gram models: CPU seconds and memory of estimation and scoring compared with KenLM, and their perplexity.

    python benchmarks/ngram.py [--turns 3] [--lmplz PATH]

1. 5-gram models with modified Kneser-Ney smoothing on the words of WikiText-2, and on ten times that text (all
   available test data, WikiText-2 first). Whole processes, alternating: `clearstory train` from the text file to the
   saved folder, vocabulary, cached tokens and two checkpoints included; KenLM's lmplz (if its path is given) from the
   text file to its ARPA file. Then the validation text is scored by `clearstory evaluate` and by KenLM's query, from
   the ARPA file and from its binary file. lmplz refuses <unk>, <s> and </s> as words, so they are renamed for both.
   Python's compiled files are written once, as by an installation; the cache of tokens is empty in every run.
2. Characters of tinyshakespeare, trained on the first nine tenths: order 6, other orders and other smoothing methods.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from common import DATA, data_file, print_result, run_process

from clearstory.evaluation.windows import score_dataset
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.text.token_dataset import encode_text
from clearstory.text.train_tokenizer import train_tokenizer

REFERENCE = {
    "interpolated_kneser_ney_5": {"valid": 238.9, "what": "one discount an order"},
    "tinyshakespeare_order_6_nats": 1.523,
}


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="number of runs on WikiText-2; the larger text takes one")
    parser.add_argument("--lmplz", type=Path, help="KenLM's estimator; `query` and `build_binary` beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.lmplz is None:
        print("without --lmplz nothing is compared with KenLM", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        write_texts(folder)
        train_process(folder, folder / "valid.txt")  # compiles
        results = {
            "wikitext2": estimation(folder, folder / "train.txt", args.turns, args.lmplz),
            "scoring": scoring(folder, args.turns, args.lmplz),
            "ten_times": estimation(folder, folder / "large.txt", 1, args.lmplz),
        }
    print_result({"reference": REFERENCE, **results, "tinyshakespeare": tinyshakespeare_characters()})


def write_texts(folder: Path) -> None:
    """Write the texts: WikiText-2, and ten times its size of all test data, vocabularies excluded."""
    texts = {}
    for part in ("train", "valid"):
        packed = data_file(f"wikitext2/{part}.txt.gz")
        texts[part] = plain_words(packed)
        (folder / f"{part}.txt").write_text(texts[part], encoding="utf-8")
    others = [path for path in sorted(DATA.glob("*/*.gz"), reverse=True)
              if path.parent.name not in ("gguf-vocab", "wikitext2")]  # fmt: skip
    size, wanted = len(texts["train"]), 10 * len(texts["train"])
    with open(folder / "large.txt", "w", encoding="utf-8") as file:
        file.write(texts["train"])
        for path in others:
            if size < wanted:
                text = plain_words(path)
                size += len(text)
                file.write(text if text.endswith("\n") else text + "\n")


def plain_words(path: Path) -> str:
    """The text of a packed file without the words that lmplz refuses."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    return re.sub(r"<(unk|s|/s)>", r"[\1]", text)


def estimation(folder: Path, text: Path, turns: int, lmplz: Path | None) -> dict[str, Any]:
    """Whole processes, alternating: the median CPU seconds and the peak memory of both."""
    own, kenlm = [], []
    for _ in range(turns):
        own.append(train_process(folder, text))
        if lmplz is not None:
            command = f"exec {lmplz} -o 5 -S 2G -T {folder} < {text} > {folder / 'kenlm.arpa'} 2> /dev/null"
            kenlm.append(run_process(["bash", "-c", command])[1])
    model = folder / text.stem / "model"
    tables = json.loads((model / "config.json").read_text())["model"]
    result = {
        "bytes": text.stat().st_size,
        "ngrams": [tables["vocab"], *tables["sizes"]],
        "model_megabytes": round((model / "model.safetensors").stat().st_size / 2**20),
        "clearstory": summary(own),
    }
    if kenlm:
        result["lmplz"] = {**summary(kenlm), "arpa_megabytes": round((folder / "kenlm.arpa").stat().st_size / 2**20)}
    return result


def train_process(folder: Path, text: Path) -> dict[str, float]:
    """Resources of `clearstory train` with an empty cache."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    words = ["train", str(text), "--model", "ngram", "--model.order", "5", "--tokenizer", "words", "--overwrite"]
    words += ["--data.validation", "0", "--training.threads", "1", "--out", str(folder / text.stem), "--json"]
    return run_process([sys.executable, "-m", "clearstory", *words])[1]


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """The median CPU seconds of several runs, all of them, and the largest peak memory."""
    seconds = [each["cpu_seconds"] for each in runs]
    return {
        "cpu_seconds": statistics.median(seconds),
        "cpu_seconds_each": seconds,
        "peak_mb": max(each["peak_mb"] for each in runs),
    }


def scoring(folder: Path, turns: int, lmplz: Path | None) -> dict[str, Any]:
    """Whole processes that score the validation text with the model of WikiText-2."""
    valid, commands = folder / "valid.txt", {}
    commands["clearstory"] = [
        sys.executable,
        "-m",
        "clearstory",
        "evaluate",
        str(folder / "train"),
        str(valid),
        "--json",
    ]
    if lmplz is not None:
        arpa, binary = folder / "kenlm.arpa", folder / "kenlm.binary"
        run_process(["bash", "-c", f"{lmplz.parent / 'build_binary'} {arpa} {binary} 2> /dev/null"])
        for name, file in (("query_arpa", arpa), ("query_binary", binary)):
            query = f"exec {lmplz.parent / 'query'} -v summary {file} < {valid} 2> /dev/null"
            commands[name] = ["bash", "-c", query]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    perplexity = {}
    for _ in range(turns):
        for name, command in commands.items():
            output, usage = run_process(command)
            runs[name].append(usage)
            found = re.search(r"including OOVs:\s*([\d.]+)", output)
            perplexity[name] = float(found[1]) if found else json.loads(output)["perplexity"]
    return {name: {**summary(each), "valid_perplexity": perplexity[name]} for name, each in runs.items()}


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


if __name__ == "__main__":
    main()
