"""Next token: the most likely tokens after a text.

final hidden state · output vectors ─► logits ─► softmax ─► probabilities
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.activations import model_device
from clearstory.lens.hooks.passage import encode_source_target
from clearstory.lens.probes.formatting import text_ending
from clearstory.lens.views import Table
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode, initial_state
from clearstory.models.prompts import Truncation, bos_or_eos_token_id, prepare_prompt
from clearstory.text.tokenizers import Tokenizer


def next_token(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    top: int = 20,
    temperature: float = 1.0,
    truncate: Truncation | None = None,
) -> Table:
    """The `top` most likely next tokens after a text with logits and probabilities, and the entropy in bits.

    For an encoder-decoder the text is the source, and `target` what has been generated so far. Raises as `generate`
    does for a text that cannot be encoded, BadSetting for an invalid `top` or `temperature`.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    if temperature <= 0:
        raise BadSetting(f"temperature is {temperature}; it must be positive")
    pair = encode_source_target(model, tokenizer, text, target, truncate)
    if pair is None:
        ids = prepare_prompt(model, tokenizer.encode(text), bos_or_eos_token_id(tokenizer), truncate)
    else:
        ids = [pair.start, *pair.ids]
    with inference_mode(model):
        device = model_device(model)
        state = None if pair is None else initial_state(model, 1, [pair.source], device)
        hidden, _ = model.forward(TokenBatch.from_sequences([ids], device), state)
        logits = model.logits(hidden[0, -1]).double().cpu()
        probabilities = (logits / temperature).softmax(-1)
        bits = entropy_bits(probabilities)
        best = probabilities.argsort(descending=True, stable=True)[:top].tolist()
    rows = tuple((tokenizer.display_token(id), id, float(logits[id]), float(probabilities[id])) for id in best)
    after = f"“{text_ending(text)}”" if not target else f"“{text_ending(target)}”, source “{text_ending(text)}”"
    at_temperature = "" if temperature == 1 else f", temperature {temperature:g}"
    return Table(
        title=f"Next token after {after}{at_temperature}",
        columns=("token", "id", "logit", "probability"),
        rows=rows,
        bar="probability",
        caption=distribution_caption([row[3] for row in rows], [row[0] for row in rows], bits, model.vocab),
    )


def entropy_bits(probabilities: Float[Tensor, "..."]) -> float:
    """Entropy in bits: −Σ p log₂ p.

    >>> entropy_bits(torch.tensor([0.5, 0.25, 0.25]))
    1.5
    """
    return float(-torch.special.xlogy(probabilities, probabilities).sum() / math.log(2)) + 0.0


def distribution_caption(probabilities: Sequence[float], pieces: Sequence[str], bits: float, vocab: int) -> str:
    """The entropy, and the ratio of the two most likely tokens.

    >>> distribution_caption([0.5, 0.25], ["a", "b"], 1.5, 4)
    'Entropy 1.50 bits of at most 2.00, perplexity 2.8. ‘a’ is 2.0 times as likely as ‘b’.'
    """
    most = math.log2(vocab) if vocab > 1 else 0.0
    text = f"Entropy {bits:.2f} bits of at most {most:.2f}, perplexity {2**bits:,.1f}."
    if len(probabilities) > 1 and probabilities[1] > 0:
        text += f" ‘{pieces[0]}’ is {probabilities[0] / probabilities[1]:,.1f} times as likely as ‘{pieces[1]}’."
    return text
