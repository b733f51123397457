"""PrefixCache: states after prefixes of prompts, so that common prefixes are computed once."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from jaxtyping import Float
from torch import Tensor

from clearstory.models.base import State


@dataclass(frozen=True)
class PrefixDigest:
    """The digest of a source and the beginning of a prompt, with those of the shorter beginnings that are kept.

    >>> start = PrefixDigest.of_source([])
    >>> start.extended([1]).extended([2]).digest == start.extended([1, 2]).digest != start.extended([2, 1]).digest
    True
    """

    hasher: blake2b
    shorter: tuple[bytes, ...] = ()

    @classmethod
    def of_source(cls, source: Sequence[int]) -> PrefixDigest:
        """The digest before the first token."""
        return cls(blake2b(array("q", (len(source), *source)).tobytes(), digest_size=16))

    def extended(self, ids: Sequence[int]) -> PrefixDigest:
        """The digest after these tokens."""
        hasher = self.hasher.copy()
        hasher.update(array("q", ids).tobytes())
        return PrefixDigest(hasher, self.shorter)

    def marked(self) -> PrefixDigest:
        """The same as that of a beginning that is kept."""
        return PrefixDigest(self.hasher, (*self.shorter, self.digest))

    @property
    def digest(self) -> bytes:
        """16 bytes, other ones for other tokens."""
        return self.hasher.digest()


@dataclass(frozen=True)
class Prefix:
    """The beginning of a prompt that has been read.

    Args:
        state: the model's state after it, of one sequence.
        hidden: the hidden state after its last token.
    """

    state: State
    hidden: Float[Tensor, "K"]


class PrefixCache:
    """Beginnings of prompts by their digests; those least recently used are dropped.

    The beginnings of one prompt follow each other, and mostly share the memory of the longest, so each is counted with
    the memory of its last chunk of tokens.

    Args:
        max_bytes: approximate maximum memory of the states in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.prefixes: OrderedDict[bytes, Prefix] = OrderedDict()
        self.prefix_bytes: int | None = None  # memory of one, the same for all

    def get(self, key: PrefixDigest) -> Prefix | None:
        """The beginning with this digest; None if it is not kept."""
        found = self.prefixes.get(key.digest)
        if found is not None:
            self.touch(key)
        return found

    def put(self, key: PrefixDigest, prefix: Prefix) -> None:
        """Keep a beginning."""
        if self.prefix_bytes is None:
            held = (*prefix.state.tensors().values(), prefix.hidden)
            self.prefix_bytes = max(1, sum(each.nbytes for each in held))
        self.prefixes[key.digest] = prefix
        self.touch(key)
        while len(self.prefixes) * self.prefix_bytes > self.max_bytes:
            self.prefixes.popitem(last=False)

    def touch(self, key: PrefixDigest) -> None:
        """Mark a beginning as used, and each shorter one after those that continue it."""
        for digest in (key.digest, *reversed(key.shorter)):
            if digest in self.prefixes:
                self.prefixes.move_to_end(digest)
