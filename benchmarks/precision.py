"""What each precision of the weights costs in bits per byte; prints one JSON object.

    python benchmarks/precision.py SMOLLM2.gguf QUICKSTART_RUN [--tokens 2048]

Bits per byte of a language model on WikiText-2's validation part, and of a small run of `clearstory quickstart` on the
end of its text, in fp32 and in each precision, with the standard error of the paired difference. "outliers" is the
small model with three channels of every norm's output, and two of every feed-forward's inside, 100 times as large and
their weights a 100th: in fp32 the same function. `batch_equal`: whether eight greedy texts are the same alone and in
one batch. `processes`: whole processes of `clearstory generate`. 2,048 tokens take three minutes on one thread,
20,000 a quarter of an hour.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import math
import os
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import data_file, print_result, run_clearstory

from clearstory.formats.folders import open_model
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.inference_model import inference_model
from clearstory.text.documents import read_documents

PRECISIONS: tuple[Any, ...] = ("fp32", "fp16", "bf16", "int8", "int4")
PROMPTS = (
    "The capital of France is",
    "In the beginning",
    "She opened the door and",
    "The first law of",
    "A list of fruits:",
    "Once upon a time",
    "He said that the",
    "Water boils at",
)


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("large", help="a .gguf file or model folder, scored on WikiText-2")
    parser.add_argument("small", help="a run of clearstory quickstart, scored on the end of corpus:kjv")
    parser.add_argument("--tokens", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with gzip.open(data_file("wikitext2/valid.txt.gz"), "rt", encoding="utf-8") as file:
        wikitext = file.read()
    bible = "".join(document.text for document in read_documents(["corpus:kjv"]))
    # First: a process inherits the peak memory of the one that starts it.
    results: dict[str, Any] = {"tokens": args.tokens}
    results["processes"] = {precision: process(args.large, precision) for precision in ("auto", *PRECISIONS)}
    small = open_model(args.small)
    results |= {
        "large": precision_table(args.large, wikitext, args.tokens, 512),
        "small": precision_table(small, bible[-8 * args.tokens :], args.tokens, 128),
        "outliers": precision_table(with_outliers(small), bible[-8 * args.tokens :], args.tokens, 128),
    }
    print_result(results)


def precision_table(opened: Any, text: str, tokens: int, block: int) -> dict[str, Any]:
    """Bits per byte in each precision. A path is opened anew for int4, with its weights in blocks."""
    path = opened if isinstance(opened, str) else None
    opened = open_model(path) if path is not None else opened
    ids = torch.tensor(opened.tokenizer.encode(text)[: tokens + 1])
    nats_per_byte = (len(ids) - 1) / len(opened.tokenizer.decode(ids[1:].tolist()).encode())
    exact = token_nats(opened.model, ids, block)
    table: dict[str, Any] = {"bits_per_byte": float(exact.mean()) * nats_per_byte / math.log(2)}
    for precision in PRECISIONS:
        if precision == "int4" and path is not None:
            opened = open_model(path, keep_blocks=True)
        view = inference_model(opened.model, precision)
        change = (token_nats(view, ids, block) - exact).double()
        table[precision] = {
            "percent": 100 * float(change.mean() / exact.mean()),
            "standard_error": 100 * float(change.std() / math.sqrt(len(change)) / exact.mean()),
            "batch_equal": batch_equal(view, opened.tokenizer),
        }
    return table


@torch.inference_mode()
def token_nats(model: Any, ids: torch.Tensor, block: int) -> torch.Tensor:
    """Negative log-likelihood of each token but the first, read in blocks."""
    parts = []
    for start in range(0, len(ids) - 1, block):
        part = ids[start : start + block + 1]
        parts.append(model.token_nll(TokenBatch(part[None, :-1]), part[None, 1:])[0][0])
    return torch.cat(parts)


def batch_equal(model: Any, tokenizer: Any) -> bool:
    """Whether greedy texts after eight prompts are the same alone and in batches of three and eight."""

    def texts(prompts: tuple[str, ...]) -> list[list[int]]:
        engine = Engine(model)
        found: dict[int, list[int]] = {}
        for prompt in prompts:
            found[engine.add(tokenizer.encode(prompt), Sampling(max_tokens=12, temperature=0))] = []
        while engine.has_unfinished:
            for output in engine.next_tokens():
                found[output.request].append(output.token.id)
        return list(found.values())

    together = texts(PROMPTS)
    return texts(PROMPTS[:3]) == together[:3] and [texts((prompt,))[0] for prompt in PROMPTS] == together


def with_outliers(opened: Any) -> Any:
    """The model with channels 100 times as large where linear layers read them, and their weights a 100th."""
    changed = replace(opened, model=copy.deepcopy(opened.model))
    channels, hidden = [3, 40, 77], [5, 100]
    with torch.no_grad():
        for block in changed.model.blocks:
            attention, feed_forward = block.attention, block.feed_forward
            for norm, layers in (
                (block.attention_norm, (attention.query, attention.key, attention.value)),
                (block.feed_forward_norm, (feed_forward.gate, feed_forward.up)),
            ):
                norm.weight[channels] *= 100
                for layer in layers:
                    layer.weight[:, channels] /= 100
            feed_forward.up.weight[hidden] *= 100
            feed_forward.down.weight[:, hidden] /= 100
    return changed


def process(model: str, precision: str) -> dict[str, Any]:
    """Resource usage of whole processes that generate 1 and 64 tokens."""
    usage = {}
    for tokens in ("1", "64"):
        arguments = ("--precision", precision, "--max-tokens", tokens, "--temperature", "0", "--raw")
        usage[f"{tokens}_tokens"] = run_clearstory("generate", model, PROMPTS[0], *arguments)["process"]
    return usage


if __name__ == "__main__":
    main()
