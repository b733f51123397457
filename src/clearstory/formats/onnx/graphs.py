"""ONNX graphs: which files a model becomes, their inputs and outputs under the names that Optimum and its readers use.

    input_ids (B, T), attention_mask (B, P + T), past_key_values.0.key (B, H, P, D) ...  ──►  model.onnx
                                                    logits (B, T, V), present.0.key (B, H, P + T, D) ...  ◄──┘

The P tokens that were read before are in the cache; at first there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearstory.errors import CannotDo
from clearstory.formats.onnx.modules import DecoderModule, EncoderModule, SourceEncoderModule, RecurrentModule, TargetDecoderModule
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.hmm.model import HMM
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.decoder import Transformer

ROWS, TOKENS, BEFORE = 2, 3, 5
"""Sizes of what a graph is drawn with. No two are alike, and none is 1, which the exporter takes for a constant."""


@dataclass(frozen=True)
class OnnxGraph:
    """One file of a folder.

    Args:
        file: its name.
        module: what it computes, of tensors alone.
        inputs: what it is drawn with, by the names of the inputs.
        axes: the names of the dimensions of each input that may be of any size.
        outputs: their names.
        lists: from which input on they are handed to the module in one list; None where there is no such list.
    """

    file: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    lists: int | None = None

    def packed(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """A value for each input, as the module takes them."""
        given = [values[name] for name in self.inputs]
        return tuple(given) if self.lists is None else (*given[: self.lists], given[self.lists :])


def decoder(model: Transformer) -> Iterator[OnnxGraph]:
    """A decoder's graph."""
    c = model.config
    if c.recall:
        raise CannotDo(
            "this model recalls n-grams of ids (model.recall), and ONNX's cache holds keys and values only; it can be "
            "used here, and one without recall can be exported"
        )
    kept = [f"{layer}.{part}" for layer in range(c.layers) for part in ("key", "value")]
    past = {f"past_key_values.{name}": torch.zeros(ROWS, c.kv_heads, BEFORE, c.head_dim) for name in kept}
    yield OnnxGraph(
        "model.onnx",
        DecoderModule(model),
        {**ids("input_ids", TOKENS), **ids("attention_mask", BEFORE + TOKENS), **past},
        {
            "input_ids": {0: "batch_size", 1: "sequence_length"},
            "attention_mask": {0: "batch_size", 1: "total_sequence_length"},
            **{name: {0: "batch_size", 2: "past_sequence_length"} for name in past},
        },
        ("logits", *(f"present.{name}" for name in kept)),
        lists=2,
    )


def encoder(model: Encoder) -> Iterator[OnnxGraph]:
    """An encoder's graph."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if model.token_type_embedding is not None else [])]
    yield OnnxGraph(
        "model.onnx",
        EncoderModule(model),
        {key: value for name in names for key, value in ids(name, TOKENS).items()},
        {name: {0: "batch_size", 1: "sequence_length"} for name in names},
        encoder_outputs(model),
    )


def encoder_outputs(model: Encoder) -> tuple[str, ...]:
    """What an encoder says: its vectors, and what its heads make of them."""
    heads = {"logits": model.mlm_transform, "pooler_output": model.pooler}
    return ("last_hidden_state", *(name for name, head in heads.items() if head is not None))


def encoder_decoder(model: EncoderDecoder) -> Iterator[OnnxGraph]:
    """An encoder-decoder's two graphs."""
    source = {0: "batch_size", 1: "encoder_sequence_length"}
    yield OnnxGraph(
        "encoder_model.onnx",
        SourceEncoderModule(model),
        {**ids("input_ids", BEFORE), **ids("attention_mask", BEFORE)},
        {"input_ids": source, "attention_mask": source},
        ("last_hidden_state",),
    )
    yield OnnxGraph(
        "decoder_model.onnx",
        TargetDecoderModule(model),
        {
            **ids("encoder_attention_mask", BEFORE),
            **ids("input_ids", TOKENS),
            "encoder_hidden_states": torch.zeros(ROWS, BEFORE, model.config.width),
        },
        {
            "encoder_attention_mask": source,
            "input_ids": {0: "batch_size", 1: "sequence_length"},
            "encoder_hidden_states": source,
        },
        ("logits",),
    )


def recurrent(model: Recurrent) -> Iterator[OnnxGraph]:
    """A recurrent model's graph."""
    c = model.config
    kept = [
        (f"{layer}.{part}", units)
        for layer, units in enumerate(c.units)
        for part in (("hidden", "cell") if c.cell == "lstm" else ("hidden",))
    ]
    past = {f"past.{name}": torch.zeros(ROWS, units) for name, units in kept}
    yield OnnxGraph(
        "model.onnx",
        RecurrentModule(model),
        {**ids("input_ids", TOKENS), **past},
        {"input_ids": {0: "batch_size", 1: "sequence_length"}, **{name: {0: "batch_size"} for name in past}},
        ("logits", *(f"present.{name}" for name, _ in kept)),
        lists=1,
    )


def ids(name: str, count: int) -> dict[str, Tensor]:
    """Whole numbers of a shape to draw with."""
    return {name: torch.ones(ROWS, count, dtype=torch.long)}


def ngram(model: NGram) -> Iterator[OnnxGraph]:
    """Raises CannotDo."""
    raise CannotDo(
        "this model looks up what it has counted, for which ONNX has no words; write it as .arpa for other "
        "tools, or export a Transformer, a GRU or an LSTM"
    )


def hmm(model: HMM) -> Iterator[OnnxGraph]:
    """Raises CannotDo."""
    raise CannotDo(
        "this model is a hidden Markov model, and what it believes of its states is written here for no other tool; "
        "Transformers, GRUs and LSTMs can be exported"
    )


GRAPHS: dict[type[nn.Module], Callable[[Any], Iterator[OnnxGraph]]] = {
    Transformer: decoder,
    Encoder: encoder,
    EncoderDecoder: encoder_decoder,
    Recurrent: recurrent,
    NGram: ngram,
    HMM: hmm,
}
"""From the type of a model to its graphs."""


def graphs(model: nn.Module) -> tuple[OnnxGraph, ...]:
    """The graphs of a model, to be drawn. Raises CannotDo for one that has none."""
    return tuple(GRAPHS[type(model)](model))
