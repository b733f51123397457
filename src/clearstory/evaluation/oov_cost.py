"""Cost of the text that a lossy tokenizer drops, so that bits per byte are comparable between tokenizers.

A tokenizer of words writes <unk> for an out-of-vocabulary word and drops white space. Its tokens t do not determine the
text x. Since the tokens follow from the text,

    −ln P(x) = −ln P(t) − ln P(x | t)
    −ln P(x | t) = Σ over unknown tokens −ln P(their spelling) + Σ over all gaps −ln P(white space there)

The model gives the first term. The second is given here, by models of strings that have seen nothing but the
tokenizer's vocabulary, and the text so far. From tokens, spellings and white space the text can be restored byte for
byte, so the sum is the length of a code for it and no byte is free.

Both are predicted from a list of the strings seen so far, and spelled in bytes where they are not on it
(`AdaptiveStringModel`, `ByteNgrams`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clearstory.metrics import Floats
from clearstory.text.tokenizers import Tokenizer

MAX_WORDS = 50_000
"""Maximum number of vocabulary words for training the spelling model; the rarest ones are used, since they resemble
unknown words.
"""

SYMBOLS = 257
"""256 bytes and the end of a word."""

FREQUENT = 100
"""Number of occurrences of a string above which its spelling is no longer computed."""

END, BEGIN = "\u0100", "\u0101"


class ByteNgrams:
    """Words spelled byte by byte up to an end symbol, each byte predicted from the ones before it.

    Interpolated n-grams with the weights of Witten and Bell (1991, method C): for a context h with count c(h) and t(h)
    different continuations, p(b | h) = (c(hb) + t(h) p(b | h')) / (c(h) + t(h)), where h' is h without its first byte;
    below the empty context all 257 symbols are equally likely. Over all words the probabilities sum to at most one.

    >>> spelling = ByteNgrams([b"aa", b"ab"])
    >>> spelling.nats(b"ab") < spelling.nats(b"zz")
    True
    """

    def __init__(self, words: Iterable[bytes] = (), order: int = 6) -> None:
        self.order = order
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.totals: Counter[str] = Counter()
        for word in words:
            self.add(word)

    def add(self, word: bytes) -> None:
        """Count the n-grams of a word."""
        for context, symbol in self.symbols(word):
            for start in range(len(context) + 1):
                self.counts[context[start:]][symbol] += 1
                self.totals[context[start:]] += 1

    def nats(self, word: bytes) -> float:
        """−ln p of a word and its end, in nats."""
        return -sum(math.log(self.probability(context, symbol)) for context, symbol in self.symbols(word))

    def probability(self, context: str, symbol: str) -> float:
        """The probability of one symbol after its context."""
        probability = 1 / SYMBOLS
        for start in range(len(context), -1, -1):
            counts = self.counts.get(context[start:])
            if counts is None:  # no longer context was seen either
                break
            total = self.totals[context[start:]]
            probability = (counts[symbol] + len(counts) * probability) / (total + len(counts))
        return probability

    def symbols(self, word: bytes) -> Iterable[tuple[str, str]]:
        """Every symbol of a word with its context."""
        spelled = BEGIN + word.decode("latin-1") + END
        return ((spelled[max(0, at - self.order + 1) : at], spelled[at]) for at in range(1, len(spelled)))


class AdaptiveStringModel:
    """A distribution over strings that adapts to those seen so far, with a spelling model for the rest.

    After n strings, t of them different, p(s) = (c(s) + (t + 1) q(s)) / (n + t + 1), where q is the spelling model.
    """

    def __init__(self, spelling: ByteNgrams) -> None:
        self.spelling = spelling
        self.counts: dict[bytes, int] = {}
        self.total = 0

    def cost(self, string: bytes) -> float:
        """−ln p of a string in nats; the string is then counted."""
        new, count = len(self.counts) + 1, self.counts.get(string, 0)
        if not count:
            nats = self.spelling.nats(string) - math.log(new / (self.total + new))
            self.spelling.add(string)
        else:
            # The spelling of a frequent string hardly matters, and computing it is slow.
            spelled = math.exp(-self.spelling.nats(string)) if count < FREQUENT else 0.0
            nats = -math.log((count + new * spelled) / (self.total + new))
        self.counts[string] = count + 1
        self.total += 1
        return nats


@dataclass(frozen=True)
class OovCost:
    """Cost of the text that tokens drop, and the bytes of each token, including white space before it.

    `nats` (N,) and `sizes` (N,) are for the tokens of a text in order; white space after the last belongs to the last.
    """

    nats: Floats
    sizes: Floats
    unknown: int


class OovCostModel:
    """Cost of the text that a tokenizer drops, document by document in text order."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.words = AdaptiveStringModel(ByteNgrams(spelling_vocabulary(tokenizer)))
        self.gaps: dict[tuple[str, str], AdaptiveStringModel] = {}

    def cost(self, text: str) -> tuple[list[int], OovCost] | None:
        """The ids of a text and their cost; None if a token stands for other characters than the text's.

        That is so where the tokenizer removes capitals or accents: no sum counts them, so there are no bits per byte.
        """
        ids, offsets = self.tokenizer.encode_with_offsets(text)
        nats, sizes, end, unknown = np.zeros(len(ids)), np.zeros(len(ids)), 0, 0
        left = "edge"
        for index, (id, (start, stop)) in enumerate(zip(ids, offsets, strict=True)):
            gap, own = text[end:start], text[start:stop]
            if id == self.tokenizer.unk_token_id:
                nats[index] = self.words.cost(own.encode())
                unknown += 1
            elif not self.stands_for(id, own):
                return None
            nats[index] += self.gap_cost(left, self.edge_kind(id, own[:1]), gap)
            sizes[index] = len(gap.encode()) + len(own.encode())
            left, end = self.edge_kind(id, own[-1:]), max(end, stop)
        if ids:
            nats[-1] += self.gap_cost(left, "edge", text[end:])
            sizes[-1] += len(text[end:].encode())
        elif text:
            return None  # no token to add the cost to
        return ids, OovCost(nats, sizes, unknown)

    def gap_cost(self, left: str, right: str, gap: str) -> float:
        """−ln p of the white space between two tokens with edges of these kinds, in nats."""
        model = self.gaps.setdefault((left, right), AdaptiveStringModel(ByteNgrams([b"", b" "], order=3)))
        return model.cost(gap.encode())

    def stands_for(self, id: int, text: str) -> bool:
        """Whether a known token stands for exactly these characters."""
        if id == self.tokenizer.eos_token_id:
            return text == "\n" and self.tokenizer.eos_ends_lines
        return self.tokenizer.token_bytes(id) == text.encode()

    def edge_kind(self, id: int, character: str) -> str:
        """What a token is like at this character, its first or last: white space before a comma differs from that
        before a word.
        """
        if self.tokenizer.kind == "wordpiece" and self.tokenizer.display_token(id).startswith("##"):
            return "inside"
        return "break" if character.isspace() else "letter" if character.isalnum() else "mark"


def spelling_vocabulary(tokenizer: Tokenizer) -> list[bytes]:
    """The vocabulary's tokens that begin a word, to train a spelling model on."""
    excluded = (tokenizer.unk_token_id, tokenizer.eos_token_id)
    tokens = (tokenizer.display_token(id) for id in range(tokenizer.vocab) if id not in excluded)
    return [token.encode() for token in tokens if not token.startswith("##")][-MAX_WORDS:]
