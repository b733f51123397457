"""HMMConfig: settings of hidden Markov models, their parameter count, and configs of a given size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.models.config import CausalConfig

Learn = Literal["em", "gradient", "tags"]

LEARN_NAMES = {"em": "Baum-Welch", "gradient": "gradient descent", "tags": "counting tags"}

MAX_STATES = 2**14
"""Maximum number of states: 2^14 states have a gigabyte of transition probabilities."""


@dataclass(frozen=True, kw_only=True)
class HMMConfig(CausalConfig):
    """Size of a hidden Markov model and how it is fitted. A preset is a difference from another
    (`dataclasses.replace`).

    Args:
        vocab: vocabulary size in tokens.
        states: number of hidden states; with learn "tags", one for each tag, determined from the text.
        learn: how the model is fitted: em is Baum-Welch over the whole text (Baum et al. 1970); gradient is gradient
            descent, as for networks; tags counts a text whose words are tagged.
        order: with learn "tags", order of the tag n-grams: 2 for bigrams, 3 for trigrams.
        blocks: number of blocks that the states are divided into; each token is emitted by the states of one block
            only, so that thousands of states cost as much as hundreds (Chiu and Rush 2020); 1: every state can emit
            every token.
        transition_prior: with learn "em", pseudo-count of each transition and of each initial state; default: 1, or
            less for a text of fewer than 700 distinct tokens.
        emission_prior: with learn "em", total pseudo-count of the emissions of each state, distributed over the tokens
            by their frequency in the text; default: 100, or less for a text of fewer than 700 distinct tokens.
        bos_token_id: token before a text, which is not an observation: after it the chain is in its initial state; set
            if the training text does not contain the token that texts start after.
        tags: with learn "tags", the names of the tags; determined from the text.
        suffixes: with learn "tags", number of word endings with tag counts; determined from the text.
    """

    vocab: int
    states: int = 256
    learn: Learn = "em"
    order: int = 2
    blocks: int = 1
    transition_prior: float | None = None
    emission_prior: float | None = None
    bos_token_id: int | None = None
    tags: tuple[str, ...] = ()
    suffixes: int = 0

    @property
    def family(self) -> str:
        """The family in one word: hmm."""
        return "hmm"

    @property
    def start_token_id(self) -> int | None:
        """The token that every text starts after; None if the tokenizer names it."""
        return self.bos_token_id

    @property
    def summary(self) -> str:
        """States and how they were fitted, in one phrase."""
        if self.learn == "tags":
            return f"{len(self.tags)} tags and the line's end, {'trigrams' if self.order == 3 else 'bigrams'} of them"
        blocks = f" in {self.blocks} blocks" if self.blocks > 1 else ""
        return f"{self.states:,} state{'s' * (self.states > 1)}{blocks}, fitted by {LEARN_NAMES[self.learn]}"

    @property
    def width(self) -> int:
        """Size of a hidden state: the number of states, or of pairs of tags for trigrams."""
        return self.states if self.order == 2 else self.states**2

    @property
    def states_per_block(self) -> int:
        """Number of states that may emit a given token."""
        return self.states // self.blocks

    def __post_init__(self) -> None:
        for name in ("transition_prior", "emission_prior"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise BadSetting(
                    f"model.{name} is {value:g}; it must be a pseudo-count above 0, since unseen events would have "
                    "probability zero; give a small one such as 0.001"
                )
            if value is not None and self.learn != "em":
                raise BadSetting(
                    f"model.{name} is {value:g} and model.learn '{self.learn}'; pseudo-counts are for Baum-Welch, so "
                    "set model.learn to em, or leave them out"
                )
        if self.tags and (self.learn != "tags" or self.states != len(self.tags) + 1):
            raise BadSetting(
                f"model.tags names {len(self.tags):,} tags, but model.learn is '{self.learn}' and model.states "
                f"{self.states:,}; they are determined from a tagged text, so set only model.learn"
            )
        if not 1 <= self.vocab <= 2**24:
            raise BadSetting(f"model.vocab is {self.vocab:,}; it must lie between 1 and {2**24:,}")
        if self.bos_token_id is not None and not 0 <= self.bos_token_id < self.vocab:
            raise BadSetting(
                f"model.bos_token_id is {self.bos_token_id:,}; it must be one of the {self.vocab:,} tokens, or null"
            )
        # A ceiling, so that a lying config.json is refused before anything is allocated.
        if not 1 <= self.states <= MAX_STATES:
            raise BadSetting(f"model.states is {self.states:,}; it must lie between 1 and {MAX_STATES:,}")
        if self.order not in (2, 3):
            raise BadSetting(f"model.order is {self.order}; it must be 2 for bigrams of tags or 3 for trigrams")
        if self.order == 3 and self.learn != "tags":
            raise BadSetting(
                f"model.order is 3 and model.learn '{self.learn}'; trigrams need tags, so set model.learn to tags, or "
                "model.order to 2"
            )
        if not 1 <= self.blocks <= min(self.states, self.vocab) or self.states % self.blocks:
            raise BadSetting(
                f"model.states is {self.states:,} and model.blocks {self.blocks:,}; blocks must divide the states "
                f"evenly and be no more than the {self.vocab:,} tokens"
            )
        if self.blocks > 1 and self.learn != "gradient":
            raise BadSetting(
                f"model.blocks is {self.blocks} and model.learn '{self.learn}'; blocks need gradient descent, so set "
                "model.learn to gradient, or model.blocks to 1"
            )


def parameter_count(config: HMMConfig) -> int:
    """Number of parameters of a model with this config: initial, transition and emission logits.

    >>> parameter_count(HMMConfig(vocab=10_000, states=256))
    2625792
    """
    c = config
    return c.states + c.states**2 + c.vocab * c.states_per_block


def scale_hmm(config: HMMConfig, target: int) -> HMMConfig:
    """The same model with as many states as give about `target` parameters.

    >>> scale_hmm(HMMConfig(vocab=10_000), 2_625_792).states
    256
    """
    if config.learn == "tags":
        raise BadSetting(f"parameters is {target:,}, but a tagger has one state per tag; leave parameters out")
    # states² + (1 + vocab / blocks) states = target
    half = (1 + config.vocab / config.blocks) / 2
    states = math.sqrt(half**2 + target) - half
    blocks = min(config.blocks, max(1, math.floor(states)))
    most = MAX_STATES // blocks
    return replace(config, blocks=blocks, states=blocks * min(most, max(1, round(states / blocks))))
