"""Families: every kind of model by name, and how one is built from its config."""

from __future__ import annotations

from typing import Any

import torch

from clearstory.models.config import TransformerConfig
from clearstory.models.transformer import Birth, Transformer

FAMILIES: dict[type[Any], type[torch.nn.Module]] = {TransformerConfig: Transformer}
"""From a config's type to the model it describes."""


def build(
    config: TransformerConfig,
    *,
    seed: int | None = None,
    birth: Birth = "normal",
    device: torch.device | str = "cpu",
) -> Transformer:
    """A new model, its weights drawn with `seed` (from torch's own generator when None) as `birth` says.

    On device "meta" nothing is allocated: a way to count the largest.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        with torch.device(device):
            model: Transformer = FAMILIES[type(config)](config)  # type: ignore[assignment]  # one family so far
        if birth != "normal":
            model.reset(birth)
    return model
