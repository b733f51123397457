"""Assemble: from a folder's config and weights to a model, every name and shape compared before a number is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.architecture import BIAS_FIELDS
from clearstory.formats.hf.config_json import FolderFormat, read_tokenizer_config, weight_map
from clearstory.formats.hf.safetensors_io import FLOATS, INTEGERS, ShardedWeights
from clearstory.models.families import build

MAX_ROTARY_ANGLES = 2**27
"""Rotary angles are computed, not stored, so no file's length bounds them: a context of a million at width 128."""


class NoInit(TorchFunctionMode):
    """Modules built within have weights without numbers, and angles with them, which no file holds.

    Drawing weights on the meta device, and computing angles there, would import torch._dynamo: 1.5 s of every opening.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        if function is torch.arange:
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def build_empty(config: Any) -> nn.Module:
    """A model on the meta device, to be given its weights."""
    with NoInit():
        model: nn.Module = build(config, device="meta")
    return model


@lru_cache(maxsize=4)
def empty_state_dict(config: Any) -> dict[str, Tensor]:
    """The state of a model without its numbers."""
    # The angles of one place are enough where nothing is read.
    rotary = getattr(config, "positions", None) == "rotary"
    return build_empty(replace(config, context=1) if rotary else config).state_dict()


def stored_config(config: Any, extra: Mapping[str, Any]) -> Any:
    """The config whose weights lie in the folder: with biases where the format always has them."""
    return replace(config, **dict.fromkeys(zeros(extra), True))


def zeros(extra: Mapping[str, Any]) -> list[str]:
    """The fields that the format can only say with biases of zero."""
    return [name for name in BIAS_FIELDS if extra.get(name) is False]


def state_to_store(model: nn.Module, config: Any, extra: Mapping[str, Any]) -> dict[str, Tensor]:
    """A model's state, with zeros for the biases that the format always has and the model has not."""
    state = dict(model.state_dict())
    if zeros(extra):
        like = next(iter(state.values()))
        missing = {name: each for name, each in empty_state_dict(stored_config(config, extra)).items() if name not in state}
        state |= {name: like.new_zeros(each.shape) for name, each in missing.items()}
    return state


def open_weights(folder: Path, cast: Callable[[Tensor], Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a folder and its config.json. `cast` is applied to every weight.

    Raises CorruptFile naming a tensor that is missing, not expected or of another shape, with both shapes.
    """
    form, config, extra, theirs = read_tokenizer_config(folder)
    shards = ShardedWeights.open(folder, form.auto_class).renamed(form.legacy_suffixes).under(form.weight_prefix, form.duplicate_weights)
    config = form.infer_from_weights(config, shards)
    check_size(config, shards)
    expected = dict(weight_map(form, config).from_native(empty_state_dict(config)))
    check_names(expected, shards, form)
    wanted = CastWeights(shards, expected, cast)
    ours = dict(weight_map(form, config).to_native(wanted))
    for field in zeros(extra):
        # Trained on elsewhere, noted zeros may have become numbers; then they are biases like any other.
        names = biases(ours, field)
        if field in form.extra_fields and not any(bool(ours[name].any()) for name in names):
            config = replace(config, **{field: False})
            ours = {name: tensor for name, tensor in ours.items() if name not in names}
    model = build_empty(config)
    model.load_state_dict(ours, assign=True)
    left = [name for name, each in (*model.named_parameters(), *model.named_buffers()) if each.is_meta]
    assert not left, f"without numbers: {left}"
    return model.eval(), theirs


def biases(weights: Mapping[str, Tensor], field: str) -> set[str]:
    """The names of all biases that a field of ours is about."""
    return {name for name in weights if name.endswith("unembedding_bias" if field == "unembed_bias" else ".bias")}


class CastWeights(Mapping[str, Tensor]):
    """The weights a model needs and no others, cast as they are read."""

    def __init__(self, shards: ShardedWeights, expected: Mapping[str, Tensor], cast: Callable[[Tensor], Tensor]) -> None:
        self.shards, self.expected, self.cast = shards, expected, cast

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.expected:
            raise KeyError(name)
        return self.cast(self.shards[name])

    def __iter__(self) -> Any:
        return iter(self.expected)

    def __len__(self) -> int:
        return len(self.expected)


def check_size(config: Any, shards: ShardedWeights) -> None:
    """Refuse a config that would cost minutes or gigabytes before its shapes could be compared."""
    layers = getattr(config, "layers", 1)
    if layers > len(shards):
        raise CorruptFile(
            f"config.json says {layers:,} layers, and the weights are {len(shards):,} tensors; copy both anew"
        )
    if getattr(config, "positions", None) == "rotary":
        angles = config.context * config.head_dim
        if angles > MAX_ROTARY_ANGLES:
            raise BadInput(
                f"config.json says a context of {config.context:,} with heads of {config.head_dim:,}; "
                f"their {angles:,} rotary angles are more than {MAX_ROTARY_ANGLES:,}; lower the context"
            )


def check_names(expected: Mapping[str, Tensor], shards: ShardedWeights, form: FolderFormat) -> None:
    """Compare what a config asks for with what the files hold."""
    idle = re.compile("|".join(form.ignored_weights) or r"(?!)")
    for name, tensor in expected.items():
        if name not in shards:
            raise CorruptFile(
                f"config.json asks for {name} of shape {shape(tensor)}, and the weights lack it; copy both anew"
            )
        stored = shards.stored[name]
        if stored.shape != tuple(tensor.shape):
            raise CorruptFile(
                f"config.json asks for {name} of shape {shape(tensor)}, and the weights hold {list(stored.shape)}; "
                "they belong to different models"
            )
        if stored.dtype not in (FLOATS if tensor.dtype.is_floating_point else INTEGERS):
            raise BadInput(
                f"{name} is stored as {stored.dtype}, and this house reads {', '.join(FLOATS)}; "
                "save the model unquantised"
            )
    for name in shards:
        if name in expected or idle.fullmatch(name):
            continue
        if name in form.duplicate_weights:
            check_copy(name, form.duplicate_weights[name], shards)
            continue
        raise CorruptFile(
            f"the weights hold {name} of shape {list(shards.stored[name].shape)}, and config.json has no place for it; "
            "they belong to different models"
        )


def check_copy(name: str, original: str, shards: ShardedWeights) -> None:
    """What config.json ties may lie in a file a second time, but not differ."""
    if not torch.equal(shards[name], shards[original]):
        way = "set tie_word_embeddings to false" if name.startswith("lm_head") else "this house has one of them"
        raise CorruptFile(f"config.json ties {name} to {original}, and the weights hold two that differ; {way}")


def shape(tensor: Tensor) -> list[int]:
    """A shape as people write it."""
    return list(tensor.shape)


def verify_saved(folder: Path, model: nn.Module, config: Any) -> None:
    """Read a folder back and compare it with the model it was written from, bit for bit. Raises CorruptFile."""
    again, _ = open_weights(folder, lambda tensor: tensor)
    if again.config != config:
        raise CorruptFile(f"config.json reads back as {again.config}, and {config} was written; please report this")
    theirs = again.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in theirs or not equal_bits(tensor.detach().cpu(), theirs[name]):
            raise CorruptFile(
                f"{name} in {folder} reads back otherwise than it was written; check the disk and save again"
            )


def equal_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit, NaN and signed zeros included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    flat_a, flat_b = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
    return torch.equal(flat_a.view(torch.uint8), flat_b.view(torch.uint8))
