"""Native format: a model folder with our own names, for models that no class of transformers can represent.

It stores every family: config.json holds the fields of the config, model.safetensors the state dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from clearstory.errors import BadInput, UnknownName, nearest
from clearstory.formats.hf.config_keys import (
    MAX_INT,
    MAX_LAYERS,
    ExternalConfig,
    check_bool,
    check_float,
    check_int,
    reject,
)
from clearstory.formats.model_card import TEXT_CLASSIFICATION, TEXT_GENERATION, TOKEN_CLASSIFICATION
from clearstory.models.baselines.config import BASELINE_CONFIGS, NGramClassifierConfig
from clearstory.models.config import Config
from clearstory.models.families import FAMILIES, family_of
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.mixture.config import MixtureConfig
from clearstory.models.ngram.config import MAX_ROWS

if TYPE_CHECKING:
    from clearstory.formats.hf.weight_map import WeightMap

CLASSIFIER = "Classifier"

FAMILY_CONFIGS: dict[str, type[Any]] = {
    **{family.name: family.config for family in FAMILIES},
    CLASSIFIER: ClassifierConfig,
    **BASELINE_CONFIGS,
}
"""From the name of a model class to its config type."""

NOT_NESTED = ("Mixture", CLASSIFIER, *BASELINE_CONFIGS)
"""Models that are not part of another model."""

RETIRED_FIELDS = {"Transformer": {"labels": [], "label_level": "text"}}
"""Fields that configs of a family had in earlier versions, with the value that means nothing."""


@dataclass(frozen=True)
class NativeFormat:
    """The format that stores every config. Members as in `HFArchitecture`."""

    name: str = "clearstory"
    model_type: str = "clearstory"
    weight_prefix: str = ""
    extra_fields: frozenset[str] = frozenset()
    ignored_weights: tuple[str, ...] = ()
    duplicate_weights: Mapping[str, str] = field(default_factory=dict)
    legacy_suffixes: Mapping[str, str] = field(default_factory=dict)
    omission_note: str | None = None
    auto_class: str = ""

    def infer_from_weights(self, config: Config, weights: object) -> Config:
        """The config unchanged."""
        return config

    def zero_biases(self, external: ExternalConfig) -> None:
        """No biases: all are stored."""

    def ignored_keys_note(self, external: ExternalConfig) -> None:
        """No note: unknown fields are rejected."""

    def config_to_native(self, external: ExternalConfig) -> Config:
        """The config of any family, its fields checked against their types and bounds."""
        family, model = external.get("family"), external.get("model")
        if not isinstance(family, str) or family not in FAMILY_CONFIGS:
            raise UnknownName(f"config.json names the family {family!r}; {nearest(str(family), FAMILY_CONFIGS)}")
        if not isinstance(model, dict):
            raise BadInput(f"config.json lacks 'model', the fields of a {family}; copy the whole folder")
        config_type = FAMILY_CONFIGS[family]
        types = get_type_hints(config_type)
        names = [f.name for f in fields(config_type)]
        retired = RETIRED_FIELDS.get(family, {})
        model = {name: value for name, value in model.items() if name not in retired or value != retired[name]}
        for name in model:
            if name not in names:
                raise UnknownName(f"config.json sets model.{name}; {nearest(name, names)}")
        values = {name: check_value(f"model.{name}", types[name], value) for name, value in model.items()}
        try:
            config: Config = config_type(**values)
        except TypeError as error:
            raise BadInput(f"config.json's 'model' is not a valid {family}: {error}") from error
        return config

    def config_from_native(self, config: Config) -> dict[str, Any]:
        """config.json with the fields of the config."""
        described = describe_config(config)
        return {"architectures": [described["family"]], "model_type": self.model_type, **described}

    def lost_fields(self, config: Config) -> dict[str, Any] | None:
        """No fields: all are stored."""
        return {}

    def apply_extra(self, config: Config, extra: Mapping[str, Any]) -> Config:
        """The config unchanged."""
        return config

    def weight_map(self, config: Config) -> WeightMap:
        """The identity."""
        from clearstory.formats.hf.weight_map import Identity, WeightMap  # imports torch

        return WeightMap((Identity(),))


NATIVE = NativeFormat()


def native_pipeline(external: ExternalConfig) -> str:
    """The Hugging Face pipeline tag of a config.json in this format."""
    model = external.get("model")
    fields = model if isinstance(model, dict) else {}
    if "labels" in fields:
        of_tokens = external.get("family") == CLASSIFIER and fields.get("pooling") is None
        return TOKEN_CLASSIFICATION if of_tokens else TEXT_CLASSIFICATION
    return TOKEN_CLASSIFICATION if fields.get("tags") else TEXT_GENERATION


def describe_config(config: Config) -> dict[str, Any]:
    """A config's family and its fields, including those of the models within a model."""
    model = asdict(config)
    if isinstance(config, ClassifierConfig):
        return {"family": CLASSIFIER, "model": {**model, "backbone": describe_config(config.backbone)}}
    if isinstance(config, MixtureConfig | NGramClassifierConfig):
        model["configs"] = [describe_config(each) for each in config.configs]
    baseline = next((name for name, each in BASELINE_CONFIGS.items() if isinstance(config, each)), None)
    return {"family": baseline or family_of(config).name, "model": model}


MAX_LIST_LENGTH = 2**16
"""Upper bound of a list in a config: layers, orders, tags or labels."""


def check_value(name: str, hint: Any, value: object) -> Any:
    """A JSON value converted to the type of a config's field. Raises BadInput for other types and values out of
    bounds.
    """
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            reject(name, value, f"supported: {', '.join(map(str, get_args(hint)))}")
        return value
    if origin in (Union, UnionType):
        inner = [each for each in get_args(hint) if each is not NoneType]
        return None if value is None else check_value(name, inner[0], value)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > MAX_LIST_LENGTH:
            reject(name, value, f"it must be a list of at most {MAX_LIST_LENGTH:,}")
        return tuple(check_value(name, get_args(hint)[0], each) for each in value)
    if hint is Config:  # an expert of a mixture, or the backbone of a classifier
        if not isinstance(value, dict) or value.get("family") in NOT_NESTED:
            reject(name, value, "it must be the config of a model without labels that is not a mixture")
        return NATIVE.config_to_native(value)
    if hint is bool:
        return check_bool(name, value)
    if hint is int:
        maximum = {"model.layers": MAX_LAYERS, "model.sizes": MAX_ROWS}.get(name, MAX_INT)
        return check_int(name, value, maximum, minimum=0)
    if hint is float:
        return check_float(name, value, 0.0, 1e12)
    if not isinstance(value, str):
        reject(name, value, "it must be text")
    return value
