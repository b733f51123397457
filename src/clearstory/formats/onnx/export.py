"""Export a model to a folder for onnxruntime: graphs by torch's exporter, tokenizer, config.json.

Inputs and outputs have the names of Hugging Face's Optimum:

    input_ids (B, T), attention_mask (B, P + T), past_key_values.0.key (B, H, P, D) ...  ──►  model.onnx
                                                    logits (B, T, V), present.0.key (B, H, P + T, D) ...  ◄──┘

The cache holds the P tokens before the input, 0 at first.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearstory.durable import write_folder, write_text
from clearstory.errors import CannotDo, MissingExtra
from clearstory.formats.folders import check_tokenizer, write_config_files
from clearstory.formats.hf.config_json import format_of_model
from clearstory.formats.model_card import ModelCard, onnx_readme
from clearstory.formats.onnx.modules import (
    ClassifierModule,
    DecoderModule,
    EncoderModule,
    RecurrentModule,
    SourceEncoderModule,
    TargetDecoderModule,
)
from clearstory.formats.output_folder import check_writable
from clearstory.models.base import inference_mode
from clearstory.models.baselines.bag_of_words import BagOfWords
from clearstory.models.baselines.ngram_classifier import NGramClassifier
from clearstory.models.build import count_parameters
from clearstory.models.capabilities import family_name
from clearstory.models.heads import ClassificationHead, SequenceClassifier, TokenClassifier
from clearstory.models.hmm.model import HMM
from clearstory.models.mixture.model import Mixture
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.tokenizers import Tokenizer

OPSET = 20
"""The ONNX operator set: the first with GELU; onnxruntime has supported it since early 2024."""

MAX_FILE_BYTES = 2**31 - 2**24
"""Maximum size of a graph file (protobuf has a 2 GiB limit). Larger weights are stored in model.onnx.data."""

NOISY_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""Loggers of the exporter, which warn of irrelevant things, such as that torchvision is missing."""

BATCH, LENGTH, PAST = 2, 3, 5
"""Sizes of the example inputs: all different, and none 1, which the exporter would treat as a constant."""


@dataclass(frozen=True)
class OnnxGraph:
    """One graph file.

    Args:
        file: its name.
        module: the function it computes.
        inputs: example inputs by name.
        axes: names of the dynamic dimensions of each input.
        outputs: names of the outputs.
        list_start: index of the first input that is passed to the module in one list; None if there is no list.
        metadata: properties of the file in addition to the graph.
    """

    file: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    list_start: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def module_arguments(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """A value for each input, as arguments of the module."""
        arguments = [values[name] for name in self.inputs]
        if self.list_start is None:
            return tuple(arguments)
        return (*arguments[: self.list_start], arguments[self.list_start :])


def decoder_graphs(model: Transformer) -> Iterator[OnnxGraph]:
    """The graph of a decoder, with a key-value cache."""
    c = model.config
    if c.recall:
        raise CannotDo(
            "this model has hashed n-grams of ids (model.recall), which ONNX's key-value cache does not store; "
            "export a "
            "model without recall"
        )
    names = [f"{layer}.{part}" for layer in range(c.layers) for part in ("key", "value")]
    past = {f"past_key_values.{name}": torch.zeros(BATCH, c.kv_heads, PAST, c.head_dim) for name in names}
    yield OnnxGraph(
        "model.onnx",
        DecoderModule(model),
        {"input_ids": example_ids(LENGTH), "attention_mask": example_ids(PAST + LENGTH), **past},
        {
            "input_ids": {0: "batch_size", 1: "sequence_length"},
            "attention_mask": {0: "batch_size", 1: "total_sequence_length"},
            **{name: {0: "batch_size", 2: "past_sequence_length"} for name in past},
        },
        ("logits", *(f"present.{name}" for name in names)),
        list_start=2,
    )


def encoder_graphs(model: Encoder) -> Iterator[OnnxGraph]:
    """The graph of an encoder."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if model.token_type_embedding is not None else [])]
    yield OnnxGraph(
        "model.onnx",
        EncoderModule(model),
        {name: example_ids(LENGTH) for name in names},
        {name: {0: "batch_size", 1: "sequence_length"} for name in names},
        encoder_outputs(model),
    )


def encoder_outputs(model: Encoder) -> tuple[str, ...]:
    """Names of an encoder's outputs: hidden states, and one for each head."""
    heads = {"logits": model.mlm_transform, "pooler_output": model.pooler}
    return ("last_hidden_state", *(name for name, head in heads.items() if head is not None))


def classifier_graphs(model: ClassificationHead) -> Iterator[OnnxGraph]:
    """The graph of a classification head over an encoder or a decoder, with the names of the labels."""
    backbone = model.backbone
    if not isinstance(backbone, Encoder | Transformer) or backbone.config.recall:
        raise CannotDo(
            f"the head of this model ({family_name(backbone)}) cannot be exported to ONNX; supported: heads of "
            "encoders and of decoders without recall"
        )
    types = ["token_type_ids"] if getattr(backbone, "token_type_embedding", None) is not None else []
    names = ["input_ids", "attention_mask", *types]
    yield OnnxGraph(
        "model.onnx",
        ClassifierModule(model),
        {name: example_ids(LENGTH) for name in names},
        {name: {0: "batch_size", 1: "sequence_length"} for name in names},
        ("logits",),
        metadata={
            "id2label": json.dumps(dict(enumerate(model.config.labels)), ensure_ascii=False),
            "problem_type": model.config.problem_type,
        },
    )


def encoder_decoder_graphs(model: EncoderDecoder) -> Iterator[OnnxGraph]:
    """The two graphs of an encoder-decoder. Raises CannotDo for a recurrence in its decoder."""
    if model.is_recurrent:
        raise CannotDo(
            "a decoder with model.decoder_autoregression 'ssru' cannot be exported to ONNX; supported: self_attention"
        )
    source = {0: "batch_size", 1: "encoder_sequence_length"}
    yield OnnxGraph(
        "encoder_model.onnx",
        SourceEncoderModule(model),
        {"input_ids": example_ids(PAST), "attention_mask": example_ids(PAST)},
        {"input_ids": source, "attention_mask": source},
        ("last_hidden_state",),
    )
    yield OnnxGraph(
        "decoder_model.onnx",
        TargetDecoderModule(model),
        {
            "encoder_attention_mask": example_ids(PAST),
            "input_ids": example_ids(LENGTH),
            "encoder_hidden_states": torch.zeros(BATCH, PAST, model.config.width),
        },
        {
            "encoder_attention_mask": source,
            "input_ids": {0: "batch_size", 1: "sequence_length"},
            "encoder_hidden_states": source,
        },
        ("logits",),
    )


def recurrent_graphs(model: Recurrent) -> Iterator[OnnxGraph]:
    """The graph of a recurrent model, with its state."""
    c = model.config
    sizes = {
        f"{layer}.{part}": units
        for layer, units in enumerate(c.units)
        for part in (("hidden", "cell") if c.cell == "lstm" else ("hidden",))
    }
    past = {f"past.{name}": torch.zeros(BATCH, units) for name, units in sizes.items()}
    yield OnnxGraph(
        "model.onnx",
        RecurrentModule(model),
        {"input_ids": example_ids(LENGTH), **past},
        {"input_ids": {0: "batch_size", 1: "sequence_length"}, **{name: {0: "batch_size"} for name in past}},
        ("logits", *(f"present.{name}" for name in sizes)),
        list_start=1,
    )


def example_ids(length: int) -> Tensor:
    """Example token ids or an attention mask, (BATCH, length)."""
    return torch.ones(BATCH, length, dtype=torch.long)


def ngram_graphs(model: NGram) -> Iterator[OnnxGraph]:
    """Raise CannotDo."""
    raise CannotDo(
        "n-gram models cannot be exported to ONNX; convert this model to .arpa; supported: Transformers and "
        "recurrent models"
    )


def recurrent_encoder_decoder_graphs(model: RecurrentEncoderDecoder) -> Iterator[OnnxGraph]:
    """Raises CannotDo."""
    raise CannotDo(
        "recurrent encoder-decoders cannot be exported to ONNX; keep the model folder, or export a Transformer trained "
        "on the same pairs"
    )


def hmm_graphs(model: HMM) -> Iterator[OnnxGraph]:
    """Raise CannotDo."""
    raise CannotDo("hidden Markov models cannot be exported to ONNX; supported: Transformers and recurrent models")


def mixture_graphs(model: Mixture) -> Iterator[OnnxGraph]:
    """Raises CannotDo."""
    raise CannotDo("mixtures cannot be exported to ONNX; supported: Transformers and recurrent models")


def baseline_graphs(model: nn.Module) -> Iterator[OnnxGraph]:
    """Raises CannotDo."""
    raise CannotDo("baselines without a network cannot be exported to ONNX; keep the model folder")


GRAPHS: dict[type[nn.Module], Callable[[Any], Iterator[OnnxGraph]]] = {
    Transformer: decoder_graphs,
    Encoder: encoder_graphs,
    EncoderDecoder: encoder_decoder_graphs,
    Recurrent: recurrent_graphs,
    RecurrentEncoderDecoder: recurrent_encoder_decoder_graphs,
    NGram: ngram_graphs,
    HMM: hmm_graphs,
    Mixture: mixture_graphs,
    BagOfWords: baseline_graphs,
    NGramClassifier: baseline_graphs,
    SequenceClassifier: classifier_graphs,
    TokenClassifier: classifier_graphs,
}
"""From the type of a model to a function that yields its graphs, or raises CannotDo."""


def model_graphs(model: nn.Module) -> tuple[OnnxGraph, ...]:
    """The graphs of a model. Raises CannotDo for a model that cannot be exported."""
    return tuple(GRAPHS[type(model)](model))


@contextmanager
def write_onnx(
    path: Path, model: nn.Module, tokenizer: Tokenizer | None, card: ModelCard, *, overwrite: bool = False
) -> Iterator[Path]:
    """Export a float32 model to a folder, which has a temporary name within the `with` block, where it can be tested.

    Raises CannotDo for a model that cannot be exported, FolderExists unless `overwrite`, OutOfSpace, MissingExtra if
    the exporter's packages are not installed.
    """
    check_writable(path, overwrite)
    graphs = model_graphs(model)
    check_packages()
    check_tokenizer(model, tokenizer)
    config: Any = model.config
    form, extra = format_of_model(model)
    with write_folder(path, need=4 * count_parameters(model)) as temporary:
        write_config_files(temporary, form, config, extra, model, tokenizer, card)
        write_text(temporary / "README.md", onnx_readme(card, [graph.file for graph in graphs]))
        if tokenizer is not None:
            tokenizer.save(temporary)
        with inference_mode(model):
            for graph in graphs:
                save_graph(temporary, graph)
        yield temporary


def check_packages() -> None:
    """Raise MissingExtra if a package of the exporter is not installed."""
    try:
        import onnx  # noqa: F401  # the exporter imports it
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"ONNX needs {error.name}: pip install 'clearstory[onnx]'") from None


def save_graph(folder: Path, graph: OnnxGraph) -> None:
    """Export one graph to a file. Raises CannotDo if the exporter fails."""
    with silence_exporter():
        try:
            program = export_graph(graph)
        except Exception as error:  # of any of three packages; the cause holds the reason
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise CannotDo(
                f"torch's exporter cannot export {graph.file} ({reason}); please report this, with the config.json"
            ) from error
        program.model.metadata_props.update(graph.metadata)
        tensors = [*graph.module.parameters(), *graph.module.buffers()]
        size = sum(each.numel() * each.element_size() for each in tensors)
        program.save(folder / graph.file, external_data=size > MAX_FILE_BYTES)


def export_graph(graph: OnnxGraph) -> Any:
    """The ONNX program of a graph."""
    axes: Mapping[str, Any] = {name: graph.axes[name] for name in graph.inputs}
    return torch.onnx.export(
        graph.module,
        graph.module_arguments(graph.inputs),
        dynamo=True,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        dynamic_shapes=graph.module_arguments(axes),
        opset_version=OPSET,
        verbose=False,
    )


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Suppress the exporter's warnings and logs; exceptions are raised as usual."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Deprecations within the exporter, and inputs that intentionally share a dimension's name.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
