"""Samples of a model during and after training: generated text, and images for corpus:digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from clearstory.errors import BadInput
from clearstory.generation.engine import Engine, generate
from clearstory.generation.settings import Sampling
from clearstory.text.digit_images import SIDE, DigitImage, parse_image, save_png
from clearstory.text.encoding import encode_text
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer

IMAGES_PER_DIGIT = 6


def sample_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    seed: int,
    tokens: int = 100,
    prompt: str = "",
    source: Sequence[int] | None = None,
    ends: Sequence[int] = (),
) -> str:
    """Text generated after `prompt`, or from the source ids of an encoder-decoder, at temperature 0.8.

    `ends`: tokens that end the text; by default the tokenizer's end token. Leaves the model's weights and torch's
    random state unchanged.
    """
    cast(Any, model).compute_dtype = None  # caches are not kept in the precision of training
    eos = tokenizer.eos_token_id
    start = eos if eos is not None else tokenizer.bos_token_id
    ends = ends or (() if eos is None else (eos,))
    ids = encode_text(tokenizer, prompt).ids
    sampling = Sampling(max_tokens=tokens, temperature=0.8, seed=seed)
    options: dict[str, Any] = {"eos_token_id": ends, "start_token_id": start if start is not None else 0}
    decoder: SentinelTokenizer | Tokenizer = tokenizer
    if source is not None:
        decoder = SentinelTokenizer(tokenizer)
        prompt = f"{decoder.decode(source)} → "
        options |= {"source": source, "start_token_id": cast(Any, model).config.decoder_start_token_id}
    generated = generate(cast(Any, model), ids, sampling, **options)
    return prompt + decoder.decode([token.id for token in generated if token.id not in ends])


def save_digit_images(model: Any, tokenizer: Tokenizer, file: Path, *, seed: int) -> Path | None:
    """Save a grid of generated digits, one column per digit; None if too few texts are valid images.

    The prompt is the digit alone, as every document of corpus:digits starts.
    """
    model.compute_dtype = None
    engine, eos, per_digit = Engine(model), tokenizer.eos_token_id, 2 * IMAGES_PER_DIGIT  # twice: some are invalid
    for digit in range(10):
        for _ in range(per_digit):
            ids = [*([] if eos is None else [eos]), *tokenizer.encode(str(digit))]
            engine.add(ids, Sampling(max_tokens=SIDE * SIDE, temperature=0.7, seed=seed), eos_token_id=eos)
            seed += 1
    generated: dict[int, list[int]] = {}
    while engine.has_unfinished:
        for output in engine.next_tokens():
            generated.setdefault(output.request, []).append(output.token.id)
    columns = []
    for digit in range(10):
        texts = [tokenizer.decode(generated[digit * per_digit + index]) for index in range(per_digit)]
        images = [image for text in texts if (image := parse_padded_image(text)) is not None][:IMAGES_PER_DIGIT]
        if len(images) < IMAGES_PER_DIGIT:
            return None
        columns.append(images)
    save_png([columns[digit][row] for row in range(IMAGES_PER_DIGIT) for digit in range(10)], file, columns=10)
    return file


def parse_padded_image(text: str) -> DigitImage | None:
    """The image of a text, missing pixels left blank; None for a text that is not an image."""
    try:
        return parse_image(text.ljust(SIDE * SIDE))
    except BadInput:
        return None
