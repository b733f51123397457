"""ONNX writing: a folder that onnxruntime reads, drawn by torch's own exporter: graphs, tokenizer, config.json."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clearstory.durable import write_folder, write_json, write_text
from clearstory.errors import CannotDo, FolderExists, MissingExtra
from clearstory.formats.model_card import ModelCard, onnx_readme
from clearstory.formats.hf.config_json import choose_format
from clearstory.formats.folders import check_tokenizer, config_json_dict, generation_json_dict
from clearstory.formats.onnx.graphs import OnnxGraph, graphs
from clearstory.models.build import count_parameters
from clearstory.models.base import inference_mode
from clearstory.text.tokenizers import Tokenizer

OPSET = 20
"""The version of ONNX's words. From this one on GELU is one of them; onnxruntime has read it since early 2024."""

MOST_BYTES = 2**31 - 2**24
"""Of one file: protobuf counts in 31 bits. What is larger lies beside it, in model.onnx.data."""

LOUD = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""Loggers of the exporter, which warn of what is none of ours, such as that torchvision is not there."""


@contextmanager
def write_onnx(
    path: Path, model: nn.Module, tokenizer: Tokenizer | None, card: ModelCard, *, overwrite: bool = False
) -> Iterator[Path]:
    """A folder with a model's graphs, at a temporary name while the block runs, in which it is to be tried.

    The model is one of float32. Raises CannotDo for one that has no graph, FolderExists unless `overwrite`, OutOfSpace,
    MissingExtra where the exporter's packages are not installed.
    """
    if path.exists() and not overwrite and (not path.is_dir() or any(path.iterdir())):
        raise FolderExists(f"{path} is there already; choose another name, or pass --overwrite to replace it")
    drawn = graphs(model)
    check_packages()
    check_tokenizer(model, tokenizer)
    config: Any = model.config
    form, extra = choose_format(config)
    with write_folder(path, need=4 * count_parameters(model)) as temporary:
        write_json(temporary / "config.json", config_json_dict(form, config, extra, model, tokenizer, card))
        if getattr(config, "architecture", "") != "encoder":
            write_json(temporary / "generation_config.json", generation_json_dict(config, tokenizer))
        write_text(temporary / "README.md", onnx_readme(card, [graph.file for graph in drawn]))
        if tokenizer is not None:
            tokenizer.save(temporary)
        with inference_mode(model):
            for graph in drawn:
                save(temporary, graph)
        yield temporary


def check_packages() -> None:
    """Raises MissingExtra."""
    try:
        import onnx  # noqa: F401  # what the exporter imports, and what checks it
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"ONNX needs {error.name}: pip install 'clearstory[onnx]'") from None


def save(folder: Path, graph: OnnxGraph) -> None:
    """One graph as a file. Raises CannotDo where the exporter cannot take it."""
    with quiet():
        try:
            program = draw(graph)
        except Exception as error:  # of any of three packages; its cause is what happened
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise CannotDo(
                f"torch's exporter cannot draw {graph.file} ({reason}); please report this, with the config.json"
            ) from error
        numbers = [*graph.module.parameters(), *graph.module.buffers()]
        size = sum(each.numel() * each.element_size() for each in numbers)
        program.save(folder / graph.file, external_data=size > MOST_BYTES)


def draw(graph: OnnxGraph) -> Any:
    """What torch's exporter makes of a graph."""
    axes: Mapping[str, Any] = {name: graph.axes[name] for name in graph.inputs}
    return torch.onnx.export(
        graph.module,
        graph.packed(graph.inputs),
        dynamo=True,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        dynamic_shapes=graph.packed(axes),
        opset_version=OPSET,
        verbose=False,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says by the way; what stops it is raised all the same."""
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of its own old calls, and of inputs that share the name of a dimension, as they are meant to.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
