"""Generation configs of model folders and GGUF files, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearstory.durable import write_json
from clearstory.errors import BadInput
from clearstory.formats.hf.config_json import read_json
from clearstory.models.config import Config
from clearstory.models.generation_config import DECODER_START, GenerationConfig, unique
from clearstory.text.sentencepiece import CONTROL
from clearstory.text.tokenizers import Tokenizer

GENERATION_FILE = "generation_config.json"

GGUF_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""End of text, end of turn and end of message: tokens that end generation."""

GGUF_END_TOKENS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>")
"""Control tokens that end a text even if no key names them, as in llama.cpp."""

GGUF_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""From keys below general.sampling to our names."""


def read_generation_config(
    folder: Path, config_json: Mapping[str, Any], tokenizer: Tokenizer | None
) -> GenerationConfig:
    """The generation config of a model folder. Raises BadInput for an invalid value, CorruptFile for invalid JSON."""
    file = folder / GENERATION_FILE
    generation = read_json(file) if file.is_file() else None
    try:
        return GenerationConfig.from_hf(config_json, generation, special_token_ids(tokenizer)["eos_token_id"])
    except BadInput as error:
        raise BadInput(f"{folder}: {error}") from None


def generation_json_dict(
    config: Config, tokenizer: Tokenizer | None, generation: GenerationConfig | None = None
) -> dict[str, Any]:
    """The contents of generation_config.json: special token ids, and the generation config that a model was opened
    with.
    """
    start = config.start_token_id if config.architecture == "encoder-decoder" else None
    own = special_token_ids(tokenizer) | ({} if start is None else {DECODER_START: start})
    return own if generation is None else {**own, **generation.to_hf()}


def write_generation_config(folder: Path, model: Any, tokenizer: Tokenizer | None, config: GenerationConfig) -> None:
    """Write generation_config.json into a folder."""
    write_json(folder / GENERATION_FILE, generation_json_dict(model.config, tokenizer, config))


def special_token_ids(tokenizer: Tokenizer | None) -> dict[str, int | None]:
    """bos, eos and pad ids. None is written as null: transformers would use its own defaults for absent keys."""
    return {
        "bos_token_id": None if tokenizer is None else tokenizer.bos_token_id,
        "eos_token_id": None if tokenizer is None else tokenizer.eos_token_id,
        "pad_token_id": None if tokenizer is None else tokenizer.pad_token_id,
    }


def gguf_generation_config(metadata: Mapping[str, Any], tokenizer: Tokenizer | None) -> GenerationConfig:
    """The generation config in the metadata of a GGUF file."""
    types = metadata.get("tokenizer.ggml.token_type")
    named = [metadata.get(f"tokenizer.ggml.{key}") for key in GGUF_END_KEYS]
    ends = [int(id) for id in named if isinstance(id, int) and not isinstance(id, bool)]
    if tokenizer is not None and types is not None:
        known = [tokenizer.ids[token] for token in GGUF_END_TOKENS if token in tokenizer.ids]
        ends += [id for id in known if id < len(types) and int(types[id]) == CONTROL]
    found = {name: metadata.get(f"general.sampling.{key}") for key, name in GGUF_SAMPLING.items()}
    sampling = {name: value for name, value in found.items() if value is not None}
    vocab = None if tokenizer is None else tokenizer.vocab
    ends = [id for id in unique(ends) if id >= 0 and (vocab is None or id < vocab)]  # an id beyond means none
    return GenerationConfig.from_hf(
        {}, {"eos_token_id": ends, **sampling}, special_token_ids(tokenizer)["eos_token_id"]
    )


def default_generation_config(tokenizer: Tokenizer | None) -> GenerationConfig:
    """The generation config of a model whose file has none: generation ends with the tokenizer's end token."""
    return GenerationConfig.from_hf({}, {}, special_token_ids(tokenizer)["eos_token_id"])


def gguf_generation_fields(generation: GenerationConfig | None, tokenizer: Tokenizer) -> dict[str, Any]:
    """The metadata of a GGUF file for a generation config: additional end tokens, and sampling defaults.

    GGUF has keys for three end tokens: of a text, of a turn and of a message.
    """
    if generation is None:
        return {}
    ends = [id for id in generation.eos_token_ids if id != tokenizer.eos_token_id]
    found: dict[str, Any] = {f"tokenizer.ggml.{key}": id for key, id in zip(GGUF_END_KEYS[1:], ends, strict=False)}
    for key, name in GGUF_SAMPLING.items():
        if (value := getattr(generation, name)) is not None:
            found[f"general.sampling.{key}"] = value if key == "top_k" else float(value)
    return found | ({"general.sampling.temp": 0.0} if generation.do_sample is False else {})  # greedy
