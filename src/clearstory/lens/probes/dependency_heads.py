"""Dependency heads: attention heads that follow syntactic relations. Clark et al. 2019, section 4.2; Voita et al. 2019.

For each relation of a parsed corpus and each direction, from a word to its head or from a head to its dependent:

    share           mean weight that an attention head puts on that word
    favourite       how often that word gets more of its weight than any other word
    fixed offset    how often the best fixed offset ("the word before") finds that word: the baseline of both
    shuffled        mean weight on a word at the offset of another random pair of this relation: the part of the share
                    that distance alone explains

Attention between words is the sum over the target word's tokens and the mean over the source word's tokens (section
4.1). The attention head (by its favourites) and the offset are selected on every second sentence and measured on the
others, since the best of hundreds of heads would score well by chance.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.attention_sites import AttentionSite, attention_patterns, attention_sites
from clearstory.lens.hooks.passage import Passage, start_before
from clearstory.lens.views import Table
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import RAW, encode_prompt, find_start_token_id
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.conllu import TaggedSentence, read_conllu
from clearstory.text.tokenizers import Tokenizer

Direction = Literal["to its head", "to its dependent"]

DirectedRelation = tuple[str, Direction]

MIN_PAIRS = 20
"""Pairs that a relation needs in each half of the sentences."""


@dataclass(frozen=True)
class AlignedSentence:
    """A sentence's tokens, and the index of the word that each token belongs to; -1 for special tokens."""

    passage: Passage
    words: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens in the stack that reads the words."""
        return len(self.words)

    def words_with_tokens(self) -> frozenset[int]:
        """The words that have a token; a token of two words belongs to the second."""
        return frozenset(self.words) - {-1}


@dataclass(frozen=True)
class WordPair:
    """A word and the word that a relation leads to; `shuffled` is a word at the offset of another pair, or None."""

    relation: DirectedRelation
    word: int
    other: int
    shuffled: int | None = None


@dataclass
class PairSums:
    """Sums over the pairs of one relation in one half of the sentences; the tensors are (layers, heads)."""

    share: Tensor
    favourite: Tensor
    shuffled: Tensor
    pairs: int = 0
    shuffled_pairs: int = 0


@dataclass(frozen=True)
class DependencyHead:
    """The best attention head for one relation in one direction, with its baselines."""

    relation: str
    direction: Direction
    pairs: int
    layer: int
    head: int
    share: float
    favourite: float
    offset: int
    fixed: float
    shuffled: float
    shares: Float[Tensor, "L H"]
    favourites: Float[Tensor, "L H"]


@dataclass(frozen=True)
class DependencyHeads:
    """The best heads of all relations, most frequent first; the numbers of sentences used and of too long ones."""

    relations: tuple[DependencyHead, ...]
    sentences: int
    too_long: int


def dependency_heads(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, sentences: int = 200, top: int = 24
) -> Table:
    """The attention head that follows each syntactic relation best, in the first sentences of the .conllu file `text`.

    Raises BadInput for a path that is not a file, and for a file without a sufficiently frequent relation.
    """
    if sentences < 2 * MIN_PAIRS:
        raise BadSetting(f"sentences is {sentences}; read at least {2 * MIN_PAIRS}, or no relation is frequent enough")
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 relation")
    file = expand_home(text)
    if not file.is_file():
        raise BadInput(
            f"the view 'dependency-heads' needs a parsed file, which '{text[:80]}' is not; give a .conllu file"
        )
    found = measure_dependency_heads(model, tokenizer, islice(read_conllu(file), sentences))
    if not found.relations:
        raise BadInput(
            f"{file} has no relation {2 * MIN_PAIRS} times in {found.sentences} sentences; read more sentences, or "
            "give a file with values in the columns HEAD and DEPREL"
        )
    return Table(
        title=f"Attention heads that follow syntactic relations, in {found.sentences} sentences of {file.name}",
        columns=("relation", "direction", "pairs", "head", "share", "favourite", "fixed offset", "offset", "shuffled"),
        rows=tuple(
            (
                each.relation,
                each.direction,
                each.pairs,
                f"{each.layer}.{each.head}",
                each.share,
                each.favourite,
                each.fixed,
                f"{each.offset:+d}",
                each.shuffled,
            )
            for each in found.relations[:top]
        ),
        bar="favourite",
        caption=dependency_caption(found, top),
    )


def dependency_caption(found: DependencyHeads, top: int) -> str:
    """The number of relations for which a head is better than the fixed offset, the largest margin, and omissions."""
    better = [each for each in found.relations if each.favourite > each.fixed]
    text = (
        f"In {len(better)} of {len(found.relations)} relations an attention head finds the word more often than the "
        "best fixed offset"
    )
    if better:
        best = max(better, key=lambda each: each.favourite - each.fixed)
        text += (
            f"; the largest margin is in {best.relation}, {best.direction}: head {best.layer}.{best.head} "
            f"{best.favourite:.0%}, offset {best.offset:+d} {best.fixed:.0%}"
        )
    more = len(found.relations) - top
    text += f". {more} rarer relations are not shown" if more > 0 else ""
    return text + (f". {found.too_long} sentences longer than the context were skipped." if found.too_long else ".")


def measure_dependency_heads(
    model: LanguageModel, tokenizer: Tokenizer, sentences: Iterable[TaggedSentence], seed: int = 0
) -> DependencyHeads:
    """The best head of every relation, in a decoder, an encoder, or the encoder of an encoder-decoder."""
    sites = attention_sites(model)
    aligned = [(sentence, align_words(model, tokenizer, sentence)) for sentence in sentences]
    fitting = [each for each in aligned if model.context is None or each[1].tokens <= model.context]
    causal = sites[0].attention.causal
    pairs = [word_pairs(sentence, tokens, causal) for sentence, tokens in fitting]
    offsets = [count_offsets(pairs[half::2]) for half in (0, 1)]
    rng = Random(seed)
    zero = torch.zeros(len(sites), sites[0].heads)
    sums: list[dict[DirectedRelation, PairSums]] = [
        defaultdict(lambda: PairSums(zero.clone(), zero.clone(), zero.clone())) for _ in range(2)
    ]
    for index, ((sentence, tokens), found) in enumerate(zip(fitting, pairs, strict=True)):
        if found:
            weights = word_attention(model, tokens, sites, len(sentence.words))
            pools = {
                relation: list(offsets[index % 2][relation].elements())
                for relation in {each.relation for each in found}
            }
            add_pairs(sums[index % 2], weights, shuffle_offsets(found, pools, tokens, causal, rng))
    return DependencyHeads(tuple(best_heads(sums, offsets)), len(fitting), len(aligned) - len(fitting))


def align_words(model: LanguageModel, tokenizer: Tokenizer, sentence: TaggedSentence) -> AlignedSentence:
    """The tokens of a sentence as written, with special tokens before it, so that attention to the first token is not
    counted as attention to the first word.
    """
    text, word_offsets = sentence.text_and_spans
    encoded = encode_prompt(model, tokenizer, text, RAW)
    words = tuple(
        -1 if span is None else next((word for word, (_, stop) in enumerate(word_offsets) if span[1] <= stop), -1)
        for span in encoded.spans
    )
    if Capability.BIDIRECTIONAL in model.capabilities:
        return AlignedSentence(Passage(encoded.ids, ()), words)
    if Capability.SOURCE in model.capabilities:
        written = (find_start_token_id(cast(EncoderDecoder, model).config, tokenizer) or 0,)
        return AlignedSentence(Passage(written, (), encoded.ids, ()), words)
    first = start_before(tokenizer, encoded)
    return AlignedSentence(Passage((*first, *encoded.ids), ()), (*(-1 for _ in first), *words))


def word_attention(
    model: LanguageModel, sentence: AlignedSentence, sites: list[AttentionSite], count: int
) -> Float[Tensor, "L H N N"]:
    """Every head's weights among `count` words; weight on special tokens is left out, so rows sum to at most 1."""
    belongs = torch.tensor(sentence.words)[:, None] == torch.arange(count)
    to = belongs.float()
    by = (to / to.sum(0).clamp(min=1)).T

    def merge(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, "B H N N"]:
        return by @ pattern.float().cpu() @ to

    return torch.stack(attention_patterns(model, sentence.passage, sites, merge))


def word_pairs(sentence: TaggedSentence, tokens: AlignedSentence, causal: bool) -> list[WordPair]:
    """All pairs of a word and its head, in both directions, where the one attends to the other and has a choice."""
    known = sorted(tokens.words_with_tokens())
    found = []
    for word, (head, relation) in enumerate(zip(sentence.heads, sentence.dependency_relations, strict=True)):
        if head is None or head == word or not {word, head} <= set(known):
            continue
        both: list[tuple[Direction, int, int]] = [("to its head", word, head), ("to its dependent", head, word)]
        for direction, one, other in both:
            visible = [each for each in known if each != one and not (causal and each > one)]
            if other in visible and len(visible) > 1:
                found.append(WordPair((relation, direction), one, other))
    return found


def count_offsets(pairs: Sequence[Sequence[WordPair]]) -> dict[DirectedRelation, Counter[int]]:
    """How often each relation leads each number of words to the right."""
    offsets: dict[DirectedRelation, Counter[int]] = defaultdict(Counter)
    for each in pairs:
        for pair in each:
            offsets[pair.relation][pair.other - pair.word] += 1
    return offsets


def shuffle_offsets(
    pairs: Sequence[WordPair],
    pools: dict[DirectedRelation, list[int]],
    tokens: AlignedSentence,
    causal: bool,
    rng: Random,
) -> Iterator[WordPair]:
    """The pairs, each with a word at a random offset of its relation; None if ten draws fall outside the sentence."""
    known = tokens.words_with_tokens()
    for pair in pairs:
        drawn = (pair.word + rng.choice(pools[pair.relation]) for _ in range(10))
        shuffled = next((word for word in drawn if word in known and not (causal and word > pair.word)), None)
        yield WordPair(pair.relation, pair.word, pair.other, shuffled)


def add_pairs(
    sums: dict[DirectedRelation, PairSums], weights: Float[Tensor, "L H N N"], pairs: Iterable[WordPair]
) -> None:
    """Add one sentence's weights along its pairs to the sums."""
    others = weights.clone().diagonal_scatter(weights.new_full(weights.shape[:-1], -1.0), dim1=-2, dim2=-1)
    best = others.argmax(-1)
    for pair in pairs:
        relation_sums = sums[pair.relation]
        relation_sums.share += weights[..., pair.word, pair.other]
        relation_sums.favourite += best[..., pair.word] == pair.other
        relation_sums.pairs += 1
        if pair.shuffled is not None:
            relation_sums.shuffled += weights[..., pair.word, pair.shuffled]
            relation_sums.shuffled_pairs += 1


def best_heads(
    sums: Sequence[dict[DirectedRelation, PairSums]], offsets: Sequence[dict[DirectedRelation, Counter[int]]]
) -> list[DependencyHead]:
    """The best head of each relation that is frequent enough: selected on one half, measured on the other."""
    found = []
    for relation in sums[0].keys() & sums[1].keys():
        selection, held_out = sums[0][relation], sums[1][relation]
        if min(selection.pairs, held_out.pairs) < MIN_PAIRS:
            continue
        # Ties are broken by the share, which is scaled to less than one favourite.
        best = selection.favourite + selection.share / (selection.pairs + 1)
        layer, head = divmod(int(best.argmax()), best.shape[1])
        [(offset, _)] = offsets[0][relation].most_common(1)
        found.append(
            DependencyHead(
                relation=relation[0],
                direction=relation[1],
                pairs=selection.pairs + held_out.pairs,
                layer=layer,
                head=head,
                share=float(held_out.share[layer, head]) / held_out.pairs,
                favourite=float(held_out.favourite[layer, head]) / held_out.pairs,
                offset=offset,
                fixed=offsets[1][relation][offset] / held_out.pairs,
                shuffled=float(held_out.shuffled[layer, head]) / max(held_out.shuffled_pairs, 1),
                shares=(selection.share + held_out.share) / (selection.pairs + held_out.pairs),
                favourites=(selection.favourite + held_out.favourite) / (selection.pairs + held_out.pairs),
            )
        )
    return sorted(found, key=lambda each: (-each.pairs, each.relation, each.direction))
