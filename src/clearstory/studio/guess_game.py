"""Guess game: the reader guesses the next token before the model's prediction is shown; both are scored in bits.

This is Shannon's guessing game (1951) with one guess: the reader gives the guess a probability, the confidence, and the
rest is distributed over all other tokens in the model's proportions. The reader's score is −log₂ of the actual token's
probability in that mixture. A confidence equal to the model's probability gives the model's own score, and the expected
score is best for the confidence that the reader believes (a proper scoring rule).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.probes.word_in_context import EXAMPLE_SENTENCES
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode, reads_source
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import RAW, encode_prompt, prepare_prompt
from clearstory.studio.generation_session import model_device
from clearstory.text.tokenizers import Tokenizer

BITS = math.log(2)
"""Nats per bit."""


def guess_sentence(model: LanguageModel, tokenizer: Tokenizer, text: str, *, seed: int = 0) -> dict[str, Any]:
    """One of the built-in example sentences, chosen by the seed, and its tokens."""
    sentence = EXAMPLE_SENTENCES[seed % len(EXAMPLE_SENTENCES)]
    return {"text": sentence, **token_list(tokenizer, sentence)}


def token_list(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """The token ids of a text and their display text."""
    ids = tokenizer.encode(text)
    return {"ids": ids, "pieces": [tokenizer.display_token(id) for id in ids]}


def guess_options(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, position: int = 1, count: int = 6, seed: int = 0
) -> dict[str, Any]:
    """Shuffled candidates for the token at `position`: the actual one, likely ones, and some sampled from the model."""
    if not 2 <= count <= 20:
        raise BadSetting(f"count is {count}; offer 2 to 20 tokens")
    ids, logprobs = next_token_logprobs(model, tokenizer, text, position)
    options = [ids[position]] if position < len(ids) else []
    random = Random(f"{seed} {position} {text}")
    ranked = logprobs.argsort(descending=True, stable=True).tolist()
    options += [id for id in ranked[: count // 2 + 1] if id not in options]
    weights = logprobs.exp().sqrt()  # flatter than the model's distribution, so that the options vary
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    for id in torch.multinomial(weights, min(int((weights > 0).sum()), 4 * count), generator=generator).tolist():
        if id not in options and len(options) < count:
            options.append(id)
    random.shuffle(options)
    return {
        **token_list(tokenizer, text),
        "options": [{"id": id, "piece": tokenizer.display_token(id)} for id in options],
    }


def score_guess(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    position: int = 1,
    token_id: int | None = None,
    word: str | None = None,
    confidence: float = 0.5,
) -> dict[str, Any]:
    """Rank, probability and bits of a guess and of the actual token at `position`, and the scores of reader and model.

    A `word` means its first token, with or without a leading space, whichever the model gives more probability. At the
    end of the text there is no actual token and no score. Raises BadSetting for a confidence outside 0.01 to 0.99.
    """
    if not 0.01 <= confidence <= 0.99:
        raise BadSetting(f"confidence is {confidence}; give 0.01 to 0.99")
    ids, logprobs = next_token_logprobs(model, tokenizer, text, position)
    if token_id is None:
        token_id = first_token_of_word(tokenizer, word or "", logprobs)
    if not 0 <= token_id < len(logprobs):
        raise BadSetting(
            f"token_id is {token_id}, and the vocabulary has {len(logprobs):,} tokens; give 0 to {len(logprobs) - 1}"
        )

    def token_score(id: int) -> dict[str, Any]:
        nats = float(logprobs[id])
        return {
            "id": id,
            "piece": tokenizer.display_token(id),
            "probability": math.exp(nats),
            "rank": int((logprobs > logprobs[id]).sum()) + 1,
            "bits": finite_or_none(-nats / BITS + 0.0),
        }

    likeliest = logprobs.argsort(descending=True, stable=True)[:5].tolist()
    actual = token_score(ids[position]) if position < len(ids) else None
    result: dict[str, Any] = {
        "guess": token_score(token_id),
        "actual": actual,
        "likeliest": [token_score(id) for id in likeliest],
        "correct": None,
    }
    if actual is not None:
        result["correct"] = token_id == actual["id"]
        result["model_bits"] = actual["bits"]
        result["reader_bits"] = finite_or_none(guess_bits(logprobs, token_id, actual["id"], confidence))
    return result


def finite_or_none(bits: float) -> float | None:
    """The number; None for infinity, the bits of a token with probability 0."""
    return bits if math.isfinite(bits) else None


def guess_bits(logprobs: Float[Tensor, "V"], guess_id: int, actual: int, confidence: float) -> float:
    """Bits of the actual token in the mixture of `confidence` for the guess and the model's distribution for the rest.

    >>> logprobs = torch.tensor([0.5, 0.25, 0.25]).log()
    >>> guess_bits(logprobs, 0, 0, 0.5), round(guess_bits(logprobs, 0, 1, 0.5), 4)
    (1.0, 2.0)
    """
    if guess_id == actual:
        return -math.log(confidence) / BITS
    others = logprobs.clone()
    others[guess_id] = -torch.inf
    return -(math.log1p(-confidence) + float(logprobs[actual] - others.logsumexp(0))) / BITS


def first_token_of_word(tokenizer: Tokenizer, word: str, logprobs: Float[Tensor, "V"]) -> int:
    """The first token of a word with or without a leading space, whichever is likelier.

    A token of only a space is skipped. Raises BadInput for an empty word.
    """
    encodings = [tokenizer.encode(form) for form in dict.fromkeys((word, f" {word.lstrip()}"))] if word else []
    first = [ids[0] for ids in encodings if ids]
    if not first:
        raise BadInput("there is no guess; type a word or choose an option")
    result = [
        id for id in first if id != tokenizer.unk_token_id and (tokenizer.decode([id]).strip() or not word.strip())
    ]
    likeliest: int = max(result or first[:1], key=lambda id: float(logprobs[id]))
    return likeliest


def next_token_logprobs(
    model: LanguageModel, tokenizer: Tokenizer, text: str, position: int
) -> tuple[Sequence[int], Float[Tensor, "V"]]:
    """The token ids of a text, and the log-probabilities of the token at `position`, (V,), in float64."""
    require(model, Capability.CAUSAL)
    if reads_source(model):
        raise CannotDo(
            "this model generates a target from a source text; play the guess game with a decoder-only model"
        )
    ids = tokenizer.encode(text)
    encoded = encode_prompt(model, tokenizer, text, RAW)
    start = encoded.ids[: next((at for at, special in enumerate(encoded.special) if not special), 0)]
    if not 1 <= position <= len(ids):
        raise BadSetting(f"position is {position}, and the text has {len(ids):,} tokens; give 1 to {len(ids):,}")
    first, device = prepare_prompt(model, [*start, *ids[:position]]), model_device(model)
    with inference_mode(model):
        hidden, _ = model.forward(TokenBatch.from_sequences([first], device), model.init_state(1))
        logprobs: Tensor = model.logits(hidden[0, -1]).double().log_softmax(-1).cpu()
    return ids, logprobs
