"""Decoding speed by precision beside llama.cpp, on one thread; prints one JSON object.

    python benchmarks/decoding.py MODEL.gguf --llama-python PYTHON [--batch 1] [--prompt 32] [--tokens 64] [--rounds 5]

PYTHON is an interpreter with llama-cpp-python. The model is written as an f32 file, from which llama.cpp makes the
others. Both decode the same random prompts greedily, alternately, each precision beside the format of like size.
Numbers are medians of CPU milliseconds: of the prompt up to the first token, and of each further token of the whole
batch.
`times_as_fast` is the median over rounds of llama.cpp's time for a further token over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import print_result

from clearstory.formats.folders import open_model
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.inference_model import inference_model

PAIRS = {"fp32": "f32", "fp16": "f16", "int8": "q8_0", "int4": "q4_1"}
"""Our precisions, and the format of llama.cpp that each is measured beside."""


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--llama-python", required=True)
    parser.add_argument("--precisions", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_model(args.model)
    model: Any = opened.model.eval()
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(model.vocab, (args.batch, args.prompt), generator=generator).tolist()
    results: dict[str, Any] = {"batch": args.batch, "prompt": args.prompt, "tokens": args.tokens}
    with tempfile.TemporaryDirectory() as folder:
        f32 = Path(folder) / "model-f32.gguf"
        convert = [sys.executable, "-m", "clearstory", "convert", args.model, str(f32), "--dtype", "f32"]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        worker = LlamaWorker(args.llama_python)
        for precision in args.precisions:
            name = PAIRS[precision]
            path = f32 if name == "f32" else f32.with_name(f"model-{name}.gguf")
            if path != f32:
                worker.ask({"quantize": [str(f32), str(path), name]})
            view = inference_model(model, precision)
            request = {"model": str(path), "prompts": prompts, "tokens": args.tokens}
            rounds = [(decode(view, prompts, args.tokens), worker.ask(request)) for _ in range(args.rounds + 1)][1:]
            results[precision] = summary(rounds, name, args.batch)
            print(precision, results[precision], file=sys.stderr, flush=True)
            del view
        worker.close()
    print_result(results)


def decode(model: Any, prompts: list[list[int]], tokens: int) -> dict[str, float]:
    """CPU seconds of the prompts up to the first token, and of each further token of the batch."""
    engine = Engine(model)
    for prompt in prompts:
        engine.add(prompt, Sampling(max_tokens=tokens, temperature=0))
    started = time.process_time()
    engine.next_tokens()
    prompt_seconds = time.process_time() - started
    started = time.process_time()
    while engine.has_unfinished:
        engine.next_tokens()
    return {"prompt": prompt_seconds, "step": (time.process_time() - started) / max(1, tokens - 1)}


def summary(rounds: list[tuple[dict[str, float], dict[str, float]]], name: str, batch: int) -> dict[str, Any]:
    """Medians of both over rounds, and of their ratios."""

    def milliseconds(which: int, key: str) -> float:
        return round(1e3 * statistics.median(each[which][key] for each in rounds), 2)

    return {
        "token_milliseconds": milliseconds(0, "step"),
        f"llama_cpp_{name}_token_milliseconds": milliseconds(1, "step"),
        "times_as_fast": round(statistics.median(b["step"] / a["step"] for a, b in rounds), 3),
        "tokens_per_second": round(batch / statistics.median(a["step"] for a, _ in rounds), 1),
        "prompt_milliseconds": milliseconds(0, "prompt"),
        f"llama_cpp_{name}_prompt_milliseconds": milliseconds(1, "prompt"),
        "prompt_times_as_fast": round(statistics.median(b["prompt"] / a["prompt"] for a, b in rounds), 3),
    }


class LlamaWorker:
    """llama.cpp in a process of its own."""

    def __init__(self, python: str) -> None:
        worker = Path(__file__).with_name("llama_cpp_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to one request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("llama.cpp ended; run benchmarks/llama_cpp_worker.py by hand to see why")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    main()
