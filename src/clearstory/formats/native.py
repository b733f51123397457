"""Own: a folder under our own names, for what no architecture over there can express.

Any family of the house fits: config.json holds the fields of its config, model.safetensors its state as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from clearstory.errors import BadInput, UnknownName, nearest
from clearstory.formats.hf.config_keys import MAX_INT, MAX_LAYERS, ExternalConfig, check_bool, check_float, reject, check_int
from clearstory.formats.hf.weight_map import WeightMap, Identity
from clearstory.models.families import FAMILIES
from clearstory.models.ngram.config import MOST_ROWS

CONFIGS: dict[str, type[Any]] = {model.__name__: config for config, model in FAMILIES.items()}
"""From the name of a family's model to the type of its config."""


@dataclass(frozen=True)
class Own:
    """The format of last resort: everything as we name it."""

    name: str = "clearstory"
    model_type: str = "clearstory"
    weight_prefix: str = ""
    extra_fields: frozenset[str] = frozenset()
    ignored_weights: tuple[str, ...] = ()
    duplicate_weights: Mapping[str, str] = field(default_factory=dict)
    legacy_suffixes: Mapping[str, str] = field(default_factory=dict)
    omission_note: str | None = None
    auto_class: str = ""

    def infer_from_weights(self, config: Any, weights: object) -> Any:
        """Everything is in the config."""
        return config

    def config_to_native(self, theirs: ExternalConfig) -> Any:
        """The config of any family, its fields checked against their types and bounds."""
        family, said = theirs.get("family"), theirs.get("model")
        if not isinstance(family, str) or family not in CONFIGS:
            raise UnknownName(f"config.json names the family {family!r}; {nearest(str(family), CONFIGS)}")
        if not isinstance(said, dict):
            raise BadInput(f"config.json lacks 'model', the fields of a {family}; copy the whole folder")
        kind = CONFIGS[family]
        hints = get_type_hints(kind)
        known = [f.name for f in fields(kind)]
        for name in said:
            if name not in known:
                raise UnknownName(f"config.json sets model.{name}; {nearest(name, known)}")
        try:
            return kind(**{name: read(f"model.{name}", hints[name], value) for name, value in said.items()})
        except TypeError as error:
            raise BadInput(f"config.json's model is no {family}: {error}") from error

    def config_from_native(self, config: Any) -> dict[str, Any]:
        """The fields as they are."""
        family = FAMILIES[type(config)].__name__
        return {"architectures": [family], "model_type": self.model_type, "family": family, "model": asdict(config)}

    def lost_fields(self, config: Any) -> dict[str, Any] | None:
        """Nothing gets lost."""
        return {}

    def apply_extra(self, config: Any, extra: Mapping[str, Any]) -> Any:
        """Nothing was noted."""
        return config

    def weight_map(self, config: Any) -> WeightMap:
        """None."""
        return WeightMap((Identity(),))


NATIVE = Own()

MOST_ITEMS = 2**16
"""Of a list: no model has more layers, orders, tags or labels."""


def read(name: str, hint: Any, value: object) -> Any:
    """A value of JSON as the type of a config's field, within the bounds of sense."""
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            reject(name, value, f"this house has {', '.join(map(str, get_args(hint)))}")
        return value
    if origin in (Union, UnionType):
        inner = [each for each in get_args(hint) if each is not NoneType]
        return None if value is None else read(name, inner[0], value)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            reject(name, value, f"it must be a list of at most {MOST_ITEMS:,}")
        return tuple(read(name, get_args(hint)[0], each) for each in value)
    if hint is bool:
        return check_bool(name, value)
    if hint is int:
        most = {"model.layers": MAX_LAYERS, "model.sizes": MOST_ROWS}.get(name, MAX_INT)
        return check_int(name, value, most, least=0)
    if hint is float:
        return check_float(name, value, 0.0, 1e12)
    if not isinstance(value, str):
        reject(name, value, "it must be a text")
    return value
