"""Predictions: the most likely next tokens after a text, and the most likely tokens at masked positions.

final hidden state · output vectors ─► logits ─► softmax ─► probabilities

Masked positions: Devlin et al. 2019, section 3.1, task 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import model_device
from clearstory.lens.hooks.passage import Passage, encode_passage, encode_source_target
from clearstory.lens.views import Report, Table
from clearstory.lens.views.formatting import text_ending
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode, initial_state
from clearstory.models.prompts import PromptOptions, Truncation, encode_prompt, prepare_prompt
from clearstory.text.special_tokens import require_mask_token
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
    prompt: PromptOptions = PromptOptions(),
) -> Table:
    """The `top` most likely next tokens after a text with logits and probabilities, and the entropy in bits.

    For an encoder-decoder the text is the source, and `target` is the text generated so far. Raises the errors of
    `generate` for a text that cannot be encoded, BadSetting for an invalid `top` or `temperature`.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    if temperature <= 0:
        raise BadSetting(f"temperature is {temperature}; it must be positive")
    pair = encode_source_target(model, tokenizer, text, target, truncate, prompt)
    if pair is None:
        ids = prepare_prompt(model, encode_prompt(model, tokenizer, text, prompt).ids, None, truncate)
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


def fill_mask(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    mask: tuple[int, ...] = (),
    top: int = 20,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """The most likely tokens at each masked position, and the rank of the original token.

    Masked are every [MASK] of the text and the positions in `mask`, counted from the [CLS] token; by default the last
    token of the text. Each position is predicted on its own. Raises BadSetting for a position outside the text,
    BadInput for a text without tokens.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    passage = encode_passage(model, tokenizer, text, truncate=truncate, prompt=prompt)
    mask_token_id = require_mask_token(tokenizer)
    positions = masked_positions(passage, tokenizer, mask)
    ids = tuple(mask_token_id if position in positions else id for position, id in enumerate(passage.ids))
    masked = replace(passage, ids=ids)
    with inference_mode(model):
        log_probs = model.logits(masked.forward(model)[positions]).double().log_softmax(-1).cpu()
    words = " ".join(
        tokenizer.display_token(mask_token_id) if position in positions else piece
        for position, piece in enumerate(passage.pieces)
    )
    panels = tuple(
        position_table(tokenizer, position, passage.ids[position], row, top, mask_token_id)
        for position, row in zip(positions, log_probs, strict=True)
    )
    return Report(
        title=f"Masked tokens of: {words}",
        panels=panels,
        caption=accuracy_caption(positions, passage, log_probs, mask_token_id),
    )


def masked_positions(passage: Passage, tokenizer: Tokenizer, mask: tuple[int, ...]) -> list[int]:
    """The masked positions, in order."""
    maskable = [position for position, span in enumerate(passage.spans) if span is not None]
    if not maskable:
        raise BadInput("the text has no token to mask; give at least one word")
    for position in mask:
        if position not in maskable:
            inside = 0 <= position < len(passage.ids)
            what = f"is the special token ‘{passage.pieces[position]}’" if inside else "does not exist"
            raise BadSetting(f"position {position} {what}; the text has positions {maskable[0]} to {maskable[-1]}")
    mask_positions = {position for position in maskable if passage.ids[position] == tokenizer.mask_token_id}
    return sorted({*mask, *mask_positions} or {maskable[-1]})


def position_table(
    tokenizer: Tokenizer, position: int, id: int, log_probs: Float[Tensor, "V"], top: int, mask_token_id: int
) -> Table:
    """The most likely tokens at one position, and the original token with its rank."""
    log_probs = log_probs[: tokenizer.vocab]
    best = log_probs.argsort(descending=True, stable=True)[:top].tolist()
    bits = entropy_bits(log_probs.exp())
    caption = f"Entropy {bits:.2f} bits, perplexity {2**bits:,.1f}."
    if id != mask_token_id:
        rank = int((log_probs > log_probs[id]).sum()) + 1
        caption += (
            f" The original token ‘{tokenizer.display_token(id)}’ has rank {rank:,}, {float(log_probs[id].exp()):.2%}, "
            f"{-float(log_probs[id]) / math.log(2):.2f} bits."
        )
        best += [] if id in best else [id]
    original = "" if id == mask_token_id else f", originally ‘{tokenizer.display_token(id)}’"
    return Table(
        title=f"Position {position}{original}",
        columns=("token", "id", "probability"),
        rows=tuple((tokenizer.display_token(each), each, float(log_probs[each].exp())) for each in best),
        bar="probability",
        caption=caption,
    )


def accuracy_caption(
    positions: list[int], passage: Passage, log_probs: Float[Tensor, "N V"], mask_token_id: int
) -> str | None:
    """How many masked tokens are predicted correctly, where the original tokens are known."""
    known = [
        (row, passage.ids[position]) for row, position in enumerate(positions) if passage.ids[position] != mask_token_id
    ]
    if not known:
        return None
    correct = sum(int(log_probs[row].argmax()) == id for row, id in known)
    bits = -sum(float(log_probs[row, id]) for row, id in known) / math.log(2)
    return f"{correct} of {len(known)} masked tokens predicted correctly, {bits:.2f} bits in total."
