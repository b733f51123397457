"""Architectures of the Transformer: which class a config's `architecture` names."""

from __future__ import annotations

from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder

ARCHITECTURES: dict[str, type[Transformer] | type[Encoder] | type[EncoderDecoder]] = {
    "decoder": Transformer,
    "encoder": Encoder,
    "encoder-decoder": EncoderDecoder,
}


def build_transformer(config: TransformerConfig) -> Transformer | Encoder | EncoderDecoder:
    """A new model of the architecture that the config names."""
    return ARCHITECTURES[config.architecture](config)
