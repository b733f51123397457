"""Loading: opens the model and tokenizer of an inference recipe, and checks the recipe's requirements."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from clearstory.errors import BadInput, CannotDo
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, family_name, has_capability, require
from clearstory.models.device import resolve_device
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.heads import ClassificationHead
from clearstory.models.transformer.encoder import Encoder
from clearstory.recipes.inference.model_argument import ModelWithTokenizer as ModelWithTokenizer
from clearstory.text.tokenizers import Tokenizer


def load_model_and_tokenizer(
    model: str | Path | ModelWithTokenizer, device: str | None = None
) -> tuple[LanguageModel, Tokenizer]:
    """The model (LanguageModel or Encoder) and its tokenizer, moved to `device`. A path is opened first.

    Raises BadInput for a folder without a tokenizer, BadSetting for a device that does not exist.
    """
    if isinstance(model, str | Path):
        from clearstory.formats.folders import open_model

        model = open_model(model)
    if model.tokenizer is None:
        raise BadInput("this model folder has no tokenizer.json, so text cannot be tokenized; add one to the folder")
    network = model.model
    if device is not None and isinstance(network, torch.nn.Module):
        network = network.to(resolve_device(device))
    return network, model.tokenizer


def load_generator(
    model: str | Path | ModelWithTokenizer, device: str | None = None, *, keep_blocks: bool = False
) -> tuple[LanguageModel, Tokenizer, GenerationConfig]:
    """The model and its tokenizer, and its generation config; without one, its texts end with the tokenizer's eos.

    `keep_blocks`: as in `open_model`, for a model on the processor. Raises the errors of `load_model_and_tokenizer`.
    """
    if isinstance(model, str | Path):
        from clearstory.formats.folders import open_model

        model = open_model(model, keep_blocks=keep_blocks and device in (None, "cpu"))
    network, tokenizer = load_model_and_tokenizer(model, device)
    end = tokenizer.eos_token_id
    default = GenerationConfig(eos_token_ids=() if end is None else (end,))
    return network, tokenizer, getattr(model, "generation_config", default)


def load_encoder(
    model: str | Path | ModelWithTokenizer, device: str | None = None, *capabilities: Capability
) -> tuple[Encoder, Tokenizer]:
    """An encoder and its tokenizer. Raises CannotDo for any other model, or for one without these capabilities."""
    network, tokenizer = load_model_and_tokenizer(model, device)
    if not has_capability(network, Capability.BIDIRECTIONAL):
        raise CannotDo(
            f"this model ({family_name(network)}) is not an encoder; use it with clearstory generate, or train an "
            "encoder with: clearstory train TEXT --model bert-mini"
        )
    for capability in capabilities:
        require(network, capability)
    return cast("Encoder", network), tokenizer


def load_classifier(
    model: str | Path | ModelWithTokenizer, device: str | None = None
) -> tuple[ClassificationHead, Tokenizer]:
    """A model with a classification head and its tokenizer. Raises CannotDo for a model without one."""
    network, tokenizer = load_model_and_tokenizer(model, device)
    require(network, Capability.CLASSIFIER)
    return cast("ClassificationHead", network), tokenizer
