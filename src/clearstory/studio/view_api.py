"""View API: the views and arrays that the page requests."""

from __future__ import annotations

import inspect as signatures
import json
import re
import struct
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np

from clearstory.errors import BadSetting, CannotDo, UnknownName, nearest
from clearstory.formats.folders import OpenedModel
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.registry import VIEWS, ViewSpec, load_view
from clearstory.lens.rendering.render import render
from clearstory.lens.views import View
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability, family_name, has_capability, require
from clearstory.models.prompts import PromptOptions
from clearstory.recipes.inference.inspect import check_ids_alone, inspect
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.inference import PromptSettings
from clearstory.recipes.settings.schema import INLINE_SECTION, convert_value
from clearstory.text.decoded_text import decode_with_spans
from clearstory.text.tokenizers import Tokenizer

LARGEST_VALUES = {"max_tokens": 256, "beam": 20}
"""Settings of views that set how long the computation takes, and the largest values that a page may give them."""


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """A view of a model for a text.

    Args:
        model: the model's path in the studio's folder.
        text: the text.
        token_ids: token ids that the model reads in place of the text: a served conversation's `prompt_token_ids` and
            `token_ids`.
        view: a name in `lens.registry.VIEWS`.
        format: "json" for the view as data, or the format of a file.
        settings: settings of the view.
        prompting: how the text becomes a prompt.
    """

    model: str
    text: str = ""
    token_ids: tuple[int, ...] | None = None
    view: str = "next-token"
    format: Literal["json", "svg", "csv", "html"] = "json"
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)


@dataclass(frozen=True, kw_only=True)
class ArrayRequest:
    """A call of one of ARRAY_FUNCTIONS.

    Args:
        model: the model's path in the studio's folder.
        text: the text.
        token_ids: token ids that the model reads in place of the text: a served conversation's `prompt_token_ids` and
            `token_ids`.
        function: a name in ARRAY_FUNCTIONS.
        settings: keyword arguments of the function.
        prompting: how the text becomes a prompt, for functions of one passage.
    """

    model: str
    text: str = ""
    token_ids: tuple[int, ...] | None = None
    function: str = "activation_arrays"
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)


GIVEN_PARAMETERS = frozenset({"prompt", "generation_config"})
"""Parameters of views and array functions that come from the request and the model, not from its settings."""


def prompt_options(settings: PromptSettings) -> PromptOptions:
    """The options of `encode_prompt` that these settings stand for."""
    return PromptOptions(raw=settings.raw, system=settings.system, add_special_tokens=settings.special_tokens)


def text_and_options(
    tokenizer: Tokenizer, text: str, ids: Sequence[int] | None, prompting: PromptSettings
) -> tuple[str, PromptOptions]:
    """The text and its options; of ids, their text. Raises BadSetting for ids beside a text."""
    options = prompt_options(prompting)
    if ids is None:
        return text, options
    check_ids_alone(text, options)
    return decode_with_spans(tokenizer, ids)[0], PromptOptions(ids=tuple(ids))


def render_view(opened: OpenedModel, request: ViewRequest) -> Any:
    """A view as plain data for the format "json", otherwise as the text of a file."""
    settings = convert_settings(load_view(request.view), request.settings)
    view = inspect_with_prompt(opened, request.text, request.view, settings, request.prompting, request.token_ids)
    return view.to_json() if request.format == "json" else render(view, request.format)


def inspect_with_prompt(
    opened: OpenedModel,
    text: str,
    view: str,
    settings: Mapping[str, Any],
    prompting: PromptSettings,
    ids: Sequence[int] | None = None,
) -> View:
    """The view that `inspect` returns; how the text becomes a prompt is given where the view has this setting."""
    if (reason := unsupported_reason(VIEWS[view], opened.model)) is not None:
        raise CannotDo(f"the view '{view}' is not available: {reason}")
    for name, largest in LARGEST_VALUES.items():
        if (settings.get(name) or 0) > largest:
            raise BadSetting(f"{name} is {settings[name]}; the studio takes at most {largest}")
    reads_prompt = "prompt" in signatures.signature(load_view(view)).parameters
    return inspect(opened, text, view, token_ids=ids, **(vars(prompting) if reads_prompt else {}), **settings)


def list_views(opened: OpenedModel) -> list[dict[str, Any]]:
    """Every view: name, description, settings, whether this model supports it, and if not, the reason."""
    entries = []
    for name, entry in VIEWS.items():
        function = load_view(name)
        reason = unsupported_reason(entry, opened.model)
        description = (function.__doc__ or "").strip().split("\n\n")[0].partition(" Raises ")[0]
        description = re.sub(r"\s+\(`[^`]*`\)", "", description)  # names in the code
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
        if parameter.kind is not parameter.KEYWORD_ONLY or name in GIVEN_PARAMETERS:
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
    parameters = signatures.signature(function).parameters
    converted = {}
    for name, value in settings.items():
        if name in GIVEN_PARAMETERS:
            raise UnknownName(f"'{name}' is no setting of a view; give raw, system or special_tokens beside the text")
        if name not in hints:
            converted[name] = value
        elif value is not None:
            converted[name] = convert_value(value, hints[name], name)
        elif parameters[name].default is None:
            converted[name] = None
        # else null, which stands for the default
    return converted


Arrays = dict[str, Any]
"""What a function of ARRAY_FUNCTIONS returns: numpy arrays and tensors, and plain data."""


def activation_arrays(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    activations: tuple[str, ...] = (),
    target: str | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Arrays:
    """The activations that match the patterns, in float32, and the display text of the tokens as `pieces`."""
    passage = encode_passage(model, tokenizer, text, target=target, prompt=prompt)
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
    "walkthrough": "clearstory.lens.probes.walkthrough",
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
    text, prompt = text_and_options(tokenizer, request.text, request.token_ids, request.prompting)
    given = {"prompt": prompt, "generation_config": opened.generation_config}
    parameters = signatures.signature(function).parameters
    if request.token_ids is not None and "prompt" not in parameters:
        raise BadSetting(f"'{name}' reads words or sentences and no token_ids; give a text")
    settings = convert_settings(function, request.settings)
    settings |= {name: value for name, value in given.items() if name in parameters}
    return pack_arrays(function(model, tokenizer, text, **settings))


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
