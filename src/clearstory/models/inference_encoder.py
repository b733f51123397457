"""Inference copies of models that compute vectors or labels of texts: constant weights are packed for one call and
never saved.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from clearstory.errors import CannotDo
from clearstory.models.capabilities import family_name
from clearstory.models.heads import ClassificationHead, backbone_of
from clearstory.models.matmul.packed import pack_linear
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.transformer.encoder_inference import EncoderForInference, has_native_form

MIN_TOKENS = 2048
"""Number of tokens above which packing an encoder in fp32 saves more time than it takes."""


def inference_encoder(network: Any, *, int8: bool = False, n_tokens: int = MIN_TOKENS) -> Any:
    """A model, or a classifier with its backbone, in the inference form for texts of `n_tokens` tokens altogether.

    Without `int8` nothing is rounded, and the model itself is returned where the compiled kernels do not compute it, or
    for few tokens. With it, the linear layers of the blocks are int8; embeddings, norms and heads are not. Raises
    CannotDo for a model without blocks, or on another device than the processor.
    """
    backbone = backbone_of(network)
    native = (int8 or n_tokens >= MIN_TOKENS) and has_native_form(backbone)
    if not int8 and not native:
        return network
    if (device := next(network.parameters()).device).type != "cpu":
        raise CannotDo(f"int8 weights are for the CPU, but the model is on {device}; use --device cpu")
    form = EncoderForInference(backbone, "int8" if int8 else "fp32") if native else int8_copy(backbone)
    if not isinstance(network, ClassificationHead):
        return form
    return shallow_copy(network, lambda name, each: form if each is backbone else None)


def int8_copy(model: Any) -> Any:
    """A copy of a model whose blocks have int8 linear layers; all else is shared."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise CannotDo(f"this model ({family_name(model)}) has no Transformer blocks to round to int8; leave int8 out")
    inner = {id(each) for each in blocks.modules() if isinstance(each, nn.Linear)}

    def replace(name: str, each: nn.Module) -> nn.Module | None:
        return pack_linear([each], "int8") if isinstance(each, nn.Linear) and id(each) in inner else None

    return shallow_copy(model, replace)
