"""Load a folder's weights into a model, with every name and shape checked before data is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.architecture import BIAS_FIELDS
from clearstory.formats.hf.config_json import FolderFormat, read_model_config, weight_map_of
from clearstory.formats.hf.safetensors_io import FLOATS, INTEGERS, ShardedWeights
from clearstory.formats.no_init import MAX_ROTARY_ANGLES, build_with_weights, empty_state_dict, has_rotary
from clearstory.models.config import Config


def stored_config(config: Config, extra: Mapping[str, Any]) -> Config:
    """The config of the stored weights: with biases where the format always has them."""
    return replace(config, **dict.fromkeys(zero_bias_fields(extra), True))


def zero_bias_fields(extra: Mapping[str, Any]) -> list[str]:
    """Bias fields that are False in the model and stored as biases of zero."""
    return [name for name in BIAS_FIELDS if extra.get(name) is False]


def state_to_store(model: nn.Module, config: Config, extra: Mapping[str, Any]) -> dict[str, Tensor]:
    """A model's state dict, with biases of zero where the format requires biases that the model lacks."""
    state = dict(model.state_dict())
    if zero_bias_fields(extra):
        like = next(iter(state.values()))
        expected = empty_state_dict(stored_config(config, extra))  # type: ignore[arg-type]  # configs are frozen dataclasses
        state |= {name: like.new_zeros(each.shape) for name, each in expected.items() if name not in state}
    return state


def load_model(folder: Path, cast: Callable[[Tensor], Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a folder, and its config.json. `cast` is applied to every weight.

    Raises CorruptFile naming a tensor that is missing, unexpected or of another shape, with both shapes.
    """
    form, config, extra, external = read_model_config(folder)
    shards = ShardedWeights.open(folder, form.auto_class)
    shards = shards.replace_suffixes(form.legacy_suffixes).add_prefix(form.weight_prefix, form.duplicate_weights)
    config = form.infer_from_weights(config, shards)
    check_size(config, shards)
    weight_map = weight_map_of(form, config)
    expected = dict(weight_map.from_native(empty_state_dict(config)))
    check_tensors(expected, shards, form)
    weights = dict(weight_map.to_native(CastWeights(shards, expected, cast)))
    for field in zero_bias_fields(extra):
        # Another tool may have trained the stored zeros; then they are biases like any other.
        names = bias_names(weights, field)
        if field in form.extra_fields and not any(bool(weights[name].any()) for name in names):
            config = replace(config, **{field: False})
            weights = {name: tensor for name, tensor in weights.items() if name not in names}
    return build_with_weights(config, weights), external


def bias_names(weights: Mapping[str, Tensor], field: str) -> set[str]:
    """Names of all biases that a bias field of the config switches."""
    return {name for name in weights if name.endswith("unembedding_bias" if field == "unembed_bias" else ".bias")}


class CastWeights(Mapping[str, Tensor]):
    """The stored weights a model needs, cast when read."""

    def __init__(
        self, shards: ShardedWeights, expected: Mapping[str, Tensor], cast: Callable[[Tensor], Tensor]
    ) -> None:
        self.shards, self.expected, self.cast = shards, expected, cast

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.expected:
            raise KeyError(name)
        return self.cast(self.shards[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.expected)

    def __len__(self) -> int:
        return len(self.expected)


def check_size(config: Config, shards: ShardedWeights) -> None:
    """Reject a config that would take minutes or gigabytes to build before its shapes could be compared."""
    layers = getattr(config, "layers", 1)
    if layers > len(shards):
        raise CorruptFile(
            f"config.json has {layers:,} layers, and the weights are {len(shards):,} tensors; copy both files again"
        )
    if has_rotary(config):
        angles = config.context * config.head_dim
        if angles > MAX_ROTARY_ANGLES:
            raise BadInput(
                f"config.json has a context of {config.context:,} with a head dimension of {config.head_dim:,}: "
                f"{angles:,} rotary angles, more than the maximum of {MAX_ROTARY_ANGLES:,}; lower the context"
            )


def check_tensors(expected: Mapping[str, Tensor], shards: ShardedWeights, form: FolderFormat) -> None:
    """Compare names, shapes and dtypes of the stored tensors with those the config requires."""
    ignored = re.compile("|".join(form.ignored_weights) or r"(?!)")
    for name, tensor in expected.items():
        if name not in shards:
            raise CorruptFile(
                f"config.json requires {name} of shape {list(tensor.shape)}, and the weights lack it; copy both again"
            )
        stored = shards.stored[name]
        if stored.shape != tuple(tensor.shape):
            raise CorruptFile(
                f"config.json requires {name} of shape {list(tensor.shape)}, and the weights hold "
                f"{list(stored.shape)}; they belong to different models"
            )
        if stored.dtype not in (FLOATS if tensor.dtype.is_floating_point else INTEGERS):
            raise BadInput(
                f"{name} is stored as {stored.dtype}; supported: {', '.join(FLOATS)}; save the model unquantized"
            )
    for name in shards:
        if name in expected or ignored.fullmatch(name):
            continue
        if name in form.duplicate_weights:
            check_duplicate(name, form.duplicate_weights[name], shards)
            continue
        raise CorruptFile(
            f"the weights hold {name} of shape {list(shards.stored[name].shape)}, which config.json does not require; "
            "they belong to different models"
        )


def check_duplicate(name: str, original: str, shards: ShardedWeights) -> None:
    """Raise CorruptFile if a tied weight that is stored twice differs."""
    if not torch.equal(shards[name], shards[original]):
        fix = "set tie_word_embeddings to false" if name.startswith("lm_head") else "only tied weights are supported"
        raise CorruptFile(f"config.json ties {name} to {original}, and the stored tensors differ; {fix}")


def verify_saved(folder: Path, model: nn.Module, config: Config) -> None:
    """Read a folder and compare it with the model it was written from, bit for bit. Raises CorruptFile."""
    loaded, _ = load_model(folder, lambda tensor: tensor)
    if loaded.config != config:
        raise CorruptFile(f"config.json reads back as {loaded.config}, and {config} was written; please report this")
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in state or not equal_bits(tensor.detach().cpu(), state[name]):
            raise CorruptFile(f"{name} in {folder} differs from what was written; check the disk and save again")


def equal_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit, NaN and signed zeros included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    flat_a, flat_b = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
    return torch.equal(flat_a.view(torch.uint8), flat_b.view(torch.uint8))
