"""PrefixCache: states after the beginnings of prompts, so that prompts that begin alike are read once."""

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
        max_bytes: about the largest memory that states take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.prefixes: OrderedDict[bytes, Prefix] = OrderedDict()
        self.prefix_bytes: int | None = None  # memory of one, the same for all

    def get(self, path: Sequence[bytes]) -> Prefix | None:
        """The beginning with the last of these digests, the others being those of its own beginnings."""
        found = self.prefixes.get(path[-1])
        if found is not None:
            self.touch(path)
        return found

    def put(self, path: Sequence[bytes], prefix: Prefix) -> None:
        """Add a beginning under the last of these digests."""
        if self.prefix_bytes is None:
            held = (*prefix.state.tensors().values(), prefix.hidden)
            self.prefix_bytes = max(1, sum(each.nbytes for each in held))
        self.prefixes[path[-1]] = prefix
        self.touch(path)
        while len(self.prefixes) * self.prefix_bytes > self.max_bytes:
            self.prefixes.popitem(last=False)

    def touch(self, path: Sequence[bytes]) -> None:
        """Mark beginnings as used, each later than those that continue it."""
        for digest in reversed(path):
            if digest in self.prefixes:
                self.prefixes.move_to_end(digest)


def extend_digest(digest: bytes, ids: Sequence[int]) -> bytes:
    """The digest of a prompt's beginning with these tokens added.

    >>> extend_digest(b"", [1, 2]) == extend_digest(extend_digest(b"", [1]), [2])
    False
    """
    return blake2b(digest + array("q", ids).tobytes(), digest_size=16).digest()
