"""Fill mask: the tokens that an encoder predicts at each [MASK] of a text, with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import encode_prompt
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_encoder
from clearstory.recipes.inference.text_inputs import read_texts
from clearstory.text.character_encodings import Errors
from clearstory.text.special_tokens import require_mask_token


@dataclass(frozen=True)
class TokenProbability:
    """A token with its id and its probability at a mask."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class MaskFill:
    """A text with masks, the predicted tokens of each mask (most probable first), and the filled text.

    Masks are predicted independently: the prediction of one mask is not conditioned on the others.
    """

    text: str
    masks: tuple[tuple[TokenProbability, ...], ...]
    filled: str

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary for JSON."""
        return asdict(self)


def fill_mask(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> list[MaskFill]:
    """Predict the `top` most probable tokens at every [MASK] of each text.

    A text that is the path of a file is replaced by the lines of the file. Raises CannotDo for a model that is not an
    encoder or has no head for masked tokens, BadInput for a text without a mask, ContextOverflow for one that is too
    long.

    >>> import clearstory
    >>> clearstory.fill_mask("runs/bert/model", "The [MASK] sat on the mat.")[0].masks[0][0].token  # doctest: +SKIP
    'cat'
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    network, tokenizer = load_encoder(model, device, Capability.MLM_HEAD)
    mask_token_id = require_mask_token(tokenizer)
    weights_device = next(network.parameters()).device
    results = []
    for text in read_texts(texts, errors, text_field):
        ids = encode_prompt(network, tokenizer, text).ids
        positions = [position for position, id in enumerate(ids) if id == mask_token_id]
        if not positions:
            mask = tokenizer.display_token(mask_token_id)
            raise BadInput(f"there is no {mask} in {text[:60]!r}; put one in place of the token to predict")
        with inference_mode(network):
            hidden = network.encode(TokenBatch.from_sequences([ids], weights_device))
            probabilities = network.logits(hidden[0, positions]).double().softmax(-1).cpu()
        best = probabilities.topk(min(top, probabilities.shape[-1]))
        masks = tuple(
            tuple(
                TokenProbability(tokenizer.display_token(id), id, value)
                for value, id in zip(values, row, strict=True) if id < tokenizer.vocab
            )
            for values, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )  # fmt: skip
        filled = list(ids)
        for position, predictions in zip(positions, masks, strict=True):
            filled[position] = predictions[0].id
        results.append(MaskFill(text, masks, tokenizer.decode(filled)))
    return results
