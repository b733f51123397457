"""Generation config: end tokens and default generation settings of a model.

Read from generation_config.json (or, in older folders, from config.json) and from GGUF metadata; the names of the
fields are those of `transformers.GenerationConfig`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from clearstory.errors import BadInput

NEUTRAL_VALUES: dict[str, Any] = {
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "num_beam_groups": 1,
    "token_healing": False,
    "top_h": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "constraints": None,
    "force_words_ids": None,
    "dola_layers": None,
}
"""Keys of a generation_config.json that change the text and are not supported, with the value that changes nothing."""

DECODER_START = "decoder_start_token_id"

MAX_TOKEN_LISTS = 2**20
"""Upper bound of the length of a list of ids in a file."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How a model's authors generate from it. A field is None if they leave it open.

    Args:
        eos_token_ids: tokens that end a text, each of them.
        do_sample: False for greedy search, True for sampling.
        temperature: divides the logits.
        top_k: number of most likely tokens to sample from; 0 for all.
        top_p: total probability of the most likely tokens to sample from.
        min_p: smallest probability to sample, as a share of the largest.
        repetition_penalty: lowers the logits of tokens already there.
        no_repeat_ngram_size: no n-gram of this length occurs twice; 0 for no such limit.
        max_new_tokens: largest number of tokens to generate.
        max_length: the same with the prompt's tokens.
        min_new_tokens: smallest number of tokens to generate before an end token.
        min_length: the same with the prompt's tokens.
        num_beams: number of beams of beam search.
        length_penalty: exponent of the length in the score of a beam.
        early_stopping: when a beam search ends: True as soon as there are as many finished beams as `num_beams`.
        forced_bos_token_id: the first token generated after a decoder's start token.
        forced_eos_token_id: the last token of a text of the largest length.
        suppress_tokens: tokens that are never generated.
        begin_suppress_tokens: tokens that are not generated first.
        bad_words_ids: sequences of tokens that are never generated.
        stop_strings: strings that end a text.
        other: further keys of the file, kept for writing it back.
    """

    eos_token_ids: tuple[int, ...] = ()
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int | None = None
    min_length: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    stop_strings: tuple[str, ...] | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_hf(
        cls, config: Mapping[str, Any], generation: Mapping[str, Any] | None, eos_token_id: int | None = None
    ) -> GenerationConfig:
        """The generation config of a folder, from its config.json and its generation_config.json (None if absent).

        As in transformers, config.json holds such settings only where there is no generation_config.json. End tokens
        are those that generation_config.json names, else those of config.json, else the tokenizer's, `eos_token_id`.
        Raises BadInput for an invalid value.
        """
        names = {each.name for each in fields(cls)} - {"eos_token_ids", "other"}
        source = config if generation is None else generation
        values = {name: check(name, source[name]) for name in names & source.keys() if source[name] is not None}
        ends = token_ids("eos_token_id", (generation or {}).get("eos_token_id"))
        ends = ends or token_ids("eos_token_id", config.get("eos_token_id"))
        other = {} if generation is None else {key: generation[key] for key in generation.keys() - names - OWN_KEYS}
        ends = ends or (() if eos_token_id is None else (eos_token_id,))
        return cls(**values, eos_token_ids=unique(ends), other=other)

    def to_hf(self) -> dict[str, Any]:
        """The contents of a generation_config.json, without bos and pad."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        ends, other = values.pop("eos_token_ids"), values.pop("other")
        known = {name: value for name, value in values.items() if value is not None}
        eos = {"eos_token_id": ends[0] if len(ends) == 1 else list(ends)} if ends else {}
        return {**other, **known, **eos}

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Names of the file's settings that change the generated text and are not supported."""
        return tuple(
            sorted(key for key, value in self.other.items() if key in NEUTRAL_VALUES and value != NEUTRAL_VALUES[key])
        )


OWN_KEYS = frozenset(
    ("eos_token_id", "bos_token_id", "pad_token_id", DECODER_START, "transformers_version", "_from_model_config")
)
"""Keys of a generation_config.json that are written again."""

MINIMUM: dict[str, float] = {
    "temperature": 0,
    "top_k": 0,
    "top_p": 0,
    "min_p": 0,
    "repetition_penalty": 1e-6,
    "no_repeat_ngram_size": 0,
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "num_beams": 1,
    "length_penalty": -1e6,
}
"""Smallest values of the settings that are numbers."""

INTEGERS = frozenset(name for name in MINIMUM if name.startswith(("max_", "min_l", "min_n", "num_", "no_", "top_k")))


def check(name: str, value: Any) -> Any:
    """The value of a setting in a file, checked. Raises BadInput."""
    if name in MINIMUM:
        kinds = (int,) if name in INTEGERS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not MINIMUM[name] <= value < 2**53:
            what = "an integer" if name in INTEGERS else "a number"
            raise invalid(name, value, f"it must be {what} of at least {MINIMUM[name]:g}")
        if name in ("top_p", "min_p") and value > 1:
            raise invalid(name, value, "it must be at most 1")
        return value
    if name == "do_sample" or (name == "early_stopping" and value != "never"):
        if not isinstance(value, bool):
            raise invalid(name, value, "it must be true or false")
        return value
    if name == "bad_words_ids":
        if not isinstance(value, list):
            raise invalid(name, value, "it must be a list of lists of token ids")
        return tuple(token_ids(name, each) for each in value)
    if name == "stop_strings":
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise invalid(name, value, "it must be a list of texts")
        return tuple(text for text in texts if text)
    if name.endswith("_token_id"):
        ids = token_ids(name, value)
        return ids[0] if ids else None
    return value if name == "early_stopping" else token_ids(name, value)


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """A token id or a list of token ids as a tuple; empty for null. Raises BadInput."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if len(ids) > MAX_TOKEN_LISTS or any(isinstance(id, bool) or not isinstance(id, int) for id in ids):
        raise invalid(name, value, "it must be a token id or a list of token ids")
    return tuple(id for id in ids if 0 <= id < 2**53)  # some files write -1 for none


def invalid(name: str, value: Any, expected: str) -> BadInput:
    """The error for an invalid value."""
    shown = repr(value[:40]) if isinstance(value, str) else str(value)[:40]
    return BadInput(f"the generation config has {name} = {shown}; {expected}; correct or delete the file")


def unique(ids: Collection[int]) -> tuple[int, ...]:
    """Ids without repetitions, in order."""
    return tuple(dict.fromkeys(ids))
