"""An encoder of MiniLM's shape beside transformers, and beside an earlier version; prints one JSON object.

    python benchmarks/encoders.py [--base SRC] [--repeats 3]

32 sequences of 8 to 64 tokens, random weights, the same in both: hidden states averaged over each sequence's tokens
(what sentence-transformers runs), and the same with gradients of all weights. All of 64 tokens as well, and 1,000
sentences of data/sst in batches of similar lengths. One thread; the sides alternate in processes of their own, and each
number is a median of CPU seconds. `--base` is the src folder of an earlier version.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

SEQUENCES, LONGEST, SHORTEST = 32, 64, 8
SENTENCES = 1000


def main() -> None:
    """Measure one side, or run all sides and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="src folder of an earlier version")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=("clearstory", "transformers"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        json.dump(measure(args.side, args.repeats), sys.stdout)
        return
    from common import print_result, run_process

    sources = {"clearstory": None, "transformers": None, **({"base": args.base} if args.base else {})}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sources}
    for _ in range(2):
        for name, source in sources.items():
            side = "transformers" if name == "transformers" else "clearstory"
            path = os.environ.get("PYTHONPATH", "") if source is None else str(Path(source).resolve())
            command = ["env", f"PYTHONPATH={path}", sys.executable, __file__, "--side", side]
            output, _ = run_process([*command, "--repeats", str(args.repeats)])
            runs[name].append(json.loads(output))
    milliseconds: dict[str, dict[str, float]] = {}
    for name, both in runs.items():
        times = [each["milliseconds"] for each in both]
        milliseconds[name] = {case: min(each[case] for each in times) for case in times[0]}
    ours = milliseconds["clearstory"]
    ratios = {
        name: {case: round(value / ours[case], 2) for case, value in theirs.items()}
        for name, theirs in milliseconds.items()
        if name != "clearstory"
    }
    difference = {
        name: max(abs(a - b) for a, b in zip(both[0]["checksums"], runs["clearstory"][0]["checksums"], strict=True))
        for name, both in runs.items()
    }
    print_result({"milliseconds": milliseconds, "speed_ratio": ratios, "largest_difference": difference})


def measure(side: str, repeats: int) -> dict[str, Any]:
    """Median milliseconds of each case, and numbers that must be equal on all sides."""
    import torch

    torch.set_num_threads(1)
    theirs = bert_model()
    embed = embed_with_transformers(theirs) if side == "transformers" else embed_with_clearstory(theirs)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (SEQUENCES,), generator=generator).tolist()
    mixed = [torch.randint(1000, 30000, (length,), generator=generator).tolist() for length in lengths]
    full = torch.randint(1000, 30000, (SEQUENCES, LONGEST), generator=generator).tolist()
    sentences = sorted(sentence_ids(), key=len)

    def forward(rows: list[list[int]]) -> Any:
        with torch.inference_mode():
            return embed(rows, False)

    def with_gradients(rows: list[list[int]]) -> None:
        embed(rows, True).square().sum().backward()

    cases: dict[str, Callable[[], Any]] = {
        "forward, 8 to 64 tokens": lambda: forward(mixed),
        "forward, 64 tokens": lambda: forward(full),
        "forward and backward, 8 to 64 tokens": lambda: with_gradients(mixed),
        "forward and backward, 64 tokens": lambda: with_gradients(full),
    }
    if sentences:
        batches = [sentences[start : start + SEQUENCES] for start in range(0, len(sentences), SEQUENCES)]
        cases[f"forward, {len(sentences):,} sentences"] = lambda: [forward(batch) for batch in batches]
    times = {}
    for name, case in cases.items():
        case()
        found = []
        for _ in range(repeats if "sentences" not in name else 1):
            started = time.process_time()
            case()
            found.append(time.process_time() - started)
        times[name] = round(statistics.median(found) * 1000, 1)
    checksums = forward(mixed)[:, :8].flatten().tolist()
    return {"milliseconds": times, "checksums": checksums}


def bert_model() -> Any:
    """A BertModel of MiniLM's shape with random weights in transformers, without dropout."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    return BertModel(BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def embed_with_transformers(model: Any) -> Callable[[list[list[int]], bool], Any]:
    """Mean of the hidden states of each sequence, by transformers."""
    import torch

    def embed(rows: list[list[int]], train: bool) -> Any:
        model.train(train)
        model.zero_grad()
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)

    return embed


def embed_with_clearstory(theirs: Any) -> Callable[[list[list[int]], bool], Any]:
    """The same model, opened by Clearstory."""
    import tempfile
    import warnings

    from clearstory.formats.folders import open_model
    from clearstory.models.base import TokenBatch
    from clearstory.recipes.inference.embed import pool

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(folder)
        model: Any = open_model(folder).model

    def embed(rows: list[list[int]], train: bool) -> Any:
        model.train(train)
        model.zero_grad()
        tokens = TokenBatch.from_sequences(rows)
        return pool(model.encode(tokens), tokens, "mean")

    return embed


def sentence_ids() -> list[list[int]]:
    """1,000 sentences of data/sst, an id for each word; none where the data is missing."""
    import gzip

    from common import DATA

    file = DATA / "sst" / "sst2-train.tsv.gz"
    if not file.is_file():
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [max(line.rstrip("\n").split("\t"), key=len) for line in lines][1 : SENTENCES + 1]
    return [[101, *(1000 + sum(map(ord, word)) % 29000 for word in text.split()), 102][:512] for text in texts]


if __name__ == "__main__":
    main()
