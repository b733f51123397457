"""Keys of config.json: how a key and a field of our config convert into each other, in both directions.

The file is untrusted input. Every number has bounds, and an unknown key is rejected, because a setting that is
silently ignored would change the model's output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from clearstory.errors import BadInput
from clearstory.models.transformer.config import TransformerConfig

MAX_INT = 2**24
"""Upper bound of widths, vocabularies and contexts: above every published model's."""

MAX_LAYERS = 4096

ExternalConfig = Mapping[str, Any]
"""A config.json, or the metadata fields of a GGUF file."""


class ConfigKey(Protocol):
    """One key of config.json, or a group of keys that belong together."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it converts."""

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        """Our config's fields. Raises BadInput naming the key, its value and the supported values."""

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        """The keys and values to write."""


def reject(key: str, value: object, reason: str) -> NoReturn:
    """Raise BadInput for a key with an unsupported value."""
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    raise BadInput(f"config.json has {key} = {text}; {reason}")


def required(external: ExternalConfig, key: str, parent: str = "") -> Any:
    """The value of a key that must be present; `parent` is the path of the object that holds it, with a dot."""
    if external.get(key) is None:
        raise BadInput(
            f"config.json lacks '{parent}{key}', which is required to build the model; copy the whole folder"
        )
    return external[key]


def check_int(key: str, value: object, maximum: int = MAX_INT, minimum: int = 1) -> int:
    """The value, an integer within its bounds. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        reject(key, value, f"it must be an integer from {minimum:,} to {maximum:,}")
    return value


def check_float(key: str, value: object, minimum: float, maximum: float) -> float:
    """The value, a number within its bounds. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value <= maximum:
        reject(key, value, f"it must be a number from {minimum:g} to {maximum:g}")
    assert math.isfinite(value)
    return float(value)


def check_bool(key: str, value: object) -> bool:
    """The value, true or false. Raises BadInput for 0, 1 and text."""
    if not isinstance(value, bool):
        reject(key, value, "it must be true or false")
    return value


def reject_unknown_keys(external: ExternalConfig, known: set[str], architecture: str) -> None:
    """Raise BadInput for a key outside `known`, unless its value is null, false or empty."""
    for key in sorted(set(external) - known):
        if external[key] not in (None, False, {}, []):
            reject(
                key,
                external[key],
                f"the supported {architecture} has no such setting, and ignoring it could change the output",
            )


@dataclass(frozen=True)
class IntKey:
    """A required integer."""

    key: str
    field: str
    maximum: int = MAX_INT

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {self.field: check_int(self.key, required(external, self.key), self.maximum)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: getattr(config, self.field)}


@dataclass(frozen=True)
class IntKeyWithDefault:
    """An integer whose default is another key's value times a factor (key-value heads, GPT-2's feed-forward width)."""

    key: str
    field: str
    default_key: str
    factor: int = 1

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        if external.get(self.key) is None:
            return {self.field: self.factor * check_int(self.default_key, required(external, self.default_key))}
        return {self.field: check_int(self.key, external[self.key])}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: getattr(config, self.field)}


@dataclass(frozen=True)
class FloatKey:
    """A required number."""

    key: str
    field: str
    minimum: float
    maximum: float

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {self.field: check_float(self.key, required(external, self.key), self.minimum, self.maximum)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: getattr(config, self.field)}


@dataclass(frozen=True)
class BoolKey:
    """A boolean. Several keys can map to one field; they must then have the same value."""

    keys: tuple[str, ...]
    field: str
    default: bool

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        values = {key: check_bool(key, external.get(key, self.default)) for key in self.keys}
        first = values[self.keys[0]]
        for key, value in values.items():
            if value != first:
                reject(key, value, f"but {self.keys[0]} = {first}; both must be equal")
        return {self.field: first}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.keys, getattr(config, self.field))


@dataclass(frozen=True)
class ChoiceKey:
    """A named option. Several external names can map to one value; the first of them is written."""

    key: str
    field: str
    options: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        value = required(external, self.key)
        if not isinstance(value, str) or value not in self.options:
            reject(self.key, value, f"supported: {', '.join(self.options)}")
        return {self.field: self.options[value]}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        external_name = {native: external for external, native in reversed(list(self.options.items()))}
        return {self.key: external_name[getattr(config, self.field)]}


@dataclass(frozen=True)
class FixedKey:
    """A key with one supported value."""

    key: str
    value: bool | int | float | str | None
    default: bool | int | float | str | None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        value = external.get(self.key, self.default)
        if value != self.value:
            reject(self.key, value, f"supported: {self.value}")
        return {}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: self.value}


@dataclass(frozen=True)
class IgnoredKeys:
    """Keys that do not change logits (training, generation, other heads). They are not read or written."""

    keys: tuple[str, ...]

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class DropoutKeys:
    """Dropout probabilities, 0.1 by default. Our config has one: the first key is read, all keys are written."""

    keys: tuple[str, ...] = ("resid_pdrop", "embd_pdrop", "attn_pdrop")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {"dropout": check_float(self.keys[0], external.get(self.keys[0], 0.1), 0.0, 0.999)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.keys, config.dropout)
