"""Sampling settings: how the next token is chosen from its probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How text is generated. Cuts apply in the order repetition penalty, temperature, top-k, top-p, min-p.

    Args:
        max_tokens: largest number of tokens to generate.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: keep only the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens that together have this probability (Holtzman et al. 2020).
        min_p: drop tokens less likely than this share of the likeliest (Nguyen et al. 2024).
        repetition_penalty: divides positive, multiplies negative logits of tokens already there (Keskar et al. 2019).
        beam: number of beams of beam search; 1 samples or is greedy.
        length_penalty: beam search ranks by log-probability / length ** length_penalty.
        stop: strings that end the text; they are not part of it.
        seed: seed of the random generator; None for a different text each time.
    """

    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
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
            raise BadSetting(f"top_k is {self.top_k}; 0 keeps every token, k keeps the k likeliest")
        if not 0 < self.top_p <= 1:
            raise BadSetting(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise BadSetting(f"min_p is {self.min_p}; it must be between 0 and 1")
        if self.repetition_penalty <= 0:
            raise BadSetting(f"repetition_penalty is {self.repetition_penalty}; it must be above 0; 1 changes nothing")
        if self.beam < 1:
            raise BadSetting(f"beam is {self.beam}; it must be at least 1")
