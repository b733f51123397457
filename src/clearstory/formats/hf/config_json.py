"""config.json: read without trust, and written for whoever opens the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

from clearstory.errors import BadInput, CannotDo, CorruptFile, UnknownName, nearest
from clearstory.formats.hf.decoders import ARCHITECTURES
from clearstory.formats.native import NATIVE
from clearstory.formats.hf.weight_map import WeightMap
from clearstory.models.families import FAMILIES

MOST_BYTES = 4 * 2**20
"""The longest real config.json, with labels for 20,000 classes, is under one."""


class FolderFormat(Protocol):
    """A way to lay a model down in a folder: an architecture of transformers, or our own."""

    @property
    def name(self) -> str:
        """The class that opens it over there, or ours."""

    @property
    def model_type(self) -> str:
        """Its short name."""

    @property
    def weight_prefix(self) -> str:
        """What the names of its weights begin with, and some files leave out."""

    @property
    def extra(self) -> frozenset[str]:
        """Fields of ours that it cannot say but can note."""

    @property
    def auto_class(self) -> str:
        """What opens it over there by itself."""

    @property
    def duplicate_weights(self) -> Mapping[str, str]:
        """Weights that may lie in a file a second time, each with the one that it must equal."""

    @property
    def legacy_suffixes(self) -> Mapping[str, str]:
        """Ends of names in older files, and what they are now."""

    @property
    def infer_from_weights(self) -> Any:
        """From a config and the weights to the config that only they tell."""

    @property
    def omission_note(self) -> str | None:
        """A sentence on what is not taken over."""

    @property
    def ignored_weights(self) -> tuple[str, ...]:
        """Names of weights that nobody needs, as regular expressions."""

    def config_to_native(self, theirs: Mapping[str, Any]) -> Any:
        """Our config from theirs."""

    def config_from_native(self, config: Any) -> dict[str, Any]:
        """Theirs from ours."""

    def lost_fields(self, config: Any) -> dict[str, Any] | None:
        """What gets lost there and back; None where it may not."""

    def apply_extra(self, config: Any, extra: Mapping[str, Any]) -> Any:
        """The config with what was noted."""

    @property
    def weight_map(self) -> Any:
        """From a config to its `Renaming`."""


def choose_format(config: Any) -> tuple[FolderFormat, dict[str, Any]]:
    """The first format that carries a config, and what it has to note. Ours carries all.

    >>> from clearstory.models.presets import CLEAR, NANOGPT_CHAR
    >>> choose(CLEAR)[0].name, choose(NANOGPT_CHAR)[0].name, choose(NANOGPT_CHAR)[1]
    ('Qwen3ForCausalLM', 'GPT2LMHeadModel', {'bias': False})
    """
    if type(config) not in FAMILIES:
        raise CannotDo(f"a {type(config).__name__} is no config of a family of this house, so no folder can hold it")
    formats: list[FolderFormat] = [*ARCHITECTURES.values(), NATIVE]
    if FAMILIES[type(config)].__name__ != "Transformer":
        formats = [NATIVE]
    for each in formats:
        extra = each.lost_fields(config)
        if extra is not None:
            return each, extra
    raise AssertionError("our own format carries every config")


def weight_map(form: FolderFormat, config: Any) -> WeightMap:
    """The rules of a format for one config."""
    rules = form.weight_map(config)
    assert isinstance(rules, WeightMap)
    return rules


def read_json(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """A JSON object from a file nobody vouches for. Raises CorruptFile."""
    if path.stat().st_size > most:
        raise CorruptFile(
            f"{path} has {path.stat().st_size:,} bytes, and none this house knows has {most:,}; copy it anew"
        )
    try:
        value = json.loads(path.read_bytes(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is not JSON ({error}); copy it anew") from error
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} holds a {type(value).__name__}, and it must hold an object; copy it anew")
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def read_tokenizer_config(folder: Path) -> tuple[FolderFormat, Any, dict[str, Any], dict[str, Any]]:
    """A folder's format, config, what was noted with it, and the whole file.

    Raises UnknownName for an architecture that is not here, BadInput for a setting that is not.
    """
    theirs = started(read_json(folder / "config.json"), folder)
    form = detect_format(theirs)
    extra = theirs.get("clearstory")
    extra = extra.get("model") if isinstance(extra, dict) else None
    extra = extra if isinstance(extra, dict) else {}
    return form, form.apply_extra(form.config_to_native(theirs), extra), extra, theirs


def started(theirs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The keys with the token that a decoder's writing begins after, which some folders say in the other file only."""
    other = folder / "generation_config.json"
    if theirs.get("is_encoder_decoder") is not True or START in theirs or not other.is_file():
        return theirs
    said = read_json(other)
    return {**theirs, START: said[START]} if START in said else theirs


START = "decoder_start_token_id"


def detect_format(theirs: Mapping[str, Any]) -> FolderFormat:
    """The format a config.json names: by class, or by type where it names none or only the bare stack."""
    if theirs.get("model_type") == NATIVE.model_type:
        return NATIVE
    named = theirs.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if isinstance(name, str) and name in ARCHITECTURES:
        return ARCHITECTURES[name]
    types = {each.model_type: each for each in reversed(ARCHITECTURES.values())}  # of several, the first
    bare = name is None or (isinstance(name, str) and name.endswith("Model") and "LMHead" not in name)
    kind = theirs.get("model_type")
    if bare and isinstance(kind, str) and kind in types:
        return types[kind]
    if name is None and kind is None:
        raise BadInput("config.json names no architecture and no model_type; is this the folder of a language model?")
    raise UnknownName(
        f"config.json names the architecture {str(name or kind)[:60]!r}; {nearest(str(name or kind), ARCHITECTURES)}"
    )
