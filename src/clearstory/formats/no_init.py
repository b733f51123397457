"""Build models without initial weights, to be filled with weights from a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearstory.models.build import build
from clearstory.models.config import Config
from clearstory.models.head_config import backbone_config, replace_fields

MAX_ROTARY_ANGLES = 2**27
"""Upper bound of context times head dimension: rotary angles are computed, so no file size bounds them. A context of
2**20 with 128.
"""


class NoInit(TorchFunctionMode):
    """Modules built in this mode on the meta device skip weight initialization; rotary angles are computed on the CPU.

    Initializing weights or computing angles on the meta device would import torch._dynamo (1.5 s for each opening).
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        if function is torch.arange:
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def build_empty(config: Config) -> nn.Module:
    """A model on the meta device, without data."""
    with NoInit():
        model: nn.Module = build(config, device="meta")
    return model


@lru_cache(maxsize=4)
def empty_state_dict(config: Config) -> dict[str, Tensor]:
    """The names and shapes of a model's weights, as tensors on the meta device."""
    # The angles of one position are enough where no data is read.
    return build_empty(replace_fields(config, context=1) if has_rotary(config) else config).state_dict()


def build_with_weights(config: Config, weights: Mapping[str, Tensor]) -> nn.Module:
    """A model in evaluation mode with the given weights, which must be complete."""
    return load_weights(build_empty(config), weights)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A model of `build_empty` in evaluation mode, after its weights, which must be complete, were put in place."""
    model.load_state_dict(dict(weights), assign=True)
    missing = [name for name, each in (*model.named_parameters(), *model.named_buffers()) if each.is_meta]
    assert not missing, f"without data: {missing}"
    return model.eval()


def has_rotary(config: Config) -> bool:
    """Whether a model of this config has rotary position embeddings."""
    return getattr(backbone_config(config), "positions", None) == "rotary"
