"""Keys: how one entry of config.json and our own fields say the same thing, read without trust and carried both ways.

What others wrote is data: every number has a least and a most, and a key that nobody here accounts for is refused,
because a setting that is ignored changes the numbers in silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from clearstory.errors import BadInput
from clearstory.models.config import TransformerConfig

MAX_INT = 2**24
"""No width, vocabulary or context of a real model is larger; a lying one is."""

MAX_LAYERS = 4096

ExternalConfig = Mapping[str, Any]


class ConfigKey(Protocol):
    """One agreement between their config.json and our fields."""

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of theirs it accounts for."""

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        """Our fields from theirs. Raises BadInput naming the key, its value and what we have."""

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        """Their keys from ours."""


def reject(key: str, value: object, have: str) -> NoReturn:
    """The one sentence for a key whose value cannot be honoured."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise BadInput(f"config.json asks for {key} = {shown}; {have}")


def required(theirs: ExternalConfig, key: str, within: str = "") -> Any:
    """The value of a key that must be there; `within` is what it is nested in."""
    if theirs.get(key) is None:
        raise BadInput(
            f"config.json lacks '{within}{key}', without which the model's shape is unknown; copy the whole folder"
        )
    return theirs[key]


def check_int(key: str, value: object, most: int = MAX_INT, least: int = 1) -> int:
    """A whole number within its bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        reject(key, value, f"it must be a whole number from {least:,} to {most:,}")
    return value


def check_float(key: str, value: object, least: float, most: float) -> float:
    """A number within its bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        reject(key, value, f"it must be a number from {least:g} to {most:g}")
    assert math.isfinite(value)
    return float(value)


def check_bool(key: str, value: object) -> bool:
    """True or false, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        reject(key, value, "it must be true or false")
    return value


@dataclass(frozen=True)
class IntKey:
    """A count under another name."""

    theirs: str
    ours: str
    most: int = MAX_INT

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {self.ours: check_int(self.theirs, required(theirs, self.theirs), self.most)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: getattr(ours, self.ours)}


@dataclass(frozen=True)
class IntKeyWithDefault:
    """A count that is left out when it equals another times a factor: key-value heads, GPT-2's hidden width."""

    theirs: str
    ours: str
    instead: str
    factor: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        if theirs.get(self.theirs) is None:
            return {self.ours: self.factor * check_int(self.instead, required(theirs, self.instead))}
        return {self.ours: check_int(self.theirs, theirs[self.theirs])}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: getattr(ours, self.ours)}


@dataclass(frozen=True)
class FloatKey:
    """A measure under another name."""

    theirs: str
    ours: str
    least: float
    most: float

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {self.ours: check_float(self.theirs, required(theirs, self.theirs), self.least, self.most)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: getattr(ours, self.ours)}


@dataclass(frozen=True)
class BoolKey:
    """A yes or no that several of their keys may have to agree on."""

    theirs: tuple[str, ...]
    ours: str
    default: bool

    @property
    def names(self) -> tuple[str, ...]:
        return self.theirs

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        said = {key: check_bool(key, theirs.get(key, self.default)) for key in self.theirs}
        first = said[self.theirs[0]]
        for key, value in said.items():
            if value != first:
                reject(key, value, f"but {self.theirs[0]} = {first}, and this house has both or neither")
        return {self.ours: first}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.theirs, getattr(ours, self.ours))


@dataclass(frozen=True)
class ChoiceKey:
    """A word for a word. Several of theirs may mean one of ours; the first of them is the one written."""

    theirs: str
    ours: str
    words: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        word = required(theirs, self.theirs)
        if not isinstance(word, str) or word not in self.words:
            reject(self.theirs, word, f"this house has {', '.join(self.words)}")
        return {self.ours: self.words[word]}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        back = {value: word for word, value in reversed(list(self.words.items()))}
        return {self.theirs: back[getattr(ours, self.ours)]}


@dataclass(frozen=True)
class FixedKey:
    """A switch that this house has in one position only."""

    theirs: str
    value: bool | int | float | str | None
    default: bool | int | float | str | None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        value = theirs.get(self.theirs, self.default)
        if value != self.value:
            reject(self.theirs, value, f"this house has only {self.value}")
        return {}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: self.value}


@dataclass(frozen=True)
class IgnoredKeys:
    """Keys that change no logit: defaults for training, for generation, for other heads. None of ours comes of them."""

    theirs: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.theirs

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {}


def reject_unknown_keys(theirs: ExternalConfig, known: set[str], architecture: str) -> None:
    """Refuse a key nobody accounts for, unless it is switched off."""
    for key in sorted(set(theirs) - known):
        if theirs[key] not in (None, False, {}, []):
            reject(
                key,
                theirs[key],
                f"this house's {architecture} has no such setting and will not pretend it is not there",
            )
