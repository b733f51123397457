"""Generation speed: tokens per second with the model's cached state, and without it.

The cached state is a Transformer's keys and values (the KV cache), a recurrent model's hidden state, or an n-gram
model's last ids. Without it the whole sequence is processed again for each token. Both methods generate the same tokens
in alternation, so that a change in the machine's load affects both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from clearstory.errors import BadSetting, ContextOverflow
from clearstory.generation.prompt_format import PromptFormat
from clearstory.lens.views import Curve, Line
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode, initial_state
from clearstory.models.capabilities import Capability, has_capability, require
from clearstory.models.prompts import PromptOptions, prepare_prompt, prepare_source
from clearstory.studio.generation_session import model_device
from clearstory.text.tokenizers import Tokenizer

MAX_TOKENS, MAX_MEASUREMENTS = 128, 9
"""The largest number of generated tokens, and of timed repetitions of each method."""


def measure_generation_speed(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    tokens: int = 16,
    runs: int = 3,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """Tokens per second with and without cached state (medians over `runs`), milliseconds per token, logit difference.

    The time covers all of greedy generation: processing the prompt, then one token at a time. If fewer than `tokens`
    fit the context, fewer are generated. Raises ContextOverflow if not even two fit, CannotDo for a model that is not
    causal.
    """
    require(model, Capability.CAUSAL)
    if not 2 <= tokens <= MAX_TOKENS:
        raise BadSetting(f"tokens is {tokens}; generate 2 to {MAX_TOKENS}")
    if not 1 <= runs <= MAX_MEASUREMENTS:
        raise BadSetting(f"runs is {runs}; use 1 to {MAX_MEASUREMENTS}")
    prompt_format = PromptFormat.of(model, tokenizer, None, options=prompt)
    ids, source = prompt_format.encode(tokenizer, text)
    first, sources = prepare_prompt(model, ids, prompt_format.start_token_id), prepare_source(model, source)
    if model.context is not None:
        tokens = min(tokens, model.context - len(first) + 1)
        if tokens < 2:
            raise ContextOverflow(
                f"the prompt has {len(first):,} tokens and the model's context holds {model.context:,}, so no second "
                "token fits; shorten the prompt"
            )
    with inference_mode(model):
        # One untimed run per method: it determines the tokens, and caches are warm afterwards.
        ids, _, logits_cached = timed_greedy_decode(model, first, sources, tokens, use_state=True)
        _, _, logits_recomputed = timed_greedy_decode(model, first, sources, tokens, use_state=False, ids=ids)
        times: dict[bool, list[list[float]]] = {True: [], False: []}
        for run in range(runs):
            for use_state in (True, False) if run % 2 == 0 else (False, True):
                times[use_state].append(
                    timed_greedy_decode(model, first, sources, tokens, use_state=use_state, ids=ids)[1]
                )
    rates = {use_state: tokens / median(map(sum, times[use_state])) for use_state in times}
    milliseconds = {
        use_state: [1000 * median(each) for each in zip(*times[use_state], strict=True)] for use_state in times
    }
    label = state_label(model)
    return {
        "tokens": tokens,
        "prompt": len(first),
        "runs": runs,
        "cached": rates[True],
        "recomputed": rates[False],
        "ratio": rates[True] / rates[False],
        "difference": float((logits_cached - logits_recomputed).abs().max()),
        "threads": torch.get_num_threads(),
        "seconds": {"cached": list(map(sum, times[True])), "recomputed": list(map(sum, times[False]))},
        "curve": time_curve(label, milliseconds).to_json(),
        "caption": speed_caption(label, rates, tokens, len(first), runs, str(model_device(model))),
    }


def timed_greedy_decode(
    model: LanguageModel,
    first: Sequence[int],
    source: Sequence[int],
    tokens: int,
    *,
    use_state: bool,
    ids: Sequence[int] | None = None,
) -> tuple[list[int], list[float], Tensor]:
    """Greedily generated token ids (or the given `ids`), the seconds of each, and the last logits, (V,)."""
    device = model_device(model)
    ids_so_far, processed, seconds = list(first), 0, []
    state: Any = None
    logits = torch.empty(0)
    for step in range(tokens):
        start = time.perf_counter()
        if not use_state or state is None:
            state, processed = initial_state(model, 1, [source], device), 0
        hidden, state = model.forward(TokenBatch.from_sequences([ids_so_far[processed:]], device), state)
        processed = len(ids_so_far)
        logits = model.logits(hidden[0, -1])
        best_id = int(logits.argmax())  # waits for the device
        seconds.append(time.perf_counter() - start)
        ids_so_far.append(best_id if ids is None else ids[step])
    return ids_so_far[len(first) :], seconds, logits.double().cpu()


def state_label(model: LanguageModel) -> str:
    """The name of a model's cached state in captions."""
    if has_capability(model, Capability.ATTENTION):
        return "the KV cache"
    return "the hidden state" if has_capability(model, Capability.RECURRENT_STATE) else "the cached state"


def time_curve(label: str, milliseconds: dict[bool, list[float]]) -> Curve:
    """Milliseconds per generated token, with and without cached state."""
    positions = tuple(float(position) for position in range(1, len(milliseconds[True]) + 1))
    return Curve(
        title="Milliseconds for each token",
        lines=(
            Line(f"with {label}", positions, tuple(milliseconds[True])),
            Line("recomputed", positions, tuple(milliseconds[False])),
        ),
        x_label="token",
        y_label="milliseconds",
    )


def speed_caption(label: str, rates: dict[bool, float], tokens: int, prompt: int, runs: int, device: str) -> str:
    """Both rates, their ratio, and the conditions of the measurement."""
    ratio = rates[True] / rates[False]
    if ratio >= 1.05:
        comparison = f"{ratio:.1f} times as fast"
    elif ratio <= 0.95:
        comparison = f"{1 / ratio:.1f} times as slow: for so short a text the cache costs more than it saves"
    else:
        comparison = "no faster"
    threads = torch.get_num_threads()
    hardware = f"{threads} thread{'' if threads == 1 else 's'} of this CPU" if device == "cpu" else device
    return (
        f"With {label} {rates[True]:,.1f} tokens per second, recomputing everything {rates[False]:,.1f}: {comparison}. "
        f"{tokens} tokens after a prompt of {prompt}, on {hardware}, median of {runs} "
        f"run{'' if runs == 1 else 's'} each."
    )
