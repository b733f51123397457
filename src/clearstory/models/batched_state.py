"""BatchedState: base class of the states of most families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchedState:
    """A State whose fields are batched: tensors (B, ...), other states, or tuples of these.

    A KV cache is none: it copies a sequence only when two continuations part.
    """

    n_read: tuple[int, ...] = field(kw_only=True)  # tokens processed in each sequence

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return list(self.n_read)

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        indices = torch.tensor(list(rows), dtype=torch.long)

        def selected(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(selected, value))
            return value[indices.to(value.device)] if isinstance(value, Tensor) else value.select(rows)

        chosen = {name: selected(value) for name, value in self.row_fields().items()}
        return replace(self, n_read=tuple(self.n_read[row] for row in rows), **chosen)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several, whose lengths may differ."""

        def joined(values: Sequence[Any]) -> Any:
            if isinstance(values[0], tuple):
                return tuple(map(joined, zip(*values, strict=True)))
            return torch.cat(list(values)) if isinstance(values[0], Tensor) else type(values[0]).join(values)

        n_read = tuple(count for state in states for count in state.n_read)
        rows = [state.row_fields() for state in states]
        return cls(n_read=n_read, **{name: joined([each[name] for each in rows]) for name in rows[0]})

    def detach(self) -> Self:
        """The same state without its gradient history."""

        def detached(value: Any) -> Any:
            return tuple(map(detached, value)) if isinstance(value, tuple) else value.detach()

        return replace(self, **{name: detached(value) for name, value in self.row_fields().items()})

    def row_fields(self) -> dict[str, Any]:
        """The fields by name, without `n_read`."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "n_read"}
