"""Gradient reach: the norm of the gradient of a token's loss by the input k tokens back, against k.

d loss(t) / d embedding(t − k). Where it vanishes, nothing can be learned from that distance. Bengio et al. 1994;
Pascanu et al. 2013, eq. 3-5.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.lens.hooks.activations import model_device
from clearstory.lens.views import Curve, Line
from clearstory.models.base import LanguageModel, TokenBatch
from clearstory.models.capabilities import Capability, family_name, require
from clearstory.text.tokenizers import Tokenizer

TARGETS = 16
"""Tokens whose losses are differentiated; the curve is their mean."""


def gradient_reach(model: LanguageModel, tokenizer: Tokenizer, text: str) -> Curve:
    """Mean norm of the gradient of a token's loss by the embedding k tokens back, over a text.

    Raises CannotDo for a model without gradients or embeddings, BadInput for a text of fewer than 32 tokens.
    """
    for needed in (Capability.CAUSAL, Capability.GRADIENTS, Capability.EMBEDDINGS):
        require(model, needed)
    ids = tokenizer.encode(text)
    if model.context is not None:
        ids = ids[: model.context + 1]
    if len(ids) < 2 * TARGETS:
        raise BadInput(
            f"the text has {len(ids)} tokens, and the gradient is a mean over the last {TARGETS}; give at least "
            f"{2 * TARGETS}"
        )
    norms = gradient_norms_by_distance(model, ids)
    distances = tuple(float(k) for k in range(1, len(norms) + 1))
    return Curve(
        title="Gradient of a token's loss by the input k tokens back",
        lines=(Line(family_name(model), distances, tuple(norms.tolist())),),
        x_label="k, tokens back",
        y_label="norm of the gradient",
        log_x=True,
        caption=reach_caption(norms),
    )


def gradient_norms_by_distance(model: LanguageModel, ids: list[int], targets: int = TARGETS) -> Float[Tensor, "K"]:
    """Mean norm of the gradient of a token's loss by the embedding k tokens back, for k = 1 to K.

    `ids` are read in one window; the losses are those of the last `targets` tokens, and K is the number of tokens that
    all of them have before them.
    """
    network: Any = model
    recorded: dict[str, Tensor] = {}

    def record_embedding(_: Any, __: Any, out: Tensor) -> Tensor:
        recorded["x"] = out.detach().requires_grad_()
        return recorded["x"]

    was_training = network.training
    network.eval()
    handle = network.embedding.register_forward_hook(record_embedding)
    try:
        with torch.enable_grad():
            device = model_device(model)
            batch = TokenBatch.from_sequences([ids[:-1]], device)
            nats, _ = model.token_nll(batch, torch.tensor([ids[1:]], device=device))
            length = len(ids) - 1 - targets + 1
            total = torch.zeros(length, dtype=torch.float64)
            for position in range(len(ids) - 1 - targets, len(ids) - 1):
                (gradient,) = torch.autograd.grad(nats[0, position], recorded["x"], retain_graph=True)
                # Recurrent models have time first.
                norms = (gradient[0] if gradient.shape[0] == 1 else gradient[:, 0]).norm(dim=-1).double().cpu()
                total += norms[position - length + 1 : position + 1].flip(0)
    finally:
        handle.remove()
        network.train(was_training)
    return total / targets


def reach_caption(norms: Float[Tensor, "K"]) -> str:
    """The distance from which on the gradient is below 1% of the nearest input's.

    >>> reach_caption(torch.tensor([1.0, 0.5, 0.25, 0.005, 0.004]))
    "From 4 tokens back on, the gradient is below 1% of the nearest input's."
    """
    large = (norms >= 0.01 * norms[0]).nonzero().flatten()
    last = int(large[-1]) + 1 if len(large) else 0
    if last == len(norms):
        return f"At {last:,} tokens back the gradient is {float(norms[-1] / norms[0]):.2g} of the nearest input's."
    return f"From {last + 1:,} tokens back on, the gradient is below 1% of the nearest input's."
