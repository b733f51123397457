"""Load a folder's weights into a model, with every name and shape checked before data is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearstory.errors import CorruptFile
from clearstory.formats.finite import finite_check
from clearstory.formats.hf.architecture import BIAS_FIELDS
from clearstory.formats.hf.config_json import (
    FolderFormat,
    detect_format,
    infer_class,
    read_config_json,
    read_native_config,
    weight_map_of,
)
from clearstory.formats.hf.fit_weights import check_size, check_tensors, fit_names, rename_duplicates
from clearstory.formats.hf.safetensors_io import FLOATS, ShardedWeights
from clearstory.formats.no_init import build_with_weights, empty_state_dict
from clearstory.models.config import Config
from clearstory.models.head_config import replace_fields
from clearstory.models.heads import HEAD_MODULES


def stored_config(config: Config, extra: Mapping[str, Any]) -> Config:
    """The config of the stored weights: with biases where the format always has them."""
    stored: Config = replace_fields(config, **dict.fromkeys(zero_bias_fields(extra), True))
    return stored


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


def load_model(
    folder: Path, cast: Callable[[Tensor], Tensor], *, check: bool = True
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a folder, and its config.json. `cast` is applied to every weight; `check`: that each is finite.

    Raises CorruptFile naming a tensor that is missing, unexpected or of another shape, with both shapes.
    """
    external = read_config_json(folder)
    form = detect_format(external)
    config, extra = read_native_config(form, external)
    stored = ShardedWeights.open(folder, form.auto_class)
    if (other := infer_class(form, external, stored)) is not form:
        form = other
        config, extra = read_native_config(form, external)
    shards = fit_names(stored, form)
    config = form.infer_from_weights(config, shards)
    check_size(config, shards)
    weight_map = weight_map_of(form, config)
    expected = dict(weight_map.from_native(empty_state_dict(config)))
    shards = rename_duplicates(shards, expected, form)
    zeros = zero_biases(form, external, expected, shards)
    check_tensors({name: each for name, each in expected.items() if name not in zeros}, shards, form)
    check_finite = finite_check(folder, config) if check else None
    weights = dict(weight_map.to_native(CastWeights(shards, expected, cast, check_finite, zeros)))
    for field in zero_bias_fields(extra):
        # Another tool may have trained the stored zeros; then they are biases like any other.
        names = bias_names(weights, field)
        if field in form.extra_fields and not any(bool(weights[name].any()) for name in names):
            config = replace_fields(config, **{field: False})
            weights = {name: tensor for name, tensor in weights.items() if name not in names}
    model: Any = build_with_weights(config, weights)
    model.hf_class = None if form.omission_note else form.name
    return model, external


def zero_biases(
    form: FolderFormat, external: Mapping[str, Any], expected: Mapping[str, Tensor], shards: ShardedWeights
) -> dict[str, Tensor]:
    """The biases that can be missing in a file of this class, as zeros in the dtype of the other weights."""
    pattern = form.zero_biases(external)
    names = [name for name in expected if name not in shards and re.fullmatch(pattern, name)] if pattern else []
    dtype = next((FLOATS[each.dtype] for each in shards.stored.values() if each.dtype in FLOATS), torch.float32)
    return {name: torch.zeros(expected[name].shape, dtype=dtype) for name in names}


HEAD_PREFIXES = tuple(f"{name}." for name in HEAD_MODULES)


def bias_names(weights: Mapping[str, Tensor], field: str) -> set[str]:
    """Names of all biases that a bias field of the config enables; that of a classification head is not included."""
    ending = "unembedding_bias" if field == "unembed_bias" else ".bias"
    return {name for name in weights if name.endswith(ending) and not name.startswith(HEAD_PREFIXES)}


class CastWeights(Mapping[str, Tensor]):
    """The stored weights a model needs, cast when read."""

    def __init__(
        self,
        shards: ShardedWeights,
        expected: Mapping[str, Tensor],
        cast: Callable[[Tensor], Tensor],
        check: Callable[[str, Tensor], Tensor] | None = None,
        zeros: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.shards, self.expected, self.cast, self.check = shards, expected, cast, check
        self.zeros = zeros or {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.expected:
            raise KeyError(name)
        if name in self.zeros:
            return self.cast(self.zeros[name])
        tensor = self.cast(self.shards[name])
        return tensor if self.check is None else self.check(name, tensor)

    def __iter__(self) -> Iterator[str]:
        return iter(self.expected)

    def __len__(self) -> int:
        return len(self.expected)


def verify_saved(folder: Path, model: nn.Module, config: Config) -> None:
    """Read a folder and compare it with the model it was written from, bit for bit. Raises CorruptFile."""
    loaded, _ = load_model(folder, lambda tensor: tensor, check=False)
    if loaded.config != config:
        raise CorruptFile(
            f"config.json was written as {config} but is read back as {loaded.config}; please report this"
        )
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
