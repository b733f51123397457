"""Families: every kind of model by the type of its config, and how one is built."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from clearstory.models.config import Config, TransformerConfig
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.hmm.model import HMM
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.stack import Birth
from clearstory.models.transformer.decoder import Transformer

FAMILIES: dict[type[Config], type[nn.Module]] = {
    TransformerConfig: Transformer,
    RecurrentConfig: Recurrent,
    HMMConfig: HMM,
    NGramConfig: NGram,
}
"""From a config's type to the model it describes; a Transformer's other shapes are below. A new family is a line here
and one in presets."""

ARCHITECTURES: dict[str, type[nn.Module]] = {"decoder": Transformer, "encoder": Encoder, "encoder-decoder": EncoderDecoder}
"""The three shapes of the Transformer, by `TransformerConfig.kind`."""


def build(
    config: Config,
    *,
    seed: int | None = None,
    birth: Birth = "normal",
    device: torch.device | str = "cpu",
) -> Any:
    """A new model, its weights drawn with `seed` (from torch's own generator when None) as `birth` says.

    On device "meta" nothing is allocated: a way to count the largest.
    """
    family: Any = ARCHITECTURES[config.architecture] if isinstance(config, TransformerConfig) else FAMILIES[type(config)]
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        with torch.device(device):
            model = family(config)
        if birth != "normal" and hasattr(model, "reset"):
            model.reset(birth)
    return model


def count(model: nn.Module) -> int:
    """How many numbers a model has learnt: its parameters, or what it has counted where it has none.

    >>> from clearstory.models.presets import NANOGPT_CHAR
    >>> count(build(NANOGPT_CHAR))
    804352
    """
    learnt = sum(each.numel() for each in model.parameters())
    return learnt or sum(each.numel() for each in model.buffers() if each.is_floating_point())
