"""Generation speed compared with transformers; prints one JSON object.

    python benchmarks/generation.py [MODEL] [--pairs 7] [--tokens 32]

Both run alternately in this process on one thread, with the same weights and greedy decoding. Each number is a median,
each ratio the median over pairs of (time of transformers / time of clearstory), so that other load affects both
equally. `cpu` ratios use CPU time, which other load affects less. Without MODEL, GPT-2 124M with random weights, whose
predictions are near uniform; the loss of 8-bit integers is only meaningful with a trained MODEL.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import machine_info

from clearstory.evaluation.windows import score_dataset
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import inference_mode
from clearstory.models.build import build
from clearstory.models.inference_model import inference_model
from clearstory.models.transformer.presets import GPT2

PROMPT = 32


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="model folder; default: GPT-2 with random weights")
    parser.add_argument("--text", help="text file to measure the loss of 8-bit integers on")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, hf_model = model_pair(args.model)
    generator = torch.Generator().manual_seed(1)
    results: dict[str, Any] = {"machine": machine_info(), "model": args.model or "gpt2 shape, random weights"}
    results |= {"parameters": sum(p.numel() for p in model.parameters()), "prompt": PROMPT, "tokens": args.tokens}
    for batch_size in (1, 8):
        prompts = torch.randint(model.vocab, (batch_size, PROMPT), generator=generator)
        decoding_model = inference_model(model, "fp32", batch_size)
        results[f"batch_{batch_size}"] = decode_speed(decoding_model, hf_model, prompts, args)
        results[f"prefill_{batch_size}"] = prefill_speed(decoding_model, hf_model, prompts, args.pairs)
        del decoding_model
        gc.collect()
    for precision in ("fp16", "int8"):
        packed = inference_model(model, precision)
        for batch_size in (1, 8):
            prompts = torch.randint(model.vocab, (batch_size, PROMPT), generator=generator)
            results[f"{precision}_batch_{batch_size}"] = decode_speed(packed, hf_model, prompts, args)
    results["int8_loss"] = int8_loss(model, packed, args)
    json.dump(results, sys.stdout, indent=2)
    print()


def model_pair(folder: str | None) -> tuple[Any, Any]:
    """The same model in clearstory and in transformers."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    if folder is not None:
        from clearstory.formats.folders import open_model

        return open_model(folder).model.eval(), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return build(GPT2, seed=1).eval(), GPT2LMHeadModel(GPT2Config()).eval()


def decode_speed(model: Any, hf_model: Any, prompts: torch.Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """Speed of decoding one token at a time after a prompt, without the time of the prompt."""
    batch_size = len(prompts)

    def run_engine(tokens: int) -> None:
        engine = Engine(model)
        for prompt in prompts.tolist():
            engine.add(prompt, Sampling(max_tokens=tokens, temperature=0))
        while engine.has_unfinished:
            engine.next_tokens()

    def run_transformers(tokens: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about generation settings that its own defaults contradict
            hf_model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )

    # The whole completion, and decoding alone: the difference between many tokens and one.
    times = alternate({"clearstory": run_engine, "transformers": run_transformers}, args.pairs, (args.tokens, 1))
    steps = {
        name: [(long[0] - short[0], long[1] - short[1]) for long, short in zip(*times[name], strict=True)]
        for name in times
    }
    count = batch_size * (args.tokens - 1)
    return {
        "tokens_per_second": count / statistics.median(wall for wall, _ in steps["clearstory"]),
        "transformers_tokens_per_second": count / statistics.median(wall for wall, _ in steps["transformers"]),
        "times_as_fast": ratio(steps, 0),
        "times_as_fast_cpu": ratio(steps, 1),
        "times_as_fast_with_prompt": ratio({name: times[name][0] for name in times}, 0),
    }


def prefill_speed(model: Any, hf_model: Any, prompts: torch.Tensor, pairs: int) -> dict[str, Any]:
    """Time of the forward pass over the prompt, up to the first predicted token."""
    from clearstory.models.base import TokenBatch

    def run_forward(_: int) -> None:
        with inference_mode(model):
            hidden, _state = model.forward(TokenBatch(prompts), model.init_state(len(prompts)))
            model.logits(hidden[:, -1]).argmax(-1)

    def run_transformers(_: int) -> None:
        with torch.inference_mode():
            hf_model(prompts, use_cache=True, logits_to_keep=1).logits.argmax(-1)

    by_size = alternate({"clearstory": run_forward, "transformers": run_transformers}, pairs, (1,))
    times = {name: each[0] for name, each in by_size.items()}
    return {
        "milliseconds": 1e3 * statistics.median(wall for wall, _ in times["clearstory"]),
        "transformers_milliseconds": 1e3 * statistics.median(wall for wall, _ in times["transformers"]),
        "times_as_fast": ratio(times, 0),
        "times_as_fast_cpu": ratio(times, 1),
    }


Times = dict[str, list[tuple[float, float]]]
"""(wall-clock seconds, CPU seconds) of each run."""


def alternate(
    runs: dict[str, Callable[[int], None]], pairs: int, sizes: tuple[int, ...]
) -> dict[str, list[list[tuple[float, float]]]]:
    """Times of every run with every size, run alternately `pairs` times after one warm-up round."""
    times: dict[str, list[list[tuple[float, float]]]] = {name: [[] for _ in sizes] for name in runs}
    for round_index in range(pairs + 1):
        # The order alternates, since the second run may find warm caches.
        for name in list(runs) if round_index % 2 else list(reversed(runs)):
            for index, size in enumerate(sizes):
                wall, cpu = time.perf_counter(), time.process_time()
                runs[name](size)
                if round_index:
                    times[name][index].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def ratio(times: Times, clock: int) -> float:
    """Speed of clearstory relative to transformers: the median over pairs."""
    pairs = zip(times["transformers"], times["clearstory"], strict=True)
    return statistics.median(hf_times[clock] / own_times[clock] for hf_times, own_times in pairs)


def int8_loss(model: Any, int8_model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Increase of the loss by 8-bit integers in nats per token (and bits per byte), on the text or on random ids."""
    if args.model and args.text:
        from clearstory.recipes.inference.evaluate import evaluate

        text = Path(args.text).read_text(encoding="utf-8")[:100_000]
        plain = evaluate(args.model, texts=[text], limit=4096)
        quantized = evaluate(args.model, texts=[text], limit=4096, int8=True)
        return {
            "on": args.text,
            "tokens": plain.score.tokens,
            "nats_per_token": quantized.score.nats_per_token - plain.score.nats_per_token,
            "bits_per_byte": None if plain.bits_per_byte is None else quantized.bits_per_byte - plain.bits_per_byte,
        }
    ids = torch.randint(model.vocab, (513,), generator=torch.Generator().manual_seed(2)).numpy()
    lengths = np.ones(model.vocab, np.int64)
    dataset = SimpleNamespace(ids=ids, starts=np.array([0, 513]), byte_lengths=lengths, document_bytes=np.array([513]))
    scores = [score_dataset(each, dataset, windows="blocks") for each in (model, int8_model)]
    return {"on": "random ids", "tokens": 512, "nats_per_token": scores[1].nats_per_token - scores[0].nats_per_token}


if __name__ == "__main__":
    main()
