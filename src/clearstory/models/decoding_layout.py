"""Decoding layout: a view of a model whose weights are laid out in memory for decoding. Made on opening, never saved.

Decoding reads every weight for each token, so its speed is that of reading memory. One thread of an AVX-512 machine
that reads memory at 28 GB/s, GPT-2's matrices, GB/s of weights read:

    sequences at a time          1      4      8
    PyTorch's own (F.linear)    12      7      6
    this view                15-22     15     12
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.base import IGNORE_INDEX, LanguageModel, State, TokenBatch, output_weight, reads_source
from clearstory.models.capabilities import Capability, family_name
from clearstory.models.cross_entropy import CHUNK_LOGITS
from clearstory.models.shallow_copy import shallow_copy

LinearFactory = Callable[[nn.Linear], nn.Module]
"""From a linear layer to a module that computes the same in another way."""


def optimize_for_decoding(model: LanguageModel, batch_size: int = 1) -> LanguageModel:
    """A view of the model laid out for decoding `batch_size` sequences; the model itself where there is nothing to
    gain.

    For one sequence each weight matrix with more rows than columns is kept transposed as well (weights take twice the
    memory); for several, weights are packed by oneDNN. Results agree up to fp32 rounding. Takes a second per gigabyte
    of
    weights: worth it from about 20 tokens on. Only fp32 on a CPU gains; other models are returned unchanged.
    """
    weight = output_weight(model)
    plain = weight is not None and weight.dtype == torch.float32 and weight.device.type == "cpu"
    if not plain or (batch_size > 1 and not torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]  # torch's
        return model
    return DecodingView(
        model, ColumnMajorLinear if batch_size == 1 else lambda linear: PackedLinear(linear, batch_size)
    )


class DecodingView(nn.Module):
    """A model with its linear layers replaced, the unembedding included; all else is shared with the original.

    Raises CannotDo for a model without output embeddings.
    """

    def __init__(self, model: LanguageModel, make: LinearFactory) -> None:
        super().__init__()
        weight = output_weight(model)
        if weight is None:
            raise CannotDo(f"this model ({family_name(model)}) has no matrices to lay out anew; open it without --int8")
        made: dict[int, nn.Module] = {}

        def replace(name: str, module: nn.Module) -> nn.Module | None:
            return made.setdefault(id(module.weight), make(module)) if isinstance(module, nn.Linear) else None

        self.base_model = shallow_copy(cast(nn.Module, model), replace)
        bias = cast(Any, model).unembedding_bias if reads_source(model) else None
        self.unembed = made.get(id(weight)) or make(linear_from_weight(weight, bias))
        self.width = weight.shape[1]
        self.vocab: int = model.vocab
        self.context: int | None = model.context
        self.capabilities: frozenset[Capability] = model.capabilities - {Capability.GRADIENTS}
        self.requires_grad_(False)
        self.eval()

    def init_state(self, batch_size: int = 1, **source: TokenBatch) -> State:
        """The state of `batch_size` empty sequences, after a `source` where the model reads one."""
        return cast(State, self.base_model.init_state(batch_size, **source))

    @torch.no_grad()
    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], State | None]:
        """Hidden states after each token, (B, T, W), and the state after the last; without a state, None."""
        return cast("tuple[Tensor, State | None]", self.base_model.forward(tokens, state))

    @torch.no_grad()
    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V)."""
        logits: Tensor = self.unembed(hidden[..., : self.width])
        # Behind the hidden state are the logits of hashed n-grams, where the model has them.
        return logits if hidden.shape[-1] == self.width else logits + hidden[..., self.width :]

    @torch.no_grad()
    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: State | None = None
    ) -> tuple[Float[Tensor, "B T"], State | None]:
        """Negative log-likelihood of each target in nats, (B, T), 0 where it is IGNORE_INDEX; computed in chunks."""
        hidden, state = self.forward(tokens, state)
        flat, wanted = hidden.flatten(0, 1), targets.flatten()
        nll = flat.new_empty(len(flat))
        step = max(1, CHUNK_LOGITS // self.vocab)
        for start in range(0, len(flat), step):
            chunk = slice(start, start + step)
            logits = self.logits(flat[chunk])
            nll[chunk] = F.cross_entropy(logits, wanted[chunk], ignore_index=IGNORE_INDEX, reduction="none")
        return nll.view(targets.shape), state

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Raises CannotDo: a view holds copies in forms that only this machine reads."""
        raise CannotDo(
            "this is a view of a model laid out for speed, and cannot be saved; save the model it was made of"
        )


def linear_from_weight(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with this weight and bias, shared and without gradients."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.data, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.data, requires_grad=False)
    return linear


class ColumnMajorLinear(nn.Module):
    """A linear layer for one vector at a time: weights are read column by column, which keeps the output in cache.

    Only where the output is at least as long as the input; else reading row by row is faster already.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.data
        self.bias = None if linear.bias is None else linear.bias.data
        transpose = linear.out_features >= linear.in_features
        self.columns = self.weight.t().contiguous().t() if transpose else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if x.numel() != x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
        row = x.reshape(-1)
        out = torch.mv(self.columns, row) if self.bias is None else torch.addmv(self.bias, self.columns, row)
        return out.view(*x.shape[:-1], -1)


class PackedLinear(nn.Module):
    """A linear layer for several vectors at a time: weights packed in blocks for oneDNN's kernels."""

    def __init__(self, linear: nn.Linear, batch_size: int) -> None:
        super().__init__()
        # The batch size is a hint; blocks packed for eight serve one to thirty-two well.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data, batch_size)
        self.bias = None if linear.bias is None else linear.bias.data

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))
