"""Models with a limited context on longer texts: overlapping windows, each starting with the second half of the
previous one.

A text of any length is then predicted as in an evaluation with strided windows: after the first window each token has
at least half a context before it. Where windows begin depends on the position alone, so reading in pieces equals
reading at once.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.models.base import IGNORE_INDEX, State, TokenBatch

WINDOW_TOKENS = 2**12
"""Number of tokens of the windows that are processed in parallel."""


def read_in_windows(
    model: Any, ids: Int[Tensor, "B T"], state: State, before: Int[Tensor, "B R"], targets: Tensor | None
) -> tuple[Tensor, State]:
    """Hidden states after each token, or where there are targets their negative log-likelihoods; and the state.

    `before` are the last ids read, at least half a context of them, and no sequence is padded.
    """
    outputs: list[Tensor] = []
    done, count = 0, ids.shape[1]
    whole = torch.cat([before, ids], 1)
    while done < count or not outputs:
        if windows := windows_to_skip(model, state, count - done):
            start = before.shape[1] + done
            outputs.append(
                read_full_windows(model, whole, start, windows, None if targets is None else targets[:, done:])
            )
            done += outputs[-1].shape[1]
        state = begin_windows(model, state, whole[:, : before.shape[1] + done])
        free = count - done if model.context is None else model.context - max(state.lengths, default=0)
        part = slice(done, min(done + free, count))
        tokens = TokenBatch(ids[:, part])
        if targets is None:
            output, after = model.forward(tokens, state)
        else:
            output, after = model.token_nll(tokens, targets[:, part], state)
        assert after is not None
        state = after
        outputs.append(output)
        done = part.stop
    return torch.cat(outputs, 1), state


def windows_to_skip(model: Any, state: State, count: int) -> int:
    """How many windows of every sequence lie within the next `count` tokens and end before the last of them."""
    if model.context is None or set(state.lengths) != {model.context}:
        return 0
    context = int(model.context)
    return max(0, count - 1) // (context - context // 2)


@torch.no_grad()
def read_full_windows(model: Any, ids: Int[Tensor, "B L"], start: int, count: int, targets: Tensor | None) -> Tensor:
    """What `read_in_windows` returns for the tokens of `count` windows from `start` on, read side by side.

    Their states are left out, since the next window is read from its ids.
    """
    half = model.context // 2
    stride = model.context - half
    windows = ids[:, start - half : start + count * stride].unfold(1, model.context, stride).flatten(0, 1)
    wanted = None if targets is None else targets[:, : count * stride].reshape(-1, stride)
    outputs = []
    for part in torch.split(torch.arange(len(windows)), max(1, WINDOW_TOKENS // model.context)):
        tokens = TokenBatch(windows[part])
        if wanted is None:
            output, _ = model.forward(tokens)
        else:
            ignored = wanted.new_full((len(part), half), IGNORE_INDEX)
            output, _ = model.token_nll(tokens, torch.cat([ignored, wanted[part]], 1))
        outputs.append(output[:, half:])
    output = torch.cat(outputs)
    return output.reshape(len(ids), count * stride, *output.shape[2:])


def begin_windows(model: Any, state: State, read: Int[Tensor, "B L"]) -> State:
    """The state in which every sequence may be continued: where a window is full, the next one with the last half."""
    full = [row for row, length in enumerate(state.lengths) if model.context is not None and length >= model.context]
    if not full:
        return state
    half = model.context // 2
    begun = model.init_state(len(full))
    if half:
        _, begun = model.forward(TokenBatch(read[full, read.shape[1] - half :]), begun)
    index = {row: at for at, row in enumerate(full)}
    rows = [begun.select([index[row]]) if row in index else state.select([row]) for row in range(len(state.lengths))]
    joined: State = type(begun).join(rows)
    return joined
