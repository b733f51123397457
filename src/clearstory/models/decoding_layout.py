"""Layout: a view of a model whose weights lie in memory as decoding likes them. Made on opening, never saved.

Decoding streams every weight past the processor for each token, so its speed is how fast that stream runs. One thread
of an AVX-512 machine that reads memory at 28 GB/s, GPT-2's matrices, GB/s of weights read:

    rows at a time          1      4      8
    torch's own (F.linear)  12     7      6
    this view               15-22  15     12
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.base import IGNORE_INDEX, State, TokenBatch, reads_source
from clearstory.models.capabilities import Capability
from clearstory.models.cross_entropy import CHUNK_LOGITS
from clearstory.models.shallow_copy import shallow_copy

LinearFactory = Callable[[nn.Linear], nn.Module]
"""From a linear map to one that computes the same in another way."""


def optimize_for_decoding(model: Any, rows: int = 1) -> Any:
    """The same model, laid out for reading `rows` tokens at a time; itself where there is nothing to gain.

    For one row each matrix that is wider than high is kept transposed as well (so weights take twice the memory);
    for several they are packed by oneDNN. Answers agree to fp32 rounding, not bit for bit. Takes a second for each
    gigabyte of weights: worth it from about 20 tokens on. Only fp32 on a processor gains; all else comes back as it is.
    """
    weight = getattr(model, "output_weight", None)
    plain = isinstance(weight, Tensor) and weight.dtype == torch.float32 and weight.device.type == "cpu"
    if not plain or (rows > 1 and not torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]  # torch's
        return model
    return DecodingView(model, ColumnMajorLinear if rows == 1 else lambda linear: PackedLinear(linear, rows))


class DecodingView(nn.Module):
    """A model with its linear maps replaced, the unembedding included; all else is shared with the original.

    Raises CannotDo for a model that has no vector for each word.
    """

    def __init__(self, model: Any, make: LinearFactory) -> None:
        super().__init__()
        weight = getattr(model, "output_weight", None)
        if not isinstance(weight, Tensor):
            kind = getattr(getattr(model, "config", None), "family", type(model).__name__)
            raise CannotDo(f"this model ({kind}) has no matrices to lay out anew; open it without --int8")
        made: dict[int, nn.Module] = {}

        def laid_out(name: str, module: nn.Module) -> nn.Module | None:
            return made.setdefault(id(module.weight), make(module)) if isinstance(module, nn.Linear) else None

        self.base_model = shallow_copy(model, laid_out)
        self.unembed = made.get(id(weight)) or make(
            linear_from_weight(weight, getattr(model, "unembedding_bias", None))
        )
        self.reads_source = reads_source(model)
        self.width = weight.shape[1]
        self.vocab: int = model.vocab
        self.context: int | None = model.context
        self.capabilities: frozenset[Capability] = model.capabilities - {Capability.GRADIENTS}
        self.requires_grad_(False)
        self.eval()

    def init_state(self, batch_size: int = 1, **source: TokenBatch) -> State:
        """The memory of `batch_size` rows that have written nothing, after a `source` where the model reads one."""
        return cast(State, self.base_model.init_state(batch_size, **source))

    @torch.no_grad()
    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], State | None]:
        """What the model knows after each token."""
        return cast("tuple[Tensor, State | None]", self.base_model.forward(tokens, state))

    @torch.no_grad()
    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token."""
        logits: Tensor = self.unembed(hidden[..., : self.width])
        # What stands behind the vector are logits already: those that `Recall` found.
        return logits if hidden.shape[-1] == self.width else logits + hidden[..., self.width :]

    @torch.no_grad()
    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: State | None = None
    ) -> tuple[Float[Tensor, "B T"], State | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE_INDEX; logits a few at a time."""
        hidden, state = self.forward(tokens, state)
        flat, wanted = hidden.flatten(0, 1), targets.flatten()
        nats = flat.new_empty(len(flat))
        step = max(1, CHUNK_LOGITS // self.vocab)
        for start in range(0, len(flat), step):
            part = slice(start, start + step)
            logits = self.logits(flat[part])
            nats[part] = F.cross_entropy(logits, wanted[part], ignore_index=IGNORE_INDEX, reduction="none")
        return nats.view(targets.shape), state

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing: a view holds copies in forms that only this machine reads."""
        raise CannotDo(
            "this is a view of a model laid out for speed, and cannot be saved; save the model it was made of"
        )


def linear_from_weight(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear map of this very weight, and of this bias."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.data, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.data, requires_grad=False)
    return linear


class ColumnMajorLinear(nn.Module):
    """A linear map for one row at a time: the weights are read column by column, which keeps what is written in cache.

    Only where the result is longer than what goes in; else reading row by row is faster already.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.data
        self.bias = None if linear.bias is None else linear.bias.data
        wide = linear.out_features >= linear.in_features
        self.columns = self.weight.t().contiguous().t() if wide else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if x.numel() != x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
        row = x.reshape(-1)
        out = torch.mv(self.columns, row) if self.bias is None else torch.addmv(self.bias, self.columns, row)
        return out.view(*x.shape[:-1], -1)


class PackedLinear(nn.Module):
    """A linear map for several rows at a time, in blocks as oneDNN's kernels read them."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        # The number of rows is a hint; blocks packed for eight serve one to thirty-two well.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data, rows)
        self.bias = None if linear.bias is None else linear.bias.data

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))
