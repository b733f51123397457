"""Decodes with llama.cpp as benchmarks/decoding.py asks; run by a Python that has llama-cpp-python, never imported.

Reads JSON lines from standard input: {"quantize": [SOURCE, TARGET, NAME]}, or {"model": FILE, "prompts": [[id, ...]],
"tokens": N}, and answers each with one JSON line: CPU seconds of the prompt and of each further token, the last tokens.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

import llama_cpp
import numpy as np


@llama_cpp.llama_log_callback
def no_log(level: int, text: bytes, data: object) -> None:
    """Discard messages."""


class Decoder:
    """One model file in a context of its own, on one thread."""

    def __init__(self, path: str, batch_size: int, length: int) -> None:
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = (length + 8) * batch_size, batch_size
        settings.n_batch, settings.n_ubatch = max(512, length * batch_size), 512
        settings.n_threads = settings.n_threads_batch = 1
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(max(512, length * batch_size), 0, 1)

    def read(self, tokens: list[tuple[int, int, int, bool]]) -> list[int]:
        """Read (id, position, sequence, whether to predict); the likeliest next token of those that predict."""
        for i, (id, position, sequence, predicts) in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = id, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            self.batch.logits[i] = predicts
        self.batch.n_tokens = len(tokens)
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama.cpp could not decode")
        found = []
        for i, token in enumerate(tokens):
            if token[3]:
                logits = llama_cpp.llama_get_logits_ith(self.context, i)
                found.append(int(np.argmax(np.ctypeslib.as_array(logits, shape=(self.vocab,)))))
        return found

    def decode(self, prompts: list[list[int]], count: int) -> dict[str, Any]:
        """CPU seconds of greedy decoding."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        started = time.process_time()
        last = len(prompts[0]) - 1
        ids = self.read([(id, i, row, i == last) for row, each in enumerate(prompts) for i, id in enumerate(each)])
        prompt_seconds = time.process_time() - started
        started = time.process_time()
        for step in range(1, count):
            ids = self.read([(id, last + step, row, True) for row, id in enumerate(ids)])
        return {"prompt": prompt_seconds, "step": (time.process_time() - started) / max(1, count - 1), "last": ids}

    def close(self) -> None:
        """Free the memory."""
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def quantize(source: str, target: str, name: str) -> dict[str, Any]:
    """Write a model file in another format."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name.upper()}"), 1
    settings.pure = True
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings))
    if code:
        raise RuntimeError(f"llama.cpp could not write {target}")
    return {"written": target}


def main() -> None:
    """Answer requests until standard input ends."""
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(no_log, None)
    decoder, opened = None, None
    for line in sys.stdin:
        request = json.loads(line)
        if "quantize" in request:
            answer = quantize(*request["quantize"])
        else:
            prompts = request["prompts"]
            key = (request["model"], len(prompts), len(prompts[0]) + request["tokens"])
            if key != opened:
                if decoder is not None:
                    decoder.close()
                decoder, opened = Decoder(*key), key
            assert decoder is not None
            answer = decoder.decode(prompts, request["tokens"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
