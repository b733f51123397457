"""Training speed, time to quality and generation speed on a GPU, compared with transformers.

    python benchmarks/gpu.py [--parts training recurrent quality generation] [--runs clear recall] [--smoke]

training: steps of GPT-2 124M at context 1,024 in bf16, compared with a plain loop over GPT2LMHeadModel of transformers
(transformers_baseline.py); run alternately, medians over rounds. Peak memory is that of each loop alone, weights
included. `unsteady` is clearstory without the deterministic kernels that make a resumed run equal bit for bit.
recurrent: steps of an LSTM of 512 units in fp32 and bf16.
quality: characters of tinyshakespeare, whole processes; nats on the whole last tenth in blocks of the context. The
README of nanoGPT gives 1.4697 for 6 layers of width 384, context 256, dropout 0.2, batch size 64, 5,000 steps.
generation: GPT-2 124M with random weights in bf16, greedy decoding, prompts of 32 tokens included; clearstory uses its
engine, whose steps are recorded in CUDA graphs; also without recording, and over a cache for each sequence.
--smoke uses tiny sizes, also on a CPU: it only tests that the benchmark runs; its numbers mean nothing.
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
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from common import data_file, print_result, run_clearstory
from transformers_baseline import gpt2_model, gpt2_train_step

from clearstory.generation.decoding_batch import CacheBatch
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.build import build
from clearstory.models.device import matmul_gflops, resolve_device
from clearstory.models.recurrent.config import LSTM
from clearstory.models.transformer.presets import GPT2, NANOGPT_CHAR
from clearstory.models.transformer.sizing import parameter_count
from clearstory.training import trainer as training
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings

PARTS = ("training", "recurrent", "quality", "generation")

MODEL_SIZE = (
    *("--model.layers", "6", "--model.width", "384", "--model.heads", "6", "--model.kv_heads", "6"),
    *("--model.context", "256", "--model.dropout", "0.2", "--training.batch_size", "64"),
)
RUNS: dict[str, tuple[str, ...]] = {
    "clear": ("--model", "clear", *MODEL_SIZE, "--model.intermediate_size", "1024", "--minutes", "1"),
    # One epoch, after which its loss is lowest.
    "recall": ("--model", "recall", "--steps", "980"),
    "clear, its own size": ("--model", "clear", "--minutes", "1"),
    "nanogpt-char": ("--model", "nanogpt-char", *MODEL_SIZE, "--model.intermediate_size", "1536", "--minutes", "1"),
}
SMOKE = ("--steps", "2", "--model.width", "32", "--model.layers", "1", "--model.heads", "2")


@dataclass(frozen=True)
class Workload:
    """Sizes of the measured models and loops."""

    config: Any
    batch_size: int
    context: int
    steps: int  # per round
    rounds: int
    generation_batch_sizes: tuple[int, ...]
    max_tokens: int


FULL = Workload(GPT2, batch_size=16, context=1024, steps=10, rounds=5, generation_batch_sizes=(1, 32), max_tokens=128)
TINY = Workload(
    replace(NANOGPT_CHAR, bias=True),
    batch_size=2,
    context=32,
    steps=1,
    rounds=2,
    generation_batch_sizes=(1, 3),
    max_tokens=4,
)


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["clear", "recall"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    device, workload = resolve_device(args.device), TINY if args.smoke else FULL
    if device == "cpu" and not args.smoke:
        print("no GPU is available; use --smoke for tiny sizes on the CPU", file=sys.stderr)
        return
    results: dict[str, Any] = {"gpu": gpu_info(device), "smoke": args.smoke}
    parts: dict[str, Callable[[], Any]] = {
        "training": lambda: training_speed(workload, device),
        "recurrent": lambda: recurrent_speed(workload, device),
        "quality": lambda: tinyshakespeare_loss(args.runs, device, args.smoke),
        "generation": lambda: generation_speed(workload, device),
    }
    for name in args.parts:
        started = time.perf_counter()
        results[name] = parts[name]()
        print(f"{name}: {time.perf_counter() - started:.0f} s {results[name]}", file=sys.stderr)
    print_result(results)


def gpu_info(device: str) -> dict[str, Any] | None:
    """Name, memory and measured matrix multiplication speed of the GPU; None for a CPU."""
    if not device.startswith("cuda"):
        return None
    properties = torch.cuda.get_device_properties(device)
    gflops = {
        name: matmul_gflops(dtype, 8192, seconds=0.5, device=device)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    return {
        "name": properties.name,
        "gb": round(properties.total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
        "matmul_tflops": {name: round(each / 1e3) for name, each in gflops.items()},
    }


def synchronize(device: str) -> None:
    """Wait until the GPU has finished its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def training_speed(workload: Workload, device: str) -> dict[str, Any]:
    """Speed and peak memory of all training loops, measured alternately."""
    ids = np.random.default_rng(0).integers(0, workload.config.vocab, 2_000_000).astype(np.uint16)
    loops: dict[str, Callable[[], Callable[[], object]]] = {
        "transformers, bf16 autocast": lambda: gpt2_train_step(
            workload.config, ids, workload.batch_size, workload.context, device
        ),
        "clearstory, bf16": lambda: clearstory_step(workload, ids, device),
        "clearstory, bf16, unsteady": lambda: nondeterministic(clearstory_step(workload, ids, device)),
    }
    if device.startswith("cuda"):
        loops["clearstory, bf16, compiled"] = lambda: clearstory_step(workload, ids, device, compiled=True)
    steps, peaks, firsts = {}, {}, {}
    for name, make in loops.items():
        steps[name], peaks[name], firsts[name] = measure_alone(make, device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(workload.rounds):
        for name, step in steps.items():
            synchronize(device)
            started = time.perf_counter()
            for _ in range(workload.steps):
                step()
            synchronize(device)
            seconds[name].append((time.perf_counter() - started) / workload.steps)
    config, tokens = workload.config, workload.batch_size * workload.context
    # 6 operations for each parameter in a matrix product and token, and attention's 12 · layers · width · context / 2.
    flops = tokens * (
        6 * (parameter_count(config) - config.context * config.width)
        + 6 * config.layers * config.width * workload.context
    )
    base = seconds["transformers, bf16 autocast"]
    return {
        name: {
            "tokens_per_second": round(tokens / statistics.median(each)),
            "milliseconds": round(1e3 * statistics.median(each), 2),
            "times_as_fast": round(statistics.median(b / a for a, b in zip(each, base, strict=True)), 3),
            "tflops": round(flops / statistics.median(each) / 1e12, 1),
            "peak_mb": peaks[name],
            "first_steps_seconds": firsts[name],
        }
        for name, each in seconds.items()
    }


def measure_alone(
    make: Callable[[], Callable[[], object]], device: str
) -> tuple[Callable[[], object], int | None, float]:
    """A step function, its peak memory in MB, and the seconds of its first five steps."""
    gc.collect()
    gpu = device.startswith("cuda")
    before = 0
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    step = make()
    started = time.perf_counter()
    for _ in range(5):
        step()
    synchronize(device)
    seconds = round(time.perf_counter() - started, 1)
    return step, round((torch.cuda.max_memory_allocated(device) - before) / 1e6) if gpu else None, seconds


def clearstory_step(workload: Workload, ids: Any, device: str, compiled: bool = False) -> Callable[[], object]:
    """A function that takes one step of Trainer."""
    settings = TrainingSettings(
        batch_size=workload.batch_size, context=workload.context, precision="bf16", device=device
    )
    model = build(workload.config, seed=1, device=device)
    if compiled:
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        model.compile()
    return training.Trainer(model, Causal(), SimpleNamespace(ids=ids), settings, steps=10**9).train_step


def nondeterministic(step: Callable[[], object]) -> Callable[[], object]:
    """The same step without deterministic kernels."""

    def nondeterministic_step() -> object:
        original = training.deterministic
        training.deterministic = lambda device: nullcontext()  # type: ignore[assignment]
        try:
            return step()
        finally:
            training.deterministic = original

    return nondeterministic_step


def recurrent_speed(workload: Workload, device: str) -> dict[str, Any]:
    """Tokens per second of training an LSTM of 512 units, 32 streams of 64 tokens, by precision."""
    ids = np.random.default_rng(0).integers(0, LSTM.vocab, 200_000).astype(np.uint16)
    results = {}
    precision: Literal["fp32", "bf16"]
    for precision in ("fp32", "bf16"):
        settings = TrainingSettings(batch_size=32, context=64, precision=precision, device=device)
        model = build(LSTM, seed=1, device=device)
        step = training.Trainer(model, Causal(), SimpleNamespace(ids=ids), settings, steps=10**9).train_step
        seconds = training.median_seconds(step, least=0.0 if workload is TINY else 1.0)
        results[precision] = {"tokens_per_second": round(32 * 64 / seconds)}
    return results


def tinyshakespeare_loss(names: list[str], device: str, smoke: bool) -> dict[str, Any]:
    """Results of complete runs on the characters of tinyshakespeare."""
    text, results = str(data_file("tinyshakespeare/input.txt.gz")), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            arguments = RUNS[name] if not smoke else (*RUNS[name][:2], *SMOKE)
            out = str(Path(folder) / name.replace(", ", "-").replace(" ", "-"))
            run = run_clearstory(
                *("train", text, *arguments, "--tokenizer", "characters", "--training.device", device, "--out", out),
                *("--data.cache", folder),
                threads=4,
            )
            keys = ("nats_per_token", "parameters", "steps", "tokens", "seconds")
            results[name] = {**{key: run[key] for key in keys}, "process_seconds": run["process"]["seconds"]}
            print(name, results[name], file=sys.stderr)
    return {"nanoGPT's README": {"nats_per_token": 1.4697}, **results}


def generation_speed(workload: Workload, device: str) -> dict[str, Any]:
    """Generated tokens per second, prompts included: by recorded steps, by the same steps without recording, over a
    cache for each sequence, and by transformers; and what a step alone takes.
    """
    model = build(workload.config, seed=1, device=device).eval().bfloat16()
    hf_model = gpt2_model(workload.config, device).eval().bfloat16()
    generator, results = torch.Generator().manual_seed(1), {}
    for batch_size in workload.generation_batch_sizes:
        shape = batch_size, min(32, workload.context // 2)
        prompts = torch.randint(1, workload.config.vocab, shape, generator=generator)
        loops: dict[str, Callable[[], dict[str, Any]]] = {
            "clearstory": partial(run_engine, model, prompts, workload.max_tokens),
            "clearstory, not recorded": partial(run_engine, model, prompts, workload.max_tokens, recorded=False),
            "clearstory, separate caches": partial(run_engine, model, prompts, workload.max_tokens, batched=False),
            "transformers": partial(run_transformers, hf_model, prompts.to(device), workload.max_tokens),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        notes: dict[str, dict[str, Any]] = {}
        for round_index in range(4):
            for name, loop in loops.items():
                synchronize(device)
                started = time.perf_counter()
                notes[name] = loop()
                synchronize(device)
                if round_index:
                    seconds[name].append(time.perf_counter() - started)
        base = seconds["transformers"]
        results[f"batch_{batch_size}"] = {
            name: {
                "tokens_per_second": round(batch_size * workload.max_tokens / statistics.median(each)),
                "times_as_fast": round(statistics.median(b / a for a, b in zip(each, base, strict=True)), 3),
                **notes[name],
            }
            for name, each in seconds.items()
        }
    return results


def run_engine(
    model: Any, prompts: Any, max_tokens: int, batched: bool = True, recorded: bool = True
) -> dict[str, Any]:
    """Generate greedily; median milliseconds of the steps in the second half, and why none was recorded if so."""
    engine = Engine(model, _batched=batched)
    decoder = engine.batch.decoder if isinstance(engine.batch, CacheBatch) else None
    if decoder is not None and not recorded:
        decoder.graphs = None
    for prompt in prompts.tolist():
        engine.add(prompt, Sampling(max_tokens=max_tokens, temperature=0))
    steps = []
    while engine.has_unfinished:
        started = time.perf_counter()
        engine.next_tokens()  # returns numbers, and so waits for the GPU
        steps.append(time.perf_counter() - started)
    note = {"step_milliseconds": round(1e3 * statistics.median(steps[len(steps) // 2 :]), 3)}
    if decoder is None or decoder.graphs is None:
        return note
    return {**note, "recorded": sorted(decoder.graphs.graphs), "eager_reason": decoder.graphs.eager_reason}


def run_transformers(model: Any, prompts: Any, max_tokens: int) -> dict[str, Any]:
    """The same by transformers."""
    model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=max_tokens, min_new_tokens=max_tokens,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
    return {}


if __name__ == "__main__":
    main()
