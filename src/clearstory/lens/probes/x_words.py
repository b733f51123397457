"""Words: attention between the words of a sentence, whatever pieces a tokenizer makes of them.

To a word is the sum over its pieces, from a word the mean. Clark et al. 2019, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.probes.attention import attention_patterns
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.attention_sites import AttentionSite
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.base import reads_source
from clearstory.models.prompts import bos_or_eos_token_id, find_start_token_id
from clearstory.text.conllu import TaggedSentence
from clearstory.text.special_tokens import build_inputs


@dataclass(frozen=True)
class AlignedSentence:
    """A sentence as a model reads it, and the word, from 0, that each of its tokens is of; -1 for none."""

    passage: Passage
    words: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """How many tokens the words' stack reads."""
        return len(self.words)

    def known(self) -> frozenset[int]:
        """The words that have a token of their own: where two words are one token, it is of the second."""
        return frozenset(self.words) - {-1}


def align_words(model: Any, tokenizer: Any, sentence: TaggedSentence) -> AlignedSentence:
    """The tokens of a sentence as it was written: an encoder's in its frame, a decoder's behind the token that texts
    begin with, so that what looks at the first token does not look at the first word.
    """
    text, places = sentence.text_and_spans
    ids, spans = tokenizer.encode_with_offsets(text)
    words = [next((word for word, (_, stop) in enumerate(places) if end <= stop), -1) for _, end in spans]
    if isinstance(model, Encoder):
        whole, _ = build_inputs(tokenizer, ids)
        return AlignedSentence(Passage(tuple(whole), ()), (-1, *words, -1))
    if reads_source(model):
        ends = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        written = (find_start_token_id(model.config, tokenizer) or 0,)
        return AlignedSentence(Passage(written, (), (*ids, *ends), ()), (*words, *(-1 for _ in ends)))
    begin = bos_or_eos_token_id(tokenizer)
    first = () if begin is None else (begin,)
    return AlignedSentence(Passage((*first, *ids), ()), (*(-1 for _ in first), *words))


def word_attention(model: Any, read: AlignedSentence, of: list[AttentionSite], count: int) -> Float[Tensor, "L H N N"]:
    """Every head's weights among `count` words; what goes to tokens that are no word's is left out of the rows."""
    belongs = torch.tensor(read.words)[:, None] == torch.arange(count)
    to = belongs.float()
    by = (to / to.sum(0).clamp(min=1)).T

    def merged(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, "B H N N"]:
        return by @ pattern.float().cpu() @ to

    return torch.stack(attention_patterns(model, read.passage, of, merged))
