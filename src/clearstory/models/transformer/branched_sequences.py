"""Branched sequences: sequences with common prefixes as a tree of tokens; each token is computed once, without
padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.transformer.cache import RowCache
from clearstory.models.transformer.cached_attention import score_scale
from clearstory.models.transformer.config import TransformerConfig


@dataclass(frozen=True)
class TokenTree:
    """Sequences as a tree of tokens, in which common prefixes occur once.

    Args:
        ids: token of each node, (n,); parents come before their children.
        parents: index of each node's parent; −1 at a root.
        paths: for each sequence, the nodes of its tokens.

    >>> TokenTree.from_sequences([[5, 6, 7], [5, 6, 8, 9]])
    TokenTree(ids=[5, 6, 7, 8, 9], parents=[-1, 0, 1, 1, 3], paths=[[0, 1, 2], [0, 1, 3, 4]])
    """

    ids: list[int]
    parents: list[int]
    paths: list[list[int]]

    @classmethod
    def from_sequences(cls, sequences: Sequence[Sequence[int]]) -> TokenTree:
        """The tree of these sequences."""
        ids: list[int] = []
        parents: list[int] = []
        paths = []
        found: dict[tuple[int, int], int] = {}
        for sequence in sequences:
            node, path = -1, []
            for id in sequence:
                child = found.setdefault((node, id), len(ids))
                if child == len(ids):
                    ids.append(id)
                    parents.append(node)
                node = child
                path.append(node)
            paths.append(path)
        return cls(ids, parents, paths)

    def depths(self) -> list[int]:
        """Number of tokens before each node in its sequences."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    def attention_bias(self, prefix: int, window: int | None) -> Float[Tensor, "n m"] | None:
        """Bias of attention scores over `prefix` tokens and the nodes, m = prefix + n: 0 for a node itself and those
        before it in its sequences, within the window, else −inf. None if each node sees all before it.
        """
        size, depths = len(self.ids), np.array(self.depths())
        chain = len(self.paths) == 1
        if chain and not prefix and (window is None or size <= window):
            return None
        visible = np.zeros((size, prefix + size), bool)
        visible[:, :prefix] = True
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                visible[node, prefix:] = visible[parent, prefix:]
            visible[node, prefix + node] = True
        if window is not None:
            positions = np.concatenate([np.arange(prefix), prefix + depths])
            visible &= positions > prefix + depths[:, None] - window
        return torch.zeros(visible.shape).masked_fill_(torch.from_numpy(~visible), -torch.inf)


class BranchedSequences:
    """Attention within trees of tokens, whose nodes lie one after another in the rows, after a prefix of all of them.

    Args:
        config: that of the decoder.
        trees: the trees, in the order of the rows.
        prefix: cache of tokens before every tree, if any, in which pairs of rotated keys lie side by side.
    """

    def __init__(self, config: TransformerConfig, trees: Sequence[TokenTree], prefix: RowCache | None = None) -> None:
        self.config, self.prefix = config, prefix
        self.scale = score_scale(config)
        kept = 0 if prefix is None else prefix.kept
        self.sizes = [len(tree.ids) for tree in trees]
        windows = {config.window(layer) for layer in range(config.layers)}
        self.biases = {window: [tree.attention_bias(kept, window) for tree in trees] for window in windows}

    def __call__(self, layer: int, heads: Float[Tensor, "N Q D"], /) -> Float[Tensor, "N W"]:
        """Head outputs of all rows, from their queries, keys and values."""
        c = self.config
        outputs = []
        for part, bias in zip(torch.split(heads, self.sizes), self.biases[c.window(layer)], strict=True):
            q, k, v = torch.split(part.transpose(0, 1), [c.heads, c.kv_heads, c.kv_heads])
            if self.prefix is not None:
                cached = self.prefix.buffer.data[layer, :, :, : self.prefix.kept]
                k, v = torch.cat([cached[0], k], 1), torch.cat([cached[1], v], 1)
            out = F.scaled_dot_product_attention(
                q[None],
                k[None],
                v[None],
                attn_mask=bias,
                is_causal=bias is None,
                scale=self.scale,
                enable_gqa=c.heads != c.kv_heads,
            )
            outputs.append(out[0].transpose(0, 1).flatten(1))
        return torch.cat(outputs)


def tree_positions(trees: Sequence[TokenTree], start: int) -> Int[Tensor, "N"]:
    """Position of each node of all trees, whose roots are at `start`."""
    return torch.tensor([start + depth for tree in trees for depth in tree.depths()])
