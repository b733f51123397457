"""Trace API: the tokens that a model reads of a text, its activations, and the likeliest next tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clearstory.errors import BadInput, BadSetting, CannotDo, ClearstoryError
from clearstory.formats.folders import OpenedModel
from clearstory.generation.settings import sampling_of
from clearstory.lens.hooks.activations import activation_names, record_activations
from clearstory.lens.hooks.passage import Passage, encode_passage, encode_segments
from clearstory.lens.probes.predictions import next_token
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.prompts import RAW, EncodedPrompt, encode_prompt, is_chat
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.inference import PromptSettings
from clearstory.recipes.settings.schema import INLINE_SECTION
from clearstory.studio.view_api import text_and_options
from clearstory.text.tokenizers import Tokenizer

MAX_TRACE_VALUES, MAX_TRACE_TOKENS = 2**20, 20_000
"""The largest number of activation values that a trace returns as JSON, and of tokens."""

MAX_PATTERN = 200
"""The longest pattern of activation names: matching one against every name takes its length in time."""


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """The tokens, activations and next-token predictions of one forward pass.

    Args:
        model: the model's path in the studio's folder.
        text: the text; for an encoder-decoder, the source.
        token_ids: token ids that the model reads in place of the text: a served conversation's `prompt_token_ids` and
            `token_ids`.
        target: for an encoder-decoder, the text that the decoder has generated so far.
        activations: patterns of activation names; see `lens.hooks.activations`.
        top: number of likeliest next tokens; with 0 and no activations the text is only tokenized.
        prompting: how the text becomes a prompt.
    """

    model: str
    text: str = ""
    token_ids: tuple[int, ...] | None = None
    target: str | None = None
    activations: tuple[str, ...] = ()
    top: int = 10
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)


def trace(opened: OpenedModel, request: TraceRequest) -> dict[str, Any]:
    """The tokens that the model reads, the likeliest next tokens, and the activations that match the patterns.

    The tokens are those of `encode_prompt`, special tokens and the chat template included; for an encoder-decoder those
    of the source. If the model cannot process the text and only tokens are requested, `problem` says why. Raises
    BadSetting for activations of more than MAX_TRACE_VALUES values, BadInput for more than MAX_TRACE_TOKENS tokens.
    """
    model, tokenizer = load_model_and_tokenizer(opened)
    start = time.perf_counter()
    text, options = text_and_options(tokenizer, request.text, request.token_ids, request.prompting)
    encoded, _ = encode_segments(model, tokenizer, text, options)
    if len(encoded) > MAX_TRACE_TOKENS:
        raise BadInput(f"the text has {len(encoded):,} tokens; the studio shows at most {MAX_TRACE_TOKENS:,}")
    passage: Passage | None = None
    problem = None
    try:
        passage = encode_passage(model, tokenizer, text, target=request.target, prompt=options)
    except ClearstoryError as error:
        if request.top or request.activations:
            raise
        problem = str(error)
    values = passage_activations(model, passage, request.activations) if passage is not None else {}
    next_table = None
    if request.top and has_capability(model, Capability.CAUSAL) and not (passage and passage.source):
        next_table = next_token(model, tokenizer, text, top=request.top, prompt=options).to_json()
    return {
        "model": request.model,
        "text": text,
        "family": getattr(opened.model.config, "family", opened.card.family),
        "architecture": getattr(opened.model.config, "architecture", "decoder"),
        "shape": opened.model.config.summary,
        "layers": getattr(opened.model.config, "layers", None),
        "heads": getattr(opened.model.config, "heads", None),
        "vocab": model.vocab,
        "context": model.context,
        "tokens": [token_facts(tokenizer, text, encoded, position) for position in range(len(encoded))],
        "prompt": {
            "chat": encoded.chat,
            "has_chat_template": is_chat(model, tokenizer),
            "has_special_tokens": any(encode_prompt(model, tokenizer, "a", RAW).special),
        },
        "sampling": sampling_defaults(opened.generation_config),
        "passage": None if passage is None else {"pieces": passage.pieces, "source": passage.source_pieces},
        "problem": problem,
        "activation_names": known_activation_names(model),
        "activations": values,
        "next_token": next_table,
        "seconds": time.perf_counter() - start,
    }


def sampling_defaults(config: GenerationConfig) -> dict[str, Any] | None:
    """The temperature and truncation with which a model's authors generate; None if they leave them open."""
    if all(each is None for each in (config.do_sample, config.temperature, config.top_k, config.top_p)):
        return None
    sampling = sampling_of(config, {})
    return {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}


def passage_activations(model: LanguageModel, passage: Passage, patterns: Sequence[str]) -> dict[str, Any]:
    """The activations of one forward pass by name, each with its shape and nested lists of values."""
    if not patterns:
        return {}
    if (longest := max(map(len, patterns))) > MAX_PATTERN:
        raise BadSetting(f"a pattern of activation names has {longest:,} characters; give at most {MAX_PATTERN}")
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


def token_facts(tokenizer: Tokenizer, text: str, encoded: EncodedPrompt, position: int) -> dict[str, Any]:
    """A token's id, display text, number of bytes, and the part of the text that it stands for.

    `start` and `stop` count Unicode code points, `text` is what is between them; all three are None for a token that
    does not stand for a part of the text: a special token, or one of the chat template.
    """
    id, span = encoded.ids[position], encoded.spans[position]
    return {
        "id": id,
        "piece": tokenizer.display_token(id),
        "bytes": int(tokenizer.byte_lengths[id]),
        "start": None if span is None else span[0],
        "stop": None if span is None else span[1],
        "text": None if span is None else text[span[0] : span[1]],
        "special": encoded.special[position],
        "unknown": id == tokenizer.unk_token_id,
    }
