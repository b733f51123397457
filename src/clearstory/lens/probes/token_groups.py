"""Token groups: a long text as a bounded number of rows, each a run of consecutive tokens.

A group stands for its last token, which in a causal model has read the others. A pair of groups has the largest value
of its tokens' pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting


@dataclass(frozen=True)
class TokenGroups:
    """Consecutive runs of tokens, each [start, stop)."""

    spans: tuple[tuple[int, int], ...]

    @property
    def last(self) -> list[int]:
        """The last token of each group."""
        return [stop - 1 for _, stop in self.spans]

    @property
    def exact(self) -> bool:
        """Whether every group is one token."""
        return all(stop - start == 1 for start, stop in self.spans)


def token_groups(count: int, window: Sequence[int] = (), cells: int = 14) -> TokenGroups:
    """The tokens [start, stop) of `window`, all without one, in at most `cells` groups of nearly equal size.

    Raises BadSetting for a window outside the `count` tokens.

    >>> token_groups(5, cells=2).spans, token_groups(5, (3, 5)).spans
    (((0, 2), (2, 5)), ((3, 4), (4, 5)))
    """
    start, stop = window if len(window) == 2 else (0, count)
    if len(window) not in (0, 2) or not 0 <= start < stop <= count:
        raise BadSetting(
            f"the window of tokens is {', '.join(map(str, window))}, and there are {count}; give a start and a stop "
            f"from 0 to {count}"
        )
    size, number = stop - start, min(cells, stop - start)
    bounds = [start + size * index // number for index in range(number + 1)]
    return TokenGroups(tuple(pairwise(bounds)))


def pair_maxima(values: Float[Tensor, "*D T S"], rows: TokenGroups, columns: TokenGroups) -> Float[Tensor, "*D R C"]:
    """The largest value of each pair of groups.

    >>> pair_maxima(torch.arange(16.0).view(4, 4), token_groups(4, cells=2), token_groups(4, (2, 4))).tolist()
    [[6.0, 7.0], [14.0, 15.0]]
    """
    if rows.exact and columns.exact:
        return values[..., rows.last, :][..., columns.last]
    tall = torch.stack([values[..., start:stop, :].amax(-2) for start, stop in rows.spans], -2)
    return torch.stack([tall[..., start:stop].amax(-1) for start, stop in columns.spans], -1)
