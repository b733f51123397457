"""Rotary order: which two rows of a query's or key's map are turned together.

Hugging Face turns (i, i + half of the head), Meta's own files, GGUF's `llama` and llama2.c turn (2i, 2i + 1). The
vectors mean the same, since queries and keys are reordered alike; a file read in the wrong order talks nonsense.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clearstory.formats.hf.weight_map import Rename, Weights


def halves_to_pairs(rows: Tensor, heads: int) -> Tensor:
    """Rows whose partners stand half a head apart, as rows whose partners stand side by side.

    >>> import torch
    >>> to_pairs(torch.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return reorder(rows, (heads, 2, -1))


def pairs_to_halves(rows: Tensor, heads: int) -> Tensor:
    """The way back.

    >>> import torch
    >>> to_halves(to_pairs(torch.arange(12), heads=2), heads=2).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    """
    return reorder(rows, (heads, -1, 2))


def reorder(rows: Tensor, parts: tuple[int, int, int]) -> Tensor:
    """Rows as (heads, a, b), told b first; a or b may be -1.

    A shell has no order, and copying one would import torch._dynamo.
    """
    if rows.is_meta:
        return rows
    heads, a, b = parts
    return rows.reshape(heads, a, b, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape).contiguous()


@dataclass(frozen=True)
class RenameRotary:
    """A query's or key's map under another name, its rows in the other order there."""

    theirs: str
    ours: str
    heads: int

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        found = Rename(self.theirs, self.ours).to_native(theirs, layer)
        return {name: pairs_to_halves(tensor, self.heads) for name, tensor in found.items()}

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        found = Rename(self.theirs, self.ours).from_native(ours, layer)
        return {name: halves_to_pairs(tensor, self.heads) for name, tensor in found.items()}
