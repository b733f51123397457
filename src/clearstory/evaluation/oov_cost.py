"""Spelling: what a tokenizer leaves out, charged, so that bits per byte mean the same for every model.

A tokenizer of words writes <unk> for a word it does not know and drops white space. Its tokens t say how a text x is
cut, not which text it was. Since the tokens follow from the text,

    −ln P(x) = −ln P(t) − ln P(x | t)
    −ln P(x | t) = Σ over unknown tokens −ln P(their letters) + Σ over all places −ln P(white space there)

The model gives the first part. The second is given here, by what has learnt nothing but the tokenizer's vocabulary, and
the text up to the place it stands at. From tokens, letters and white space the text can be put together again byte for
byte, so the sum is the length of a code for it and no byte comes for nothing.

Both are guessed from a list of what was met before, and spelt in bytes where they are not on it (`Guess`, `Letters`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clearstory.metrics import Floats
from clearstory.text.tokenizers import Tokenizer

MOST_WORDS = 50_000
"""Words of the vocabulary that spelling is learnt from; of more, the rarest, which are most like unknown ones."""

SYMBOLS = 257
"""256 bytes and the end of a word."""

OFTEN = 100
"""Times that a string was met, from which on it is looked up only."""

END, BEGIN = "\u0100", "\u0101"


class Letters:
    """Words spelt byte by byte up to an end, each byte foreseen from the ones before it.

    Interpolated n-grams with the weights of Witten and Bell (1991, method C): after a context h that was met c(h)
    times and went on in t(h) ways, p(b | h) = (c(hb) + t(h) p(b | h')) / (c(h) + t(h)), where h' is h without its
    first byte; below the empty context all 257 symbols are alike. Over all words the probabilities sum to at most one.

    >>> letters = Letters([b"aa", b"ab"])
    >>> letters.nats(b"ab") < letters.nats(b"zz")
    True
    """

    def __init__(self, words: Iterable[bytes] = (), order: int = 6) -> None:
        self.order = order
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.sums: Counter[str] = Counter()
        for word in words:
            self.add(word)

    def add(self, word: bytes) -> None:
        """Learn how a word is spelt."""
        for context, symbol in self.places(word):
            for start in range(len(context) + 1):
                self.counts[context[start:]][symbol] += 1
                self.sums[context[start:]] += 1

    def nats(self, word: bytes) -> float:
        """What spelling a word costs, its end included."""
        return -sum(math.log(self.probability(context, symbol)) for context, symbol in self.places(word))

    def probability(self, context: str, symbol: str) -> float:
        """Of one symbol after the ones before it."""
        chance = 1 / SYMBOLS
        for start in range(len(context), -1, -1):
            found = self.counts.get(context[start:])
            if found is None:  # nor was any longer one ever met
                break
            chance = (found[symbol] + len(found) * chance) / (self.sums[context[start:]] + len(found))
        return chance

    def places(self, word: bytes) -> Iterable[tuple[str, str]]:
        """Every symbol of a word after its context."""
        spelt = BEGIN + word.decode("latin-1") + END
        return ((spelt[max(0, at - self.order + 1) : at], spelt[at]) for at in range(1, len(spelt)))


class Guess:
    """What will stand here, from what stood at such places before: a list that grows, and letters for the rest.

    After n strings, t of them different, p(s) = (c(s) + (t + 1) q(s)) / (n + t + 1), q being the letters'.
    """

    def __init__(self, letters: Letters) -> None:
        self.letters = letters
        self.met: dict[bytes, int] = {}
        self.count = 0

    def charge(self, string: bytes) -> float:
        """Nats of a string, which is remembered."""
        new, times = len(self.met) + 1, self.met.get(string, 0)
        if not times:
            nats = self.letters.nats(string) - math.log(new / (self.count + new))
            self.letters.add(string)
        else:
            # What was met often is hardly ever spelt, and spelling is slow.
            spelt = math.exp(-self.letters.nats(string)) if times < OFTEN else 0.0
            nats = -math.log((times + new * spelt) / (self.count + new))
        self.met[string] = times + 1
        self.count += 1
        return nats


@dataclass(frozen=True)
class Charged:
    """What is charged beside the model's own nats, and the bytes each token stands for, white space before it included.

    `nats` (N,) and `sizes` (N,) belong to the tokens of a text in order; what follows the last is the last's.
    """

    nats: Floats
    sizes: Floats
    unknown: int


class Spelling:
    """Charges for what a tokenizer left out, document by document in the order of the text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.words = Guess(Letters(vocabulary(tokenizer)))
        self.gaps: dict[tuple[str, str], Guess] = {}

    def charge(self, text: str) -> tuple[list[int], Charged] | None:
        """The ids of a text and what is charged for it; None where a token's own text is not what stood there.

        That is so where capitals or accents were taken away: they are in no sum, so there are no bits per byte.
        """
        ids, places = self.tokenizer.encode_with_offsets(text)
        nats, sizes, end, unknown = np.zeros(len(ids)), np.zeros(len(ids)), 0, 0
        left = "edge"
        for place, (id, (start, stop)) in enumerate(zip(ids, places, strict=True)):
            gap, own = text[end:start], text[start:stop]
            if id == self.tokenizer.unk_token_id:
                nats[place] = self.words.charge(own.encode())
                unknown += 1
            elif not self.stands_for(id, own):
                return None
            nats[place] += self.gap(left, self.kind(id, own[:1]), gap)
            sizes[place] = len(gap.encode()) + len(own.encode())
            left, end = self.kind(id, own[-1:]), max(end, stop)
        if ids:
            nats[-1] += self.gap(left, "edge", text[end:])
            sizes[-1] += len(text[end:].encode())
        elif text:
            return None  # no token to charge it to
        return ids, Charged(nats, sizes, unknown)

    def gap(self, left: str, right: str, gap: str) -> float:
        """Nats of the white space between two tokens of these kinds."""
        guess = self.gaps.setdefault((left, right), Guess(Letters([b"", b" "], order=3)))
        return guess.charge(gap.encode())

    def stands_for(self, id: int, own: str) -> bool:
        """Whether a known token tells the very characters that stood there."""
        if id == self.tokenizer.eos_token_id:
            return own == "\n" and self.tokenizer.kind == "words"
        return self.tokenizer.token_bytes(id) == own.encode()

    def kind(self, id: int, character: str) -> str:
        """What a token is like on the side of this character: white space before a comma is not that before a word."""
        if self.tokenizer.kind == "wordpiece" and self.tokenizer.display_token(id).startswith("##"):
            return "inside"
        return "break" if character.isspace() else "letter" if character.isalnum() else "mark"


def vocabulary(tokenizer: Tokenizer) -> list[bytes]:
    """Words to learn spelling from: pieces that begin a word, each once."""
    pieces = (tokenizer.display_token(id) for id in range(tokenizer.vocab) if id not in (tokenizer.unk_token_id, tokenizer.eos_token_id))
    return [piece.encode() for piece in pieces if not piece.startswith("##")][-MOST_WORDS:]
