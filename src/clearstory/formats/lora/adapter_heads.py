"""Classification heads of adapters, and other modules that they store in full (modules_to_save).

peft stores the weights of a head, but not its labels and problem type: these are in clearstory.json; for adapters
of other programs they are inferred from the task type and the shape of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, CannotDo, CorruptFile
from clearstory.formats.hf.config_json import format_of_model, weight_map_of
from clearstory.formats.hf.load_weights import stored_config
from clearstory.formats.hf.safetensors_io import read_safetensors_header
from clearstory.formats.hf.weight_map import WeightMap
from clearstory.formats.lora.adapter_config import CONFIG, AdapterConfig
from clearstory.formats.native import check_value
from clearstory.models.base import output_weight
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.heads import ClassificationHead, SequenceClassifier, TokenClassifier, bare_backbone
from clearstory.models.lora import whole_modules

EMBEDDING, UNEMBEDDING = "embedding.weight", "unembedding.weight"

TASK_TYPES = {"text": "SEQ_CLS", "token": "TOKEN_CLS"}
"""peft's task types of heads for texts and for tokens."""

HF_HEADS = ("classifier", "score")
"""Names of classifiers in transformers; peft lists both among the modules that it saves, and a model has one."""


def describe_head(config: ClassifierConfig) -> dict[str, Any]:
    """The fields of a head for clearstory.json."""
    return {name: value for name, value in asdict(config).items() if name != "backbone"}


def with_head(model: nn.Module, folder: Path, file: str, config: AdapterConfig, described: object) -> Any:
    """The base model with the head with which an adapter was trained, whose weights will be replaced by the adapter's.

    `described` is the description of the head in clearstory.json. A model that already has this head, or whose adapter
    has no head, is returned unchanged. Raises BadInput if neither the base model nor the adapter has the pooler.
    """
    if config.task_type not in TASK_TYPES.values():
        return model
    wanted = read_head(model, folder, file, config, described)
    if isinstance(model, ClassificationHead) and model.config == wanted:
        return model
    if (
        wanted.pooling == "pooler"
        and getattr(model, "pooler", None) is None
        and not any(name.endswith("pooler") for name in config.saved)
    ):
        raise BadInput(
            f"the adapter {folder} holds no pooler, and neither does its base model {config.base}, so the trained "
            'pooler is missing; train it again with modules_to_save=["pooler"]'
        )
    dropout = wanted.classifier_dropout
    if wanted.pooling is None:
        return TokenClassifier(model, wanted.labels, classifier_dropout=dropout, tag_scheme=wanted.tag_scheme).eval()
    return SequenceClassifier(
        model,
        wanted.labels,
        problem_type=wanted.problem_type,
        pooling=wanted.pooling,
        classifier_dropout=dropout,
        threshold=wanted.threshold,
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


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the modules that are trained as a whole, by native name; a tied unembedding under its own name."""
    weights = {
        f"{name}.{key}": each
        for name in whole_modules(model)
        for key, each in model.get_submodule(name).state_dict().items()
    }
    if EMBEDDING in weights and output_weight(model) is model.get_parameter(EMBEDDING):
        if has_capability(model, Capability.MLM_HEAD):
            raise CannotDo(
                "peft cannot store a trained embedding that the masked language modelling head shares; train the "
                "model without LoRA"
            )
        if has_capability(model, Capability.CAUSAL):
            weights[UNEMBEDDING] = weights[EMBEDDING]
    return weights


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the modules that are trained in full, by their names in transformers.

    Raises CannotDo for a module that is not a single module of the model's class in transformers.
    """
    own = trained_weights(model)
    if not own:
        return {}
    weight_map = own_weight_map(model)
    external = dict(weight_map.from_native(own))
    if lost := own.keys() - dict(weight_map.to_native(external)).keys():
        raise CannotDo(
            f"{min(lost)} is not a separate module in transformers, so peft cannot store it; remove it from "
            "lora.modules_to_save"
        )
    return external


def own_weight_map(model: nn.Module) -> WeightMap:
    """The weight map of the class that a model is saved as."""
    config: Any = model.config
    form, extra = format_of_model(model)
    return weight_map_of(form, stored_config(config, extra))


def saved_modules(model: nn.Module) -> list[str]:
    """The names in transformers of the modules that an adapter of this model stores whole, as `modules_to_save`."""
    names = {name.rpartition(".")[0].removesuffix(".dense") for name in whole_weights(model)}
    return sorted(names)


@torch.no_grad()
def load_whole_modules(model: nn.Module, stored: Mapping[str, Tensor]) -> bool:
    """Put stored weights, by their names in transformers, into the modules of a model that are trained as a whole.

    False, and nothing is changed, where they are not those of these modules.
    """
    expected = whole_weights(model)
    if not expected or expected.keys() != stored.keys():
        return False
    for name, tensor in own_weight_map(model).to_native(stored):
        if name == UNEMBEDDING and UNEMBEDDING not in dict(model.named_parameters()):
            continue  # tied
        module_name, _, key = name.rpartition(".")
        module = model.get_submodule(module_name)
        if getattr(module, key).shape != tensor.shape:
            raise CorruptFile(
                f"the adapter holds {name} of shape {list(tensor.shape)}, and the model has "
                f"{list(getattr(module, key).shape)}; they belong to different models"
            )
        setattr(module, key, nn.Parameter(tensor.to(getattr(module, key)).clone()))
    return True
