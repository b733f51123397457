"""Fit stored weights to a class: names with other prefixes, weights stored twice, missing and unexpected weights.

A file with other tensors than its config requires is rarely damaged: it can be a model without a head, a
model of another class, or have a wrapper's prefix. The error lists missing and unexpected weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.config_json import FolderFormat
from clearstory.formats.hf.safetensors_io import FLOATS, INTEGERS, ShardedWeights
from clearstory.formats.no_init import MAX_ROTARY_ANGLES, has_rotary
from clearstory.models.config import Config
from clearstory.models.head_config import backbone_config

WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "model.", "transformer.")
"""Prefixes that a wrapper puts before every name: DataParallel, torch.compile, peft, and models held by another."""

OUTPUT_HEADS = ("lm_head.weight", "cls.predictions.transform.dense.weight", "classifier.weight", "score.weight")


def fit_names(shards: ShardedWeights, form: FolderFormat) -> ShardedWeights:
    """The weights under the names of a class: current suffixes, its prefix and no wrapper's."""
    shards = shards.replace_suffixes(form.legacy_suffixes)
    prefix = form.weight_prefix
    if form.model_type != "clearstory":
        for wrapper in WRAPPERS:
            own = wrapper == prefix and not any(name.startswith(wrapper + prefix) for name in shards)
            if len(shards) and not own and all(name.startswith(wrapper) for name in shards):
                shards = shards.remove_prefix(wrapper)
    return shards.add_prefix(prefix, form.duplicate_weights)


def rename_duplicates(shards: ShardedWeights, expected: Collection[str], form: FolderFormat) -> ShardedWeights:
    """The weights with a tied one that is stored under its second name only moved to its first."""
    renamed = {
        duplicate: original
        for duplicate, original in form.duplicate_weights.items()
        if duplicate in shards and duplicate not in expected and original in expected and original not in shards
    }
    chosen = {original: duplicate for duplicate, original in reversed(list(renamed.items()))}
    return shards.rename({duplicate: original for original, duplicate in chosen.items()})


def is_tied(shards: ShardedWeights, name: str, original: str) -> bool:
    """Whether a weight is tied to another: it is not stored, or both are equal."""
    return name not in shards or original not in shards or torch.equal(shards[name], shards[original])


def check_size(config: Config, shards: ShardedWeights) -> None:
    """Reject a config that would take minutes or gigabytes to build before its shapes could be compared."""
    layers = getattr(config, "layers", 1)
    if layers > len(shards):
        raise CorruptFile(
            f"config.json has {layers:,} layers, but the weights are {len(shards):,} tensors; copy both files again"
        )
    if has_rotary(config):
        c = backbone_config(config)
        angles = c.context * c.head_dim
        if angles > MAX_ROTARY_ANGLES:
            raise BadInput(
                f"config.json has a context of {c.context:,} with a head dimension of {c.head_dim:,}: "
                f"{angles:,} rotary angles, more than the maximum of {MAX_ROTARY_ANGLES:,}; lower the context"
            )


def check_tensors(expected: Mapping[str, Tensor], shards: ShardedWeights, form: FolderFormat) -> None:
    """Compare names, shapes and dtypes of the stored tensors with those the config requires."""
    ignored = re.compile("|".join(form.ignored_weights) or r"(?!)")
    extra = [name for name in shards if name not in expected and not ignored.fullmatch(name)]
    extra = [name for name in extra if name not in form.duplicate_weights]
    if missing := [name for name in expected if name not in shards]:
        raise missing_error(missing, extra, expected, form)
    for name, tensor in expected.items():
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
    if extra:
        raise extra_error(extra, shards, form)
    for name, original in form.duplicate_weights.items():
        if name in shards and name not in expected and not is_tied(shards, name, original):
            raise BadInput(
                f"the weights hold {name} and {original}, which differ, but {form.name} is only supported with one "
                "matrix for both"
            )


def missing_error(
    missing: list[str], extra: list[str], expected: Mapping[str, Tensor], form: FolderFormat
) -> BadInput | CorruptFile:
    """The error for weights that the config requires and the files lack."""
    name = next((each for each in OUTPUT_HEADS if each in missing), missing[0])
    lacking = f"config.json requires {name} of shape {list(expected[name].shape)}, but it is not in the weights"
    bodies = {each for each in missing if each not in OUTPUT_HEADS and not each.startswith("cls.")}
    if name in OUTPUT_HEADS and not bodies - {"classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}:
        return BadInput(
            f"{lacking}: the folder contains a model without its output layer; open the {form.name} that it was taken "
            "from"
            + (", or set tie_word_embeddings to true if its output layer is the embedding" * (name == "lm_head.weight"))
        )
    if all(each.startswith("decoder.") for each in missing) and not extra:
        return BadInput(f"{lacking}: the folder holds an encoder without its decoder; supported: {form.name}")
    if extra:
        return CorruptFile(
            f"{lacking}; of {len(expected):,} required tensors {len(missing):,} are missing, and "
            f"{len(extra):,} others are present, such as {extra[0]}: they belong to different models"
        )
    return CorruptFile(
        f"{lacking}; {len(missing):,} of {len(expected):,} required tensors are missing; copy the whole folder"
    )


def extra_error(extra: list[str], shards: ShardedWeights, form: FolderFormat) -> BadInput | CorruptFile:
    """The error for stored weights that the config does not require; all required ones are there."""
    name = extra[0]
    sentence = f"the weights hold {name} of shape {list(shards.stored[name].shape)}, which config.json does not require"
    more = f" ({len(extra):,} such tensors)" if len(extra) > 1 else ""
    if "lora_" in name:
        return BadInput(f"{sentence}{more}: an unmerged adapter; merge it with peft and save the model")
    if name.endswith(".bias"):
        return BadInput(f"{sentence}{more}: {form.name} with this config.json has no such biases")
    if re.search(r"\.\d+\.", name):
        return CorruptFile(f"{sentence}{more}; they belong to different models")
    return BadInput(
        f"{sentence}{more}: a part that the supported {form.name} does not have, and its output would be ignored"
    )
