"""Reach: how far back a prediction feels its input. Bengio et al. 1994; Pascanu et al. 2013, eq. 3-5.

The norm of d loss(t) / d input(t-k), against k: where it vanishes nothing can be learnt, whatever the text has there.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.lens.views import Curve, Line
from clearstory.models.base import TokenBatch

TARGETS = 16
"""Tokens whose losses are followed back; the curve is their mean."""


def gradient_norms_by_distance(model: Any, ids: list[int], targets: int = TARGETS) -> Float[Tensor, "K"]:
    """Mean norm of the gradient of a token's loss by the vector of the token k places before the last that was read.

    `ids`: tokens to be read, in one window; the losses are those of the `targets` last ones. K is so long that each of
    them has that many tokens before it.
    """
    device = next(model.parameters()).device
    seen: dict[str, Tensor] = {}

    def remember(_: Any, __: Any, out: Tensor) -> Tensor:
        seen["x"] = out.detach().requires_grad_()
        return seen["x"]

    was = model.training
    model.eval()
    handle = model.embedding.register_forward_hook(remember)
    try:
        with torch.enable_grad():
            row = TokenBatch.from_sequences([ids[:-1]], device)
            nats, _ = model.token_nll(row, torch.tensor([ids[1:]], device=device))
            length = len(ids) - 1 - targets + 1
            reach = torch.zeros(length, dtype=torch.float64)
            for place in range(len(ids) - 1 - targets, len(ids) - 1):
                (slope,) = torch.autograd.grad(nats[0, place], seen["x"], retain_graph=True)
                # Recurrent layers read time first.
                norms = (slope[0] if slope.shape[0] == 1 else slope[:, 0]).norm(dim=-1).double().cpu()
                reach += norms[place - length + 1 : place + 1].flip(0)
    finally:
        handle.remove()
        model.train(was)
    return reach / targets


def gradient_reach(model: Any, tokenizer: Any, text: str) -> Curve:
    """How far back this model's predictions of a text feel what was read, as a curve over the distance."""
    ids = tokenizer.encode(text)
    if model.context is not None:
        ids = ids[: model.context + 1]
    if len(ids) < 2 * TARGETS:
        raise BadInput(
            f"the text has {len(ids)} tokens, and reach is a mean over the last {TARGETS}; give at least {2 * TARGETS}"
        )
    norms = gradient_norms_by_distance(model, ids)
    distances = tuple(float(k) for k in range(1, len(norms) + 1))
    return Curve(
        title="Gradient of a token's loss by the input k tokens back",
        lines=(Line(getattr(model.config, "family", "model"), distances, tuple(norms.tolist())),),
        x_label="k, tokens back",
        y_label="norm of the gradient",
        log_x=True,
        caption=look(norms),
    )


def look(norms: Float[Tensor, "K"]) -> str:
    """How far the reach goes, in words.

    >>> look(torch.tensor([1.0, 0.5, 0.25, 0.005, 0.004]))
    'From 4 tokens back on, less than a hundredth of the gradient by the nearest input is left.'
    """
    large = (norms >= 0.01 * norms[0]).nonzero().flatten()
    last = int(large[-1]) + 1 if len(large) else 0
    if last == len(norms):
        return (
            f"At {last:,} tokens back {float(norms[-1] / norms[0]):.2g} of the gradient by the nearest input is left."
        )
    return f"From {last + 1:,} tokens back on, less than a hundredth of the gradient by the nearest input is left."
