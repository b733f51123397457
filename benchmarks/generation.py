"""How fast text is written, beside transformers: one JSON object on standard output.

    python benchmarks/generation.py [MODEL] [--pairs 7] [--tokens 32]

Both run in this process on one thread with the same weights and greedy choice, turn and turn about; each number is a
median, each ratio the median over pairs of (theirs / ours), so that what else the machine does weighs on both alike.
`cpu` ratios count processor time, which other work on the machine disturbs less. Without MODEL, a GPT-2 of 124 M random
weights, whose predictions are near uniform; the loss of 8-bit integers is only worth something with a trained MODEL.
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
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from shared import machine

from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.build import build
from clearstory.models.int8 import quantize_int8
from clearstory.models.decoding_layout import optimize_for_decoding
from clearstory.models.transformer.presets import GPT2
from clearstory.models.base import inference_mode
from clearstory.evaluation.windows import score_dataset

PROMPT = 32


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model folder; random GPT-2 weights when not given")
    parser.add_argument("--text", help="a file to measure the loss of 8-bit integers on")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, theirs = pair(args.model)
    generator = torch.Generator().manual_seed(1)
    results: dict[str, Any] = {"machine": machine(), "model": args.model or "gpt2 shape, random weights"}
    results |= {"parameters": sum(p.numel() for p in model.parameters()), "prompt": PROMPT, "tokens": args.tokens}
    for rows in (1, 8):
        prompts = torch.randint(model.vocab, (rows, PROMPT), generator=generator)
        view = optimize_for_decoding(model, rows)
        results[f"batch_{rows}"] = against(view, theirs, prompts, args)
        results[f"prefill_{rows}"] = prefill(view, theirs, prompts, args.pairs)
        del view
        gc.collect()
    eight = quantize_int8(model)
    for rows in (1, 8):
        prompts = torch.randint(model.vocab, (rows, PROMPT), generator=generator)
        results[f"int8_batch_{rows}"] = against(eight, theirs, prompts, args)
    results["int8_loss"] = loss(model, eight, args)
    json.dump(results, sys.stdout, indent=2)
    print()


def pair(folder: str | None) -> tuple[Any, Any]:
    """One model twice: ours, and transformers' with the same weights."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    if folder is not None:
        from clearstory.formats.folders import open_model

        return open_model(folder).model.eval(), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = build(GPT2, seed=1).eval()
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    return ours, theirs


def against(model: Any, theirs: Any, prompts: torch.Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """Tokens written one by one after a prompt: time for each, without reading the prompt."""
    rows = len(prompts)

    def ours(tokens: int) -> None:
        engine = Engine(model)
        for prompt in prompts.tolist():
            engine.add(prompt, Sampling(max_tokens=tokens, temperature=0))
        while engine.has_unfinished:
            engine.next_tokens()

    def transformers(tokens: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about generation settings that its own defaults contradict
            theirs.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )

    # The whole answer, and the step alone: the difference between many tokens and one.
    times = alternate({"ours": ours, "theirs": transformers}, args.pairs, (args.tokens, 1))
    steps = {
        name: [(long[0] - short[0], long[1] - short[1]) for long, short in zip(*times[name], strict=True)]
        for name in times
    }
    count = rows * (args.tokens - 1)
    return {
        "tokens_per_second": count / statistics.median(wall for wall, _ in steps["ours"]),
        "transformers_tokens_per_second": count / statistics.median(wall for wall, _ in steps["theirs"]),
        "times_as_fast": ratio(steps, 0),
        "times_as_fast_cpu": ratio(steps, 1),
        "times_as_fast_with_prompt": ratio({name: times[name][0] for name in times}, 0),
    }


def prefill(model: Any, theirs: Any, prompts: torch.Tensor, pairs: int) -> dict[str, Any]:
    """Reading the prompt, until the first next token is known."""
    from clearstory.models.base import TokenBatch

    def ours(_: int) -> None:
        with inference_mode(model):
            hidden, _state = model.forward(TokenBatch(prompts), model.init_state(len(prompts)))
            model.logits(hidden[:, -1]).argmax(-1)

    def transformers(_: int) -> None:
        with torch.inference_mode():
            theirs(prompts, use_cache=True, logits_to_keep=1).logits.argmax(-1)

    times = {name: each[0] for name, each in alternate({"ours": ours, "theirs": transformers}, pairs, (1,)).items()}
    return {
        "milliseconds": 1e3 * statistics.median(wall for wall, _ in times["ours"]),
        "transformers_milliseconds": 1e3 * statistics.median(wall for wall, _ in times["theirs"]),
        "times_as_fast": ratio(times, 0),
        "times_as_fast_cpu": ratio(times, 1),
    }


Times = dict[str, list[tuple[float, float]]]
"""(seconds by the clock, seconds of the processor) of each run."""


def alternate(
    runs: dict[str, Callable[[int], None]], pairs: int, sizes: tuple[int, ...]
) -> dict[str, list[list[tuple[float, float]]]]:
    """Every run of every size in turn, `pairs` times, after one round that is thrown away."""
    times: dict[str, list[list[tuple[float, float]]]] = {name: [[] for _ in sizes] for name in runs}
    for turn in range(pairs + 1):
        # Who goes first changes, as the second may find the caches warm.
        for name in list(runs) if turn % 2 else list(reversed(runs)):
            for place, size in enumerate(sizes):
                wall, cpu = time.perf_counter(), time.process_time()
                runs[name](size)
                if turn:
                    times[name][place].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def ratio(times: Times, clock: int) -> float:
    """How many times as fast as theirs ours is: the median over pairs."""
    pairs = zip(times["theirs"], times["ours"], strict=True)
    return statistics.median(theirs[clock] / ours[clock] for theirs, ours in pairs)


def loss(model: Any, eight: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What 8-bit integers cost in nats per token (and bits per byte), on text or on the model's own writing."""
    if args.model and args.text:
        from clearstory.recipes.inference.evaluate import evaluate

        text = Path(args.text).read_text(encoding="utf-8")[:100_000]
        plain = evaluate(args.model, texts=[text], limit=4096)
        less = evaluate(args.model, texts=[text], limit=4096, int8=True)
        return {
            "on": args.text,
            "tokens": plain.score.tokens,
            "nats_per_token": less.score.nats_per_token - plain.score.nats_per_token,
            "bits_per_byte": None if plain.bits_per_byte is None else less.bits_per_byte - plain.bits_per_byte,
        }
    ids = torch.randint(model.vocab, (513,), generator=torch.Generator().manual_seed(2)).numpy()
    rows = type(
        "Rows", (), {"ids": ids, "starts": np.array([0, 513]), "byte_lengths": np.ones(model.vocab, np.int64)}
    )()
    scores = [score_dataset(each, rows, windows="blocks") for each in (model, eight)]
    return {"on": "random ids", "tokens": 512, "nats_per_token": scores[1].nats_per_token - scores[0].nats_per_token}


if __name__ == "__main__":
    main()
