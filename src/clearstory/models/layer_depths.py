"""Trainable parameters by depth, and freezing those of the lower layers."""

from __future__ import annotations

from typing import Literal

from torch import nn

from clearstory.errors import BadSetting
from clearstory.models.heads import backbone_of
from clearstory.models.transformer.stack import EMBEDDINGS

INPUT_MODULES = (*(f"{name}." for name in EMBEDDINGS), "embedding_norm.", "relative_position_bias.", "recall.")
"""Prefixes of parameters below the first layer."""


def freeze(model: nn.Module, layers: int | Literal["all"]) -> None:
    """Freeze the embeddings and the first `layers` layers of a model, or "all" of its backbone; heads are trained.

    Raises BadSetting for more layers than there are.
    """
    depths = parameters_by_depth(model)
    count = len(depths) - 2
    if layers != "all" and not 0 <= layers <= count:
        raise BadSetting(f"freeze is {layers}, and the model has {count} layers; give 0 to {count}, or all")
    if layers == 0:
        return
    frozen = list(backbone_of(model).parameters()) if layers == "all" else []
    for depth in depths[: 0 if layers == "all" else layers + 1]:
        frozen += depth.values()
    for parameter in frozen:
        parameter.requires_grad_(False)


def parameters_by_depth(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    """Trainable parameters by name, from the bottom up: embeddings, each layer, and the head with the final norm.

    A learning rate that decays by layer is multiplied once more for each step down (Howard and Ruder 2018).

    >>> from clearstory.models.build import build
    >>> from clearstory.models.heads import SequenceClassifier
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> [len(depth) for depth in parameters_by_depth(SequenceClassifier(build(NANOGPT_CHAR), ("bad", "good")))]
    [2, 8, 8, 8, 8, 2]
    """
    backbone = backbone_of(model)
    prefix = "" if backbone is model else "backbone."
    stack = next(
        (name for name in ("blocks", "layers") if isinstance(getattr(backbone, name, None), nn.ModuleList)), ""
    )
    count = len(getattr(backbone, stack)) if stack else 0
    depths: list[dict[str, nn.Parameter]] = [{} for _ in range(count + 2)]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner.startswith(f"{stack}."):
            depth = 1 + int(inner.split(".")[1])
        else:
            depth = 0 if name.startswith(prefix) and inner.startswith(INPUT_MODULES) else -1
        depths[depth][name] = parameter
    return depths
