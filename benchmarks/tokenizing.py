"""Tokenizing: encoding 20 million characters, and training a tokenizer on them, beside tokenizers and tiktoken.

python benchmarks/tokenizing.py [--tiktoken PYTHON] [--runs N]

Every measurement is a process of its own with one thread; those of one tokenizer alternate. `cpu_seconds` are medians,
of encoding alone; `grew_mb` is the growth of the peak memory meanwhile, the ids included. --tiktoken names a Python
that has tiktoken, if this one has not. Results: results/tokenizing.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import DATA, data_file, print_result, run_process

CHARACTERS = 20_000_000

MEASURE = """
import hashlib, json, sys, time
from pathlib import Path
text = Path(sys.argv[1]).read_bytes().decode()
def peak():
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
def measure(function, digest):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
    before, started = peak(), time.process_time()
    result = function()
    seconds, grew = time.process_time() - started, peak() - before
    print(json.dumps({"cpu_seconds": round(seconds, 3), "grew_mb": round(grew), **digest(result)}))
def of_ids(ids):
    import numpy as np
    ids = np.asarray(ids, np.uint32)
    return {"tokens": len(ids), "sha256": hashlib.sha256(ids.tobytes()).hexdigest()[:16]}
"""
"""The beginning of every program: reads the text, and prints what a function took. Linux only."""

PROGRAMS = {
    "clearstory": """
from clearstory.text.token_dataset import encode_documents
from clearstory.text.document import Document
from clearstory.text.tokenizers import Tokenizer
tokenizer = Tokenizer.open(sys.argv[2])
tokenizer.encode("a")
measure(lambda: encode_documents(tokenizer, [Document("text", text)], append_eos=False).ids, of_ids)
""",
    "tokenizers": """
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[2] + "/tokenizer.json")
tokenizer.encode("a")
measure(lambda: tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids, of_ids)
""",
    "tiktoken": r"""
import tiktoken
ranks = {bytes(map(int, token)): id for id, token in enumerate(json.loads(Path(sys.argv[2], "ranks.json").read_text()))}
pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
encoding = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
measure(lambda: encoding.encode_to_numpy(text, disallowed_special=()), of_ids)
""",
}
"""Encoders, each beginning after MEASURE; tiktoken's expression is the one that it publishes for GPT-2."""

TRAINERS = {
    "clearstory": """
from clearstory.text.train_tokenizer import train_tokenizer
measure(lambda: train_tokenizer("bpe:8192", [text]).contents, lambda made: {"merges": digest(json.loads(made))})
""",
    "tokenizers": """
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
def train():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    backend.train_from_iterator([text], trainer)
    return backend.to_str()
measure(train, lambda made: {"merges": digest(json.loads(made))})
""",
}

DIGEST = """
def digest(made):
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in made["model"]["merges"]]
    return hashlib.sha256("\\n".join(merges).encode()).hexdigest()[:16]
"""

KINDS = ("bpe:4096", "unigram:4096", "wordpiece:4096", "words", "wordpunct", "characters", "bytes")
"""Tokenizers trained here, on the first two million characters."""


def write_text(file: Path) -> None:
    """The text: the files of the test data, from the last in the alphabet, vocabularies excluded."""
    found = b""
    for path in sorted(DATA.glob("*/*.gz"), reverse=True):
        if path.parent.name != "gguf-vocab":
            found += gzip.decompress(path.read_bytes())
        if len(found) > 1.1 * CHARACTERS:
            break
    file.write_bytes(found.decode("utf-8", "ignore")[:CHARACTERS].encode())


def write_gpt2(folder: Path) -> None:
    """GPT-2's tokenizer, from a GGUF file of llama.cpp, and the bytes of each of its ids."""
    from clearstory.formats.gguf.header import GGUFHeader
    from clearstory.formats.gguf.tokenizer import read_gguf_tokenizer

    file = folder.with_suffix(".gguf")
    file.write_bytes(gzip.decompress(data_file("gguf-vocab/ggml-vocab-gpt-2.gguf.gz").read_bytes()))
    tokenizer = read_gguf_tokenizer(file, GGUFHeader.read(file).metadata)
    assert tokenizer is not None
    tokenizer.save(folder)
    tokens = [list(tokenizer.token_bytes(id)) for id in range(50_256)]
    (folder / "ranks.json").write_text(json.dumps(tokens))


def alternate(commands: dict[str, list[str]], runs: dict[str, int]) -> dict[str, Any]:
    """The results of commands that are run in turn, with the median of their CPU seconds."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for number in range(max(runs.values())):
        for name, command in commands.items():
            if number < runs[name]:
                output, _ = run_process(command)
                found[name].append(json.loads(output))
    return {
        name: {**each[0], "cpu_seconds": statistics.median(run["cpu_seconds"] for run in each), "runs": len(each)}
        for name, each in found.items()
    }


def compare(text: Path, folder: Path, runs: int, tiktoken: str | None) -> dict[str, Any]:
    """Encoding with the tokenizer of a folder; the library once, since it takes ten times as long."""
    commands = {
        name: [python, "-c", MEASURE + PROGRAMS[name], str(text), str(folder)]
        for name, python in {"clearstory": sys.executable, "tiktoken": tiktoken, "tokenizers": sys.executable}.items()
        if python is not None
    }
    found = alternate(commands, {"clearstory": runs, "tiktoken": runs, "tokenizers": 1})
    ours = found["clearstory"]
    ratios = {
        f"times_{name}": round(each["cpu_seconds"] / ours["cpu_seconds"], 2)
        for name, each in found.items()
        if name != "clearstory"
    }
    same = len({each["sha256"] for each in found.values()}) == 1
    rate = round(text.stat().st_size / 1e6 / ours["cpu_seconds"], 1)
    return {"mb_per_cpu_second": rate, **ratios, "same_ids": same, **found}


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiktoken", help="a Python that has tiktoken", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=5, help="runs of each encoder [5]")
    options = parser.parse_args()
    tiktoken = options.tiktoken or (sys.executable if find_spec("tiktoken") else None)
    from clearstory.text.train_tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as temporary:
        text, gpt2 = Path(temporary, "text.txt"), Path(temporary, "gpt2")
        write_text(text)
        write_gpt2(gpt2)
        encoding = {"gpt2": compare(text, gpt2, options.runs, tiktoken)}
        beginning = text.read_bytes().decode()[:2_000_000]
        for kind in KINDS:
            folder = Path(temporary, kind.partition(":")[0])
            train_tokenizer(kind, [beginning]).save(folder)
            encoding[kind] = compare(text, folder, 1, None)
        commands = {
            name: [sys.executable, "-c", MEASURE + DIGEST + program, str(text)] for name, program in TRAINERS.items()
        }
        training = alternate(commands, dict.fromkeys(TRAINERS, 1))
    print_result({"characters": CHARACTERS, "encoding": encoding, "training bpe:8192": training})


if __name__ == "__main__":
    main()
