"""Config: the fields in which hidden Markov models differ, their parameters counted on paper, their size as a dial."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from clearstory.errors import BadSetting

Learn = Literal["em", "gradient", "tags"]

HOW = {"em": "Baum-Welch", "gradient": "gradient", "tags": "counting tags"}

MOST_STATES = 2**14
"""2^14 states have a billion bytes of transitions."""


@dataclass(frozen=True, kw_only=True)
class HMMConfig:
    """One hidden Markov model's size and how it learns. A preset is a difference from another (`dataclasses.replace`).

    Args:
        vocab: tokens the model knows.
        states: what the model can be in; with learn "tags" there is one for each tag, and they are not chosen.
        learn: em is Baum-Welch, round by round over all of the text (Baum et al. 1970); gradient is step by step as
            networks learn; tags counts a text whose words are tagged.
        order: with learn "tags", how many tags a probability looks at, itself included: 2 bigrams, 3 trigrams.
        blocks: parts that the states are divided into; a token is spoken by the states of one part only, so that
            thousands of states cost as hundreds (Chiu and Rush 2020). 1: every state may speak every token.
        tags: with learn "tags", their names; the text's own, and not chosen.
        endings: with learn "tags", how many ends of words are known; follows from the text.
    """

    vocab: int
    states: int = 256
    learn: Learn = "em"
    order: int = 2
    blocks: int = 1
    tags: tuple[str, ...] = ()
    endings: int = 0

    @property
    def family(self) -> str:
        """The kind in one word."""
        return "hmm"

    @property
    def start_token_id(self) -> int | None:
        """None: the tokenizer names it."""
        return None

    @property
    def summary(self) -> str:
        """The model in words."""
        if self.learn == "tags":
            return f"{len(self.tags)} tags and the line's end, {'trigrams' if self.order == 3 else 'bigrams'} of them"
        parts = f" in {self.blocks} blocks" if self.blocks > 1 else ""
        return f"{self.states:,} state{'s' * (self.states > 1)}{parts}, learnt by {HOW[self.learn]}"

    @property
    def width(self) -> int:
        """Length of a belief: with trigrams it is about pairs of tags."""
        return self.states if self.order == 2 else self.states**2

    @property
    def speakers(self) -> int:
        """States that may speak a token."""
        return self.states // self.blocks

    def __post_init__(self) -> None:
        if self.tags and (self.learn != "tags" or self.states != len(self.tags) + 1):
            raise BadSetting(
                f"model.tags names {len(self.tags):,} tags where model.learn is '{self.learn}' and model.states "
                f"{self.states:,}; they follow from a tagged text, so leave all but model.learn out"
            )
        if not 1 <= self.vocab <= 2**24:
            raise BadSetting(f"model.vocab is {self.vocab:,}; it must lie between 1 and {2**24:,}")
        # A ceiling, so that a lying config.json is refused before anything is allocated.
        if not 1 <= self.states <= MOST_STATES:
            raise BadSetting(f"model.states is {self.states:,}; it must lie between 1 and {MOST_STATES:,}")
        if self.order not in (2, 3):
            raise BadSetting(f"model.order is {self.order}; it is 2 for bigrams of tags or 3 for trigrams")
        if self.order == 3 and self.learn != "tags":
            raise BadSetting(
                f"model.order is 3 and model.learn '{self.learn}'; trigrams are of tags, so set model.learn to tags, "
                "or leave model.order at 2"
            )
        if not 1 <= self.blocks <= min(self.states, self.vocab) or self.states % self.blocks:
            raise BadSetting(
                f"model.states is {self.states:,} and model.blocks {self.blocks:,}; blocks must divide the states "
                f"evenly and be no more than the {self.vocab:,} tokens"
            )
        if self.blocks > 1 and self.learn != "gradient":
            raise BadSetting(
                f"model.blocks is {self.blocks} and model.learn '{self.learn}'; only gradients go block by block, so "
                "set model.learn to gradient, or leave model.blocks at 1"
            )


def parameter_count(config: HMMConfig) -> int:
    """Numbers a model of this config learns, counted on paper: how it begins, goes on, and speaks.

    >>> parameter_count(HMMConfig(vocab=10_000, states=256))
    2625792
    """
    c = config
    return c.states + c.states**2 + c.vocab * c.speakers


def scale_hmm(config: HMMConfig, target: int) -> HMMConfig:
    """The same kind at about `target` parameters: so many states.

    >>> scale_hmm(HMMConfig(vocab=10_000), 2_625_792).states
    256
    """
    if config.learn == "tags":
        raise BadSetting(f"parameters is {target:,}, and a tagger has a state for each tag; leave parameters out")
    # states² + (1 + vocab / blocks) states = target
    half = (1 + config.vocab / config.blocks) / 2
    states = math.sqrt(half**2 + target) - half
    blocks = min(config.blocks, max(1, math.floor(states)))
    most = MOST_STATES // blocks
    return replace(config, blocks=blocks, states=blocks * min(most, max(1, round(states / blocks))))
