"""Ways: one text written on in three ways, side by side: always the likeliest token, drawn, and by beam search.

All three are weighed alike: the sum of their tokens' log-probabilities under the model's own distribution, and that
by their length, as beams are compared: log-probability / length ** penalty (Wu et al. 2016, eq. 14, without its
constant).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clearstory.errors import BadSetting
from clearstory.generation.engine import generate
from clearstory.generation.beam_search import Candidate, beam_search
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.lens.probes.generation import beam_tree
from clearstory.models.encoder import Encoder
from clearstory.recipes.inference.prompt_format import PromptFormat

MAX_TOKENS = 64
"""A tree of more steps is not read by anybody."""

MAX_BEAMS = 10


@dataclass(frozen=True)
class Continuation:
    """A continuation: its tokens with their log-probabilities in nats, its text, and its score."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    score: float

    @property
    def total(self) -> float:
        """The logarithm of the probability of all of it."""
        return math.fsum(self.logprobs)


def decoding_comparison(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    max_tokens: int = 12,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    beam: int = 3,
    length_penalty: float = 1.0,
) -> dict[str, Any]:
    """What is written greedily, what is drawn with a seed, the `beam` best of a beam search, and its tree.

    `texts` and `scores` are those of the tree's nodes: what stands there if it ended with this word. Raises CannotDo
    for an encoder, BadSetting for what is too much to look at.
    """
    if isinstance(model, Encoder):
        model.cannot_go_on()
    if not 1 <= max_tokens <= MAX_TOKENS:
        raise BadSetting(f"max_tokens is {max_tokens}; compare ways of 1 to {MAX_TOKENS} tokens")
    if not 2 <= beam <= MAX_BEAMS:
        raise BadSetting(f"beam is {beam}; follow 2 to {MAX_BEAMS} beams, since 1 is greedy")
    if not math.isfinite(length_penalty):
        raise BadSetting(f"length_penalty is {length_penalty}; give a number")
    prompt_format = PromptFormat.of(model, tokenizer, None)
    prompt, source = prompt_format.encode(tokenizer, text)
    token_decoder = prompt_format.token_decoder(tokenizer)
    how: dict[str, Any] = {"eos": prompt_format.eos_token_id, "begin": prompt_format.start_token_id, "source": source, "never": prompt_format.suppress_tokens}

    def spelt(ids: Sequence[int]) -> str:
        writer = StreamDecoder(speller, (), after=prompt)
        return "".join(writer.write(id) for id in ids) + writer.close()

    def way(ids: Sequence[int], logprobs: Sequence[float]) -> Continuation:
        total = math.fsum(logprobs)
        return Continuation(tuple(ids), tuple(logprobs), spelt(ids), total / len(ids) ** length_penalty)

    def written(**settings: Any) -> Continuation:
        sampling = Sampling(max_tokens=max_tokens, **settings)
        tokens = list(generate(model, prompt, sampling, **how))
        return way([token.id for token in tokens], [token.logprob for token in tokens])

    weighed: list[Candidate] = []
    search = Sampling(max_tokens=max_tokens, beam=beam, length_penalty=length_penalty)
    found = [way(each.ids, each.logprobs) for each in beam_search(model, prompt, search, continuation_data=weighed.append, **how)]
    greedy = written(temperature=0)
    drawn = written(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    tree = beam_tree(tokenizer, weighed, found[0].ids)
    named = [("greedy", greedy), ("sampling", drawn), ("beam search", found[0])]
    return {
        "ways": [{"name": name, **continuation_data(tokenizer, each, prompt_format.eos_token_id)} for name, each in named],
        "found": [continuation_data(tokenizer, each, prompt_format.eos_token_id) for each in found],
        "tree": tree.to_json(),
        "texts": [spelt(each.ids) for each in weighed],
        "scores": [each.total / len(each.ids) ** length_penalty for each in weighed],
        "caption": comparison_caption(greedy, drawn, found[0]),
    }


def continuation_data(tokenizer: Any, way: Continuation, eos: int | None) -> dict[str, Any]:
    """A way as plain data."""
    return {
        "text": way.text,
        "ids": list(way.ids),
        "pieces": [tokenizer.display_token(id) for id in way.ids],
        "logprobs": list(way.logprobs),
        "total": way.total,
        "score": way.score,
        "ended": way.ids[-1] == eos,
    }


def comparison_caption(greedy: Continuation, drawn: Continuation, best: Continuation) -> str:
    """Where the beams left the greedy way, and what that was worth; what was drawn beside them."""
    common = next((at for at, pair in enumerate(zip(greedy.ids, best.ids, strict=False)) if pair[0] != pair[1]), None)
    gain = best.score - greedy.score
    if best.ids == greedy.ids:
        said = "Beam search found what greedy writes: no way that it followed has a higher score"
    else:
        at = min(len(greedy.ids), len(best.ids)) if common is None else common
        better = f"{abs(gain):.3f} {'higher' if gain > 0 else 'lower'}" if abs(gain) >= 5e-4 else "as high"
        said = f"Beam search leaves the greedy way at token {at + 1}, and its score is {better}"
    return f"{said}; what was drawn scores {drawn.score:.3f}, greedy {greedy.score:.3f}."
