"""What a GPU makes of it: training, time to quality and writing, beside transformers; one JSON object.

    python benchmarks/gpu.py [--parts training recurrent quality generation] [--runs clear recall] [--smoke]

training: steps of GPT-2 124M at context 1,024 in bf16, beside a plain loop over transformers' GPT2LMHeadModel (see
beside.py); turn and turn about, medians over rounds. Peak memory is that of each loop alone, its weights included.
`unsteady` is ours without the fixed order of sums that makes a resumed run equal bit for bit.
recurrent: steps of an LSTM of 512 units in either arithmetic.
quality: characters of tinyshakespeare, whole processes; nats on the whole last tenth in blocks of the context. The
README of nanoGPT gives 1.4697 for 6 layers of width 384, context 256, dropout 0.2, 64 rows, 5,000 steps.
generation: GPT-2's shape with the same random weights in bf16, greedy, prompts included; ours is the engine.
--smoke takes tiny shapes, on a processor too: it shows that this runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from beside import gpt2, gpt2_step
from shared import clearstory, data, show

from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.build import build
from clearstory.models.device import matmul_gflops, resolve_device
from clearstory.models.transformer.presets import GPT2, NANOGPT_CHAR
from clearstory.models.recurrent.presets import LSTM
from clearstory.models.transformer.sizing import parameter_count
from clearstory.training import trainer as training
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings

PARTS = ("training", "recurrent", "quality", "generation")

SHAPE = (
    *("--model.layers", "6", "--model.width", "384", "--model.heads", "6", "--model.kv_heads", "6"),
    *("--model.context", "256", "--model.dropout", "0.2", "--training.batch_size", "64"),
)
RUNS: dict[str, tuple[str, ...]] = {
    "clear": ("--model", "clear", *SHAPE, "--model.intermediate_size", "1024", "--minutes", "1"),
    # One pass over the text, in which it learns best.
    "recall": ("--model", "recall", "--steps", "980"),
    "clear, its own size": ("--model", "clear", "--minutes", "1"),
    "nanogpt-char": ("--model", "nanogpt-char", *SHAPE, "--model.intermediate_size", "1536", "--minutes", "1"),
}
SMOKE = ("--steps", "2", "--model.width", "32", "--model.layers", "1", "--model.heads", "2")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    config: Any
    rows: int
    context: int
    steps: int  # of a round
    rounds: int
    batches: tuple[int, ...]  # of rows written
    written: int


FULL = Size(GPT2, rows=16, context=1024, steps=10, rounds=5, batches=(1, 32), written=128)
TINY = Size(replace(NANOGPT_CHAR, bias=True), rows=2, context=32, steps=1, rounds=2, batches=(1, 3), written=4)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["clear", "recall"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    device, size = resolve_device(args.device), TINY if args.smoke else FULL
    if device == "cpu" and not args.smoke:
        print("there is no GPU here, and these shapes are for one; --smoke takes tiny ones", file=sys.stderr)
        return
    found: dict[str, Any] = {"gpu": card(device), "smoke": args.smoke}
    parts: dict[str, Callable[[], Any]] = {
        "training": lambda: train_tokenizer(size, device),
        "recurrent": lambda: recurrent(size, device),
        "quality": lambda: quality(args.runs, device, args.smoke),
        "generation": lambda: write(size, device),
    }
    for name in args.parts:
        began = time.perf_counter()
        found[name] = parts[name]()
        print(f"{name}: {time.perf_counter() - began:.0f} s {found[name]}", file=sys.stderr)
    show(found)


def card(device: str) -> dict[str, Any] | None:
    """The GPU in words, and what its matrix products reach."""
    if not device.startswith("cuda"):
        return None
    known = torch.cuda.get_device_properties(device)
    gflops = {
        name: matmul_gflops(dtype, 8192, seconds=0.5, device=device)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    return {
        "name": known.name,
        "gb": round(known.total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
        "matmul_tflops": {name: round(each / 1e3) for name, each in gflops.items()},
    }


def settle(device: str) -> None:
    """Wait for what was asked of the GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def train_tokenizer(size: Size, device: str) -> dict[str, Any]:
    """All loops in turn."""
    ids = np.random.default_rng(0).integers(0, size.config.vocab, 2_000_000).astype(np.uint16)
    loops: dict[str, Callable[[], Callable[[], object]]] = {
        "transformers, bf16 autocast": lambda: gpt2_step(size.config, ids, size.rows, size.context, device),
        "clearstory, bf16": lambda: ours(size, ids, device),
        "clearstory, bf16, unsteady": lambda: unsteady(ours(size, ids, device)),
    }
    if device.startswith("cuda"):
        loops["clearstory, bf16, compiled"] = lambda: ours(size, ids, device, compiled=True)
    steps, peaks, firsts = {}, {}, {}
    for name, make in loops.items():
        steps[name], peaks[name], firsts[name] = alone(make, device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(size.rounds):
        for name, step in steps.items():
            settle(device)
            began = time.perf_counter()
            for _ in range(size.steps):
                step()
            settle(device)
            seconds[name].append((time.perf_counter() - began) / size.steps)
    c, tokens = size.config, size.rows * size.context
    # 6 operations for each parameter in a matrix product and token, and attention's 12 · layers · width · context / 2.
    work = tokens * (6 * (parameter_count(c) - c.context * c.width) + 6 * c.layers * c.width * size.context)
    base = seconds["transformers, bf16 autocast"]
    return {
        name: {
            "tokens_per_second": round(tokens / statistics.median(each)),
            "milliseconds": round(1e3 * statistics.median(each), 2),
            "times_as_fast": round(statistics.median(b / a for a, b in zip(each, base, strict=True)), 3),
            "tflops": round(work / statistics.median(each) / 1e12, 1),
            "peak_mb": peaks[name],
            "first_steps_seconds": firsts[name],
        }
        for name, each in seconds.items()
    }


def alone(make: Callable[[], Callable[[], object]], device: str) -> tuple[Callable[[], object], int | None, float]:
    """A loop, the memory that it takes by itself, and how long its first five steps last."""
    gc.collect()
    gpu = device.startswith("cuda")
    before = 0
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    step = make()
    began = time.perf_counter()
    for _ in range(5):
        step()
    settle(device)
    seconds = round(time.perf_counter() - began, 1)
    return step, round((torch.cuda.max_memory_allocated(device) - before) / 1e6) if gpu else None, seconds


def ours(size: Size, ids: Any, device: str, compiled: bool = False) -> Callable[[], object]:
    """A step of our Trainer."""
    settings = TrainingSettings(batch_size=size.rows, context=size.context, precision="bf16", device=device)
    model = build(size.config, seed=1, device=device)
    if compiled:
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        model.compile()
    return training.Trainer(model, Causal(), SimpleNamespace(ids=ids), settings, steps=10**9).train_step


def unsteady(step: Callable[[], object]) -> Callable[[], object]:
    """The same step, its sums in whatever order."""

    def free() -> object:
        steady = training.deterministic
        training.deterministic = lambda device: nullcontext()  # type: ignore[assignment]
        try:
            return step()
        finally:
            training.deterministic = steady

    return free


def recurrent(size: Size, device: str) -> dict[str, Any]:
    """Tokens a second of an LSTM of 512 units, 32 streams of 64, by arithmetic."""
    ids = np.random.default_rng(0).integers(0, LSTM.vocab, 200_000).astype(np.uint16)
    found = {}
    for precision in ("fp32", "bf16"):
        kind: Any = precision
        settings = TrainingSettings(batch_size=32, context=64, precision=kind, device=device)
        model = build(LSTM, seed=1, device=device)
        step = training.Trainer(model, Causal(), SimpleNamespace(ids=ids), settings, steps=10**9).train_step
        seconds = training.median_seconds(step, least=0.0 if size is TINY else 1.0)
        found[precision] = {"tokens_per_second": round(32 * 64 / seconds)}
    return found


def quality(names: list[str], device: str, smoke: bool) -> dict[str, Any]:
    """Whole runs on the characters of tinyshakespeare."""
    text, found = str(data("tinyshakespeare/input.txt.gz")), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            words = RUNS[name] if not smoke else (*RUNS[name][:2], *SMOKE)
            out = str(Path(folder) / name.replace(", ", "-").replace(" ", "-"))
            run = clearstory(
                *("train", text, *words, "--tokenizer", "characters", "--training.device", device, "--out", out),
                *("--data.cache", folder),
                threads=4,
            )
            keys = ("nats_per_token", "parameters", "steps", "tokens", "seconds")
            found[name] = {**{key: run[key] for key in keys}, "process_seconds": run["process"]["seconds"]}
            print(name, found[name], file=sys.stderr)
    return {"nanoGPT's README": {"nats_per_token": 1.4697}, **found}


def write(size: Size, device: str) -> dict[str, Any]:
    """Tokens a second, prompts included."""
    model = build(size.config, seed=1, device=device).eval().bfloat16()
    other = gpt2(size.config, device).eval().bfloat16()
    generator, found = torch.Generator().manual_seed(1), {}
    for rows in size.batches:
        prompts = torch.randint(1, size.config.vocab, (rows, min(32, size.context // 2)), generator=generator)
        there = prompts.to(device)

        def engine(prompts: Any = prompts) -> None:
            running = Engine(model)
            for prompt in prompts.tolist():
                running.add(prompt, Sampling(max_tokens=size.written, temperature=0))
            while running.has_unfinished:
                running.next_tokens()

        def transformers(there: Any = there) -> None:
            other.generate(
                there, attention_mask=torch.ones_like(there), max_new_tokens=size.written,
                min_new_tokens=size.written, do_sample=False, pad_token_id=0,
            )  # fmt: skip

        seconds: dict[str, list[float]] = {"clearstory": [], "transformers": []}
        for turn in range(4):
            for name, run in (("clearstory", engine), ("transformers", transformers)):
                settle(device)
                began = time.perf_counter()
                run()
                settle(device)
                if turn:
                    seconds[name].append(time.perf_counter() - began)
        both = zip(seconds["transformers"], seconds["clearstory"], strict=True)
        found[f"batch_{rows}"] = {
            **{name: round(rows * size.written / statistics.median(each)) for name, each in seconds.items()},
            "times_as_fast": round(statistics.median(b / a for b, a in both), 3),
        }
    return found


if __name__ == "__main__":
    main()
