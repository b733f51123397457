"""Roles: which heads follow which relations of grammar. Clark et al. 2019, section 4.2; Voita et al. 2019.

Of each relation of a parsed corpus and each way, from a word to its head or from a head to its word:

    share           how much of its weight a head of attention puts there
    favourite       how often it gives the word there more than any other word
    fixed offset    how often the best rule of the kind "the word before" finds it: a head that looked there and nowhere
                    else would have this share, and this favourite
    shuffled        the head's weight on a word as far away as another pair of this relation is, drawn by chance: what
                    its distance alone explains of the share

The head (by its favourites) and the offset are chosen on every second sentence and measured on the others, or the best
of hundreds of heads would look good by chance alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.attention_sites import attention_sites
from clearstory.lens.views import Table
from clearstory.lens.probes.x_words import AlignedSentence, align_words, word_attention
from clearstory.text.conllu import TaggedSentence, read_conllu

Way = Literal["to its head", "to its word"]

Relation = tuple[str, Way]

FEWEST = 20
"""Pairs of each half from which on a relation is measured."""


@dataclass(frozen=True)
class Pair:
    """A word that may look at another by a relation; `chance` is a word as far away as others of it stand, or None."""

    relation: Relation
    word: int
    other: int
    chance: int | None = None


@dataclass
class Sums:
    """What is added up over the pairs of one relation in one half of the sentences; all (layers, heads)."""

    share: Tensor
    favourite: Tensor
    shuffled: Tensor
    pairs: int = 0
    drawn: int = 0


@dataclass(frozen=True)
class DependencyHead:
    """One relation, one way: the head that follows it best, and what that is to be held against."""

    relation: str
    way: Way
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
    """The roles of a model's heads in so many sentences, frequent relations first, and how many were too long."""

    roles: tuple[DependencyHead, ...]
    sentences: int
    long: int


def measure_dependency_heads(model: Any, tokenizer: Any, sentences: Iterable[TaggedSentence], seed: int = 0) -> DependencyHeads:
    """Every relation's best head, of a decoder, an encoder, or the encoder of an encoder-decoder."""
    of = attention_sites(model)
    read = [(sentence, align_words(model, tokenizer, sentence)) for sentence in sentences]
    fits = [each for each in read if model.context is None or each[1].tokens <= model.context]
    causal = of[0].attention.causal
    marked = [pairs(sentence, pieces, causal) for sentence, pieces in fits]
    offsets = [tally(marked[half::2]) for half in (0, 1)]
    rng = Random(seed)
    zero = torch.zeros(len(of), of[0].heads)
    sums: list[dict[Relation, Sums]] = [
        defaultdict(lambda: Sums(zero.clone(), zero.clone(), zero.clone())) for _ in range(2)
    ]
    for number, ((sentence, pieces), found) in enumerate(zip(fits, marked, strict=True)):
        if found:
            weights = word_attention(model, pieces, of, len(sentence.words))
            pools = {
                relation: list(offsets[number % 2][relation].elements())
                for relation in {each.relation for each in found}
            }
            add(sums[number % 2], weights, chances(found, pools, pieces, causal, rng))
    return DependencyHeads(tuple(ranked(sums, offsets)), len(fits), len(read) - len(fits))


def pairs(sentence: TaggedSentence, pieces: AlignedSentence, causal: bool) -> list[Pair]:
    """All that a sentence says about who hangs on whom, both ways, where the one may see the other and has a choice."""
    known = sorted(pieces.known())
    found = []
    for word, (head, relation) in enumerate(zip(sentence.heads, sentence.dependency_relations, strict=True)):
        if head is None or head == word or not {word, head} <= set(known):
            continue
        both: list[tuple[Way, int, int]] = [("to its head", word, head), ("to its word", head, word)]
        for way, one, other in both:
            seen = [each for each in known if each != one and not (causal and each > one)]
            if other in seen and len(seen) > 1:
                found.append(Pair((relation, way), one, other))
    return found


def tally(marked: Sequence[Sequence[Pair]]) -> dict[Relation, Counter[int]]:
    """How often each relation reaches how many words to the right."""
    offsets: dict[Relation, Counter[int]] = defaultdict(Counter)
    for each in marked:
        for pair in each:
            offsets[pair.relation][pair.other - pair.word] += 1
    return offsets


def chances(
    found: Sequence[Pair], pools: dict[Relation, list[int]], pieces: AlignedSentence, causal: bool, rng: Random
) -> Iterator[Pair]:
    """The pairs, each with a word at an offset of another pair of its relation; None where ten draws fall outside."""
    known = pieces.known()
    for pair in found:
        drawn = (pair.word + rng.choice(pools[pair.relation]) for _ in range(10))
        chance = next((at for at in drawn if at in known and not (causal and at > pair.word)), None)
        yield Pair(pair.relation, pair.word, pair.other, chance)


def add(sums: dict[Relation, Sums], weights: Float[Tensor, "L H N N"], found: Iterable[Pair]) -> None:
    """One sentence's weights along its pairs."""
    others = weights.clone().diagonal_scatter(weights.new_full(weights.shape[:-1], -1.0), dim1=-2, dim2=-1)
    best = others.argmax(-1)
    for pair in found:
        own = sums[pair.relation]
        own.share += weights[..., pair.word, pair.other]
        own.favourite += best[..., pair.word] == pair.other
        own.pairs += 1
        if pair.chance is not None:
            own.shuffled += weights[..., pair.word, pair.chance]
            own.drawn += 1


def ranked(sums: Sequence[dict[Relation, Sums]], offsets: Sequence[dict[Relation, Counter[int]]]) -> list[DependencyHead]:
    """The role of each relation that both halves have enough of: chosen by the one, measured on the other."""
    roles = []
    for relation in sums[0].keys() & sums[1].keys():
        chosen, held = sums[0][relation], sums[1][relation]
        if min(chosen.pairs, held.pairs) < FEWEST:
            continue
        # Of equal favourites the greater share, which is under 1 of what one favourite counts.
        best = chosen.favourite + chosen.share / (chosen.pairs + 1)
        layer, head = divmod(int(best.argmax()), best.shape[1])
        [(offset, _)] = offsets[0][relation].most_common(1)
        roles.append(
            DependencyHead(
                relation=relation[0],
                way=relation[1],
                pairs=chosen.pairs + held.pairs,
                layer=layer,
                head=head,
                share=float(held.share[layer, head]) / held.pairs,
                favourite=float(held.favourite[layer, head]) / held.pairs,
                offset=offset,
                fixed=offsets[1][relation][offset] / held.pairs,
                shuffled=float(held.shuffled[layer, head]) / max(held.drawn, 1),
                shares=(chosen.share + held.share) / (chosen.pairs + held.pairs),
                favourites=(chosen.favourite + held.favourite) / (chosen.pairs + held.pairs),
            )
        )
    return sorted(roles, key=lambda role: (-role.pairs, role.relation, role.way))


def dependency_heads(model: Any, tokenizer: Any, text: str, *, sentences: int = 200, top: int = 24) -> Table:
    """Which head follows which relation, over the first sentences of a parsed file (.conllu) that `text` names.

    Raises BadInput for a file that is none, or has no relation often enough.
    """
    if sentences < 2 * FEWEST:
        raise BadSetting(f"sentences is {sentences}; read at least {2 * FEWEST}, or no relation comes often enough")
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 relation")
    file = Path(text).expanduser()
    if not file.is_file():
        raise BadInput(f"the view 'dependency-heads' reads a parsed file and '{text[:80]}' is none; give a .conllu file")
    found = measure_dependency_heads(model, tokenizer, islice(read_conllu(file), sentences))
    if not found.roles:
        raise BadInput(
            f"{file} has no relation {2 * FEWEST} times in {found.sentences} sentences; read more of them, or give a "
            "file whose columns HEAD and DEPREL are filled in"
        )
    return Table(
        title=f"Heads that follow grammar, in {found.sentences} sentences of {file.name}",
        columns=("relation", "way", "pairs", "head", "share", "favourite", "fixed offset", "offset", "shuffled"),
        rows=tuple(
            (
                each.relation,
                each.way,
                each.pairs,
                f"{each.layer}.{each.head}",
                each.share,
                each.favourite,
                each.fixed,
                f"{each.offset:+d}",
                each.shuffled,
            )
            for each in found.roles[:top]
        ),
        bar="favourite",
        caption=dependency_caption(found, top),
    )


def dependency_caption(found: DependencyHeads, top: int) -> str:
    """How many relations are followed better than by an offset, and the best; and what is not shown."""
    beyond = [each for each in found.roles if each.favourite > each.fixed]
    said = (
        f"In {len(beyond)} of {len(found.roles)} relations a head finds the word more often than the best fixed offset"
    )
    if beyond:
        best = max(beyond, key=lambda each: each.favourite - each.fixed)
        said += (
            f"; by most in {best.relation}, {best.way}: head {best.layer}.{best.head} {best.favourite:.0%}, "
            f"offset {best.offset:+d} {best.fixed:.0%}"
        )
    more = len(found.roles) - top
    said += f". {more} rarer relations are not shown" if more > 0 else ""
    return said + (f". {found.long} sentences were longer than the context and left out." if found.long else ".")
