"""Written: what a model writes after a text, for the view that shows how it was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clearstory.generation.engine import generate
from clearstory.generation.beam_search import Candidate, beam_search
from clearstory.generation.settings import Sampling
from clearstory.models.prompts import Truncate
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.text.tokenizers import Tokenizer

Written = tuple[Sequence[int], Sequence[Candidate]]
"""The tokens, and every candidate that was weighed where beams were followed."""


def writer(network: Any, tokenizer: Tokenizer, text: str, truncate: Truncate | None) -> Callable[..., Written]:
    """What writes after a text, by fields of Sampling."""

    def write(**settings: Any) -> Written:
        sampling = Sampling(**settings)
        prompt_format = PromptFormat.of(network, tokenizer, truncate)
        ids, source = prompt_format.encode(tokenizer, text)
        how: dict[str, Any] = {"eos": prompt_format.eos_token_id, "begin": prompt_format.start_token_id, "truncate": truncate, "source": source}
        how["never"] = prompt_format.suppress_tokens
        if sampling.beam == 1:
            return tuple(token.id for token in generate(network, ids, sampling, **how)), ()
        candidates: list[Candidate] = []
        best = beam_search(network, ids, sampling, told=candidates.append, **how)[0]
        return best.ids, tuple(candidates)

    return write
