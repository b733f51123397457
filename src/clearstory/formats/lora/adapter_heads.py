"""Classification heads of adapters: stored whole (modules_to_save), over a base model that has no head, or another.

peft stores the weights of a head, and neither its labels nor what they are of: those are in clearstory.json, and in
adapters of others follow from the task type and the shape of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.config_json import format_of_model, weight_map_of
from clearstory.formats.hf.load_weights import stored_config
from clearstory.formats.hf.safetensors_io import read_safetensors_header
from clearstory.formats.lora.adapter_config import CONFIG, AdapterConfig
from clearstory.formats.native import check_value
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.heads import HEAD_MODULES, ClassificationHead, SequenceClassifier, TokenClassifier, bare_backbone

TASK_TYPES = {"text": "SEQ_CLS", "token": "TOKEN_CLS"}
"""peft's task types of heads, by what is labelled."""

HF_HEADS = ("classifier", "score")
"""Names of classifiers in transformers; peft lists both among the modules that it saves, and a model has one."""


def describe_head(config: ClassifierConfig) -> dict[str, Any]:
    """The fields of a head for clearstory.json."""
    return {name: value for name, value in asdict(config).items() if name != "backbone"}


def with_head(model: nn.Module, folder: Path, file: str, config: AdapterConfig, described: object) -> Any:
    """The base model with the head that an adapter was trained with, its weights to be replaced by the adapter's.

    `described` is what clearstory.json says of the head. A model that has this head is returned unchanged; so is one
    whose adapter has no head. Raises BadInput for a pooler that neither the base model nor the adapter holds.
    """
    if config.task_type not in TASK_TYPES.values():
        return model
    wanted = read_head(model, folder, file, config, described)
    if isinstance(model, ClassificationHead) and model.config == wanted:
        return model
    if wanted.pooling == "pooler" and getattr(model, "pooler", None) is None and "pooler" not in config.saved:
        raise BadInput(
            f"the adapter {folder} holds no pooler, and its base model {config.base} has none either, so the one it "
            'was trained with is lost; train it again with modules_to_save=["pooler"]'
        )
    dropout = wanted.classifier_dropout
    if wanted.pooling is None:
        return TokenClassifier(model, wanted.labels, classifier_dropout=dropout).eval()
    return SequenceClassifier(
        model, wanted.labels, problem_type=wanted.problem_type, pooling=wanted.pooling, classifier_dropout=dropout
    ).eval()


def read_head(model: nn.Module, folder: Path, file: str, config: AdapterConfig, described: object) -> ClassifierConfig:
    """The config of a base model with the head of an adapter."""
    backbone = bare_backbone(model).config
    if isinstance(described, dict):
        hints = get_type_hints(ClassifierConfig)
        known = described.keys() & hints.keys() - {"backbone"}
        fields = {name: check_value(f"classifier.{name}", hints[name], described[name]) for name in known}
        if "labels" in fields:
            return ClassifierConfig(backbone=backbone, **fields)
    endings = tuple(f".{name}.weight" for name in HF_HEADS)
    shapes = [each.shape for name, each in read_safetensors_header(folder / file).items() if name.endswith(endings)]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise CorruptFile(
            f"{CONFIG} has task_type {config.task_type}, and {folder / file} holds {len(shapes)} classifiers; one is "
            "required"
        )
    count, of_tokens = shapes[0][0], config.task_type == TASK_TYPES["token"]
    own = model.config if isinstance(model, ClassificationHead) else None
    if own is not None and len(own.labels) == count and (own.label_level == "token") is of_tokens:
        return own
    pooling: Any = None if of_tokens else ("pooler" if backbone.architecture == "encoder" else "last")
    return ClassifierConfig(
        backbone=backbone,
        labels=tuple(f"LABEL_{id}" for id in range(count)),
        pooling=pooling,
        problem_type="regression" if count == 1 and not of_tokens else "single_label_classification",
        classifier_dropout=backbone.dropout,
    )


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model's head by their names in transformers; none for a model without a head."""
    if not isinstance(model, ClassificationHead):
        return {}
    form, extra = format_of_model(model)
    weight_map = weight_map_of(form, stored_config(model.config, extra))
    own = {f"{name}.{key}": each for name in HEAD_MODULES for key, each in module_weights(model, name).items()}
    return dict(weight_map.from_native(own))


def module_weights(model: nn.Module, name: str) -> Mapping[str, Tensor]:
    """The weights of one module of a model; none if it lacks it."""
    module = getattr(model, name, None)
    return {} if module is None else module.state_dict()


def saved_modules(model: nn.Module) -> list[str]:
    """The names in transformers of the modules that an adapter of this model stores whole, as `modules_to_save`."""
    names = {name.removesuffix(".weight").removesuffix(".bias").removesuffix(".dense") for name in head_weights(model)}
    return sorted(name.rpartition(".")[2] for name in names)


@torch.no_grad()
def load_head(model: nn.Module, stored: Mapping[str, Tensor]) -> bool:
    """Put stored weights, by their names in transformers, into the head of a model, and make it trainable.

    False, and nothing is changed, where they are not those of a head alone.
    """
    expected = head_weights(model)
    if not expected or expected.keys() != stored.keys():
        return False
    form, extra = format_of_model(model)
    config: Any = model.config
    native = dict(weight_map_of(form, stored_config(config, extra)).to_native(stored))
    for name, tensor in native.items():
        module_name, _, key = name.partition(".")
        module = getattr(model, module_name)
        if getattr(module, key).shape != tensor.shape:
            raise CorruptFile(
                f"the adapter holds {name} of shape {list(tensor.shape)}, and the model has "
                f"{list(getattr(module, key).shape)}; they belong to different models"
            )
        setattr(module, key, nn.Parameter(tensor.to(getattr(module, key)).clone()))
    return True
