"""Tokenizer classes: changes of tokenizer.json by the class in tokenizer_config.json.

A class of transformers builds its normalizer and pre-tokenizer from tokenizer_config.json and ignores those of
tokenizer.json. If the two differ in a published folder, the ids are those of the class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from clearstory.text.tokenizer_json import TOKEN_FLAGS, AddedTokens, metaspace_decoder, post_processor

PLAIN_MODEL_TYPES = frozenset(("mistral", "mixtral", "phi3", "qwen2"))
"""Model types for which transformers reads tokenizer.json as it is, even if a class is named."""

CLASS_BY_MODEL_TYPE = {
    "gpt2": "GPT2Tokenizer",
    "bert": "BertTokenizer",
    "t5": "T5Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "marian": "MarianTokenizer",
}
"""The class of a folder that names none, by model type."""


def tokenizer_class(config: Mapping[str, Any], model_type: object) -> str:
    """The class that transformers opens a folder's tokenizer with, without "Fast"; empty if it has no rules."""
    if not isinstance(model_type, str):
        model_type = ""
    if model_type in PLAIN_MODEL_TYPES:
        return ""
    name = config.get("tokenizer_class") or CLASS_BY_MODEL_TYPE.get(model_type, "")
    return name.removesuffix("Fast") if isinstance(name, str) else ""


def apply_tokenizer_class(contents: str, config: Mapping[str, Any], model_type: object) -> str:
    """The tokenizer.json of a folder as its tokenizer class changes it; the same string if it changes nothing."""
    change = CHANGES.get(tokenizer_class(config, model_type))
    if change is None:
        return contents
    try:
        parts: dict[str, Any] = json.loads(contents)
        changed = change(parts, config)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return contents  # an invalid tokenizer.json, which opening it reports
    return contents if changed is None or changed == parts else json.dumps(changed, ensure_ascii=False)


def llama_parts(parts: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """LlamaTokenizer: a space before a text that does not begin with one, and with `legacy` also after special tokens.

    tokenizer.json adds a second space before a text that begins with a space.
    """
    if "ByteLevel" in json.dumps(parts.get("pre_tokenizer")) or "merges" not in parts.get("model", {}):
        return None
    scheme = "always" if config.get("legacy") else "first"
    scheme = "never" if config.get("add_prefix_space") is False else scheme
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    changed = {**parts, "normalizer": None, "pre_tokenizer": metaspace}
    return changed if scheme != "never" else {**changed, "decoder": metaspace_decoder(add_prefix_space=False)}


def bert_parts(parts: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """BertTokenizer: lower-cased by default."""
    if parts.get("model", {}).get("type", "WordPiece") != "WordPiece":
        return None
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
        "strip_accents": config.get("strip_accents"),
        "lowercase": bool(config.get("do_lower_case", True)),
    }
    return {**parts, "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}


def byte_level_parts(parts: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """GPT2Tokenizer and its relatives: a space before the text with `add_prefix_space`, and only then."""

    def change(step: Any) -> Any:
        if not isinstance(step, Mapping):
            return step
        if isinstance(step.get("pretokenizers"), list):
            return {**step, "pretokenizers": [change(each) for each in step["pretokenizers"]]}
        wanted = {"add_prefix_space": config.get("add_prefix_space") is True}
        return {**step, **wanted} if step.get("type") == "ByteLevel" else step

    return {**parts, "pre_tokenizer": change(parts.get("pre_tokenizer"))}


CHANGES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any] | None]] = {
    "LlamaTokenizer": llama_parts,
    "BertTokenizer": bert_parts,
    **dict.fromkeys(("GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer", "Qwen2Tokenizer"), byte_level_parts),
}
"""From the name of a class to the function that changes a tokenizer.json as it does; None for one it does not fit."""


def with_added_tokens(contents: str, tokens: Mapping[str, tuple[int, bool]]) -> str:
    """The tokenizer.json with more added tokens: for each its id, which follows the vocabulary, and whether it is
    special. A gap between the ids ends them.
    """
    if not tokens:
        return contents
    parts = json.loads(contents)
    ids = vocabulary_ids(parts)
    for token, (id, special) in sorted(tokens.items(), key=lambda item: item[1][0]):
        if token not in ids and id == max(ids.values(), default=-1) + 1:
            parts["added_tokens"].append({"id": id, "content": token, **TOKEN_FLAGS, "special": special})
            ids[token] = id
    return json.dumps(parts, ensure_ascii=False)


def vocabulary_ids(parts: Mapping[str, Any]) -> dict[str, int]:
    """The ids of a tokenizer.json by token, added tokens included."""
    vocab = parts["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, Mapping) else {token: id for id, (token, _) in enumerate(vocab)}
    return ids | {token["content"]: token["id"] for token in parts["added_tokens"]}


def with_bos_and_eos(contents: str, config: Mapping[str, Any]) -> str:
    """The tokenizer.json with the start and end tokens around a text that the config specifies, if any.

    Only for tokenizers that are read from other files: the post-processor of a tokenizer.json takes precedence.
    """
    if not {"add_bos_token", "add_eos_token"} & config.keys():
        return contents
    parts = json.loads(contents)
    ids = vocabulary_ids(parts)
    bos, eos = (token_of(config, role) if config.get(f"add_{role}_token") else "" for role in ("bos", "eos"))
    around = AddedTokens(before=[bos] if bos else [], after=[eos] if eos else [])
    parts["post_processor"] = post_processor(ids, around)
    return json.dumps(parts, ensure_ascii=False)


def token_of(config: Mapping[str, Any], role: str) -> str:
    """The string of a special token in a tokenizer_config.json; empty if it has none."""
    token = config.get(f"{role}_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    return token if isinstance(token, str) else ""
