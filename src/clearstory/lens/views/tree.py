"""Tree: tokens that follow tokens, such as the hypotheses of a beam search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


@dataclass(frozen=True)
class Node:
    """A token of a tree: the index of its parent node (None at the root), its number, and its status in the search."""

    text: str
    parent: int | None
    value: float
    status: Literal["kept", "finished", "pruned"] = "kept"


@dataclass(frozen=True, kw_only=True)
class Tree(View):
    """Tokens that follow tokens. Parents precede their children; `best` is the index of the best path's last node.

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
        for index, node in enumerate(self.nodes):
            if node.parent is not None and not 0 <= node.parent < index:
                raise BadInput(f"node {index} has the parent {node.parent}; parents must precede their children")

    def levels(self) -> list[list[int]]:
        """The node indices by depth."""
        depths: list[int] = []
        for node in self.nodes:
            depths.append(0 if node.parent is None else depths[node.parent] + 1)
        return [[at for at, own in enumerate(depths) if own == depth] for depth in range(max(depths, default=-1) + 1)]

    def best_path(self) -> set[int]:
        """The indices of the nodes on the best path."""
        path: set[int] = set()
        index = self.best
        while index is not None:
            path.add(index)
            index = self.nodes[index].parent
        return path
