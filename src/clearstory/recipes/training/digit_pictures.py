"""Pictures: a token need not be a word. What a model of corpus:digits writes, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.text.digit_images import SIDE, DigitImage, parse_image, save_png
from clearstory.text.tokenizers import Tokenizer

EACH = 6
"""Pictures of each digit."""


def draw_digits(model: Any, tokenizer: Tokenizer, file: Path, *, seed: int) -> Path | None:
    """Let the model draw each digit a few times, a column for each; None when it writes other things than shades.

    The prompt is the label alone, as every document of the corpus begins.
    """
    model.compute_dtype = None
    engine = Engine(model)
    columns = []
    for number in range(10):
        for _ in range(2 * EACH):  # twice as many as are shown: a young model does not always keep to the shades
            ids = [*([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]), *tokenizer.encode(str(number))]
            engine.add(ids, Sampling(max_tokens=SIDE * SIDE, temperature=0.7, seed=seed), eos=tokenizer.eos_token_id)
            seed += 1
    written: dict[int, list[int]] = {}
    while engine.busy:
        for reply in engine.step():
            written.setdefault(reply.request, []).append(reply.token.id)
    for number in range(10):
        texts = [tokenizer.decode(written[number * 2 * EACH + i]) for i in range(2 * EACH)]
        whole = [drawn for text in texts if (drawn := whole_picture(text)) is not None][:EACH]
        if len(whole) < EACH:
            return None
        columns.append(whole)
    save_png([columns[number][row] for row in range(EACH) for number in range(10)], file, columns=10)
    return file


def whole_picture(text: str) -> DigitImage | None:
    """The picture, where the text is one; what a model that stopped too early left out stays paper."""
    try:
        return parse_image(text.ljust(SIDE * SIDE))
    except BadInput:
        return None
