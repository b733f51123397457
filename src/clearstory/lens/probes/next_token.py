"""Next: the last step from what a model knows to which word it says.

final vector · one vector for each word ─► logits ─► softmax ─► probabilities
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.probes.x_sources import encode_source_target
from clearstory.lens.views import Table
from clearstory.models.base import LanguageModel, TokenBatch
from clearstory.models.base import inference_mode, initial_state
from clearstory.models.prompts import Truncation, bos_or_eos_token_id, prepare_prompt


class TokenizerProtocol(Protocol):
    """The part of a tokenizer that a view needs."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends one."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def display_token(self, id: int) -> str:
        """One token for people to read."""


def next_token(
    model: LanguageModel,
    tokenizer: TokenizerProtocol,
    text: str,
    *,
    target: str | None = None,
    top: int = 20,
    temperature: float = 1.0,
    truncate: Truncation | None = None,
) -> Table:
    """The likeliest next tokens after a text: each one's logit and probability, and the entropy of all in bits.

    Of an encoder-decoder the text is the source, and `target` what has been written from it already: nothing, where it
    is not given.

    Raises as `generate` does for a text that cannot be read; BadSetting for a `top` or `temperature` that cannot be.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    if temperature <= 0:
        raise BadSetting(f"temperature is {temperature}; probabilities need one above 0")
    both = encode_source_target(model, tokenizer, text, target, truncate)
    if both is None:
        ids = prepare_prompt(model, tokenizer.encode(text), bos_or_eos_token_id(tokenizer), truncate)
    else:
        ids = [both.begin, *both.ids]
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    with inference_mode(model):
        device = torch.device("cpu") if weight is None else weight.device
        state = None if both is None else initial_state(model, 1, [both.source], device)
        hidden, _ = model.forward(TokenBatch.from_sequences([ids], device), state)
        logits = model.logits(hidden[0, -1]).double().cpu()
        probabilities = (logits / temperature).softmax(-1)
        bits = entropy(probabilities)
        places = probabilities.argsort(descending=True, stable=True)[:top].tolist()
    rows = tuple((tokenizer.display_token(id), id, float(logits[id]), float(probabilities[id])) for id in places)
    after = f"“{text_ending(text)}”" if not target else f"“{text_ending(target)}”, from “{text_ending(text)}”"
    warm = "" if temperature == 1 else f", temperature {temperature:g}"
    return Table(
        title=f"Next token after {after}{warm}",
        columns=("token", "id", "logit", "probability"),
        rows=rows,
        bar="probability",
        caption=look([row[3] for row in rows], [row[0] for row in rows], bits, model.vocab),
    )


def entropy(probabilities: Float[Tensor, "..."]) -> float:
    """−Σ p log₂ p: the bits still to be said.

    >>> entropy(torch.tensor([0.5, 0.25, 0.25]))
    1.5
    """
    return float(-torch.special.xlogy(probabilities, probabilities).sum() / math.log(2)) + 0.0


def look(probabilities: Sequence[float], pieces: Sequence[str], bits: float, vocab: int) -> str:
    """What these numbers say, in words.

    >>> look([0.5, 0.25], ["a", "b"], 1.5, 4)
    'Entropy 1.50 bits of at most 2.00: as unsure as among 2.8 ... ‘a’ is 2.0 times as likely as ‘b’.'
    """
    most = math.log2(vocab) if vocab > 1 else 0.0
    said = f"Entropy {bits:.2f} bits of at most {most:.2f}: as unsure as among {2**bits:,.1f} equally likely tokens."
    if len(probabilities) > 1 and probabilities[1] > 0:
        said += f" ‘{pieces[0]}’ is {probabilities[0] / probabilities[1]:,.1f} times as likely as ‘{pieces[1]}’."
    return said


def text_ending(text: str, longest: int = 40) -> str:
    """The end of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= longest else "…" + text[-longest + 1 :]
