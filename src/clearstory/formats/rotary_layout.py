"""Rotary layout: the pairs of output features of the query and key projections that are rotated together.

Hugging Face pairs (i, i + head_dim / 2); Meta's files, GGUF's `llama` and llama2.c pair (2i, 2i + 1). Attention scores
are the same, since queries and keys are reordered in the same way, but a file read in the wrong layout gives
meaningless output.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clearstory.formats.hf.weight_map import Rename, Weights


def halves_to_pairs(weight: Tensor, heads: int) -> Tensor:
    """Reorder dimension 0 from pairs (i, i + head_dim / 2) to pairs (2i, 2i + 1).

    >>> import torch
    >>> halves_to_pairs(torch.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return swap_factors(weight, (heads, 2, -1))


def pairs_to_halves(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `halves_to_pairs`.

    >>> import torch
    >>> pairs_to_halves(halves_to_pairs(torch.arange(12), heads=2), heads=2).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    """
    return swap_factors(weight, (heads, -1, 2))


def swap_factors(weight: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Dimension 0, seen as (heads, a, b), reordered to (heads, b, a); a or b may be -1.

    Tensors on the meta device are returned unchanged: copying one would import torch._dynamo.
    """
    if weight.is_meta:
        return weight
    heads, a, b = factors
    return weight.reshape(heads, a, b, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape).contiguous()


@dataclass(frozen=True)
class RenameRotary:
    """A query or key projection under another name, in pairs (2i, 2i + 1) externally."""

    external: str
    native: str
    heads: int

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        weights = Rename(self.external, self.native).to_native(external, layer)
        return {name: pairs_to_halves(tensor, self.heads) for name, tensor in weights.items()}

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        weights = Rename(self.external, self.native).from_native(native, layer)
        return {name: halves_to_pairs(tensor, self.heads) for name, tensor in weights.items()}
