"""Opening: what the verbs that use a finished model have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from clearstory.errors import BadInput, CannotDo
from clearstory.models.encoder import Encoder
from clearstory.models.machine import usable
from clearstory.text.tokenizers import Tokenizer


class ModelWithTokenizer(Protocol):
    """A model with its tokenizer: what `open_model` gives, or anything like it."""

    @property
    def model(self) -> Any:
        """Any LanguageModel."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the folder has none."""


def load_model_and_tokenizer(model: str | Path | ModelWithTokenizer, device: str | None = None) -> tuple[Any, Tokenizer]:
    """A model and its tokenizer, on `device`; a path is opened, what is open already is taken as it is.

    Raises BadInput for a folder without a tokenizer, BadSetting for a device that is not there.
    """
    if isinstance(model, str | Path):
        from clearstory.formats.folders import open_model

        model = open_model(model)
    if model.tokenizer is None:
        raise BadInput("this model has no tokenizer.json beside it, so text cannot become tokens; put one there")
    network = model.model
    if device is not None and isinstance(network, torch.nn.Module):
        network = network.to(usable(device))
    return network, model.tokenizer


def encoder(
    model: str | Path | ModelWithTokenizer, device: str | None = None, *, words: bool = False, labels: bool = False
) -> tuple[Encoder, Tokenizer]:
    """An encoder and its tokenizer. `words`: it must be able to say which word stands at a place; `labels`: which label
    a text has, or its tokens.

    Raises CannotDo for any other model.
    """
    network, tokenizer = load_model_and_tokenizer(model, device)
    if not isinstance(network, Encoder):
        config = getattr(network, "config", None)
        kind = getattr(config, "architecture", getattr(config, "family", type(network).__name__))
        raise CannotDo(
            f"this model ({kind}) reads left to right and is no encoder; it writes on (clearstory generate), and an "
            "encoder is made by: clearstory train TEXT --model bert-mini"
        )
    if words:
        require_mlm_head(network)
    if labels and network.classifier is None:
        network.cannot_label()
    return network, tokenizer


def require_mlm_head(network: Encoder) -> None:
    """Raises CannotDo for an encoder that cannot say which word stands at a place."""
    if network.mlm_transform is None:
        raise CannotDo(
            "this encoder has no head for words: it gives vectors (clearstory embed); one that tells a [MASK] is made "
            "by: clearstory train TEXT --model bert-mini"
        )
