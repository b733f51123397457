"""Folders of sentence-transformers: how hidden states become one vector for each text.

modules.json                          the modules in order: Transformer, Pooling, and then Dense, LayerNorm, Normalize
1_Pooling/config.json                 which hidden states are pooled; several are concatenated
2_Dense/config.json, model.safetensors   a linear layer with an activation function
sentence_bert_config.json             max_seq_length, do_lower_case
config_sentence_transformers.json     prompts before a text, by name
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from clearstory.durable import parse_json, read_file, write_bytes
from clearstory.errors import BadInput, CorruptFile, UnknownName
from clearstory.formats.hf.config_json import read_json
from clearstory.models.base import TokenBatch
from clearstory.models.pooling import pool

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LENGTH_SETTINGS = "sentence_bert_config.json"

POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""From the switches of a pooling config to the names of poolings, in the order in which they are concatenated."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Tanh": torch.tanh,
    "Identity": lambda x: x,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}
"""Activation functions of dense layers, by the last part of their names."""

MAX_MODULE_BYTES = 2**30

MODULE_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class SentencePipeline:
    """The modules of a folder after its Transformer.

    Args:
        poolings: names of poolings, whose vectors are concatenated.
        include_prompt: whether the tokens of a prompt are pooled too.
        layers: functions of the pooled vectors, in order.
        max_length: longest text in tokens, special tokens included; a longer one is cut on the right. None for the
            model's context.
        lowercase: whether texts are lower-cased first.
        prompts: texts that are put before a text, by name.
        default_prompt: name of the prompt that is used if none is named.
        summary: the modules in one phrase.
        files: contents of the folder's files by path, to be saved again.
    """

    poolings: tuple[str, ...]
    include_prompt: bool = True
    layers: tuple[Callable[[Tensor], Tensor], ...] = ()
    max_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    summary: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def prompt(self, name: str | None) -> str:
        """The text of a prompt; of the default one for None. Raises UnknownName."""
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            raise UnknownName(f"the model has no prompt {name[:60]!r}; it has: {', '.join(self.prompts) or 'none'}")
        return self.prompts[name]

    def pool(self, hidden: Float[Tensor, "B T W"], tokens: TokenBatch, skipped: int = 0) -> Float[Tensor, "B V"]:
        """The vectors of texts by their hidden states; the first `skipped` tokens of each are left out."""
        parts = [pool(hidden, tokens, pooling, skipped) for pooling in self.poolings]
        return self.apply_layers(torch.cat(parts, dim=-1))

    def apply_layers(self, pooled: Float[Tensor, "B W"]) -> Float[Tensor, "B V"]:
        """Pooled vectors after the other modules."""
        for layer in self.layers:
            pooled = layer(pooled)
        return pooled

    def save(self, folder: Path) -> None:
        """Write the folder's own files into a model folder."""
        for name, contents in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, contents)


def find_transformer_folder(folder: Path) -> Path | None:
    """The folder of the Transformer that a modules.json names, which older folders keep in `0_Transformer`; None if it
    names none.
    """
    if not (folder / MODULES).is_file() or (folder / "config.json").is_file():
        return None
    path = str(read_modules(folder)[0].get("path") or "")
    inner = folder / path
    return inner if MODULE_FOLDER.fullmatch(path) and (inner / "config.json").is_file() else None


def read_sentence_pipeline(folder: Path) -> SentencePipeline | None:
    """The modules of a folder; None for a folder without modules.json.

    Raises BadInput naming a module or setting that is not supported.
    """
    root = folder if (folder / MODULES).is_file() else folder.parent
    if not (root / MODULES).is_file() or (root != folder and find_transformer_folder(root) != folder):
        return None
    first, *others = read_modules(root)
    if module_type(first) != "Transformer":
        raise BadInput(f"{root / MODULES} starts with {module_type(first)!r}; supported: Transformer")
    files = {MODULES: (root / MODULES).read_bytes()} if root == folder else {}
    poolings: tuple[str, ...] = ()
    include_prompt, layers, names = True, list[Callable[[Tensor], Tensor]](), list[str]()
    for module in others:
        kind, path = module_type(module), str(module.get("path") or "")
        if kind not in MODULE_READERS and kind not in ("Pooling", "Dropout"):
            supported = ", ".join(("Transformer", "Pooling", "Dropout", *MODULE_READERS))
            raise BadInput(f"{root / MODULES} has the module {kind!r}, which is not supported; supported: {supported}")
        if path and not MODULE_FOLDER.fullmatch(path):
            raise CorruptFile(f"{root / MODULES} names the folder {path[:60]!r}, which is not one of its own")
        if kind == "Pooling":
            poolings, include_prompt = read_pooling(root / path)
            names.append("+".join(poolings))
        elif kind != "Dropout":
            layer, name = MODULE_READERS[kind](root / path)
            layers.append(layer)
            names.append(name)
        if root == folder and path:
            files |= {f"{path}/{each.name}": each.read_bytes() for each in module_files(root / path)}
    if not poolings:
        raise BadInput(f"{root / MODULES} has no Pooling module, so the model has no sentence vectors")
    settings = read_settings(root, folder)
    if root == folder:
        names_of_settings = (SETTINGS, LENGTH_SETTINGS)
        files |= {name: (root / name).read_bytes() for name in names_of_settings if (root / name).is_file()}
    return SentencePipeline(poolings, include_prompt, tuple(layers), **settings, summary=", ".join(names), files=files)


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The modules of a modules.json in order. Raises CorruptFile."""
    modules = parse_json(read_file(folder / MODULES, 2**20), folder / MODULES)
    if not isinstance(modules, list) or not modules or not all(isinstance(each, dict) for each in modules):
        raise CorruptFile(f"{folder / MODULES} is not a list of modules; copy the folder again")
    return modules


def module_type(module: Mapping[str, Any]) -> str:
    """The class of a module without its package."""
    return str(module.get("type")).rpartition(".")[2][:60]


def module_files(folder: Path) -> list[Path]:
    """The files of a module that are read."""
    return [folder / name for name in ("config.json", "model.safetensors") if (folder / name).is_file()]


def read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """The poolings of a pooling module in the order of their vectors, and whether prompts are pooled."""
    config = read_module_config(folder)
    modes = config.get("pooling_mode")
    if modes is None:
        switches = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        if unknown := sorted(set(switches) - POOLING_KEYS.keys()):
            raise BadInput(f"{folder} has {unknown[0]}; supported: {', '.join(POOLING_KEYS)}")
        found = [name for key, name in POOLING_KEYS.items() if key in switches]
    else:
        found = [str(mode) for mode in (modes if isinstance(modes, list) else [modes])]
        found = [{"mean_sqrt_len_tokens": "mean_sqrt_len"}.get(mode, mode) for mode in found]
    if not found or not set(found) <= set(POOLING_KEYS.values()):
        raise BadInput(f"{folder} pools by {found}; supported: {', '.join(POOLING_KEYS.values())}")
    return tuple(found), config.get("include_prompt", True) is not False


def read_module_config(folder: Path) -> dict[str, Any]:
    """The config.json of a module."""
    if not (folder / "config.json").is_file():
        raise CorruptFile(f"{folder} has no config.json; copy the whole folder")
    return read_json(folder / "config.json")


def read_module_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a module, as float32. Raises BadInput for a pickle."""
    file = folder / "model.safetensors"
    if not file.is_file():
        raise BadInput(
            f"{folder} holds no model.safetensors; if it holds a pickle that you trust, open the folder once with "
            "sentence-transformers and save it again"
        )
    try:
        return {name: tensor.float() for name, tensor in load(read_file(file, MAX_MODULE_BYTES)).items()}
    except SafetensorError as error:
        raise CorruptFile(f"{file} is not a complete file ({error}); copy it again") from None


def read_dense(folder: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """A dense layer and its phrase."""
    config, weights = read_module_config(folder), read_module_weights(folder)
    name = str(config.get("activation_function", "Tanh")).rpartition(".")[2][:60]
    if name not in ACTIVATIONS:
        raise BadInput(f"{folder} has activation_function = {name!r}; supported: {', '.join(ACTIVATIONS)}")
    weight, bias = weights.get("linear.weight"), weights.get("linear.bias")
    shape = [config.get("out_features"), config.get("in_features")]
    if weight is None or list(weight.shape) != shape or (bias is not None and bias.shape != weight.shape[:1]):
        raise CorruptFile(f"{folder} requires linear.weight of shape {shape}, but the weights have another shape")
    matrix, activation = weight, ACTIVATIONS[name]

    def apply(pooled: Tensor) -> Tensor:
        check_width(folder, pooled, matrix.shape[1])
        return activation(F.linear(pooled, matrix.to(pooled), None if bias is None else bias.to(pooled)))

    return apply, f"dense {shape[1]} to {shape[0]} {name.lower()}"


def read_layer_norm(folder: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """A layer norm and its phrase."""
    weights = read_module_weights(folder)
    if weights.keys() != {"norm.weight", "norm.bias"}:
        raise CorruptFile(f"{folder} holds {', '.join(sorted(weights))}; norm.weight and norm.bias are required")
    weight, bias = weights["norm.weight"], weights["norm.bias"]

    def apply(pooled: Tensor) -> Tensor:
        check_width(folder, pooled, len(weight))
        return F.layer_norm(pooled, weight.shape, weight.to(pooled), bias.to(pooled))

    return apply, "layer norm"


def check_width(folder: Path, pooled: Tensor, width: int) -> None:
    """Raise CorruptFile for vectors of another width than a module takes."""
    if pooled.shape[-1] != width:
        raise CorruptFile(f"{folder} needs vectors of width {width:,}, but pooled vectors have {pooled.shape[-1]:,}")


MODULE_READERS: dict[str, Callable[[Path], tuple[Callable[[Tensor], Tensor], str]]] = {
    "Dense": read_dense,
    "LayerNorm": read_layer_norm,
    "Normalize": lambda folder: (lambda pooled: F.normalize(pooled, dim=-1), "normalize"),
}
"""From the type of a module to a function that reads it: the module as a function of vectors, and its phrase."""


def read_settings(root: Path, folder: Path) -> dict[str, Any]:
    """max_length, lowercase, prompts and default_prompt of a folder."""
    length_file = next((each / LENGTH_SETTINGS for each in (folder, root) if (each / LENGTH_SETTINGS).is_file()), None)
    lengths = {} if length_file is None else read_json(length_file)
    longest = lengths.get("max_seq_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 1):
        raise BadInput(f"{length_file} has max_seq_length = {longest!r}; it must be a positive integer or null")
    settings = read_json(root / SETTINGS) if (root / SETTINGS).is_file() else {}
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise BadInput(f"{root / SETTINGS} has prompts = {str(prompts)[:60]}; it must be an object of texts")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise BadInput(f"{root / SETTINGS} has default_prompt_name = {str(default)[:60]!r}, not one of its prompts")
    return {
        "max_length": longest,
        "lowercase": lengths.get("do_lower_case") is True,
        "prompts": prompts,
        "default_prompt": default,
    }
