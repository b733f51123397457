"""MixtureConfig: the experts of a mixture and the size of its cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

from clearstory.errors import BadSetting
from clearstory.models.config import CausalConfig, Config

MAX_EXPERTS = 16
MAX_CACHE = 2**14
"""Maximum size of the cache: each token is compared with every token of the cache."""


@dataclass(frozen=True, kw_only=True)
class MixtureConfig(CausalConfig):
    """The experts of a mixture and its cache.

    Args:
        vocab: vocabulary size in tokens.
        experts: presets of the models to mix, with one tokenizer: clear,ngram, or clear+ngram in compare.
        cache: number of preceding tokens whose n-grams are counted while the text is processed (Kuhn and De Mori 1990);
            0: no cache.
        dropout: dropout rate of the networks among the experts.
        configs: the config of each expert, determined by experts.
    """

    vocab: int
    experts: tuple[str, ...] = ("clear", "ngram")
    cache: int = 1024
    dropout: float = 0.0
    configs: tuple[Config, ...] = field(default=(), metadata={"derived": True})

    @property
    def family(self) -> str:
        """The family in one word: mixture."""
        return "mixture"

    @property
    def start_token_id(self) -> int | None:
        """The token that every text starts after, where an expert names one."""
        return next((each.start_token_id for each in self.configs if each.start_token_id is not None), None)

    @property
    def summary(self) -> str:
        """The experts and the cache in one phrase."""
        names = [f"{name} ({each.summary})" for name, each in zip(self.experts, self.configs, strict=False)]
        cache = [f"a cache of {self.cache:,} tokens"] if self.cache else []
        return "mixture of " + " and ".join([*(names or self.experts), *cache])

    def __post_init__(self) -> None:
        names = tuple(name for item in self.experts for name in re.split(r"[,+ ]+", item) if name)
        object.__setattr__(self, "experts", names)  # "clear,ngram" in a flag is two
        if not 1 <= self.vocab <= 2**24:
            raise BadSetting(f"model.vocab is {self.vocab:,}; it must lie between 1 and {2**24:,}")
        if not 1 + (not self.cache) <= len(self.experts) <= MAX_EXPERTS:
            raise BadSetting(
                f"model.experts names {len(self.experts)} models with a cache of {self.cache:,} tokens; a mixture has "
                f"two to {MAX_EXPERTS} models, or one and a cache"
            )
        if any(first == second for first, second in pairwise(sorted(self.experts))):
            raise BadSetting(f"model.experts is {','.join(self.experts)}, which has a model twice; give it once")
        if not 0 <= self.cache <= MAX_CACHE:
            raise BadSetting(f"model.cache is {self.cache:,}; it must lie between 0 and {MAX_CACHE:,}")
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"model.dropout is {self.dropout}; it must be at least 0 and under 1")
        if self.configs and len(self.configs) != len(self.experts):
            raise BadSetting(
                f"the mixture names {len(self.experts)} experts and has the configs of {len(self.configs)}; each "
                "expert has one config"
            )
        for name, each in zip(self.experts, self.configs, strict=False):
            check_expert(name, each, self.vocab)


def check_expert(name: str, config: Config, vocab: int) -> None:
    """Raises BadSetting for a model that cannot be mixed, or not with a vocabulary of this size."""
    if config.family == "mixture":
        raise BadSetting(f"model.experts names {name}, itself a mixture; name its experts instead")
    if config.architecture != "decoder":
        raise BadSetting(
            f"model.experts names {name}, an {config.architecture}, which does not predict the next token of a text; "
            "mix decoders, recurrent models and n-gram models"
        )
    if config.family == "hmm" and getattr(config, "learn", "") != "gradient":
        raise BadSetting(f"model.experts names {name}, which is fitted by EM over the whole text; leave it out")
    if config.vocab != vocab:
        raise BadSetting(
            f"the mixture has {vocab:,} tokens but its expert {name} {config.vocab:,}; all experts share one tokenizer"
        )
