"""Guessing: a reader says the next token before the model's answer is shown, and both are scored in bits.

The game is Shannon's (1951), for one guess: the reader gives a share of all probability to it and leaves the rest to
the model, in its own proportions. What came then took the reader −log₂ of its probability in that mixture. Whoever
gives their guess what the model gives it scores as the model does, and in expectation nobody gains by saying another
share than they believe.
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
from clearstory.lens.probes.example_sentences import EXAMPLE_SENTENCES
from clearstory.models.base import TokenBatch
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import fit_prompt, reads_source, resting
from clearstory.studio.generation_session import model_device

BITS = math.log(2)


def guess_sentence(model: Any, tokenizer: Any, text: str, *, seed: int = 0) -> dict[str, Any]:
    """A sentence that the reader has not typed, of those that are built in, and its tokens."""
    chosen = EXAMPLE_SENTENCES[seed % len(EXAMPLE_SENTENCES)]
    return {"text": chosen, **token_list(tokenizer, chosen)}


def token_list(tokenizer: Any, text: str) -> dict[str, Any]:
    """A text's tokens."""
    ids = tokenizer.encode(text)
    return {"ids": ids, "pieces": [tokenizer.display_token(id) for id in ids]}


def guess_options(model: Any, tokenizer: Any, text: str, *, position: int = 1, count: int = 6, seed: int = 0) -> dict[str, Any]:
    """Tokens to choose from for the one after the first `place`, in an order that says nothing: the one that comes,
    likely ones, and some drawn from the model.
    """
    if not 2 <= count <= 20:
        raise BadSetting(f"count is {count}; offer 2 to 20 tokens")
    ids, logs = next_token_logprobs(model, tokenizer, text, position)
    known = [ids[position]] if position < len(ids) else []
    random = Random(f"{seed} {position} {text}")
    likely = logs.argsort(descending=True, stable=True).tolist()
    known += [id for id in likely[: count // 2 + 1] if id not in known]
    weights = logs.exp().sqrt()  # flatter than the model itself, or the same few would be drawn again and again
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    for id in torch.multinomial(weights, min(int((weights > 0).sum()), 4 * count), generator=generator).tolist():
        if id not in known and len(known) < count:
            known.append(id)
    random.shuffle(known)
    return {**token_list(tokenizer, text), "offers": [{"id": id, "piece": tokenizer.display_token(id)} for id in known]}


def score_guess(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    position: int = 1,
    token: int | None = None,
    word: str | None = None,
    share: float = 0.5,
) -> dict[str, Any]:
    """What a guess of the token after the first `place` is worth: its rank, its probability, its bits; the same of the
    token that came; and what both cost, the reader who gave the guess a `share`, and the model.

    A `word` is its first token, after a space or without one, whichever the model expects more. After the whole text
    nothing comes, and nothing is scored. Raises BadSetting for a share that is not between 0.01 and 0.99.
    """
    if not 0.01 <= share <= 0.99:
        raise BadSetting(f"share is {share}; give your guess from 0.01 to 0.99 of the probability")
    ids, logs = next_token_logprobs(model, tokenizer, text, position)
    if token is None:
        token = first_token_of_word(tokenizer, word or "", logs)
    if not 0 <= token < len(logs):
        raise BadSetting(f"token is {token}, and the model knows {len(logs):,}; give 0 to {len(logs) - 1}")

    def row(id: int) -> dict[str, Any]:
        nats = float(logs[id])
        return {
            "id": id,
            "piece": tokenizer.display_token(id),
            "probability": math.exp(nats),
            "rank": int((logs > logs[id]).sum()) + 1,
            "bits": finite_or_none(-nats / BITS + 0.0),
        }

    best = logs.argsort(descending=True, stable=True)[:5].tolist()
    came = row(ids[position]) if position < len(ids) else None
    said: dict[str, Any] = {"guess": row(token), "came": came, "likeliest": [row(id) for id in best], "right": None}
    if came is not None:
        said["right"] = token == came["id"]
        said["model_bits"] = came["bits"]
        said["reader_bits"] = finite_or_none(guess_bits(logs, token, came["id"], share))
    return said


def finite_or_none(bits: float) -> float | None:
    """Bits; None for endlessly many, of what could not come."""
    return bits if math.isfinite(bits) else None


def guess_bits(logs: Float[Tensor, "V"], guessed: int, came: int, share: float) -> float:
    """Bits of the token that came, for a reader who gave `guessed` a share and left the rest to the model.

    >>> logs = torch.tensor([0.5, 0.25, 0.25]).log()
    >>> cost(logs, 0, 0, 0.5), round(cost(logs, 0, 1, 0.5), 4)  # half of all; half of what is left
    (1.0, 2.0)
    """
    if guessed == came:
        return -math.log(share) / BITS
    others = logs.clone()
    others[guessed] = -torch.inf
    return -(math.log1p(-share) + float(logs[came] - others.logsumexp(0))) / BITS


def first_token_of_word(tokenizer: Any, word: str, logs: Float[Tensor, "V"]) -> int:
    """The first token of a word, after a space or without, the likelier of the two; a space alone is no word's.

    Raises BadInput for no word.
    """
    forms = [tokenizer.encode(form) for form in dict.fromkeys((word, f" {word.lstrip()}"))] if word else []
    first = [ids[0] for ids in forms if ids]
    if not first:
        raise BadInput("there is no guess; type a word, or choose one of those that are offered")
    said = [id for id in first if id != tokenizer.unk_token_id and (tokenizer.decode([id]).strip() or not word.strip())]
    best: int = max(said or first[:1], key=lambda id: float(logs[id]))
    return best


def next_token_logprobs(model: Any, tokenizer: Any, text: str, position: int) -> tuple[Sequence[int], Float[Tensor, "V"]]:
    """A text's tokens, and the log-probabilities of the one after the first `place`, in float64."""
    if isinstance(model, Encoder):
        model.cannot_go_on()
    if reads_source(model):
        raise CannotDo("this model writes another text from its source; guess along with one that writes on")
    ids = tokenizer.encode(text)
    if not 1 <= position <= len(ids):
        raise BadSetting(
            f"place is {position}, and the text has {len(ids):,} tokens; guess after 1 to {len(ids):,} of them"
        )
    first, device = fit_prompt(model, ids[:position]), model_device(model)
    with resting(model):
        hidden, _ = model.forward(TokenBatch.from_sequences([first], device), model.init_state(1))
        logs: Tensor = model.logits(hidden[0, -1]).double().log_softmax(-1).cpu()
    return ids, logs
