"""Training speed of the same GPT-2, compared with a plain loop over GPT2LMHeadModel of transformers with fused AdamW.

    python benchmarks/throughput.py [--pairs 5]

Each library runs in a process of its own, on one thread; the two take turns with the same shapes. Ratios are medians
over pairs of (CPU time of transformers / CPU time of clearstory). If bf16 is faster on this machine, both are also
measured in bf16, transformers under torch.autocast. `matmul_gflops` are the speeds of the products of a linear layer by
each library of torch, and `share_of_peak` compares the operations of a step with the fastest product of its precision.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from common import print_result

from clearstory.models.build import build
from clearstory.models.device import bf16_is_fast, matmul_gflops, reusing_memory
from clearstory.models.matmul.backend import matmul_backend, measured_speeds, using_backend
from clearstory.models.matmul.kernels import has_onednn
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import GPT2, NANOGPT_CHAR
from clearstory.models.transformer.sizing import parameter_count
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

SHAPES: dict[str, tuple[TransformerConfig, int, int, int]] = {
    # name: config, batch size, context, steps per time measurement
    "4 x 128, context 64, 12 rows": (replace(NANOGPT_CHAR, bias=True, vocab=65), 12, 64, 10),
    "6 x 384, context 256, 4 rows, vocabulary 8192": (
        replace(GPT2, vocab=8192, context=256, width=384, layers=6, heads=6, kv_heads=6, intermediate_size=1536),
        4, 256, 1,
    ),
    "GPT-2 124M, context 512, 1 row": (GPT2, 1, 512, 1),
}  # fmt: skip


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    peak = {"bf16": matmul_gflops(torch.bfloat16, 1024, 1, 0.5)}
    for name in ("mkl", "onednn") if has_onednn() else ("mkl",):
        with using_backend(name):  # type: ignore[arg-type]
            peak[f"fp32 {name}"] = matmul_gflops(torch.float32, 1024, 1, 0.5)
    precisions = ("fp32", "bf16") if bf16_is_fast() else ("fp32",)
    with worker(transformers_step) as theirs, worker(clearstory_step) as ours:
        results = {name: compare(theirs, ours, name, precisions, pairs, peak) for name in SHAPES}
    print_result(
        {
            "pairs": pairs,
            "matmul_backend": matmul_backend(),
            "matmul_gflops": {**measured_speeds(1), "peak": {name: round(value) for name, value in peak.items()}},
            "results": results,
        }
    )


def compare(
    theirs: Connection, ours: Connection, shape: str, precisions: tuple[str, ...], pairs: int, peak: dict[str, float]
) -> dict[str, Any]:
    """Median times of all loops on one shape, measured alternately, and the ratios to transformers."""
    config, batch_size, context, _ = SHAPES[shape]
    loops = [
        (name, pipe, each) for each in precisions for name, pipe in (("transformers", theirs), ("clearstory", ours))
    ]
    seconds: dict[str, list[float]] = {f"{name} {precision}": [] for name, _, precision in loops}
    for warm_up in (True, *[False] * pairs):
        for name, pipe, precision in loops:
            pipe.send((shape, precision, warm_up))
            measured = pipe.recv()
            if not warm_up:
                seconds[f"{name} {precision}"].append(measured)
    tokens = batch_size * context
    # 6 operations for each parameter in a matrix product and token, and attention's 12 · layers · width · context / 2.
    matmul_parameters = parameter_count(config) - config.context * config.width
    flops = tokens * (6 * matmul_parameters + 6 * config.layers * config.width * context)
    best = {"bf16": peak["bf16"], "fp32": max(value for name, value in peak.items() if name.startswith("fp32"))}

    def times(name: str, base: str) -> float:
        return round(statistics.median(b / a for a, b in zip(seconds[name], seconds[base], strict=True)), 3)

    return {
        name: {
            "milliseconds": round(1e3 * statistics.median(each), 1),
            "tokens_per_cpu_second": round(tokens / statistics.median(each)),
            "times_transformers_fp32": times(name, "transformers fp32"),
            "times_transformers": times(name, f"transformers {name[-4:]}"),
            "share_of_peak": round(flops / statistics.median(each) / best[name[-4:]] / 1e9, 2),
        }
        for name, each in seconds.items()
    }


@contextmanager
def worker(make_step: Callable[..., Callable[[], object]]) -> Iterator[Connection]:
    """A process that takes steps: it is sent (shape, precision, warm-up) and returns the CPU seconds of a step."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, make_step), daemon=True)
    process.start()
    there.close()
    yield here
    here.send(None)
    process.join()


def serve(pipe: Connection, make_step: Callable[..., Callable[[], object]]) -> None:
    """Answer requests until there are no more; the loops of one shape are kept."""
    torch.set_num_threads(1)
    loops: dict[tuple[str, str], Callable[[], object]] = {}
    while (request := pipe.recv()) is not None:
        shape, precision, warm_up = request
        config, batch_size, context, steps = SHAPES[shape]
        if (shape, precision) not in loops:
            loops = {key: loop for key, loop in loops.items() if key[0] == shape}
            ids = np.random.default_rng(0).integers(0, config.vocab, 200_000).astype(np.uint16)
            loops[shape, precision] = make_step(config, ids, batch_size, context, precision)
        started = time.process_time()
        for _ in range(1 if warm_up else steps):
            loops[shape, precision]()
        pipe.send((time.process_time() - started) / steps)


def clearstory_step(
    config: TransformerConfig, ids: Any, batch_size: int, context: int, precision: Any
) -> Callable[[], object]:
    """A function that takes one step of Trainer, with memory reused as in `clearstory train`."""
    settings = TrainingSettings(batch_size=batch_size, context=context, precision=precision, device="cpu")
    trainer = Trainer(build(config, seed=1), Causal(), SimpleNamespace(ids=ids), settings, steps=10**9)

    def step() -> object:
        return trainer.train_step()

    reusing_memory().__enter__()  # until the process ends
    return step


def transformers_step(
    config: TransformerConfig, ids: Any, batch_size: int, context: int, precision: str
) -> Callable[[], object]:
    """A function that takes one step of a plain loop: random windows, the model's own loss, clipping, fused AdamW."""
    warnings.simplefilter("ignore")
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    gpt2_config = GPT2Config(
        vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
        n_head=config.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(gpt2_config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    rng = np.random.default_rng(1)

    def step() -> float:
        starts = rng.integers(0, len(ids) - context, batch_size)
        batch = torch.from_numpy(ids[starts[:, None] + np.arange(context)].astype(np.int64))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


if __name__ == "__main__":
    main()
