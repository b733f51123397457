"""Sampling settings: how the next token is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from clearstory.errors import BadSetting
from clearstory.models.generation_config import GenerationConfig


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How text is generated. Logits change in the order logit bias, repetition penalty, presence and frequency penalty,
    temperature, top-k, top-p, min-p.

    Args:
        max_tokens: maximum number of tokens to generate.
        temperature: divides the logits; 0 is greedy.
        top_k: keep only the k most likely tokens; 0: keep all.
        top_p: keep the most likely tokens whose probabilities sum to p (nucleus sampling; Holtzman et al. 2020).
        min_p: drop tokens whose probability is below this fraction of the highest (Nguyen et al. 2024).
        repetition_penalty: divides positive and multiplies negative logits of tokens in the text so far (Keskar et al.
            2019).
        presence_penalty: subtracted from the logits of tokens that were already generated, between -2 and 2.
        frequency_penalty: subtracted from the logits of generated tokens, times the number of their occurrences,
            between -2 and 2.
        logit_bias: pairs of a token id and a number from -100 to 100 that is added to its logit.
        beam: number of beams of beam search; 1: sampling or greedy search.
        length_penalty: exponent p of the beam search score log-probability / length ** p.
        stop: strings that end the text; they are not part of it.
        seed: seed of the random number generator; None for a different text each time.
    """

    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    beam: int = 1
    length_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise BadSetting(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if self.temperature < 0:
            raise BadSetting(
                f"temperature is {self.temperature}; it must be at least 0: 0 is greedy, 1 samples the model's own "
                "distribution"
            )
        if self.top_k < 0:
            raise BadSetting(f"top_k is {self.top_k}; it must be at least 0: 0 keeps all tokens, k the k most likely")
        if not 0 < self.top_p <= 1:
            raise BadSetting(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise BadSetting(f"min_p is {self.min_p}; it must be between 0 and 1")
        if self.repetition_penalty <= 0:
            raise BadSetting(f"repetition_penalty is {self.repetition_penalty}; it must be above 0; 1 has no effect")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise BadSetting(f"{name} is {getattr(self, name)}; it must be between -2 and 2; 0 has no effect")
        for id, bias in self.logit_bias:
            if not -100 <= bias <= 100:
                raise BadSetting(f"the logit bias of token {id} is {bias}; it must be between -100 and 100")
        if self.beam < 1:
            raise BadSetting(f"beam is {self.beam}; it must be at least 1")
        if self.beam > 1 and (self.changes_generated or self.logit_bias):
            raise BadSetting(
                f"beam is {self.beam}, and presence_penalty, frequency_penalty and logit_bias are for sampling; omit "
                "them, or set beam to 1"
            )

    @property
    def changes_generated(self) -> bool:
        """Whether logits of already generated tokens are changed."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, kw_only=True)
class TokenSampling:
    """Sampling settings; the defaults are those of the model's generation config.

    Args:
        max_tokens: maximum number of tokens to generate; default: the model's, otherwise 200, or 1024 in a chat.
        temperature: divides the logits; 0 is greedy; default: the model's, otherwise 1.
        top_k: keep only the k most likely tokens; 0: keep all; default: the model's, otherwise 0.
        top_p: keep the most likely tokens whose probabilities sum to p (nucleus sampling); default: the model's,
            otherwise 1.
        min_p: drop tokens whose probability is below this fraction of the highest; default: the model's, otherwise 0.
        repetition_penalty: lowers the logits of tokens in the text so far; 1: no penalty; default: the model's,
            otherwise 1.
        presence_penalty: subtracted from the logits of tokens that were already generated; default: 0.
        frequency_penalty: subtracted from the logits of generated tokens, times the number of their occurrences;
            default: 0.
        stop: strings that end the text; they are not part of it.
        seed: seed of the random number generator; default: a different text each time.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        Sampling(**self.given())

    def given(self) -> dict[str, Any]:
        """The settings that are given."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, ())}


@dataclass(frozen=True, kw_only=True)
class SamplingOverrides(TokenSampling):
    """Settings of sampling and beam search; the defaults are those of the model.

    Args:
        beam: number of beams of beam search; 1: sampling or greedy search; default: the model's, otherwise 1.
        length_penalty: exponent p of the beam search score log-probability / length ** p; default: the model's,
            otherwise 1.
    """

    beam: int | None = None
    length_penalty: float | None = None


def sampling_of(config: GenerationConfig, given: Mapping[str, Any]) -> Sampling:
    """The sampling settings of a generation config, overridden by those that are given.

    A config with do_sample=False means greedy or beam search, unless a setting of sampling is given.

    >>> sampling_of(GenerationConfig(temperature=0.6, top_p=0.9), {"top_p": 0.5}).temperature
    0.6
    """
    values: dict[str, Any] = {
        "max_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_k": config.top_k,
        "top_p": None if config.top_p is None else max(config.top_p, 1e-9),  # 0 keeps the likeliest token
        "min_p": config.min_p,
        "repetition_penalty": config.repetition_penalty,
        "beam": config.num_beams,
        "length_penalty": config.length_penalty,
        "stop": config.stop_strings,
    }
    sampled = {"temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty", "logit_bias"}
    if given.keys() & sampled or config.do_sample:
        values["beam"] = None
    elif config.do_sample is False:
        values |= {"temperature": 0.0, "top_k": None, "top_p": None, "min_p": None}
    return Sampling(**{name: value for name, value in values.items() if value is not None} | dict(given))
