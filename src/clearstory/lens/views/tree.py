"""Branches: the kind of view whose parts grow from each other: what a search has followed, and what it has dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


@dataclass(frozen=True)
class Node:
    """A word of a tree: which node it comes after (None: the root's), its number, and what became of it."""

    text: str
    parent: int | None
    value: float
    fate: Literal["followed", "ended", "dropped"] = "followed"


@dataclass(frozen=True, kw_only=True)
class Tree(View):
    """Words that come after words. Parents stand before children; `best` is the node at which the best way ends.

    >>> Tree(title="t", nodes=(Node("a", None, -1.0), Node("b", 0, -2.0), Node("c", 0, -3.0)), best=1).levels()
    [[0], [1, 2]]
    """

    kind: ClassVar[str] = "tree"
    title: str
    nodes: tuple[Node, ...]
    unit: str = ""
    best: int | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        if any(node.parent is not None and not 0 <= node.parent < at for at, node in enumerate(self.nodes)):
            raise BadInput("a tree has a node before the one it comes after; give parents first")

    def levels(self) -> list[list[int]]:
        """The nodes by how many stand before them."""
        depths: list[int] = []
        for node in self.nodes:
            depths.append(0 if node.parent is None else depths[node.parent] + 1)
        return [[at for at, own in enumerate(depths) if own == depth] for depth in range(max(depths, default=-1) + 1)]

    def way(self) -> set[int]:
        """The nodes of the best way."""
        found: set[int] = set()
        at = self.best
        while at is not None:
            found.add(at)
            at = self.nodes[at].parent
        return found
