"""Training speed of the same GPT-2, compared with a plain loop over GPT2LMHeadModel of transformers with fused AdamW.

    python benchmarks/throughput.py [--pairs 9]

Both run in this process on one thread, alternately, with the same shapes; ratios are medians over pairs of (CPU time of
transformers / CPU time of clearstory). If bf16 is faster on this machine, both are also measured in bf16, transformers
under torch.autocast.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import print_result

from clearstory.models.build import build
from clearstory.models.device import bf16_is_fast, matmul_gflops
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import GPT2, NANOGPT_CHAR
from clearstory.models.transformer.sizing import parameter_count
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

SHAPES: dict[str, tuple[TransformerConfig, int, int, int]] = {
    # name: config, batch size, context, steps per time measurement
    "4 x 128, context 64, 12 rows": (replace(NANOGPT_CHAR, bias=True, vocab=65), 12, 64, 15),
    "6 x 384, context 256, 4 rows, vocabulary 8192": (
        replace(GPT2, vocab=8192, context=256, width=384, layers=6, heads=6, kv_heads=6, intermediate_size=1536),
        4, 256, 2,
    ),
    "GPT-2 124M, context 512, 2 rows": (GPT2, 2, 512, 1),
}  # fmt: skip


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    peak = {"fp32": matmul_gflops(torch.float32, 1024, 1, 1.0), "bf16": matmul_gflops(torch.bfloat16, 1024, 1, 1.0)}
    results = {name: compare(*shape, pairs=pairs, peak=peak) for name, shape in SHAPES.items()}
    print_result(
        {"pairs": pairs, "matmul_gflops_one_thread": {k: round(v) for k, v in peak.items()}, "results": results}
    )


def compare(
    config: TransformerConfig, batch_size: int, context: int, steps: int, *, pairs: int, peak: dict[str, float]
) -> dict[str, Any]:
    """Median times of all loops, measured alternately, and the ratios to transformers in fp32."""
    ids = np.random.default_rng(0).integers(0, config.vocab, 200_000).astype(np.uint16)
    loops: dict[str, Callable[[], object]] = {
        "transformers fp32": transformers_step(config, ids, batch_size, context, None),
        "clearstory fp32": clearstory_step(config, ids, batch_size, context, "fp32"),
    }
    if bf16_is_fast():
        loops["transformers bf16 autocast"] = transformers_step(config, ids, batch_size, context, torch.bfloat16)
        loops["clearstory bf16"] = clearstory_step(config, ids, batch_size, context, "bf16")
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop()
    for _ in range(pairs):
        for name, loop in loops.items():
            started = time.process_time()
            for _ in range(steps):
                loop()
            seconds[name].append((time.process_time() - started) / steps)
    tokens = batch_size * context
    # 6 operations for each parameter in a matrix product and token, and attention's 12 · layers · width · context / 2.
    matmul_parameters = parameter_count(config) - config.context * config.width
    flops = tokens * (6 * matmul_parameters + 6 * config.layers * config.width * context)
    base = seconds["transformers fp32"]
    return {
        name: {
            "milliseconds": round(1e3 * statistics.median(each), 1),
            "tokens_per_cpu_second": round(tokens / statistics.median(each)),
            "times_transformers_fp32": round(statistics.median(b / a for a, b in zip(each, base, strict=True)), 3),
            "share_of_fp32_peak": round(flops / statistics.median(each) / peak["fp32"] / 1e9, 2),
        }
        for name, each in seconds.items()
    }


def clearstory_step(
    config: TransformerConfig, ids: Any, batch_size: int, context: int, precision: Any
) -> Callable[[], object]:
    """A function that takes one step of Trainer."""
    settings = TrainingSettings(batch_size=batch_size, context=context, precision=precision, device="cpu")
    return Trainer(build(config, seed=1), Causal(), SimpleNamespace(ids=ids), settings, steps=10**9).train_step


def transformers_step(
    config: TransformerConfig, ids: Any, batch_size: int, context: int, dtype: torch.dtype | None
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
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


if __name__ == "__main__":
    main()
