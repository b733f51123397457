"""Decoding comparison: one prompt continued by greedy decoding, sampling and beam search.

All three continuations are scored alike: by the sum of their tokens' log-probabilities under the model's untruncated
distribution, divided by length ** penalty as in beam search (Wu et al. 2016, eq. 14, without its constant).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clearstory.errors import BadSetting
from clearstory.generation.beam_search import Candidate, beam_search
from clearstory.generation.engine import generate
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.lens.probes.generation import beam_tree
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, require
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.prompts import PromptOptions
from clearstory.text.tokenizers import Tokenizer

MAX_TOKENS = 64
"""The largest number of generated tokens: a deeper beam tree is not readable."""

MAX_BEAMS = 10
"""The largest number of beams."""


@dataclass(frozen=True)
class Continuation:
    """A generated continuation: token ids, their log-probabilities in nats, text, and length-normalized score."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    score: float

    @property
    def logprob(self) -> float:
        """The log-probability of all tokens, in nats."""
        return math.fsum(self.logprobs)


def compare_decoding(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    max_tokens: int = 12,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    beam: int = 3,
    length_penalty: float = 1.0,
    prompt: PromptOptions = PromptOptions(),
    generation_config: GenerationConfig | None = None,
) -> dict[str, Any]:
    """The greedy continuation, a sampled one, the `beam` best of a beam search, and the tree of its candidates.

    `texts` and `scores` belong to the tree's nodes: the continuation that ends there. Raises CannotDo for a model that
    is not causal, BadSetting for settings out of range.
    """
    require(model, Capability.CAUSAL)
    if not 1 <= max_tokens <= MAX_TOKENS:
        raise BadSetting(f"max_tokens is {max_tokens}; compare continuations of 1 to {MAX_TOKENS} tokens")
    if not 2 <= beam <= MAX_BEAMS:
        raise BadSetting(f"beam is {beam}; use 2 to {MAX_BEAMS} beams; 1 would be greedy decoding")
    if not abs(length_penalty) <= 100:
        raise BadSetting(f"length_penalty is {length_penalty}; give a number from -100 to 100")
    prompt_format = PromptFormat.of(model, tokenizer, None, generation_config=generation_config, options=prompt)
    encoded = prompt_format.encode_prompt(tokenizer, text)
    first, source = ([], list(encoded.ids)) if prompt_format.reads_source else (list(encoded.ids), None)
    token_decoder = prompt_format.token_decoder(tokenizer)
    options: dict[str, Any] = {**prompt_format.decoding_options, "source": source}

    def decode(ids: Sequence[int]) -> str:
        decoder = StreamDecoder(token_decoder, (), prompt_ids=first if encoded.continues_prompt else [])
        return "".join(decoder.push(id) for id in ids) + decoder.flush()

    def continuation(ids: Sequence[int], logprobs: Sequence[float]) -> Continuation:
        total = math.fsum(logprobs)
        return Continuation(tuple(ids), tuple(logprobs), decode(ids), total / len(ids) ** length_penalty)

    def sample(**settings: Any) -> Continuation:
        sampling = Sampling(max_tokens=max_tokens, **settings)
        tokens = list(generate(model, first, sampling, **options))
        return continuation([token.id for token in tokens], [token.logprob for token in tokens])

    candidates: list[Candidate] = []
    search = Sampling(max_tokens=max_tokens, beam=beam, length_penalty=length_penalty)
    beams = [
        continuation(each.ids, each.logprobs)
        for each in beam_search(model, first, search, on_candidate=candidates.append, **options)
    ]
    greedy = sample(temperature=0)
    sampled = sample(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    tree = beam_tree(tokenizer, candidates, beams[0].ids)
    methods = [("greedy", greedy), ("sampling", sampled), ("beam search", beams[0])]
    return {
        "methods": [
            {"name": name, **continuation_data(tokenizer, each, prompt_format.eos_token_ids)} for name, each in methods
        ],
        "beams": [continuation_data(tokenizer, each, prompt_format.eos_token_ids) for each in beams],
        "tree": tree.to_json(),
        "texts": [decode(each.ids) for each in candidates],
        "scores": [each.total / len(each.ids) ** length_penalty for each in candidates],
        "caption": comparison_caption(greedy, sampled, beams[0]),
    }


def continuation_data(tokenizer: Tokenizer, continuation: Continuation, ends: Sequence[int]) -> dict[str, Any]:
    """A continuation as plain data."""
    return {
        "text": continuation.text,
        "ids": list(continuation.ids),
        "pieces": [tokenizer.display_token(id) for id in continuation.ids],
        "logprobs": list(continuation.logprobs),
        "logprob": continuation.logprob,
        "score": continuation.score,
        "ended": continuation.ids[-1] in ends,
    }


def comparison_caption(greedy: Continuation, sampled: Continuation, best: Continuation) -> str:
    """Where beam search diverges from greedy decoding, and the scores of all three."""
    diverge = next((at for at, pair in enumerate(zip(greedy.ids, best.ids, strict=False)) if pair[0] != pair[1]), None)
    gain = best.score - greedy.score
    if best.ids == greedy.ids:
        sentence = "Beam search found the greedy continuation: no candidate has a higher score"
    else:
        at = min(len(greedy.ids), len(best.ids)) if diverge is None else diverge
        better = f"{abs(gain):.3f} {'higher' if gain > 0 else 'lower'}" if abs(gain) >= 5e-4 else "the same"
        sentence = f"Beam search diverges from greedy decoding at token {at + 1}; its score is {better}"
    return f"{sentence}; the sample scores {sampled.score:.3f}, greedy {greedy.score:.3f}."
