"""Speed: how fast a model writes with its memory kept, and without it, when all is read anew for each token.

What is kept is a Transformer's keys and values (the KV cache), a recurrent model's vectors, an n-gram's last few ids.
The same tokens are written both ways, turn about, so that a machine that grows busy is unfair to neither.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo, ContextOverflow
from clearstory.lens.hooks.activations import transformer_stacks
from clearstory.lens.views import Curve, Line
from clearstory.models.base import TokenBatch
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import begun, fit_prompt, fit_source, resting
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.studio.generation_session import model_device

MAX_TOKENS, MAX_MEASUREMENTS = 128, 9


def generation_speed(model: Any, tokenizer: Any, text: str, *, tokens: int = 16, runs: int = 3) -> dict[str, Any]:
    """Tokens per second both ways, medians of some runs; milliseconds token by token; and how far their logits differ.

    The seconds hold all that writing takes: reading the prompt, then a token at a time, the likeliest each time. Where
    fewer tokens fit the context, fewer are written. Raises ContextOverflow where not even two do.
    """
    if isinstance(model, Encoder):
        model.cannot_go_on()
    if not 2 <= tokens <= MAX_TOKENS:
        raise BadSetting(f"tokens is {tokens}; write 2 to {MAX_TOKENS}")
    if not 1 <= runs <= MAX_MEASUREMENTS:
        raise BadSetting(f"runs is {runs}; take 1 to {MAX_MEASUREMENTS}")
    prompt_format = PromptFormat.of(model, tokenizer, None)
    prompt, source = prompt_format.encode(tokenizer, text)
    first, sources = fit_prompt(model, prompt, prompt_format.start_token_id), fit_source(model, source)
    if model.context is not None:
        tokens = min(tokens, model.context - len(first) + 1)
        if tokens < 2:
            raise ContextOverflow(
                f"the prompt has {len(first):,} tokens and the model's context holds {model.context:,}, so there is "
                "nothing to keep for a second token; shorten it"
            )
    with resting(model):
        # Written once before the clock runs: it says which tokens, and memory is fetched and warm.
        ids, _, last = timed_greedy_decode(model, first, sources, tokens, kept=True)
        _, _, again = timed_greedy_decode(model, first, sources, tokens, kept=False, ids=ids)
        taken: dict[bool, list[list[float]]] = {True: [], False: []}
        for run in range(runs):
            for kept in (True, False) if run % 2 == 0 else (False, True):
                taken[kept].append(timed_greedy_decode(model, first, sources, tokens, kept=kept, ids=ids)[1])
    rates = {kept: tokens / median(map(sum, taken[kept])) for kept in taken}
    each = {kept: [1000 * median(way) for way in zip(*taken[kept], strict=True)] for kept in taken}
    memory = state_label(model)
    return {
        "tokens": tokens,
        "prompt": len(first),
        "runs": runs,
        "kept": rates[True],
        "anew": rates[False],
        "ratio": rates[True] / rates[False],
        "difference": float((last - again).abs().max()),
        "threads": torch.get_num_threads(),
        "seconds": {"kept": list(map(sum, taken[True])), "anew": list(map(sum, taken[False]))},
        "curve": time_curve(memory, each).to_json(),
        "caption": speed_caption(memory, rates, tokens, len(first), runs, str(model_device(model))),
    }


def timed_greedy_decode(
    model: Any,
    first: Sequence[int],
    source: Sequence[int],
    tokens: int,
    *,
    kept: bool,
    ids: Sequence[int] | None = None,
) -> tuple[list[int], list[float], Tensor]:
    """Some tokens after a prompt, the likeliest each time, or `ids` in their place; the seconds of each; the last
    logits, (V,).
    """
    device = model_device(model)
    row, done, seconds = list(first), 0, []
    state: Any = None
    logits = torch.empty(0)
    for step in range(tokens):
        began = time.perf_counter()
        if not kept or state is None:
            state, done = begun(model, 1, [source], device), 0
        hidden, state = model.forward(TokenBatch.from_sequences([row[done:]], device), state)
        done = len(row)
        logits = model.logits(hidden[0, -1])
        likeliest = int(logits.argmax())  # waits for the device
        seconds.append(time.perf_counter() - began)
        row.append(likeliest if ids is None else ids[step])
    return row[len(first) :], seconds, logits.double().cpu()


def state_label(model: Any) -> str:
    """What a model keeps, in words."""
    try:
        transformer_stacks(model)
    except CannotDo:
        return "its state" if getattr(model, "layers", None) is not None else "its memory"
    return "the KV cache"


def time_curve(memory: str, each: dict[bool, list[float]]) -> Curve:
    """Milliseconds token by token."""
    places = tuple(float(place) for place in range(1, len(each[True]) + 1))
    return Curve(
        title="Milliseconds for each token",
        lines=(
            Line(f"with {memory}", places, tuple(each[True])),
            Line("read anew", places, tuple(each[False])),
        ),
        x_label="token",
        y_label="milliseconds",
    )


def speed_caption(memory: str, rates: dict[bool, float], tokens: int, prompt: int, runs: int, device: str) -> str:
    """Both rates, and their ratio."""
    ratio = rates[True] / rates[False]
    if ratio >= 1.05:
        said = f"{ratio:.1f} times as fast"
    elif ratio <= 0.95:
        said = f"{1 / ratio:.1f} times as slow: of so short a text it saves less than it costs"
    else:
        said = "no faster"
    threads = torch.get_num_threads()
    where = f"{threads} thread{'' if threads == 1 else 's'} of this processor" if device == "cpu" else device
    return (
        f"With {memory} {rates[True]:,.1f} tokens per second, reading all anew {rates[False]:,.1f}: {said}. "
        f"{tokens} tokens after {prompt}, on {where}, the median of {runs} run{'' if runs == 1 else 's'} each."
    )
