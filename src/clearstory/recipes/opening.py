"""Opening: what the verbs that use a finished model have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from clearstory.errors import BadInput
from clearstory.models.machine import usable
from clearstory.text.tokenizers import Tokenizer


class Ready(Protocol):
    """A model with its tokenizer: what `open_model` gives, or anything like it."""

    @property
    def model(self) -> Any:
        """Any LanguageModel."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the folder has none."""


def ready(model: str | Path | Ready, device: str | None = None) -> tuple[Any, Tokenizer]:
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
