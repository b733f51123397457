"""Build a model from its config, and count its parameters."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from clearstory.models.baselines.config import BagOfWordsConfig, NGramClassifierConfig
from clearstory.models.config import Config
from clearstory.models.families import family_of
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.transformer.stack import Initialization

CLASSIFIERS: dict[type[Any], str] = {
    ClassifierConfig: "clearstory.models.heads:build_classifier",
    BagOfWordsConfig: "clearstory.models.baselines.bag_of_words:BagOfWords",
    NGramClassifierConfig: "clearstory.models.baselines.ngram_classifier:NGramClassifier",
}
"""Models that predict labels: with a head on a backbone of any family, and without a network."""


def build(
    config: Config,
    *,
    seed: int | None = None,
    initialization: Initialization = "normal",
    device: torch.device | str = "cpu",
) -> Any:
    """A new model with random weights.

    Args:
        config: settings of any family.
        seed: of the weights; torch's global generator when None.
        initialization: normal or zero, see `init_weights`.
        device: where the weights are made; on "meta" nothing is allocated.
    """
    reference = CLASSIFIERS.get(type(config)) or family_of(config).model
    module, _, attribute = (reference if isinstance(reference, str) else reference[config.architecture]).partition(":")
    make = getattr(import_module(module), attribute)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        with torch.device(device):
            model = make(config)
        if initialization != "normal" and hasattr(model, "reset"):
            model.reset(initialization)
    return model


def count_parameters(model: nn.Module) -> int:
    """The number of a model's parameters; of its fitted probabilities where it has no parameters (n-grams).

    >>> from clearstory.models.families import preset
    >>> count_parameters(build(preset("nanogpt-char")))
    804352
    """
    parameters = sum(each.numel() for each in model.parameters())
    return parameters or sum(each.numel() for each in model.buffers() if each.is_floating_point())
