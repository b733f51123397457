"""Fill: what may stand at a [MASK], with the probability of each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.models.base import TokenBatch
from clearstory.models.prompts import resting
from clearstory.recipes.inference.text_inputs import asked
from clearstory.recipes.inference.loading import ModelWithTokenizer, encoder
from clearstory.text.files import Errors
from clearstory.text.special_tokens import encode_with_mask, build_inputs


@dataclass(frozen=True)
class Guess:
    """A token that may stand at a mask."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class Filled:
    """A text with masks, what may stand at each (the likeliest first), and the text with the likeliest in every place.

    Each mask is told on its own: of two that stand beside each other, neither knows what is said of the other.
    """

    text: str
    masks: tuple[tuple[Guess, ...], ...]
    filled: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def fill_mask(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> list[Filled]:
    """What an encoder puts at every [MASK] of each text; a text that names a file stands for the file's lines.

    Raises CannotDo for a model that is no encoder or has no head for words, BadInput for a text without a mask,
    ContextOverflow for one that is too long.

    >>> import clearstory
    >>> clearstory.fill_mask("runs/bert/model", "The [MASK] sat on the mat.")[0].masks[0][0].token  # doctest: +SKIP
    'cat'
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    network, tokenizer = encoder(model, device, words=True)
    weight = next(network.parameters())
    found = []
    for text in asked(texts, errors, text_field):
        ids, _ = build_inputs(tokenizer, encode_with_mask(tokenizer, text))
        places = [place for place, id in enumerate(ids) if id == tokenizer.mask_token_id]
        if not places:
            mask = tokenizer.display_token(tokenizer.mask_token_id or 0)
            raise BadInput(f"there is no {mask} in {text[:60]!r}; write it where a word is to be told: The {mask} sat.")
        with resting(network):
            hidden = network.encode(TokenBatch.from_sequences([ids], weight.device))
            chances = network.logits(hidden[0, places]).double().softmax(-1).cpu()
        best = chances.topk(min(top, chances.shape[-1]))
        masks = tuple(
            tuple(
                Guess(tokenizer.display_token(id), id, value)
                for value, id in zip(values, row, strict=True) if id < tokenizer.vocab
            )
            for values, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )  # fmt: skip
        whole = list(ids)
        for place, guesses in zip(places, masks, strict=True):
            whole[place] = guesses[0].id
        found.append(Filled(text, masks, tokenizer.decode(whole)))
    return found
