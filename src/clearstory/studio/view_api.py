"""Looking: what a model does with a text, as the page asks for it: views, traces, and numbers as bytes."""

from __future__ import annotations

import inspect as signatures
import json
import struct
import time
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np

from clearstory.errors import BadSetting, CannotDo, ClearstoryError, UnknownName, nearest
from clearstory.formats.folders import OpenedModel
from clearstory.lens.rendering.render import WRITERS
from clearstory.lens.probes.next_token import next_token
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.registry import VIEWS, check_able, view_of
from clearstory.lens.hooks.activations import activation_names, record_activations
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import resting
from clearstory.recipes.settings.schema import convert_value
from clearstory.recipes.inference.inspect import inspect
from clearstory.recipes.inference.loading import load_model_and_tokenizer

MAX_TRACE_VALUES = 2**20
"""Numbers that a trace writes out as JSON."""


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """A view of a model reading a text.

    Args:
        model: its path in the studio's folder.
        text: what it reads.
        view: one of lens.table.VIEWS.
        format: json as data, or the file that the library writes.
        settings: the view's own.
    """

    model: str
    text: str = ""
    render_view: str = "next"
    format: Literal["json", "svg", "csv", "html"] = "json"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """What stands between a text and a prediction.

    Args:
        model: its path in the studio's folder.
        text: what it reads.
        target: what an encoder-decoder has written.
        taps: patterns of the quantities whose numbers are wanted; lens.trace says which there are.
        top: how many of the likeliest next tokens; 0 reads nothing and tells the tokens only.
    """

    model: str
    text: str = ""
    target: str | None = None
    taps: tuple[str, ...] = ()
    top: int = 10


@dataclass(frozen=True, kw_only=True)
class ArrayRequest:
    """Numbers as bytes: what a page draws in many small squares.

    Args:
        model: its path in the studio's folder.
        text: what it reads.
        what: one of NUMBERS.
        settings: the function's own.
    """

    model: str
    text: str = ""
    what: str = "taps"
    settings: Mapping[str, Any] = field(default_factory=dict)


def render_view(opened: OpenedModel, request: ViewRequest) -> Any:
    """A view as plain data, or as the text of a file."""
    function = view_of(request.view)
    view = inspect(opened, request.text, request.view, **convert_settings(function, request.settings))
    return view.to_json() if request.format == "json" else WRITERS[f".{request.format}"](view)


def list_views(opened: OpenedModel) -> list[dict[str, Any]]:
    """Every view: what it shows in a sentence, its settings, and why this model cannot show it, where it cannot."""
    entries = []
    for name, entry in VIEWS.items():
        function = view_of(name)
        reason = None
        try:
            check_able(name, opened.model)
        except CannotDo as error:
            reason = str(error)
        description = (function.__doc__ or "").strip().split("\n\n")[0].partition(" Raises ")[0]
        entries.append(
            {
                "name": name,
                "says": " ".join(description.split()),
                "needs": entry.needs,
                "kind": typing.get_type_hints(function)["return"].kind,
                "able": reason is None,
                "slow": entry.slow,
                "reason": reason,
                "settings": keyword_settings(function),
            }
        )
    return entries


def keyword_settings(function: Callable[..., Any]) -> list[dict[str, Any]]:
    """A function's own settings: name, kind, choices, default."""
    hints = typing.get_type_hints(function)
    rows = []
    for name, parameter in signatures.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue  # model, tokenizer, text
        form_hint = form_type(hints.get(name, str))
        choices = typing.get_args(form_hint) if typing.get_origin(form_hint) is Literal else ()
        kind = "choice" if choices else FIELD_KINDS.get(typing.get_origin(form_hint) or form_hint, "text")
        default = None if parameter.default is parameter.empty else parameter.default
        rows.append({"name": name, "kind": kind, "choices": list(choices), "default": default})
    return rows


def form_type(hint: Any) -> Any:
    """The type of a setting that a form can give: of `Path | Sequence[str]` the list, as a page names no files."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        *_, hint = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return tuple[str, ...] if typing.get_origin(hint) is Sequence else hint


FIELD_KINDS: dict[Any, str] = {int: "whole", float: "number", bool: "switch", tuple: "list"}
"""What a field of a form is called, by the type of a setting; all else is text."""


def convert_settings(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a form as the function's types; a name that it has not is left for it to refuse."""
    hints = typing.get_type_hints(function)
    names = {name: form_type(hint) for name, hint in hints.items()}
    return {
        name: value if value is None or name not in names else convert_value(value, names[name], name)
        for name, value in settings.items()
    }


def trace(opened: OpenedModel, request: TraceRequest) -> dict[str, Any]:
    """The tokens of a text, the likeliest next ones, and the numbers at the taps that are asked for."""
    network, tokenizer = load_model_and_tokenizer(opened)
    began = time.perf_counter()
    ids, places = tokenizer.encode_with_offsets(request.text)
    view: Passage | None = None
    why = None
    try:
        view = encode_passage(network, tokenizer, request.text, target=request.target)
    except ClearstoryError as error:
        if request.top or request.taps:
            raise
        why = str(error)
    try:
        names = activation_names(network)
    except CannotDo:
        names = []
    values: dict[str, Any] = {}
    if request.taps and view is not None:
        with resting(network), record_activations(network, *request.taps) as watched:
            view.hidden(network)
        if (count := sum(each.numel() for each in watched.values())) > MAX_TRACE_VALUES:
            raise BadSetting(f"these taps hold {count:,} numbers, and a trace writes {MAX_TRACE_VALUES:,}; ask for fewer")
        values = {name: {"shape": list(each.shape), "values": each.tolist()} for name, each in watched.items()}
    after = None
    if request.top and not isinstance(network, Encoder) and not (view and view.source):
        after = next_token(network, tokenizer, request.text, top=request.top).to_json()
    return {
        "model": request.model,
        "text": request.text,
        "family": getattr(network.config, "family", opened.card.family),
        "kind": getattr(network.config, "kind", "decoder"),
        "shape": network.config.shape,
        "layers": getattr(network.config, "layers", None),
        "heads": getattr(network.config, "heads", None),
        "vocab": network.vocab,
        "context": network.context,
        "tokens": [token_facts(tokenizer, id, request.text, place) for id, place in zip(ids, places, strict=True)],
        "read": None if view is None else {"pieces": view.pieces, "source": view.source_pieces},
        "note": why,
        "taps": names,
        "values": values,
        "next": after,
        "seconds": time.perf_counter() - began,
    }


def token_facts(tokenizer: Any, id: int, text: str, place: tuple[int, int]) -> dict[str, Any]:
    """A token of a text: what it is called, how many bytes it stands for, and which characters it was made from."""
    return {
        "id": id,
        "piece": tokenizer.display_token(id),
        "bytes": int(tokenizer.byte_lengths[id]),
        "start": place[0],
        "stop": place[1],
        "special": bool(tokenizer.special_tokens_mask[id]),
        "unknown": id == tokenizer.unk_token_id,
    }


Arrays = dict[str, Any]
"""What a function of NUMBERS gives: numpy arrays and tensors, and plain data beside them."""


def tap_values(
    model: Any, tokenizer: Any, text: str, *, taps: tuple[str, ...] = (), target: str | None = None
) -> Arrays:
    """The numbers at some taps, in float32."""
    view = encode_passage(model, tokenizer, text, target=target)
    with resting(model), record_activations(model, *taps) as watched:
        view.hidden(model)
    return {**{name: each.float() for name, each in watched.items()}, "pieces": list(view.pieces)}


ARRAY_FUNCTIONS: dict[str, str] = {
    "taps": "clearstory.studio.view_api:tap_numbers",
    "mosaic": "clearstory.studio.attention_api:mosaic",
    "measures": "clearstory.studio.attention_api:measures",
    "head": "clearstory.studio.attention_api:head",
    "together": "clearstory.studio.attention_api:together",
    "changed": "clearstory.studio.attention_api:changed",
    "rows": "clearstory.studio.embedding_api:rows",
    "near": "clearstory.studio.embedding_api:near",
    "ways": "clearstory.studio.decoding_comparison:ways",
    "attended": "clearstory.studio.generation_attention:attended",
    "speed": "clearstory.studio.generation_speed:speed",
    "riddle": "clearstory.studio.guess_game:riddle",
    "offers": "clearstory.studio.guess_game:offers",
    "guess": "clearstory.studio.guess_game:guess",
    "context": "clearstory.studio.context_api:words_in_context",
}
"""From a name to a function (model, tokenizer, text, **settings) -> Arrays. A page of its own adds a line."""


def compute_arrays(opened: OpenedModel, request: ArrayRequest) -> bytes:
    """Arrays as bytes. Raises UnknownName for what is not in the table."""
    if request.what not in ARRAY_FUNCTIONS:
        raise UnknownName(f"there are no numbers called '{request.what}'; {nearest(request.what, ARRAY_FUNCTIONS)}")
    module, name = ARRAY_FUNCTIONS[request.what].split(":")
    function = getattr(import_module(module), name)
    names = [row["name"] for row in keyword_settings(function)]
    for key in request.settings:
        if key not in names:
            raise UnknownName(f"'{request.what}' has no setting called '{key}'; {nearest(key, names)}")
    network, tokenizer = load_model_and_tokenizer(opened)
    return pack_arrays(function(network, tokenizer, request.text, **convert_settings(function, request.settings)))


def pack_arrays(made: Arrays) -> bytes:
    """A header in JSON and the arrays behind it.

    Four bytes say how long the header is, little end first. It has `plain`, what is no array, and `arrays`: each with
    its name, dtype (float32, uint8 or int32), shape, and where it begins behind the header, a multiple of 4.

    >>> packed({"a": np.zeros(3, np.uint8), "b": 1})[4:].decode().rstrip("\\0")
    '{"arrays": [{"name": "a", "dtype": "uint8", "shape": [3], "at": 0}], "plain": {"b": 1}} ...'
    """
    arrays = {name: to_array(value) for name, value in made.items() if hasattr(value, "shape")}
    rows, parts, at = [], [], 0
    for name, array in arrays.items():
        rows.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "at": at})
        part = array.tobytes()
        parts.append(part + bytes(-len(part) % 4))
        at += len(parts[-1])
    header = json.dumps({"arrays": rows, "plain": {key: made[key] for key in made if key not in arrays}}).encode()
    header += b" " * (-len(header) % 4)
    return struct.pack("<I", len(header)) + header + b"".join(parts)


def to_array(value: Any) -> Any:
    """A tensor or array in one of the three kinds of numbers that a page reads, little end first."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    kind = np.uint8 if array.dtype in (np.uint8, np.bool_) else np.int32 if array.dtype.kind in "iu" else np.float32
    return np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<"))
