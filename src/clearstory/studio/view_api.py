"""View API: the views, traces and arrays that the page requests."""

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
from clearstory.lens.hooks.activations import activation_names, record_activations
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.predictions import next_token
from clearstory.lens.registry import VIEWS, ViewSpec, load_view
from clearstory.lens.rendering.render import render
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability, family_name, has_capability, require
from clearstory.recipes.inference.inspect import inspect
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.schema import convert_value
from clearstory.text.tokenizers import Tokenizer

MAX_TRACE_VALUES = 2**20
"""The largest number of activation values that a trace returns as JSON."""


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """A view of a model for a text.

    Args:
        model: the model's path in the studio's folder.
        text: the text.
        view: a name in `lens.registry.VIEWS`.
        format: "json" for the view as data, or the format of a file.
        settings: settings of the view.
    """

    model: str
    text: str = ""
    view: str = "next-token"
    format: Literal["json", "svg", "csv", "html"] = "json"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """The tokens, activations and next-token predictions of one forward pass.

    Args:
        model: the model's path in the studio's folder.
        text: the text; for an encoder-decoder, the source.
        target: for an encoder-decoder, the text that the decoder has generated so far.
        activations: patterns of activation names; see `lens.hooks.activations`.
        top: number of likeliest next tokens; with 0 and no activations the text is only tokenized.
    """

    model: str
    text: str = ""
    target: str | None = None
    activations: tuple[str, ...] = ()
    top: int = 10


@dataclass(frozen=True, kw_only=True)
class ArrayRequest:
    """A call of one of ARRAY_FUNCTIONS.

    Args:
        model: the model's path in the studio's folder.
        text: the text.
        function: a name in ARRAY_FUNCTIONS.
        settings: keyword arguments of the function.
    """

    model: str
    text: str = ""
    function: str = "activation_arrays"
    settings: Mapping[str, Any] = field(default_factory=dict)


def render_view(opened: OpenedModel, request: ViewRequest) -> Any:
    """A view as plain data for the format "json", otherwise as the text of a file."""
    function = load_view(request.view)
    view = inspect(opened, request.text, request.view, **convert_settings(function, request.settings))
    return view.to_json() if request.format == "json" else render(view, request.format)


def list_views(opened: OpenedModel) -> list[dict[str, Any]]:
    """Every view: name, description, settings, whether this model supports it, and if not, the reason."""
    entries = []
    for name, entry in VIEWS.items():
        function = load_view(name)
        reason = unsupported_reason(entry, opened.model)
        description = (function.__doc__ or "").strip().split("\n\n")[0].partition(" Raises ")[0]
        entries.append(
            {
                "name": name,
                "description": " ".join(description.split()),
                "needs": entry.needs,
                "kind": typing.get_type_hints(function)["return"].kind,
                "available": reason is None,
                "slow": entry.slow,
                "reason": reason,
                "settings": keyword_settings(function),
            }
        )
    return entries


def unsupported_reason(view: ViewSpec, model: LanguageModel) -> str | None:
    """Why a model does not support a view, as a sentence without names of views; None if it does."""
    if view.supports(model):
        return None
    for capability in view.requires:
        try:
            require(model, capability)
        except CannotDo as error:
            way_out = (
                "; use clearstory fill-mask for masked tokens" if has_capability(model, Capability.MLM_HEAD) else ""
            )
            return f"it needs {view.needs}, and {error}{way_out if capability is Capability.CAUSAL else ''}"
    return f"it is not supported for this kind of model ({family_name(model)})"


def keyword_settings(function: Callable[..., Any]) -> list[dict[str, Any]]:
    """The keyword-only parameters of a function as form fields: name, kind, choices, default."""
    hints = typing.get_type_hints(function)
    fields = []
    for name, parameter in signatures.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue  # model, tokenizer, text
        hint = form_type(hints.get(name, str))
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        kind = "choice" if choices else FIELD_KINDS.get(typing.get_origin(hint) or hint, "text")
        default = None if parameter.default is parameter.empty else parameter.default
        fields.append({"name": name, "kind": kind, "choices": list(choices), "default": default})
    return fields


def form_type(hint: Any) -> Any:
    """The type that a form field produces: the last member of a union, and a tuple of strings for any sequence."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        *_, hint = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return tuple[str, ...] if typing.get_origin(hint) is Sequence else hint


FIELD_KINDS: dict[Any, str] = {int: "integer", float: "number", bool: "boolean", tuple: "list"}
"""The kind of a form field by the type of its setting; "text" for all other types."""


def convert_settings(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Form values converted to the types of the function's parameters; unknown names are kept for it to reject."""
    hints = {name: form_type(hint) for name, hint in typing.get_type_hints(function).items()}
    return {
        name: value if value is None or name not in hints else convert_value(value, hints[name], name)
        for name, value in settings.items()
    }


def trace(opened: OpenedModel, request: TraceRequest) -> dict[str, Any]:
    """The tokens of a text, the likeliest next tokens, and the activations that match the request's patterns.

    If the model cannot process the text and only tokens are requested, `problem` says why. Raises BadSetting if the
    activations hold more than MAX_TRACE_VALUES values.
    """
    model, tokenizer = load_model_and_tokenizer(opened)
    start = time.perf_counter()
    ids, offsets = tokenizer.encode_with_offsets(request.text)
    passage: Passage | None = None
    problem = None
    try:
        passage = encode_passage(model, tokenizer, request.text, target=request.target)
    except ClearstoryError as error:
        if request.top or request.activations:
            raise
        problem = str(error)
    values = passage_activations(model, passage, request.activations) if passage is not None else {}
    next_table = None
    if request.top and has_capability(model, Capability.CAUSAL) and not (passage and passage.source):
        next_table = next_token(model, tokenizer, request.text, top=request.top).to_json()
    return {
        "model": request.model,
        "text": request.text,
        "family": getattr(opened.model.config, "family", opened.card.family),
        "architecture": getattr(opened.model.config, "architecture", "decoder"),
        "shape": opened.model.config.summary,
        "layers": getattr(opened.model.config, "layers", None),
        "heads": getattr(opened.model.config, "heads", None),
        "vocab": model.vocab,
        "context": model.context,
        "tokens": [token_facts(tokenizer, id, span) for id, span in zip(ids, offsets, strict=True)],
        "passage": None if passage is None else {"pieces": passage.pieces, "source": passage.source_pieces},
        "problem": problem,
        "activation_names": known_activation_names(model),
        "activations": values,
        "next_token": next_table,
        "seconds": time.perf_counter() - start,
    }


def passage_activations(model: LanguageModel, passage: Passage, patterns: Sequence[str]) -> dict[str, Any]:
    """The activations of one forward pass by name, each with its shape and nested lists of values."""
    if not patterns:
        return {}
    with inference_mode(model), record_activations(model, *patterns) as recorded:
        passage.forward(model)
    if (count := sum(each.numel() for each in recorded.values())) > MAX_TRACE_VALUES:
        raise BadSetting(f"these activations hold {count:,} values; a trace returns at most {MAX_TRACE_VALUES:,}")
    return {name: {"shape": list(each.shape), "values": each.tolist()} for name, each in recorded.items()}


def known_activation_names(model: LanguageModel) -> list[str]:
    """The names of a model's activations; none for a model without them."""
    try:
        return list(activation_names(model))
    except CannotDo:
        return []


def token_facts(tokenizer: Tokenizer, id: int, span: tuple[int, int]) -> dict[str, Any]:
    """A token's id, display text, number of bytes, and the characters [start, stop) of the text that it stands for."""
    return {
        "id": id,
        "piece": tokenizer.display_token(id),
        "bytes": int(tokenizer.byte_lengths[id]),
        "start": span[0],
        "stop": span[1],
        "special": bool(tokenizer.special_tokens_mask[id]),
        "unknown": id == tokenizer.unk_token_id,
    }


Arrays = dict[str, Any]
"""What a function of ARRAY_FUNCTIONS returns: numpy arrays and tensors, and plain data."""


def activation_arrays(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    activations: tuple[str, ...] = (),
    target: str | None = None,
) -> Arrays:
    """The activations that match the patterns, in float32, and the display text of the tokens as `pieces`."""
    passage = encode_passage(model, tokenizer, text, target=target)
    with inference_mode(model), record_activations(model, *activations) as recorded:
        passage.forward(model)
    return {**{name: each.float() for name, each in recorded.items()}, "pieces": list(passage.pieces)}


ARRAY_FUNCTIONS: dict[str, str] = {
    "activation_arrays": "clearstory.studio.view_api",
    "head_patterns": "clearstory.studio.attention_api",
    "head_scores": "clearstory.studio.attention_api",
    "head_pattern": "clearstory.studio.attention_api",
    "combined_pattern": "clearstory.studio.attention_api",
    "edited_pattern": "clearstory.studio.attention_api",
    "embedding_rows": "clearstory.studio.embedding_api",
    "nearest_embeddings": "clearstory.studio.embedding_api",
    "compare_contexts": "clearstory.studio.context_api",
    "compare_decoding": "clearstory.studio.decoding_comparison",
    "newest_token_attention": "clearstory.studio.generation_attention",
    "measure_generation_speed": "clearstory.studio.generation_speed",
    "guess_sentence": "clearstory.studio.guess_game",
    "guess_options": "clearstory.studio.guess_game",
    "score_guess": "clearstory.studio.guess_game",
}
"""Functions (model, tokenizer, text, **settings) -> Arrays and their modules. A new function is one more line."""


def compute_arrays(opened: OpenedModel, request: ArrayRequest) -> bytes:
    """The packed result of a function of ARRAY_FUNCTIONS. Raises UnknownName for an unknown function or setting."""
    name = request.function
    if name not in ARRAY_FUNCTIONS:
        raise UnknownName(f"there is no array function '{name}'; {nearest(name, ARRAY_FUNCTIONS)}")
    function = getattr(import_module(ARRAY_FUNCTIONS[name]), name)
    known = [each["name"] for each in keyword_settings(function)]
    for key in request.settings:
        if key not in known:
            raise UnknownName(f"'{name}' has no setting '{key}'; {nearest(key, known)}")
    model, tokenizer = load_model_and_tokenizer(opened)
    return pack_arrays(function(model, tokenizer, request.text, **convert_settings(function, request.settings)))


def pack_arrays(result: Arrays) -> bytes:
    """A JSON header followed by the arrays, as bytes.

    The first four bytes are the header's length, little-endian. The header has `plain`, everything that is not an
    array, and `arrays`: the name, dtype (float32, uint8 or int32), shape and byte offset behind the header of each, the
    offset a multiple of 4.

    >>> pack_arrays({"a": np.zeros(3, np.uint8), "b": 1})[4:].decode().rstrip("\\0")
    '{"arrays": [{"name": "a", "dtype": "uint8", "shape": [3], "at": 0}], "plain": {"b": 1}} ...'
    """
    arrays = {name: to_array(value) for name, value in result.items() if hasattr(value, "shape")}
    entries, parts, offset = [], [], 0
    for name, array in arrays.items():
        entries.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "at": offset})
        data = array.tobytes()
        parts.append(data + bytes(-len(data) % 4))
        offset += len(parts[-1])
    header = json.dumps(
        {"arrays": entries, "plain": {key: result[key] for key in result if key not in arrays}}
    ).encode()
    header += b" " * (-len(header) % 4)
    return struct.pack("<I", len(header)) + header + b"".join(parts)


def to_array(value: Any) -> Any:
    """A tensor or array as a contiguous little-endian uint8, int32 or float32 array."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    kind = np.uint8 if array.dtype in (np.uint8, np.bool_) else np.int32 if array.dtype.kind in "iu" else np.float32
    return np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<"))
