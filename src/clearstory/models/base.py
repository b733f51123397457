"""The interface of every language model: init_state, forward, logits, token_nll.

Letters in shapes: B sequences of a batch, T tokens, V vocabulary, W width of the hidden states, H heads, S source
tokens, N tokens of all sequences together, D documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import CannotDo
from clearstory.metrics import IGNORE_INDEX as IGNORE_INDEX
from clearstory.models.capabilities import Capability, has_capability
from clearstory.text.byte_attribution import TokenSequences as TokenSequences


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of a batch of sequences, padded on the right, with their lengths.

    `lengths` is None when no sequence is padded: the common case, and the fast one.

    >>> TokenBatch.from_sequences([[5, 6, 7], [8]]).ids.tolist()
    [[5, 6, 7], [8, 0, 0]]
    """

    ids: Int[Tensor, "B T"]
    lengths: Int[Tensor, "B"] | None = None

    @classmethod
    def from_sequences(cls, sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Self:
        """A batch of sequences of any lengths, padded on the right with id 0, which no model reads."""
        longest = max((len(sequence) for sequence in sequences), default=0)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
        if all(len(sequence) == longest for sequence in sequences):
            return cls(ids.to(device))
        return cls(ids.to(device), torch.tensor([len(sequence) for sequence in sequences], device=device))

    def last_positions(self) -> Int[Tensor, "B"]:
        """Index of each sequence's last token that is not padding, (B,); -1 for an empty sequence."""
        if self.lengths is None:
            return torch.full((self.ids.shape[0],), self.ids.shape[1] - 1, device=self.ids.device)
        return self.lengths - 1


@runtime_checkable
class State(Protocol):
    """State of a model after the processed tokens, such as a KV cache or a recurrent state.

    A value: `forward` returns a new state and leaves the old one valid. Two continuations of one state are both right;
    they share memory up to the token where they part.
    """

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order. Memory is shared; a sequence named twice is copied when the
        second of the two is continued.
        """

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several, whose lengths may differ."""

    def detach(self) -> Self:
        """The same state without its gradient history."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""


@runtime_checkable
class RestorableState(State, Protocol):
    """A state that is carried from one training batch to the next and saved in checkpoints."""

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The state that `tensors()` returned these tensors for. Raises KeyError if one is missing."""


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model: after each token, a distribution over the next."""

    vocab: int
    context: int | None  # longest sequence in tokens; None: unlimited

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the model can do and which parts it has."""

    def init_state(self, batch_size: int = 1) -> State:
        """The state of `batch_size` empty sequences."""

    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], State | None]:
        """Hidden states after each token, (B, T, W), and the state after the last; without a state, None."""

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V)."""

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: State | None = None
    ) -> tuple[Float[Tensor, "B T"], State | None]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where the target is IGNORE_INDEX.

        Target t is predicted from the tokens up to t. The logits of a whole batch are never held at once.
        """


@dataclass(frozen=True)
class FitProgress:
    """One finished round of fitting: tokens seen, nats per token of the training text where known, a note for the user
    where something could not be estimated, and whether further rounds would change nothing.
    """

    tokens: int
    nats: float | None = None
    note: str | None = None
    converged: bool = False


@runtime_checkable
class CountModel(Protocol):
    """A model fitted by counting or by EM (Baum-Welch), in rounds over the whole text, not by gradient descent."""

    rounds: int | None  # rounds that fitting takes; None: any number, each improves the fit

    def check_data(self, dataset: TokenSequences) -> None:
        """Raises BadSetting if the model cannot be fitted to these documents, before any work is done."""

    def fit(self, dataset: TokenSequences, done: int = 0) -> Iterator[FitProgress]:
        """Fit the model in place, yielding after each round; `done` rounds were finished before."""


def check_sources(source: TokenBatch | None, batch_size: int) -> TokenBatch:
    """The sources of an encoder-decoder, one for each row. Raises CannotDo for none, or another number."""
    if source is None or source.ids.shape[0] != batch_size:
        given = "none" if source is None else f"{source.ids.shape[0]:,}"
        raise CannotDo(
            f"this model is an encoder-decoder and needs one source for each of {batch_size:,} rows, but got {given}; "
            "pass the text to translate or summarize"
        )
    return source


def reads_source(model: object) -> bool:
    """Whether a model is an encoder-decoder, which encodes a source before it generates."""
    return has_capability(model, Capability.SOURCE)


def output_weight(model: object) -> Float[Tensor, "V W"] | None:
    """Output embeddings of a model, (V, W); None for a model (or a view of one) without them."""
    if not has_capability(model, Capability.OUTPUT_EMBEDDINGS):
        return None
    return cast("Tensor | None", cast(Any, model).output_weight)


def initial_state(
    model: LanguageModel, batch_size: int, sources: Sequence[Sequence[int]], device: torch.device
) -> State:
    """The state of empty sequences; for an encoder-decoder, after it has encoded `sources`, one for each sequence."""
    if not reads_source(model):
        return model.init_state(batch_size)
    state: State = cast(Any, model).init_state(batch_size, source=TokenBatch.from_sequences(sources, device))
    return state


@contextmanager
def inference_mode(model: object) -> Iterator[None]:
    """Context in which a model computes without gradients or dropout; each module's mode is restored afterwards."""
    # A view is never in training mode, and has hundreds of modules to ask at each token.
    trains = isinstance(model, torch.nn.Module) and getattr(model, "trains", True)
    modules = [cast(torch.nn.Module, model)] if trains else []
    for module in modules:  # half the time of `modules()`, which a decoding step notices
        modules += [each for each in module._modules.values() if each is not None]
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
