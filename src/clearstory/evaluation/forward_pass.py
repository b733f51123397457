"""A forward pass of a torch model over a batch of windows, with arrays in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearstory.models.base import LanguageModel, TokenBatch


@torch.no_grad()
def token_nll(
    model: LanguageModel,
    ids: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64] | None,
    targets: npt.NDArray[np.int64],
    state: Any,
) -> tuple[npt.NDArray[np.float64], Any]:
    """Negative log-likelihood of each target (B, T) in nats after `state` on the model's device, and the new one.

    `ids` are (B, T), of which the first `lengths` (B,) are no padding; None if none is.
    """
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    sizes = None if lengths is None else torch.from_numpy(lengths).to(device)
    batch = TokenBatch(torch.from_numpy(ids).to(device), sizes)
    nats, state = model.token_nll(batch, torch.from_numpy(targets).to(device), state)
    values: npt.NDArray[np.float64] = nats.double().cpu().numpy()
    return values, state
